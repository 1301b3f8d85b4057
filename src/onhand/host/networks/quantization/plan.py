"""Which nodes compute in integers, and which values have a grid: judged from the graph alone."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.host.networks.graph import Array, Graph, Node
from onhand.host.networks.quantization.cuts import cuts_of

__all__ = [
    "COMPUTE",
    "Layer",
    "Plan",
    "channel_axis",
    "chosen_layers",
    "data_inputs",
    "layers_of",
    "make_plan",
    "nothing_to_quantize",
]

Floats = NDArray[np.float32]
COMPUTE: Final = ("Conv", "Gemm", "MatMul")
_ARITHMETIC: Final = ("Add", "AveragePool", "GlobalAveragePool", "LeakyRelu")
# ONNX Runtime looks a sigmoid up, and is faster on integers; OpenVINO computes it within the
# convolution, and is faster in float.
_GATES: Final = ("Mul", "Sigmoid")
_MOVERS: Final = (
    "Concat", "DepthToSpace", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
_CLIPS: Final = ("Clip", "Relu")
_QUANTIZED: Final = ("DequantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul")
# They read sizes and axes behind these inputs.
_N_DATA: Final = {
    "Clip": 1, "Gather": 1, "Reshape": 1, "Resize": 1, "Slice": 1, "Split": 1, "Squeeze": 1,
    "Unsqueeze": 1,
}  # fmt: skip
# Smaller constants are not worth a word.
_MANY_WEIGHTS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A node with weights.

    Attributes:
        node: a Conv, a Gemm, or a MatMul whose second input is a constant.
        weight: name of the weight.
        bias: name of the bias; "" for none.
        axis: of the weight's output channels.
        depthwise: a convolution whose groups have one input channel each.
    """

    node: Node
    weight: str
    bias: str
    axis: int
    depthwise: bool

    def weight_of(self, graph: Graph) -> Floats:
        """Return the weight, float32."""
        return np.asarray(graph.constants[self.weight], dtype=np.float32)

    def bias_of(self, graph: Graph) -> Floats | None:
        """Return the bias, (N,) float32; None for none."""
        if not self.bias:
            return None
        return np.asarray(graph.constants[self.bias], dtype=np.float32).reshape(-1)

    @property
    def data(self) -> str:
        """The value that it multiplies."""
        return self.node.inputs[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is quantised.

    Attributes:
        layers: name of a node -> the layer, in the graph's order.
        nodes: names of all nodes that compute on integers, layers among them.
        clips: name of a Clip or Relu -> the node before it that takes it over.
        grids: values with a grid -> the value whose grid they share, which may be themselves.
        kept: name of a node -> why it stays in float.
        scaled: a value that is another one times a number -> that value and the number: the
            codes are the same, and only what they stand for differs.
        turned: values with grids of their own that lie the other way: around zero where the others
            have a zero point, or the other way about.
    """

    layers: Mapping[str, Layer]
    nodes: frozenset[str]
    clips: Mapping[str, str]
    grids: Mapping[str, str]
    kept: Mapping[str, str]
    scaled: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    turned: frozenset[str] = frozenset()


def nothing_to_quantize(graph: Graph) -> str:
    """Return why a graph has no layer to quantise, in words."""
    if any(node.op in _QUANTIZED for node in graph.nodes):
        return (
            "nothing to quantize: the network computes on integers already; "
            "give --bits 32 to keep it so"
        )
    return "nothing to quantize: no Conv, Gemm or MatMul with constant weights in float32"


def layers_of(graph: Graph) -> dict[str, Layer]:
    """Return the nodes with constant float weights, by name."""
    found: dict[str, Layer] = {}
    for node in graph.nodes:
        if node.op not in COMPUTE or node.domain or len(node.inputs) < 2:
            continue
        weight = graph.constants.get(node.inputs[1])
        bias = node.inputs[2] if len(node.inputs) > 2 else ""
        if weight is None or not _is_plain(graph, node, weight):
            continue
        groups = node.whole("group", 1) if node.op == "Conv" else 1
        found[node.name] = Layer(
            node=node,
            weight=node.inputs[1],
            bias=bias,
            axis=channel_axis(node, weight.ndim),
            depthwise=groups > 1 and weight.shape[1] == 1,
        )
    return found


def _is_plain(graph: Graph, node: Node, weight: Array) -> bool:
    """Whether a layer computes weight x data + bias for each channel, and nothing else."""
    if weight.dtype != np.float32 or weight.ndim < 2:
        return False
    if node.op == "MatMul":
        return weight.ndim == 2
    if node.op == "Gemm" and (
        node.whole("transA", 0) or node.number("alpha", 1.0) != 1 or node.number("beta", 1.0) != 1
    ):
        return False
    if len(node.inputs) < 3 or not node.inputs[2]:
        return True
    bias = graph.constants.get(node.inputs[2])
    return bias is not None and bias.size == weight.shape[channel_axis(node, weight.ndim)]


def channel_axis(node: Node, n_dims: int) -> int:
    """Return which axis of a layer's weight, of `n_dims` axes, counts the outputs."""
    if node.op == "Conv" or (node.op == "Gemm" and node.whole("transB", 0)):
        return 0
    return n_dims - 1


def _moves(node: Node) -> bool:
    """Whether a node only moves values, or repeats them."""
    if node.op == "Resize":
        return node.text("mode", "nearest") == "nearest"
    return node.op in _MOVERS


def data_inputs(node: Node) -> tuple[str, ...]:
    """Return the inputs that may be quantised: no weights, axes or sizes."""
    count = 1 if node.op in COMPUTE else _N_DATA.get(node.op, len(node.inputs))
    return tuple(name for name in node.inputs[:count] if name)


def make_plan(
    graph: Graph,
    *,
    keep: Sequence[str] = (),
    float_nodes: Sequence[str] = (),
    gates: bool = False,
) -> Plan:
    """Decide what is quantised.

    Layers are, and what lies between them, as far as it gains: additions, pools, and what only
    moves values, which then has one grid before and behind it. What a layer gives to operators
    that stay in float, or to the outside, is not rounded where ONNX Runtime can do without: behind
    Gemm and MatMul.

    Args:
        graph: the graph; constants folded into layers.
        keep: patterns of names of nodes, or of operators ("Conv"), that stay in float.
        float_nodes: names of nodes that stay in float as well.
        gates: whether sigmoids, and products of two values, are quantised as well.

    Returns:
        The plan.

    Raises:
        InputError: if a pattern fits no node.
    """
    layers, kept = chosen_layers(graph, keep=keep, float_nodes=float_nodes)
    readers, outside = graph.readers(), set(graph.output_names())
    arithmetic = (*_ARITHMETIC, *_GATES) if gates else _ARITHMETIC
    scaled = _scaled(graph, readers, outside) if gates else {}
    quantised = _between(graph, layers, kept, readers, outside, arithmetic, scaled)
    scaled = {name: of for name, of in scaled.items() if name in quantised}
    kept |= {
        node.name: "what it reads, or all that reads it, is in float"
        for node in graph.nodes
        if node.op in arithmetic and node.name not in quantised and node.name not in kept
    }
    clips = _clips(graph, quantised, kept, readers, outside)
    grids = _grids(graph, layers, quantised, clips, readers, outside)
    for node in graph.nodes:
        if node.name in scaled:
            grids.pop(next(n for n in node.inputs if n != scaled[node.name][0]), None)
    return Plan(
        layers=layers,
        nodes=frozenset(quantised),
        clips=clips,
        grids=_shared(graph, grids, quantised),
        kept=kept,
        scaled=scaled,
    )


def chosen_layers(
    graph: Graph, *, keep: Sequence[str] = (), float_nodes: Sequence[str] = ()
) -> tuple[dict[str, Layer], dict[str, str]]:
    """Return the layers to quantise, by name, and why others stay: name -> in words.

    Args:
        graph: the graph.
        keep: see `make_plan`.
        float_nodes: see `make_plan`.

    Raises:
        InputError: if a pattern fits no node.
    """
    kept = _named(graph, keep) | dict.fromkeys(float_nodes, "it loses too much")
    layers = {n: layer for n, layer in layers_of(graph).items() if n not in kept}
    for node in graph.nodes:
        if node.op in COMPUTE and node.name not in layers and node.name not in kept:
            kept[node.name] = "its weight or bias is no float32 constant, or it scales the product"
        elif node.op not in COMPUTE and _has_weights(graph, node):
            kept.setdefault(node.name, f"engines know no {node.op} on integers")
    return layers, kept


def _has_weights(graph: Graph, node: Node) -> bool:
    read = [graph.constants[name] for name in node.inputs if name in graph.constants]
    return any(a.dtype == np.float32 and a.ndim > 1 and a.size >= _MANY_WEIGHTS for a in read)


def _named(graph: Graph, patterns: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pattern in patterns:
        fitting = [
            node.name
            for node in graph.nodes
            if fnmatch.fnmatchcase(node.name, pattern) or node.op == pattern
        ]
        if not fitting:
            raise InputError(f"keep: {pattern!r} fits no node of the network")
        found |= dict.fromkeys(fitting, f"kept in float by {pattern!r}")
    return found


Readers = Mapping[str, Sequence[Node]]


def _between(
    graph: Graph,
    layers: Mapping[str, Layer],
    kept: Mapping[str, str],
    readers: Readers,
    outside: set[str],
    arithmetic: Sequence[str],
    scaled: Mapping[str, tuple[str, float]],
) -> set[str]:
    """Return the names of layers, and of nodes that integers reach and leave."""
    producers = graph.producers()
    quantised: set[str] = set(layers)
    has_gates = "Sigmoid" in arithmetic

    def data(node: Node) -> tuple[str, ...]:
        names = data_inputs(node)
        if node.name in scaled:
            return scaled[node.name][:1]
        # A number is a code like any other; what adds one is a gate's, see `spell_gates`.
        summed = has_gates and node.op == "Add"
        return tuple(n for n in names if not (summed and _number(graph, n) is not None))

    def is_reached(node: Node) -> bool:
        if node.name in kept or not (node.op in arithmetic or node.op in _CLIPS or _moves(node)):
            return False
        makers = [producers.get(name) for name in data(node)]
        return bool(makers) and all(maker and maker.name in quantised for maker in makers)

    for node in graph.nodes:
        if is_reached(node):
            quantised.add(node.name)
    convolutions = {name for name, layer in layers.items() if layer.node.op == "Conv"}
    cuts = cuts_of(graph, convolutions, operators=_CLIPS)
    # What only float reads need not be rounded; what stands before it then neither.
    for node in reversed(graph.nodes):
        if node.name in quantised and node.name not in layers:
            after = [reader for name in node.outputs for reader in readers.get(name, ())]
            wanted = any(reader.name in quantised for reader in after) or node.name in cuts
            if not wanted or outside.intersection(node.outputs):
                quantised.discard(node.name)
    return quantised


def _number(graph: Graph, name: str) -> float | None:
    """Return a constant that is one float."""
    array = graph.constants.get(name)
    if array is None or array.size != 1 or array.ndim > 1 or array.dtype != np.float32:
        return None
    return float(array.reshape(()))


def _scaled(graph: Graph, readers: Readers, outside: set[str]) -> dict[str, tuple[str, float]]:
    """Return products with a positive number that products alone read: see `Plan.scaled`."""
    found: dict[str, tuple[str, float]] = {}
    for node in graph.nodes:
        after = readers.get(node.name, ())
        if node.op != "Mul" or node.name in outside or any(n.op != "Mul" for n in after):
            continue
        for value, other in (node.inputs, node.inputs[::-1]):
            factor = _number(graph, other)
            if factor is not None and factor > 0 and value not in graph.constants and after:
                found[node.name] = (value, factor)
    return found


def _clips(
    graph: Graph,
    quantised: set[str],
    kept: Mapping[str, str],
    readers: Readers,
    outside: set[str],
) -> dict[str, str]:
    """Return the Clips and Relus that alone read a layer or an addition: name -> that node."""
    producers = graph.producers()
    found: dict[str, str] = {}
    for node in graph.nodes:
        if node.op not in _CLIPS or node.name not in quantised or node.name in kept:
            continue
        before = producers[node.inputs[0]]
        alone = len(readers[node.inputs[0]]) == 1 and node.inputs[0] not in outside
        if alone and before.op in (*COMPUTE, "Add") and len(before.outputs) == 1:
            found[node.name] = before.name
    return found


def _grids(
    graph: Graph,
    layers: Mapping[str, Layer],
    quantised: set[str],
    clips: Mapping[str, str],
    readers: Readers,
    outside: set[str],
) -> dict[str, None]:
    """Return the values that have a grid."""
    inner = set(clips.values())
    grids: dict[str, None] = {}
    for node in graph.nodes:
        if node.name not in quantised:
            continue
        if node.name not in clips:
            grids |= dict.fromkeys(data_inputs(node))
        if node.name in inner:
            continue
        for name in node.outputs:
            after = readers.get(name, ())
            used = name not in outside and any(reader.name in quantised for reader in after)
            if used or node.name not in layers or node.op == "Conv":
                grids[name] = None
    return grids


def _shared(graph: Graph, grids: Mapping[str, None], quantised: set[str]) -> dict[str, str]:
    """Return value -> the first of all values that share its grid through movers."""
    root = {name: name for name in grids}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    for node in graph.nodes:
        if _moves(node) and node.name in quantised:
            group = [name for name in (*data_inputs(node), *node.outputs) if name in root]
            for name in group[1:]:
                root[find(name)] = find(group[0])
    return {name: find(name) for name in grids}
