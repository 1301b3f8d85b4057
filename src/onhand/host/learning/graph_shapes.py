"""Element types and shapes of everything in an ONNX graph, com.microsoft's operators included."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.shape_inference import InferenceError, infer_shapes

from onhand.core.errors import SourceError

__all__ = ["MICROSOFT", "Kind", "attributes_of", "kinds_of"]

MICROSOFT: Final = "com.microsoft"
_SMALL = 1024
"""Elements up to which a constant takes part in the inference: sizes and axes, no weights."""

_Shadow = Callable[[NodeProto, Mapping[str, "Kind"], GraphProto], list[NodeProto]]


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a tensor before the graph runs.

    Attributes:
        element: its ONNX element type; 0 if unknown.
        shape: a number for each known size, a name for each other; equal names are equal sizes.
            None if not even the rank is known.
    """

    element: int
    shape: tuple[int | str, ...] | None


def attributes_of(node: NodeProto) -> dict[str, object]:
    """Return a node's attributes by name: numbers, bytes, lists or tensors."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def kinds_of(model: ModelProto) -> dict[str, Kind]:
    """Infer element types and shapes.

    Weights are never read. Operators that are not of the standard are inferred through ones of
    the same shapes that are, in a copy of the graph.

    Args:
        model: the graph; what its `value_info` states is believed.

    Returns:
        Name -> kind, of every input, initializer and result that could be inferred.

    Raises:
        SourceError: if the graph contradicts itself.
    """
    shadow = GraphProto(name="shapes")
    shadow.input.extend(model.graph.input)
    shadow.output.extend(model.graph.output)
    shadow.value_info.extend(model.graph.value_info)
    given = {value.name for value in model.graph.input}
    constants: dict[str, Kind] = {}
    for tensor in model.graph.initializer:
        constants[tensor.name] = Kind(tensor.data_type, tuple(tensor.dims))
        if tensor.data_location != TensorProto.EXTERNAL and _elements(tensor) <= _SMALL:
            shadow.initializer.append(tensor)
        elif tensor.name not in given:
            shadow.input.append(_stated(tensor.name, tensor.data_type, list(tensor.dims)))
    for node in model.graph.node:
        replace = _SHADOWS.get(node.op_type)
        if replace is None or (node.domain == "" and node.op_type in _STANDARD_TOO):
            shadow.node.append(node)
        else:
            shadow.node.extend(replace(node, constants, shadow))
    copy = helper.make_model(shadow, opset_imports=model.opset_import, ir_version=10)
    try:
        found = infer_shapes(copy, data_prop=True).graph
    except InferenceError as error:
        raise SourceError(f"the graph's shapes cannot be inferred: {error}") from error
    listed = (*found.value_info, *found.output, *found.input)
    return {value.name: _kind(value) for value in listed} | constants


def _elements(tensor: TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def _stated(name: str, element: int, shape: list[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def _kind(value: ValueInfoProto) -> Kind:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return Kind(tensor.elem_type, None)
    sizes: list[int | str] = []
    for i, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value"):
            sizes.append(dim.dim_value)
        else:
            # A size without a name equals no other, not even its neighbour.
            sizes.append(dim.dim_param or f"{value.name}?{i}")
    return Kind(tensor.elem_type, tuple(sizes))


def _same(node: NodeProto, constants: Mapping[str, Kind], graph: GraphProto) -> list[NodeProto]:
    """The first result has the shape of the first input."""
    return [helper.make_node("Identity", [node.input[0]], [node.output[0]])]


def _skip(node: NodeProto, constants: Mapping[str, Kind], graph: GraphProto) -> list[NodeProto]:
    """The norm of a sum, and perhaps the sum: both of the first input's shape."""
    sums = [name for name in list(node.output)[3:] if name]
    return [helper.make_node("Identity", [node.input[0]], [out]) for out in (node.output[0], *sums)]


def _fused_matmul(
    node: NodeProto, constants: Mapping[str, Kind], graph: GraphProto
) -> list[NodeProto]:
    options, inputs, nodes = attributes_of(node), list(node.input), list[NodeProto]()
    for i, crossed in enumerate(("transA", "transB")):
        if options.get(crossed):
            inputs[i] = f"{node.output[0]}/{crossed}"
            nodes += _crosswise(node.input[i], inputs[i])
    return [*nodes, helper.make_node("MatMul", inputs, list(node.output))]


def _crosswise(matrix: str, out: str) -> list[NodeProto]:
    """Make a tensor with the last two sizes exchanged: a Transpose would have to know the rank."""
    ends = {"batch": (0, -2), "rows": (-2, -1), "columns": (-1, None)}
    nodes = [
        helper.make_node("Shape", [matrix], [f"{out}/{name}"], start=start, end=end)
        for name, (start, end) in ends.items()
    ]
    parts = [f"{out}/{name}" for name in ("batch", "columns", "rows")]
    nodes.append(helper.make_node("Concat", parts, [f"{out}/shape"], axis=0))
    nodes.append(helper.make_node("ConstantOfShape", [f"{out}/shape"], [out]))
    return nodes


def _matmul_bits(
    node: NodeProto, constants: Mapping[str, Kind], graph: GraphProto
) -> list[NodeProto]:
    options = attributes_of(node)
    matrix = f"{node.output[0]}/matrix"
    sizes = [_whole(options, "K"), _whole(options, "N")]
    graph.input.append(_stated(matrix, TensorProto.FLOAT, list(sizes)))
    return [helper.make_node("MatMul", [node.input[0], matrix], [node.output[0]])]


def _gather_bits(
    node: NodeProto, constants: Mapping[str, Kind], graph: GraphProto
) -> list[NodeProto]:
    codes = constants.get(node.input[0])
    if codes is None or codes.shape is None:
        return [node]
    options = attributes_of(node)
    bits = _whole(options, "bits") if "bits" in options else 4
    sizes = list(codes.shape)
    if codes.element == TensorProto.UINT8 and isinstance(sizes[-1], int):
        sizes[-1] = sizes[-1] * 8 // bits
    table = f"{node.output[0]}/table"
    graph.input.append(_stated(table, TensorProto.FLOAT, sizes))
    axis = _whole(options, "gather_axis") if "gather_axis" in options else 0
    return [helper.make_node("Gather", [table, node.input[1]], [node.output[0]], axis=axis)]


def _whole(options: Mapping[str, object], name: str) -> int:
    value = options[name]
    return value if isinstance(value, int) else 0


_SHADOWS: Final[Mapping[str, _Shadow]] = {
    "BiasGelu": _same,
    "FastGelu": _same,
    "FusedMatMul": _fused_matmul,
    "GatherBlockQuantized": _gather_bits,
    "Gelu": _same,
    "MatMulNBits": _matmul_bits,
    "QuickGelu": _same,
    "SimplifiedLayerNormalization": _same,
    "SkipLayerNormalization": _skip,
    "SkipSimplifiedLayerNormalization": _skip,
}
_STANDARD_TOO: Final = frozenset({"Gelu"})
"""Operators of that name that the standard has as well."""
