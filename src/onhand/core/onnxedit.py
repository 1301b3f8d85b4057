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
from onhand.core.onnxwrite import WrittenNode, bytes_field, node_message, tensor_message

__all__ = ["LowRank", "add_low_rank"]

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_TENSOR = 1, 5
_NODE_INPUT, _NODE_OUTPUT = 1, 2


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
            parts.append(bytes_field(_MODEL_GRAPH, b"".join(_graph(field.value, additions))))
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
        yield bytes_field(_GRAPH_NODE, b"".join(_renamed(field.value, made)))
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
            yield (
                bytes_field(_NODE_OUTPUT, f"{text}.plain".encode()) if text in names else field.raw
            )
        else:
            yield field.raw


def _sum(name: str, x: str, added: LowRank) -> Iterator[bytes]:
    """Yield two initializers, and the nodes y = y.plain + (x A^T) B^T."""
    first, second, narrow, wide = (
        f"{name}.adapter.{part}" for part in ("first", "second", "narrow", "wide")
    )
    for tensor, values in ((first, added.first.T), (second, added.second.T)):
        yield bytes_field(_GRAPH_TENSOR, tensor_message(tensor, np.asarray(values, np.float32)))
    for node in (
        WrittenNode(kind="MatMul", inputs=[x, first], output=narrow),
        WrittenNode(kind="MatMul", inputs=[narrow, second], output=wide),
    ):
        yield bytes_field(_GRAPH_NODE, node_message(node))
    total = WrittenNode(kind="Add", inputs=[f"{name}.plain", wide], output=name)
    yield bytes_field(_GRAPH_NODE, node_message(total, name=f"{name}.adapter.sum"))
