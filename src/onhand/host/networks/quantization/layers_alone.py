"""Weights as integers without a look at activations: for size, and for want of examples."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.quantized import GroupFormat
from onhand.host.lowrank import correct_rounding
from onhand.host.networks.graph import Array, Graph, Node
from onhand.host.networks.quantization.grid import WeightCodes, round_weight, shaped_for
from onhand.host.networks.quantization.plan import Layer
from onhand.host.networks.quantization.storage import Constants
from onhand.host.rounding import round_matrix

__all__ = [
    "Compressed",
    "Correction",
    "compress_tables",
    "compress_weights",
    "multiply_dynamically",
    "unpacking",
]

_FLOAT: Final = 1
_CONTRIB: Final = "com.microsoft"
# Smaller tables are not worth four more nodes.
_LEAST_TABLE: Final = 2**14


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """A graph, and what was changed: name of a constant -> in words."""

    graph: Graph
    changed: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """How rounding errors of products of matrices are made good for.

    Attributes:
        rank: of what is added; 0 for nothing.
        moments: name of a layer -> (K, K) mean second moments of its inputs, where they are known.
    """

    rank: int = 0
    moments: Mapping[str, FloatArray] = field(default_factory=dict)


def compress_weights(
    graph: Graph,
    layers: Mapping[str, Layer],
    *,
    bits: int,
    group_size: int,
    per_channel: bool,
    correction: Correction,
) -> Compressed:
    """Store weights as integers and compute in float32.

    With 4 bits, products of matrices have a scale for each group of inputs (MatMulNBits, which
    multiplies rounded activations); all other weights are unpacked when the network is opened,
    which then takes the time and the memory of the original.

    Args:
        graph: in float.
        layers: of this graph, those to be changed.
        bits: 4 or 8.
        group_size: of MatMulNBits: 32, 64 or 128.
        per_channel: one scale for each output channel, else one for a weight.
        correction: of what MatMulNBits multiplies with.

    Returns:
        The graph.
    """
    writer = Constants(graph)
    changed: dict[str, str] = {}
    unpacked: dict[str, tuple[Node, ...]] = {}

    def compressed(node: Node) -> tuple[Node, ...]:
        layer = layers.get(node.name)
        if layer is None:
            return (node,)
        weight = layer.weight_of(graph)
        if bits == 4 and node.op in {"Gemm", "MatMul"}:
            made, rank = _grouped(
                writer, layer, weight, GroupFormat(bits=4, group_size=group_size), correction
            )
            beside = f", and a product of rank {rank} beside it" if rank else ""
            changed[layer.weight] = f"4 bits, a scale for {group_size} inputs{beside}"
            return made
        before: tuple[Node, ...] = ()
        if layer.weight not in unpacked:
            codes = round_weight(weight, axis=layer.axis, bits=bits, per_channel=per_channel)
            unpacked[layer.weight] = before = unpacking(writer, layer.weight, codes)
            changed[layer.weight] = f"{bits} bits, {codes.scales.size} scales"
        again = unpacked[layer.weight][-1].name
        return (*before, replace(node, inputs=(node.inputs[0], again, *node.inputs[2:])))

    return Compressed(graph=writer.finished(graph.rebuilt(compressed)), changed=changed)


def multiply_dynamically(
    graph: Graph, layers: Mapping[str, Layer], *, per_channel: bool
) -> Compressed:
    """Multiply matrices on integers, with activations rounded as they come.

    Args:
        graph: in float.
        layers: Gemm and MatMul to be changed.
        per_channel: one scale for each output channel, else one for a weight.

    Returns:
        The graph. ONNX Runtime computes it on integers; OpenVINO in float.
    """
    writer = Constants(graph)
    changed: dict[str, str] = {}
    rounded: dict[str, tuple[str, str, str]] = {}

    def dynamic(node: Node) -> list[Node]:
        layer = layers.get(node.name)
        if layer is None:
            return [node]
        made: list[Node] = []
        if layer.data not in rounded:
            rounded[layer.data] = (
                writer.name(f"{layer.data}.codes"),
                writer.name(f"{layer.data}.scale"),
                writer.name(f"{layer.data}.zero"),
            )
            made.append(
                Node(op="DynamicQuantizeLinear", inputs=(layer.data,), outputs=rounded[layer.data])
            )
        weight = layer.weight_of(graph)
        if layer.axis == 0:
            weight = np.ascontiguousarray(weight.T)  # (K, N)
        codes = round_weight(weight, axis=1, bits=8, per_channel=per_channel)
        changed[layer.weight] = f"8 bits, {codes.scales.size} scales"
        return made + _integer_product(writer, layer, codes, rounded[layer.data])

    return Compressed(graph=writer.finished(graph.rebuilt(dynamic)), changed=changed)


def compress_tables(graph: Graph) -> Compressed:
    """Store tables of which rows are gathered as 8-bit integers, one scale for each row.

    Rows are unpacked after they were gathered: a DequantizeLinear before it would unpack the
    whole table.

    Args:
        graph: any.

    Returns:
        The graph.
    """
    readers = graph.readers()
    writer = Constants(graph)
    changed: dict[str, str] = {}
    places: dict[str, tuple[str, str]] = {}
    for name, table in graph.constants.items():
        after = readers.get(name, [])
        gathers = [
            node.op == "Gather" and node.inputs[0] == name and node.whole("axis", 0) == 0
            for node in after
        ]
        is_table = table.ndim == 2 and table.dtype == np.float32 and table.size >= _LEAST_TABLE
        if is_table and gathers and all(gathers) and name not in graph.output_names():
            codes = round_weight(np.asarray(table, np.float32), axis=0, bits=8, per_channel=True)
            scales = writer.add(f"{name}.scales", codes.scales.reshape(-1, 1))
            places[name] = writer.add(f"{name}.codes", codes.codes), scales
            changed[name] = "a table of 8 bits, a scale for each row"

    def gathered(node: Node) -> tuple[Node, ...]:
        if node.op != "Gather" or node.inputs[0] not in places:
            return (node,)
        codes, scales = places[node.inputs[0]]
        rows, steps, cast = (
            writer.name(f"{node.name}.{what}") for what in ("rows", "steps", "cast")
        )
        index = node.inputs[1]
        return (
            replace(node, inputs=(codes, index), outputs=(rows,)),
            replace(node, inputs=(scales, index), outputs=(steps,)),
            Node(op="Cast", inputs=(rows,), outputs=(cast,), attributes={"to": _FLOAT}),
            Node(op="Mul", inputs=(cast, steps), outputs=node.outputs),
        )

    return Compressed(graph=writer.finished(graph.rebuilt(gathered)), changed=changed)


def _grouped(
    writer: Constants, layer: Layer, weight: Array, form: GroupFormat, correction: Correction
) -> tuple[tuple[Node, ...], int]:
    """Return what does a layer's work on codes in groups, and the rank of what corrects it."""
    matrix = np.ascontiguousarray(weight if layer.axis == 0 else weight.T, np.float32)  # (N, K)
    tensor = round_matrix(matrix, form, method="clip").tensor
    stored = writer.add(f"{layer.weight}.scales", tensor.scales)
    codes = writer.add(f"{layer.weight}.codes", tensor.codes)
    rank = min(correction.rank, *matrix.shape)
    n_adds = bool(layer.bias) + bool(rank)
    names = [writer.name(f"{layer.node.name}.product") for _ in range(n_adds)]
    values = [*names, layer.node.name]
    # The scales are stored in fp16; engines widen them when they open the network.
    scales = _widened(writer, f"{layer.weight}.steps", stored)
    product = Node(
        op="MatMulNBits",
        domain=_CONTRIB,
        inputs=(layer.data, codes, scales.name),
        outputs=(values[0],),
        attributes={
            "K": matrix.shape[1],
            "N": matrix.shape[0],
            "accuracy_level": 4,
            "bits": form.bits,
            "block_size": form.group_size,
        },
    )
    writer.domains[_CONTRIB] = 1
    made = [scales, product]
    if rank:
        left, right = correct_rounding(
            matrix,
            tensor.dequantize(),
            rank=rank,
            moments=correction.moments.get(layer.node.name),
        )
        data = layer.data
        for part, factor in (("right", right), ("left", left)):
            thin = np.ascontiguousarray(factor.T, np.float16)
            wide = _widened(
                writer, f"{layer.weight}.{part}", writer.add(f"{layer.weight}.{part}.half", thin)
            )
            result = writer.name(f"{layer.node.name}.{part}")
            made += [wide, Node(op="MatMul", inputs=(data, wide.name), outputs=(result,))]
            data = result
        made.append(Node(op="Add", inputs=(values[0], data), outputs=(values[1],)))
    if layer.bias:
        made.append(Node(op="Add", inputs=(values[-2], layer.bias), outputs=layer.node.outputs))
    return tuple(made), rank


def _widened(writer: Constants, wanted: str, stored: str) -> Node:
    return Node(
        op="Cast", inputs=(stored,), outputs=(writer.name(wanted),), attributes={"to": _FLOAT}
    )


def unpacking(writer: Constants, name: str, weight: WeightCodes) -> tuple[Node, ...]:
    """Return what makes a weight of its codes when a network is opened; its value comes last.

    Args:
        writer: of the graph.
        name: of the weight.
        weight: its codes.
    """
    cast, made = writer.name(f"{name}.cast"), writer.name(f"{name}.unpacked")
    codes = writer.add_codes(f"{name}.codes", weight)
    scales = shaped_for(weight.scales, weight.codes.ndim, weight.axis)
    return (
        Node(op="Cast", inputs=(codes,), outputs=(cast,), attributes={"to": _FLOAT}),
        Node(op="Mul", inputs=(cast, writer.add(f"{name}.scales", scales)), outputs=(made,)),
    )


def _integer_product(
    writer: Constants, layer: Layer, weight: WeightCodes, data: tuple[str, str, str]
) -> list[Node]:
    name = layer.node.name
    codes, scale, zero = data
    matrix = writer.add(f"{layer.weight}.codes", weight.codes)
    zeros = writer.add(f"{layer.weight}.zeros", np.zeros(weight.scales.shape, np.int8))
    scales = writer.add(f"{layer.weight}.scales", weight.scales)
    whole, real, unit = (writer.name(f"{name}.{what}") for what in ("sums", "real", "unit"))
    product = writer.name(f"{name}.product") if layer.bias else name
    made = [
        Node(op="MatMulInteger", inputs=(codes, matrix, zero, zeros), outputs=(whole,)),
        Node(op="Cast", inputs=(whole,), outputs=(real,), attributes={"to": _FLOAT}),
        Node(op="Mul", inputs=(scale, scales), outputs=(unit,)),
        Node(op="Mul", inputs=(real, unit), outputs=(product,)),
    ]
    if layer.bias:
        made.append(Node(op="Add", inputs=(product, layer.bias), outputs=layer.node.outputs))
    return made
