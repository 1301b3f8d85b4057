"""Inputs of an ONNX graph that become tensors in it, without the onnx package.

A graph is rewritten field by field: what is not concerned is copied as it stands.

Source:
    onnx.proto (https://github.com/onnx/onnx), protocol buffers' wire format.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import BundleCorrupt
from onhand.core.onnxfields import text_in
from onhand.core.onnxfile import walk_fields
from onhand.core.onnxwrite import bytes_field, tensor_message

__all__ = ["bind_inputs"]

_MODEL_GRAPH, _GRAPH_TENSOR, _GRAPH_INPUT, _VALUE_NAME = 7, 5, 11, 1


def bind_inputs(content: bytes, tensors: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Put tensors into a graph in the place of some of its inputs.

    Args:
        content: an ONNX model.
        tensors: name of an input -> its value: float32, uint8, int8 or int64.

    Returns:
        The model; it has these inputs no more.

    Raises:
        BundleCorrupt: if it is not an ONNX model, or has not each of the inputs once.
    """
    parts: list[bytes | memoryview] = []
    missing = dict(tensors)
    for field in walk_fields(memoryview(content)):
        if field.number == _MODEL_GRAPH and isinstance(field.value, memoryview):
            graph = b"".join(_bound(field.value, tensors, missing))
            parts.append(bytes_field(_MODEL_GRAPH, graph))
        else:
            parts.append(field.raw)
    if missing:
        raise BundleCorrupt(f"the graph has no input {min(missing)!r}")
    return b"".join(parts)


def _bound(
    graph: memoryview,
    tensors: Mapping[str, NDArray[np.generic]],
    missing: dict[str, NDArray[np.generic]],
) -> Iterator[bytes | memoryview]:
    for field in walk_fields(graph):
        if field.number != _GRAPH_INPUT or not isinstance(field.value, memoryview):
            yield field.raw
            continue
        name = text_in(field.value, _VALUE_NAME)
        if name not in tensors:
            yield field.raw
            continue
        if name not in missing:
            raise BundleCorrupt(f"the graph has the input {name!r} twice")
        yield bytes_field(_GRAPH_TENSOR, tensor_message(name, missing.pop(name)))
