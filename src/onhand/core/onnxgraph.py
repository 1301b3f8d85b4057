"""An ONNX graph as plain data, read without the onnx package.

It reads what a graph of operators needs and refuses the rest by name: functions, sparse tensors,
texts as tensors. Graphs inside of nodes are seen and not read.

Source:
    onnx.proto (https://github.com/onnx/onnx), protocol buffers' wire format.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.onnxfile import Field, walk_fields

__all__ = ["Attribute", "DeclaredArray", "OnnxGraph", "OnnxNode", "declared_arrays", "parse_graph"]

Array = NDArray[np.generic]
Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Array | None
"""None stands for a graph, or for another kind that is not read."""

_DTYPES: Final[Mapping[int, str]] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
_HALVES: Final = {21: "uint8", 22: "int8"}  # uint4 and int4: two in a byte, the lower one first
_MOST_BYTES: Final = 2**36
# Number of a tensor's field -> how its numbers are written where they are no plain bytes.
_TYPED: Final = {4: "<f4", 5: "varint", 7: "varint", 10: "<f8", 11: "varint"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxNode:
    """One operator.

    Attributes:
        op: its name.
        inputs: names of its inputs; "" for one that is left out.
        outputs: names of its outputs, likewise.
        attributes: by name.
        domain: "" for ONNX's own.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    domain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredArray:
    """An input or an output as the graph declares it.

    Attributes:
        name: its name.
        dtype: numpy's name; "" where it is none of those that are read.
        shape: sizes, None where any will do; None where even their number is not told.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxGraph:
    """A graph.

    Attributes:
        nodes: in an order in which they can run.
        constants: name -> read-only array; whole numbers of 4 bits take a byte each.
        inputs: what it is fed.
        outputs: what it gives.
        opset: version of ONNX's operators.
        domains: version of other domains' operators.
    """

    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, Array]
    inputs: tuple[DeclaredArray, ...]
    outputs: tuple[DeclaredArray, ...]
    opset: int
    domains: Mapping[str, int]


def declared_arrays(
    content: bytes,
) -> tuple[tuple[DeclaredArray, ...], tuple[DeclaredArray, ...]]:
    """Read a graph's inputs and outputs alone.

    Args:
        content: an ONNX file.

    Returns:
        Inputs that are no constants as well, and outputs.

    Raises:
        BundleCorrupt: if the bytes are no ONNX file.
    """
    graph = _only_graph(memoryview(content))
    inputs: list[DeclaredArray] = []
    outputs: list[DeclaredArray] = []
    constants: set[str] = set()
    for number, value in _messages(graph):
        if number == 5:
            constants.add(_text(value, 8))
        elif number == 11:
            inputs.append(_declared(value))
        elif number == 12:
            outputs.append(_declared(value))
    return tuple(info for info in inputs if info.name not in constants), tuple(outputs)


def parse_graph(content: bytes, files: Mapping[str, Array]) -> OnnxGraph:
    """Read a whole graph.

    Args:
        content: an ONNX file.
        files: name of a file -> its bytes, (size,) uint8, for constants that lie in it.

    Returns:
        The graph; constants are views of `content` and `files` where they can be.

    Raises:
        BundleCorrupt: if the bytes are no ONNX file, or a tensor does not match its bytes.
        InputError: if it has functions of its own, sparse tensors, or a tensor of an unknown type.
    """
    model = memoryview(content)
    versions: dict[str, int] = {}
    for number, value in _messages(model):
        if number == 8:
            versions[_text(value, 1)] = _number(value, 2)
        elif number in {20, 25}:
            raise InputError("the graph has functions of its own")
    inputs, outputs = declared_arrays(content)
    nodes: list[OnnxNode] = []
    constants: dict[str, Array] = {}
    for number, value in _messages(_only_graph(model)):
        if number == 1:
            nodes.append(_node(value))
        elif number == 5:
            name, array = _tensor(value, files)
            constants[name] = array
        elif number == 15:
            raise InputError("the graph has sparse tensors")
    return OnnxGraph(
        nodes=tuple(nodes),
        constants=constants,
        inputs=inputs,
        outputs=outputs,
        opset=versions.pop("", versions.pop("ai.onnx", 0)),
        domains=versions,
    )


def _only_graph(model: memoryview) -> memoryview:
    graphs = [value for number, value in _messages(model) if number == 7]
    if len(graphs) != 1:  # protobuf would merge two of them
        raise BundleCorrupt(f"not an ONNX model: it has {len(graphs)} graphs")
    return graphs[0]


def _node(message: memoryview) -> OnnxNode:
    names: dict[int, list[str]] = {1: [], 2: []}
    texts = {4: "", 7: ""}
    attributes: dict[str, Attribute] = {}
    for number, value in _messages(message):
        if number in names:
            names[number].append(_decoded(value))
        elif number in texts:
            texts[number] = _decoded(value)
        elif number == 5:
            attributes[_text(value, 1)] = _attribute(value)
    return OnnxNode(
        op=texts[4],
        inputs=tuple(names[1]),
        outputs=tuple(names[2]),
        attributes=attributes,
        domain="" if texts[7] == "ai.onnx" else texts[7],
    )


def _attribute(message: memoryview) -> Attribute:
    found: dict[int, list[Field]] = {}
    for field in walk_fields(message):
        found.setdefault(field.number, []).append(field)
    kind = found[20][-1].value if 20 in found else 0
    if kind == 1:
        return float(np.frombuffer(_last(found, 2, b"\0" * 4)[-4:], "<f4")[0])
    if kind == 2:
        return _signed(_number(message, 3))
    if kind == 3:
        return _text(message, 4)
    if kind == 4:
        return _tensor(_bytes_of(found[5][-1]), {})[1] if 5 in found else None
    if kind == 6:
        parts = [_bytes_of(f) if f.value is not None else f.raw[-4:] for f in found.get(7, [])]
        return tuple(float(x) for part in parts for x in np.frombuffer(part, "<f4"))
    if kind == 7:
        return tuple(_signed(n) for field in found.get(8, []) for n in _varints(field))
    if kind == 8:
        return tuple(_decoded(_bytes_of(field)) for field in found.get(9, []))
    return None


def _last(found: Mapping[int, list[Field]], number: int, default: bytes) -> bytes:
    return bytes(found[number][-1].raw) if number in found else default


def _tensor(message: memoryview, files: Mapping[str, Array]) -> tuple[str, Array]:
    dims: list[int] = []
    external: dict[str, str] = {}
    typed: list[Field] = []
    raw: memoryview | None = None
    for field in walk_fields(message):
        if field.number == 1:
            dims += _varints(field)
        elif field.number in _TYPED:
            typed.append(field)
        elif field.number == 9:
            raw = _bytes_of(field)
        elif field.number == 13:
            entry = _bytes_of(field)
            external[_text(entry, 1)] = _text(entry, 2)
    name, element = _text(message, 8), _number(message, 2)
    if element not in _DTYPES and element not in _HALVES:
        raise InputError(f"tensor {name!r} has elements of type {element}, which is not read")
    if len(dims) > 8 or any(d >= 2**48 for d in dims) or math.prod(dims) > _MOST_BYTES:
        raise BundleCorrupt(f"tensor {name!r} has the shape {dims}")
    if external:
        raw = _outside(name, external, files)
    if raw is None:
        return name, _from_typed(name, typed, dims, element)
    return name, _from_bytes(name, raw, dims, element)


def _outside(name: str, external: Mapping[str, str], files: Mapping[str, Array]) -> memoryview:
    file, offset, length = (external.get(k, "") for k in ("location", "offset", "length"))
    numbers = [text for text in (offset or "0", length) if text.isascii() and text.isdigit()]
    if file not in files or len(numbers) != 2 or max(map(len, numbers)) > 18:
        raise BundleCorrupt(f"tensor {name!r} lies in {file!r} at {offset!r}, {length!r} bytes")
    first, size = map(int, numbers)
    return np.ascontiguousarray(files[file][first : first + size]).data.cast("B")


def _from_bytes(name: str, raw: memoryview, dims: list[int], element: int) -> Array:
    count = math.prod(dims)
    if half := _HALVES.get(element):
        if len(raw) != -(-count // 2):
            raise BundleCorrupt(f"tensor {name!r} has {len(raw)} bytes for {count} halves")
        pairs = np.frombuffer(raw, np.uint8)
        codes = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)[:count]
        if half == "int8":  # the sign is bit 3
            codes = ((codes ^ 8).astype(np.int8) - 8).astype(np.int8)
        return _frozen(codes.reshape(dims))
    dtype = np.dtype(_DTYPES[element]).newbyteorder("<")
    if len(raw) != count * dtype.itemsize:
        raise BundleCorrupt(f"tensor {name!r} has {len(raw)} bytes, {dims} needs other")
    return _frozen(np.frombuffer(raw, dtype).reshape(dims))


def _from_typed(name: str, typed: list[Field], dims: list[int], element: int) -> Array:
    values: list[Array] = []
    for field in typed:
        how = _TYPED[field.number]
        if how == "varint":
            numbers = [_signed(number) for number in _varints(field)]
            values.append(np.array(numbers, dtype=np.int64))
        else:
            width = np.dtype(how).itemsize
            values.append(
                np.frombuffer(field.raw[-width:] if field.value is None else _bytes_of(field), how)
            )
    whole = np.concatenate(values) if values else np.zeros(0, np.int64)
    if whole.size != math.prod(dims) or element in _HALVES:
        raise BundleCorrupt(f"tensor {name!r} has {whole.size} numbers, {dims} needs other")
    dtype = np.dtype(_DTYPES[element])
    if dtype == np.float16:  # written as the whole numbers of their bits
        return _frozen(whole.astype(np.uint16).view(np.float16).reshape(dims))
    return _frozen(whole.astype(dtype).reshape(dims))


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _declared(message: memoryview) -> DeclaredArray:
    name, dtype = _text(message, 1), ""
    shape: tuple[int | None, ...] | None = None
    for tensor in _inside(_inside_one(message, 2), 1):
        dtype = _DTYPES.get(_number(tensor, 1), "")
        for sizes in _inside(tensor, 2):
            # A size that is a name, or not told, has no number.
            shape = tuple(_number(size, 1) or None for size in _inside(sizes, 1))
    return DeclaredArray(name=name, dtype=dtype, shape=shape)


def _messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    for field in walk_fields(message):
        if isinstance(field.value, memoryview):
            yield field.number, field.value


def _inside(message: memoryview, number: int) -> list[memoryview]:
    return [value for found, value in _messages(message) if found == number]


def _inside_one(message: memoryview, number: int) -> memoryview:
    return (_inside(message, number) or [memoryview(b"")])[-1]


def _text(message: memoryview, number: int) -> str:
    return _decoded(_inside_one(message, number))


def _decoded(value: memoryview) -> str:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise BundleCorrupt(f"not an ONNX file: a text is not UTF-8: {error}") from error


def _number(message: memoryview, number: int) -> int:
    found = 0
    for field in walk_fields(message):
        if field.number == number and isinstance(field.value, int):
            found = field.value
    return found


def _bytes_of(field: Field) -> memoryview:
    if not isinstance(field.value, memoryview):
        raise BundleCorrupt(f"not an ONNX file: field {field.number} is a number")
    return field.value


def _varints(field: Field) -> list[int]:
    # Of a repeated field, which may be packed.
    if isinstance(field.value, int):
        return [field.value]
    packed, found, number, shift = _bytes_of(field), [], 0, 0
    for byte in packed:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(number)
            number = shift = 0
        elif shift > 63:
            raise BundleCorrupt("not an ONNX file: a number is too long")
    if shift:
        raise BundleCorrupt("not an ONNX file, or cut short")
    return found


def _signed(number: int) -> int:
    low = number & (2**64 - 1)  # as protobuf cuts it
    return low - 2**64 if low >= 2**63 else low
