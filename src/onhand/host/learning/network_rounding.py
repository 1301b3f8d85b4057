"""Rounding of activations that gradients pass: bounds stand for it while a graph is differentiated.

A pair of QuantizeLinear and DequantizeLinear becomes a Clip to the range of its codes, whose
gradient is that of the straight-through rule. Behind differentiation the pair stands there again:
the gradient's nodes read the value before it and the bounds, which stay.

Source:
    Straight-through estimator: arXiv:1308.3432.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from onhand.host.learning.network_graph import folded
from onhand.host.networks.graph import Array, Graph, Node, fresh_name

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Pairs", "rounded_again", "without_rounding"]

Pairs = Mapping[str, tuple[Node, Node]]
"""Value -> the two nodes that round it."""
_RANGES: Final = {
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
}


def without_rounding(graph: Graph, fixed: Collection[str]) -> tuple[Graph, Pairs]:
    """Put bounds in the place of every pair that rounds a value.

    Args:
        graph: the graph.
        fixed: values that no input changes.

    Returns:
        graph: without rounding of what moves.
        pairs: what was taken out.
    """
    makers, names = graph.producers(), graph.names()
    found: dict[str, tuple[Node, Node]] = {}
    for node in graph.nodes:
        before = makers.get(node.inputs[0]) if node.op == "DequantizeLinear" else None
        if before is not None and before.op == "QuantizeLinear" and node.name not in fixed:
            found[node.name] = (before, node)
    needed = {name for pair in found.values() for node in pair for name in node.inputs[1:] if name}
    numbers = folded(graph, sorted(name for name in needed if name in fixed))
    constants = dict(graph.constants)
    clips: dict[str, Node] = {}
    for value, (first, second) in list(found.items()):
        bounds = _bounds(first, second, numbers)
        if bounds is None:
            del found[value]
            continue
        low, high = (fresh_name(names, f"{value}.{end}") for end in ("low", "high"))
        constants |= {low: bounds[0], high: bounds[1]}
        clips[value] = Node(op="Clip", inputs=(first.inputs[0], low, high), outputs=(value,))

    def change(node: Node) -> Iterable[Node]:
        yield clips.get(node.name, node)

    return replace(graph.rebuilt(change), constants=constants).live(), found


def _bounds(first: Node, second: Node, numbers: Mapping[str, Array]) -> tuple[Array, Array] | None:
    """Return the ends of what is rounded to a code; None for a pair that is none of one number."""
    if first.inputs[1:] != second.inputs[1:] or first.inputs[1] not in numbers:
        return None
    scale = numbers[first.inputs[1]]
    has_zero = len(first.inputs) > 2 and bool(first.inputs[2])
    zero = numbers[first.inputs[2]] if has_zero else np.zeros((), np.uint8)
    limits = _RANGES.get(zero.dtype.name)
    if scale.size != 1 or zero.size != 1 or limits is None:
        return None
    step, middle = float(scale.reshape(())), float(zero.reshape(()).astype(np.int32))
    # Half a step further out is still rounded to the last code.
    ends = ((limits[0] - 0.5 - middle) * step, (limits[1] + 0.5 - middle) * step)
    return np.array(ends[0], np.float32), np.array(ends[1], np.float32)


def rounded_again(model: "ModelProto", pairs: Pairs) -> "ModelProto":
    """Return a differentiated graph in which values are rounded again.

    Args:
        model: of the graph without rounding; it is changed.
        pairs: what was taken out.

    Returns:
        The same.
    """
    from onnx import helper

    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type != "Clip" or node.output[0] not in pairs:
            model.graph.node.append(node)
            continue
        for made in pairs[node.output[0]]:
            again = helper.make_node(made.op, list(made.inputs), list(made.outputs), made.name)
            again.attribute.extend(
                helper.make_attribute(key, value) for key, value in made.attributes.items()
            )
            model.graph.node.append(again)
    return model
