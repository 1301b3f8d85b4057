"""Tensors put into an ONNX graph that lay outside of it, without the onnx package.

A graph is rewritten field by field: what is not concerned is copied as it stands.

Source:
    onnx.proto (https://github.com/onnx/onnx), protocol buffers' wire format.
"""

import io
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from onhand.core.arrays import ByteArray
from onhand.core.errors import BundleCorrupt
from onhand.core.onnxfields import messages, text_in
from onhand.core.onnxfile import walk_fields
from onhand.core.onnxwrite import varint

__all__ = ["LEFT_OUT", "Waiting", "inline_tensors", "outside_of"]

LEFT_OUT = "left-out"
"""Place of a tensor that is stored without its zeros: no file, so that no engine reads one."""
_MODEL_GRAPH, _GRAPH_TENSOR = 7, 5
_TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_WHERE = 8, 9, 13, 14


@dataclass(frozen=True, slots=True)
class Waiting:
    """Bytes of a tensor that are made when their turn comes.

    Attributes:
        size: how many there will be.
        read: makes them: (size,) uint8.
    """

    size: int
    read: Callable[[], ByteArray]


_Find = Callable[[str, dict[str, str]], Waiting]


@dataclass(slots=True)
class _Parts:
    """A message in pieces, so that large ones are copied once, and one by one."""

    pieces: list[bytes | memoryview | Waiting] = field(default_factory=list)
    size: int = 0

    def add(self, piece: bytes | memoryview | Waiting) -> None:
        self.pieces.append(piece)
        self.size += piece.size if isinstance(piece, Waiting) else len(piece)

    def add_message(self, number: int, inside: "_Parts") -> None:
        self.add(varint(number << 3 | 2) + varint(inside.size))
        self.pieces += inside.pieces
        self.size += inside.size

    def joined(self) -> bytes:
        whole = io.BytesIO()
        for piece in self.pieces:
            whole.write(piece.read().data if isinstance(piece, Waiting) else piece)
        if whole.tell() != self.size:
            raise BundleCorrupt(f"tensors of a graph make {whole.tell()} bytes, not {self.size}")
        return whole.getvalue()


def inline_tensors(content: bytes, names: Collection[str], find: _Find) -> bytes:
    """Put tensors into the graph that uses them.

    Args:
        content: an ONNX model.
        names: initializers of its graph that lie outside; not those of graphs inside it.
        find: gives a tensor's bytes for its name and for what the graph says of its place.

    Returns:
        The model.

    Raises:
        BundleCorrupt: if it is not an ONNX model, or has not each of the tensors once, outside.
    """
    missing = set(names)
    model = _Parts()
    for part in walk_fields(memoryview(content)):
        if part.number != _MODEL_GRAPH or not isinstance(part.value, memoryview):
            model.add(part.raw)
            continue
        graph = _Parts()
        for inner in walk_fields(part.value):
            value = inner.value
            if inner.number != _GRAPH_TENSOR or not isinstance(value, memoryview):
                graph.add(inner.raw)
                continue
            if (name := text_in(value, _TENSOR_NAME)) not in names:
                graph.add(inner.raw)
                continue
            if name not in missing:
                raise BundleCorrupt(f"the graph has the tensor {name!r} twice")
            missing.discard(name)
            graph.add_message(_GRAPH_TENSOR, _inlined(name, value, find))
        model.add_message(_MODEL_GRAPH, graph)
    if missing:
        raise BundleCorrupt(f"the graph has no tensor {min(missing)!r}, which lies outside of it")
    return model.joined()


def outside_of(content: bytes) -> tuple[str, ...]:
    """Return the names of a graph's initializers that lie outside of it."""
    found: list[str] = []
    for number, graph in messages(memoryview(content)):
        if number == _MODEL_GRAPH:
            tensors = (value for inner, value in messages(graph) if inner == _GRAPH_TENSOR)
            found += [text_in(value, _TENSOR_NAME) for value in tensors if _place(value)]
    return tuple(found)


def _place(tensor: memoryview) -> dict[str, str]:
    entries = (value for number, value in messages(tensor) if number == _TENSOR_EXTERNAL)
    return {text_in(entry, 1): text_in(entry, 2) for entry in entries}


def _inlined(name: str, tensor: memoryview, find: _Find) -> _Parts:
    made = _Parts()
    place = _place(tensor)
    if not place:
        raise BundleCorrupt(f"tensor {name!r} must lie outside of the graph")
    for part in walk_fields(tensor):
        if part.number not in {_TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_WHERE}:
            made.add(part.raw)
    raw = find(name, place)
    made.add(varint(_TENSOR_RAW << 3 | 2) + varint(raw.size))
    made.add(raw)
    return made
