"""Products of low rank put into an ONNX graph, without the onnx package.

A graph is rewritten field by field: what is not concerned is copied as it stands.

Source:
    onnx.proto (https://github.com/onnx/onnx), protocol buffers' wire format.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import BundleCorrupt
from onhand.core.onnxfile import Field, walk_fields

__all__ = ["LowRank", "add_low_rank", "varint"]

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_TENSOR = 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_KIND = 1, 2, 3, 4
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_FLOAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """What is added to one product y = W x + b: then y = W x + b + B A x.

    Attributes:
        weights: names that W may have, as the second input of a node; the first is x.
        first: A (R, K) float32.
        second: B (N, R) float32.
    """

    weights: tuple[str, ...]
    first: FloatArray
    second: FloatArray


def add_low_rank(content: bytes, additions: Mapping[str, LowRank]) -> bytes:
    """Add products of low rank to tensors of a graph.

    Args:
        content: an ONNX model.
        additions: name of the tensor y -> what is added; its readers then get the sum.

    Returns:
        The model with three more nodes and two more initializers for each tensor.

    Raises:
        BundleCorrupt: if it is not an ONNX model, or no node makes such a tensor or reads W.
    """
    parts: list[bytes | memoryview] = []
    for field in walk_fields(memoryview(content)):
        if field.number == _MODEL_GRAPH and isinstance(field.value, memoryview):
            parts.append(_bytes(_MODEL_GRAPH, b"".join(_graph(field.value, additions))))
        else:
            parts.append(field.raw)
    return b"".join(parts)


def _graph(graph: memoryview, additions: Mapping[str, LowRank]) -> Iterator[bytes | memoryview]:
    """Yield a graph's fields; what makes a tensor y is followed by what adds to it.

    Raises:
        BundleCorrupt: if no node makes such a tensor or reads its W.
    """
    fields = list(walk_fields(graph))
    read_by = {weight: name for name, added in additions.items() for weight in added.weights}
    inputs: dict[str, str] = {}
    for field in fields:
        names = _texts(field, _NODE_INPUT)
        if len(names) > 1 and names[1] in read_by:
            inputs[read_by[names[1]]] = names[0]
    missing = set(additions)
    for field in fields:
        made = [name for name in _texts(field, _NODE_OUTPUT) if name in inputs]
        if not made or not isinstance(field.value, memoryview):
            yield field.raw
            continue
        yield _bytes(_GRAPH_NODE, b"".join(_renamed(field.value, made)))
        for name in made:
            missing.discard(name)
            yield from _sum(name, inputs[name], additions[name])
    if missing:
        raise BundleCorrupt(f"the graph has no product {min(missing)!r} that could be added to")


def _texts(field: Field, number: int) -> list[str]:
    """Return the inputs or outputs of a node, none of any other field."""
    if field.number != _GRAPH_NODE or not isinstance(field.value, memoryview):
        return []
    found = (part for part in walk_fields(field.value) if part.number == number)
    return [
        bytes(part.value).decode(errors="replace")
        for part in found
        if isinstance(part.value, memoryview)
    ]


def _renamed(node: memoryview, names: list[str]) -> Iterator[bytes | memoryview]:
    """Yield a node's fields, with ".plain" behind some of its outputs."""
    for field in walk_fields(node):
        if field.number == _NODE_OUTPUT and isinstance(field.value, memoryview):
            text = bytes(field.value).decode(errors="replace")
            yield _bytes(_NODE_OUTPUT, f"{text}.plain".encode()) if text in names else field.raw
        else:
            yield field.raw


def _sum(name: str, x: str, added: LowRank) -> Iterator[bytes]:
    """Yield two initializers, and the nodes y = y.plain + (x A^T) B^T."""
    first, second, narrow, wide = (
        f"{name}.adapter.{part}" for part in ("first", "second", "narrow", "wide")
    )
    yield _bytes(_GRAPH_TENSOR, _tensor(first, added.first.T))
    yield _bytes(_GRAPH_TENSOR, _tensor(second, added.second.T))
    yield _bytes(_GRAPH_NODE, _node("MatMul", [x, first], narrow))
    yield _bytes(_GRAPH_NODE, _node("MatMul", [narrow, second], wide))
    yield _bytes(_GRAPH_NODE, _node("Add", [f"{name}.plain", wide], name, f"{name}.adapter.sum"))


def _node(kind: str, inputs: list[str], output: str, name: str = "") -> bytes:
    """Return a node; its own name is that of its output unless another node has that."""
    fields = [(_NODE_INPUT, text) for text in inputs]
    fields += [(_NODE_OUTPUT, output), (_NODE_NAME, name or output), (_NODE_KIND, kind)]
    return b"".join(_bytes(number, text.encode()) for number, text in fields)


def _tensor(name: str, values: FloatArray) -> bytes:
    little = np.ascontiguousarray(values, dtype="<f4")
    fields = [_number(_TENSOR_DIMS, size) for size in little.shape]
    fields += [_number(_TENSOR_TYPE, _FLOAT), _bytes(_TENSOR_NAME, name.encode())]
    return b"".join([*fields, _bytes(_TENSOR_RAW, little.tobytes())])


def _bytes(number: int, content: bytes) -> bytes:
    return b"".join([varint(number << 3 | 2), varint(len(content)), content])


def _number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    """Return a number above or equal to 0 as protocol buffers write it."""
    content = bytearray()
    while value > 127:
        content.append(value & 127 | 128)
        value >>= 7
    content.append(value)
    return bytes(content)
