"""The losses of a lesson, appended to a forward graph with their gradients for the logits.

Both give what `differentiate` takes as `starts`: the gradient of the loss for the logits, written
out by hand. It needs fewer and smaller temporaries than the rules of the single operators would,
which matters where the logits are the largest tensor of the graph.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from onnx import GraphProto, TensorProto, helper, numpy_helper

__all__ = ["CLASS_INPUTS", "TOKEN_INPUTS", "append_class_loss", "append_token_loss"]

TOKEN_INPUTS: Final = ("labels", "weights")
"""What the token loss adds to the graph's inputs."""
CLASS_INPUTS: Final = (
    "labels",
    "weights",
    "past_logits",
    "past_weights",
    "past_classes",
    "soft_weights",
)
"""What the classifier's loss adds to the graph's inputs."""


class _Part:
    """Appends nodes of one loss to a graph."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph

    def add(self, out: str, kind: str, inputs: Sequence[str], **attributes: int | str) -> str:
        node = helper.make_node(kind, inputs, [out], name=out)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        self.graph.node.append(node)
        return out

    def constant(self, name: str, value: np.ndarray) -> str:
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def axes(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, dtype=np.int64))

    def input(self, name: str, element: int, shape: Sequence[int | str]) -> None:
        self.graph.input.append(helper.make_tensor_value_info(name, element, shape))

    def output(self, name: str, shape: Sequence[int | str]) -> None:
        self.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def append_token_loss(graph: GraphProto, *, logits: str) -> dict[str, str]:
    """Append the loss of a language model: see `core.lesson`.

    Two tensors of the logits' size are alive at a time, and the one of them turns into the
    gradient: p * (sum of a row's weights), less each weight at its label.

    Args:
        graph: has `logits` (R, V) float32, and no tensors called labels, weights, loss or
            logprobs; the first two become inputs, the others outputs.
        logits: of the scored rows.

    Returns:
        `logits` -> its gradient of the loss.
    """
    part, at = _Part(graph), "loss/"
    part.input("labels", TensorProto.INT64, ["R", "K"])
    part.input("weights", TensorProto.FLOAT, ["R", "K"])
    part.output("loss", [])
    part.output("logprobs", ["R", "K"])
    last = part.axes(f"{at}last", -1)
    # LogSoftmax and Exp in place of its buffer: ReduceLogSumExp takes several times as long.
    part.add(f"{at}all", "LogSoftmax", [logits], axis=-1)  # (R, V)
    part.add("logprobs", "GatherElements", [f"{at}all", "labels"], axis=1)  # (R, K)
    part.add(f"{at}weighted", "Mul", ["weights", "logprobs"])
    part.add(f"{at}sum", "ReduceSum", [f"{at}weighted"], keepdims=0)
    part.add("loss", "Neg", [f"{at}sum"])
    part.add(f"{at}mass", "ReduceSum", ["weights", last])  # (R, 1)
    part.add(f"{at}chances", "Exp", [f"{at}all"])  # (R, V)
    part.add(f"{at}scaled", "Mul", [f"{at}chances", f"{at}mass"])
    part.add(f"{at}less", "Neg", ["weights"])
    gradient = part.add(
        f"{at}gradient",
        "ScatterElements",
        [f"{at}scaled", "labels", f"{at}less"],
        axis=1,
        reduction="add",
    )
    return {logits: gradient}


def append_class_loss(
    graph: GraphProto, *, logits: str, n_classes: int | str = "C"
) -> dict[str, str]:
    """Append the loss of a classifier: see `core.lesson`.

    Args:
        graph: has `logits` (B, C) float32, and no tensors called as `CLASS_INPUTS`, which become
            inputs, or called loss, losses or logits, which become outputs: unless `logits` is
            the name of the logits, or they are an output already.
        logits: the network's answer.
        n_classes: C, if it cannot grow.

    Returns:
        `logits` -> its gradient of the loss.
    """
    part, at = _Part(graph), "loss/"
    _class_places(part, logits, n_classes)
    first, last = part.axes(f"{at}first", 0), part.axes(f"{at}last", -1)
    part.add(f"{at}all", "LogSoftmax", [logits], axis=-1)  # (B, C)
    part.add(f"{at}column", "Unsqueeze", ["labels", last])  # (B, 1)
    part.add(f"{at}own", "GatherElements", [f"{at}all", f"{at}column"], axis=1)  # (B, 1)
    part.add(f"{at}flat", "Squeeze", [f"{at}own", last])  # (B,)
    part.add("losses", "Neg", [f"{at}flat"])
    part.add(f"{at}new", "Mul", ["weights", "losses"])

    part.add(f"{at}apart", "Sub", [logits, "past_logits"])  # (B, C)
    part.add(f"{at}squares", "Mul", [f"{at}apart", f"{at}apart"])
    part.add(f"{at}distance", "ReduceMean", [f"{at}squares", last], keepdims=0)  # (B,)
    part.add(f"{at}past", "Mul", ["past_weights", f"{at}distance"])

    part.add(f"{at}agreed", "Mul", ["past_classes", f"{at}all"])  # (B, C)
    part.add(f"{at}agreement", "ReduceSum", [f"{at}agreed", last], keepdims=0)  # (B,)
    part.add(f"{at}soft", "Mul", ["soft_weights", f"{at}agreement"])

    part.add(f"{at}hard", "Add", [f"{at}new", f"{at}past"])
    part.add(f"{at}each", "Sub", [f"{at}hard", f"{at}soft"])
    part.add("loss", "ReduceSum", [f"{at}each", first], keepdims=0)
    return {logits: _class_gradient(part, logits, last)}


def _class_places(part: _Part, logits: str, n_classes: int | str) -> None:
    """Add inputs and outputs."""
    shapes: dict[str, list[int | str]] = {"past_logits": ["B", n_classes]}
    shapes["past_classes"] = shapes["past_logits"]
    for name in CLASS_INPUTS:
        element = TensorProto.INT64 if name == "labels" else TensorProto.FLOAT
        part.input(name, element, shapes.get(name, ["B"]))
    part.output("loss", [])
    part.output("losses", ["B"])
    if logits != "logits":
        part.add("logits", "Identity", [logits])
    if all(value.name != "logits" for value in part.graph.output):
        part.output("logits", ["B", n_classes])


def _class_gradient(part: _Part, logits: str, last: str) -> str:
    """Append the gradient for the logits; returns its name.

    With p the softmax: (w + s sum(q)) p - w onehot - s q + 2 / C v (logits - past), for weights
    w, v and s of the three terms and the classes q of the past.
    """
    at = "loss/"
    part.add(f"{at}chances", "Exp", [f"{at}all"])  # (B, C)
    for name in ("weights", "past_weights", "soft_weights"):
        part.add(f"{at}{name}", "Unsqueeze", [name, last])  # (B, 1)
    part.add(f"{at}mass", "ReduceSum", ["past_classes", last])  # (B, 1)
    part.add(f"{at}soft_mass", "Mul", [f"{at}mass", f"{at}soft_weights"])
    part.add(f"{at}pull", "Add", [f"{at}soft_mass", f"{at}weights"])
    part.add(f"{at}pulled", "Mul", [f"{at}chances", f"{at}pull"])  # (B, C)
    part.add(f"{at}softly", "Mul", ["past_classes", f"{at}soft_weights"])  # (B, C)
    part.add(f"{at}rest", "Sub", [f"{at}pulled", f"{at}softly"])
    # The number of classes is read from the logits: a head may have grown.
    part.add(f"{at}classes", "Shape", [logits], start=1)
    part.add(f"{at}count", "Cast", [f"{at}classes"], to=TensorProto.FLOAT)
    part.add(f"{at}twice", "Add", [f"{at}past_weights", f"{at}past_weights"])
    part.add(f"{at}share", "Div", [f"{at}twice", f"{at}count"])  # (B, 1)
    part.add(f"{at}back", "Mul", [f"{at}apart", f"{at}share"])  # (B, C)
    part.add(f"{at}both", "Add", [f"{at}rest", f"{at}back"])
    part.add(f"{at}less", "Neg", [f"{at}weights"])
    return part.add(
        f"{at}gradient",
        "ScatterElements",
        [f"{at}both", f"{at}column", f"{at}less"],
        axis=1,
        reduction="add",
    )
