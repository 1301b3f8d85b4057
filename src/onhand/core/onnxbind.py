"""Inputs of an ONNX graph that become tensors in it, without the onnx package.

A graph is rewritten field by field: what is not concerned is copied as it stands.

Source:
    onnx.proto (https://github.com/onnx/onnx), protocol buffers' wire format.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import BundleCorrupt
from onhand.core.onnxfields import text_in
from onhand.core.onnxfile import walk_fields
from onhand.core.onnxwrite import WrittenNode, bytes_field, node_message, tensor_message

__all__ = ["CodedTensor", "bind_inputs"]

_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_INPUT, _VALUE_NAME = 7, 1, 5, 11, 1

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class CodedTensor:
    """A tensor as integers around zero, which the graph turns into float32.

    Attributes:
        codes: int8.
        scales: float32, () or (C,).
        axis: that the scales lie along; None for one.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    axis: int | None


def bind_inputs(
    content: bytes, tensors: Arrays, coded: Mapping[str, CodedTensor] | None = None
) -> bytes:
    """Put tensors into a graph in the place of some of its inputs.

    Args:
        content: an ONNX model.
        tensors: name of an input -> its value: float32, uint8, int8 or int64.
        coded: name of an input of float32 -> its value as integers, which engines compute on
            where the graph's other values are integers as well.

    Returns:
        The model; it has these inputs no more.

    Raises:
        BundleCorrupt: if it is not an ONNX model, or has not each of the inputs once.
    """
    parts: list[bytes | memoryview] = []
    codes = coded or {}
    missing = {name: [tensor_message(name, array)] for name, array in tensors.items()}
    missing |= {name: _coded_tensors(name, made) for name, made in codes.items()}
    known = set(missing)
    for field in walk_fields(memoryview(content)):
        if field.number == _MODEL_GRAPH and isinstance(field.value, memoryview):
            # Nodes stand in the order in which they run: these before whoever reads them.
            nodes = (bytes_field(_GRAPH_NODE, _decoder(name, codes[name])) for name in codes)
            graph = b"".join([*nodes, *_bound(field.value, missing, known)])
            parts.append(bytes_field(_MODEL_GRAPH, graph))
        else:
            parts.append(field.raw)
    if missing:
        raise BundleCorrupt(f"the graph has no input {min(missing)!r}")
    return b"".join(parts)


def _bound(
    graph: memoryview, missing: dict[str, list[bytes]], known: set[str]
) -> Iterator[bytes | memoryview]:
    for field in walk_fields(graph):
        if field.number != _GRAPH_INPUT or not isinstance(field.value, memoryview):
            yield field.raw
            continue
        name = text_in(field.value, _VALUE_NAME)
        if name not in known:
            yield field.raw
            continue
        if name not in missing:
            raise BundleCorrupt(f"the graph has the input {name!r} twice")
        yield from (bytes_field(_GRAPH_TENSOR, made) for made in missing.pop(name))


def _coded_tensors(name: str, made: CodedTensor) -> list[bytes]:
    return [
        tensor_message(f"{name}.codes", made.codes),
        tensor_message(f"{name}.scales", made.scales),
    ]


def _decoder(name: str, made: CodedTensor) -> bytes:
    return node_message(
        WrittenNode(
            kind="DequantizeLinear",
            inputs=[f"{name}.codes", f"{name}.scales"],
            output=name,
            attributes={} if made.axis is None else {"axis": made.axis},
        )
    )
