"""Graphs from ONNX files and to them: the only place on the host that knows their messages."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from onhand.core.errors import SourceError
from onhand.host.networks.graph import Array, Attribute, Graph, Node, Value

if TYPE_CHECKING:
    import onnx

__all__ = [
    "OPSET",
    "Place",
    "body_bytes",
    "graph_from_model",
    "infer_shapes",
    "model_bytes",
    "read_onnx",
    "watching_bytes",
]

OPSET: Final = 17
"""Older graphs are brought to this version, so that passes meet one form of each operator."""
OLDEST_OPSET: Final = 11
_IR_VERSION = 10
# Shape inference needs small constants only: axes, sizes, paddings.
_SMALL = 4096
Dims = tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a constant lies outside of its graph: `length` bytes of a file from `offset`."""

    file: str
    offset: int
    length: int


def read_onnx(path: Path) -> Graph:
    """Read an ONNX file, and its external data beside it.

    Args:
        path: the file.

    Returns:
        The graph; at opset 17 or later.

    Raises:
        SourceError: if it is not ONNX, of an opset before 11, damaged, or data of it is missing
            or lies outside of the file's folder.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    # The checker of external places raises its own error, a file that is none anything of these.
    except (OSError, ValueError, TypeError, DecodeError, onnx.checker.ValidationError) as error:
        raise SourceError(f"{path}: not a whole ONNX model: {_first_line(error)}") from error
    return graph_from_model(model, where=str(path))


def graph_from_model(model: "onnx.ModelProto", *, where: str) -> Graph:
    """Turn a message into a graph; the message may be emptied.

    Args:
        model: with all data in it.
        where: its name for messages.

    Returns:
        The graph; at opset 17 or later.

    Raises:
        SourceError: if the opset is before 11, it has functions of its own, or an attribute, a
            dtype or a sparse tensor that nothing here knows.
    """
    import onnx

    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.pop("", versions.pop("ai.onnx", 0))
    if opset < OLDEST_OPSET:
        raise SourceError(f"{where}: opset {opset}, must be {OLDEST_OPSET} or later")
    if opset < OPSET:
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except (RuntimeError, ValueError) as error:
            raise SourceError(
                f"{where}: opset {opset} cannot be brought to {OPSET}: {_first_line(error)}; "
                f"export it again with opset {OPSET} or later"
            ) from error
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    proto = model.graph
    if proto.sparse_initializer:
        raise SourceError(f"{where}: has sparse tensors; store them dense")
    constants = {tensor.name: _array(tensor, where) for tensor in proto.initializer}
    nodes: list[Node] = []
    for node in proto.node:
        made = _node(node, where)
        if made.op == "Constant" and not made.domain:
            constants[made.name] = _constant(made, where)
        elif made.outputs:
            nodes.append(made)
    return Graph(
        nodes=tuple(nodes),
        constants=constants,
        inputs=tuple(_value(v, where) for v in proto.input if v.name not in constants),
        outputs=tuple(_value(v, where) for v in proto.output),
        opset=max(opset, OPSET),
        domains=versions,
    ).live()


def model_bytes(graph: Graph, *, outside: Mapping[str, Place] | None = None) -> bytes:
    """Return a graph as an ONNX file.

    Args:
        graph: the graph.
        outside: constants that lie in other files; all others are in the result.

    Returns:
        The file's bytes; the same for the same graph.
    """
    content: bytes = _model(graph, outside or {}).SerializeToString(deterministic=True)
    return content


def watching_bytes(graph: Graph) -> bytes:
    """Return a graph as an ONNX file that says nothing of its outputs' sizes.

    For inner values that are looked at: behind a branch or a loop, inference may not even tell how
    many sizes they have, and a file that said none would be refused.
    """
    proto = _model(graph, {})
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def body_bytes(graph: Graph, *, captured: frozenset[str]) -> bytes:
    """Return a graph as it stands inside a node: see `Node.bodies`.

    Args:
        graph: the graph; what it reads from outside is among its inputs.
        captured: names of those.

    Returns:
        A serialised graph; the same for the same graph.
    """
    proto = _model(graph, {}).graph
    own = [value for value in proto.input if value.name not in captured]
    del proto.input[:]
    proto.input.extend(own)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def infer_shapes(graph: Graph) -> dict[str, Value]:
    """Return the dtype and shape of every value that they can be told of.

    Args:
        graph: the graph; inputs may have open sizes.

    Returns:
        Name -> value, constants, inputs and outputs included.
    """
    import onnx

    small = {n: a for n, a in graph.constants.items() if a.nbytes <= _SMALL}
    large = [Value(name=n, dtype=a.dtype, shape=a.shape) for n, a in graph.constants.items()
             if n not in small]  # fmt: skip
    known = replace(graph, constants=small, inputs=(*graph.inputs, *large))
    proto = onnx.shape_inference.infer_shapes(_model(known, {}), data_prop=True).graph
    values = [_value(v, "") for v in (*proto.value_info, *proto.output, *proto.input)]
    found = {value.name: value for value in values}
    return found | {n: Value(name=n, dtype=a.dtype, shape=a.shape) for n, a in small.items()}


def _model(graph: Graph, outside: Mapping[str, Place]) -> "onnx.ModelProto":
    import onnx
    from onnx import helper

    proto = onnx.GraphProto(name="network")
    proto.node.extend(_node_proto(node) for node in graph.nodes)
    proto.input.extend(_value_proto(value) for value in graph.inputs)
    proto.output.extend(_value_proto(value) for value in graph.outputs)
    for name, array in graph.constants.items():
        if name in outside:
            proto.initializer.append(_outside(name, array, outside[name]))
        else:
            proto.initializer.append(_tensor(name, array))
    imports = [helper.make_opsetid("", graph.opset)]
    imports += [helper.make_opsetid(domain, v) for domain, v in sorted(graph.domains.items())]
    return helper.make_model(
        proto, opset_imports=imports, ir_version=_IR_VERSION, producer_name="onhand"
    )


def _outside(name: str, array: Array, place: Place) -> "onnx.TensorProto":
    import onnx

    dtype = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = onnx.TensorProto(name=name, data_type=dtype, dims=array.shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (
        ("location", place.file),
        ("offset", place.offset),
        ("length", place.length),
    ):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _node_proto(node: Node) -> "onnx.NodeProto":
    import onnx
    from onnx import helper

    proto = helper.make_node(
        node.op, list(node.inputs), list(node.outputs), name=node.name, domain=node.domain
    )
    for key, value in sorted(node.attributes.items()):
        given: object = value
        if isinstance(value, np.ndarray):
            given = _tensor("", value)
        elif isinstance(value, tuple):
            # Of what an empty list is, nobody can tell: it is left to the operator's default.
            given = list(value) or None
        if given is not None:
            proto.attribute.append(helper.make_attribute(key, given))
    for key, content in sorted(node.bodies.items()):
        proto.attribute.append(helper.make_attribute(key, onnx.GraphProto.FromString(content)))
    return proto


def _tensor(name: str, array: Array) -> "onnx.TensorProto":
    import onnx

    # ascontiguousarray makes a vector of a number.
    whole = np.ascontiguousarray(array).reshape(array.shape)
    return onnx.numpy_helper.from_array(whole, name)


def _node(proto: "onnx.NodeProto", where: str) -> Node:
    import onnx

    attributes: dict[str, Attribute] = {}
    bodies: dict[str, bytes] = {}
    captured: dict[str, None] = {}
    for attribute in proto.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            bodies[attribute.name] = attribute.g.SerializeToString(deterministic=True)
            captured |= dict.fromkeys(_captured(attribute.g))
        else:
            attributes[attribute.name] = _attribute(attribute, proto, where)
    return Node(
        op=proto.op_type,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes=attributes,
        domain="" if proto.domain == "ai.onnx" else proto.domain,
        bodies=bodies,
        captured=tuple(captured),
    )


def _attribute(attribute: "onnx.AttributeProto", node: "onnx.NodeProto", where: str) -> Attribute:
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, int | float):
        return value
    if isinstance(value, onnx.TensorProto):
        return _array(value, where)
    items = tuple(
        item.decode(errors="replace") if isinstance(item, bytes) else item for item in value
    )
    if all(isinstance(item, str | int | float) for item in items):
        return items
    raise SourceError(
        f"{where}: {node.op_type} {node.name!r}: attribute {attribute.name!r} is of an unknown kind"
    )


def _captured(body: "onnx.GraphProto") -> list[str]:
    """Return names that a body reads from outside of it, those of bodies inside it included."""
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own |= {name for node in body.node for name in node.output}
    read = [name for node in body.node for name in node.input]
    read += [
        name
        for node in body.node
        for a in node.attribute
        if a.HasField("g")
        for name in _captured(a.g)
    ]
    read += [value.name for value in body.output]
    return [name for name in read if name and name not in own]


def _constant(node: Node, where: str) -> Array:
    for key, value in node.attributes.items():
        if key == "value" and isinstance(value, np.ndarray):
            return value
        if key in {"value_int", "value_ints"}:
            return np.asarray(value, dtype=np.int64)
        if key in {"value_float", "value_floats"}:
            return np.asarray(value, dtype=np.float32)
    raise SourceError(f"{where}: constant {node.name!r} is of a kind that is not known")


def _array(tensor: "onnx.TensorProto", where: str) -> Array:
    import onnx

    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise SourceError(f"{where}: tensor {tensor.name!r} cannot be read: {error}") from error


def _value(proto: "onnx.ValueInfoProto", where: str) -> Value:
    import onnx

    kind = proto.type.tensor_type
    if not proto.type.HasField("tensor_type") or kind.elem_type == onnx.TensorProto.UNDEFINED:
        dtype = np.dtype(np.float32)
        if where:
            raise SourceError(f"{where}: {proto.name!r} is not a tensor of a known type")
    else:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    shape: list[int | str | None] = []
    for dim in kind.shape.dim:
        which = dim.WhichOneof("value")
        shape.append(None if which is None else getattr(dim, which))
    return Value(
        name=proto.name, dtype=dtype, shape=tuple(None if s in {0, ""} else s for s in shape)
    )


def _value_proto(value: Value) -> "onnx.ValueInfoProto":
    from onnx import helper

    return helper.make_tensor_value_info(
        value.name, helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape)
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else repr(error)
