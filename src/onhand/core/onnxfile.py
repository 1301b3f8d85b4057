"""Where an ONNX file's tensors lie, read without the onnx package, and checked.

A graph may come from outside: before an engine parses it, every external tensor must lie in a
file that the manifest allows for it, within that file's bytes, and be as large as its shape.

Source:
    onnx.proto (https://github.com/onnx/onnx), protocol buffers' wire format.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from onhand.core.errors import BundleCorrupt

__all__ = ["Field", "check_external_data", "check_tensors", "read_graph", "walk_fields"]

MAX_GRAPH_BYTES = 256 * 2**20
_MAX_DEPTH = 32
_EXTERNAL = 1
_ITEM_BITS = {
    1: 32,  # float
    2: 8,  # uint8
    3: 8,  # int8
    4: 16,  # uint16
    5: 16,  # int16
    6: 32,  # int32
    7: 64,  # int64
    9: 8,  # bool
    10: 16,  # float16
    11: 64,  # double
    12: 32,  # uint32
    13: 64,  # uint64
    16: 16,  # bfloat16
    21: 4,  # uint4
    22: 4,  # int4
}
# Message -> field number -> message inside it; every way that leads to a tensor.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
}


def check_external_data(graph: Path, root: Path, *, allowed: Collection[str]) -> None:
    """Check every tensor of a graph, subgraphs and functions included.

    Args:
        graph: the ONNX file.
        root: the bundle's folder, which external places are relative to.
        allowed: names of the weights files that it may read.

    Raises:
        BundleCorrupt: if the file is not ONNX, a tensor lies elsewhere or beyond its file's end,
            or its shape does not match its bytes.
    """
    sizes = {name: (root / name).stat().st_size for name in allowed}
    check_tensors(read_graph(graph), sizes, where=str(graph))


def read_graph(graph: Path) -> bytes:
    """Read an ONNX file of which nothing is known yet.

    Raises:
        BundleCorrupt: if an engine would read another format, or it is too large to be a graph.
    """
    if graph.suffix != ".onnx":  # by the name, ONNX Runtime would read another format
        raise BundleCorrupt(f"{graph}: is not named .onnx")
    if graph.stat().st_size > MAX_GRAPH_BYTES:
        raise BundleCorrupt(f"{graph}: over {MAX_GRAPH_BYTES} bytes; weights belong beside it")
    return graph.read_bytes()


def check_tensors(content: bytes, sizes: Mapping[str, int], *, where: str) -> None:
    """Check every tensor of an ONNX model as `check_external_data` does.

    Args:
        content: the model's bytes.
        sizes: bytes of each file that it may read, by its place in the bundle's folder.
        where: its name for messages.

    Raises:
        BundleCorrupt: if one does not hold.
    """
    try:
        for tensor in _tensors(memoryview(content), "model", 0):
            _check_tensor(tensor, sizes)
    except (BundleCorrupt, UnicodeDecodeError) as error:
        raise BundleCorrupt(f"{where}: {error}") from error


def _tensors(message: memoryview, kind: str, depth: int) -> Iterator[memoryview]:
    if depth > _MAX_DEPTH:
        raise BundleCorrupt("graphs are nested too deeply")
    for number, value in _fields(message):
        inside = _INSIDE[kind].get(number)
        if inside is None or isinstance(value, int):
            continue
        if inside == "tensor":
            yield value
        else:
            yield from _tensors(value, inside, depth + 1)


def _check_tensor(message: memoryview, sizes: Mapping[str, int]) -> None:
    dims: list[int] = []
    numbers: dict[int, int] = {}
    texts: dict[int, memoryview] = {}
    external: dict[str, str] = {}
    for number, value in _fields(message):
        if number == 1:
            dims += [value] if isinstance(value, int) else list(_varints(value))
        elif isinstance(value, int):
            numbers[number] = value & 0xFFFFFFFF  # as protobuf cuts them
        elif number == 13:
            entry = {n: bytes(v).decode() for n, v in _fields(value) if not isinstance(v, int)}
            key = entry.get(1, "")
            if key in external:  # readers differ in which of two they take
                raise BundleCorrupt(f"a tensor gives its {key!r} twice")
            external[key] = entry.get(2, "")
        else:
            texts[number] = value
    name = bytes(texts.get(8, b"?")).decode()
    element = numbers.get(2, 0)
    size = _size(dims, element, name)
    inline = texts.get(9)
    if numbers.get(14) == _EXTERNAL or external:
        if element not in _ITEM_BITS:
            raise BundleCorrupt(f"tensor {name!r} has elements of the unknown type {element}")
        _check_place(name, external, sizes, size)
    elif inline is not None and len(inline) != size:
        raise BundleCorrupt(f"tensor {name!r} has {len(inline)} bytes, its shape needs {size}")
    elif size > MAX_GRAPH_BYTES:
        raise BundleCorrupt(f"tensor {name!r} of shape {dims} claims {size} bytes")


def _size(dims: list[int], element: int, name: str) -> int:
    if len(dims) > 8 or any(not 0 <= d < 2**48 for d in dims):
        raise BundleCorrupt(f"tensor {name!r} has the shape {dims}")
    # Texts (8) and types that we never write have no size that a range could match.
    return -(-math.prod(dims) * _ITEM_BITS.get(element, 0) // 8)


def _check_place(name: str, external: dict[str, str], sizes: Mapping[str, int], size: int) -> None:
    file = external.get("location", "")
    if file not in sizes:
        raise BundleCorrupt(f"tensor {name!r} lies in {file!r}, which its variant does not list")
    texts = (external.get("offset", "0"), external.get("length", str(size)))
    if not all(text.isascii() and text.isdigit() and len(text) < 19 for text in texts):
        raise BundleCorrupt(f"tensor {name!r} has the place {texts}, which are not numbers")
    offset, length = (int(text) for text in texts)
    if length != size or offset + length > sizes[file]:
        raise BundleCorrupt(
            f"tensor {name!r} takes bytes {offset} to {offset + length} of {file!r}, which has "
            f"{sizes[file]}; its shape needs {size}"
        )


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message.

    Attributes:
        number: its field number.
        value: a number, a byte string, or None for one of fixed width, which ONNX files have only
            where nothing here looks.
        raw: the field as it stands, its key included.
    """

    number: int
    value: int | memoryview | None
    raw: memoryview


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield field number and value of every number and every byte string."""
    for field in walk_fields(message):
        if field.value is not None:
            yield field.number, field.value


def walk_fields(message: memoryview) -> Iterator[Field]:
    """Walk one message.

    Args:
        message: bytes of a protocol buffer.

    Yields:
        Its fields, in order.

    Raises:
        BundleCorrupt: if the bytes are not a message.
    """
    place = 0
    while place < len(message):
        start = place
        key, place = _varint(message, place)
        # Protobuf cuts a key to 32 bits: it would see another field than we do.
        if not 8 <= key < 2**32:
            raise BundleCorrupt(f"not an ONNX file: field key {key}")
        wire = key & 7
        if wire == 0:
            number, place = _varint(message, place)
            yield Field(key >> 3, number, message[start:place])
            continue
        if wire == 2:
            length, place = _varint(message, place)
        elif wire in {1, 5}:
            length = 8 if wire == 1 else 4
        else:
            raise BundleCorrupt(f"not an ONNX file: wire type {wire}")
        if place + length > len(message):
            raise BundleCorrupt("not an ONNX file, or cut short")
        end = place + length
        # No field that we look at is of fixed width: such a one is unknown to protobuf.
        value = message[place:end] if wire == 2 else None
        place = end
        yield Field(key >> 3, value, message[start:end])


def _varints(message: memoryview) -> Iterator[int]:
    place = 0
    while place < len(message):
        value, place = _varint(message, place)
        yield value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message) and shift < 70:
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise BundleCorrupt("not an ONNX file, or cut short")
