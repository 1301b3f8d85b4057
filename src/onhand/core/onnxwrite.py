"""ONNX messages written without the onnx package: nodes, tensors, small models.

Source:
    onnx.proto (https://github.com/onnx/onnx), protocol buffers' wire format.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "WrittenNode",
    "bytes_field",
    "model_of",
    "node_message",
    "number_field",
    "tensor_message",
    "varint",
]

_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_KIND, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_TENSOR, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 2, 5, 11, 12
_MODEL_VERSION, _MODEL_GRAPH, _MODEL_OPSET = 1, 7, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_INTS, _ATTRIBUTE_TYPE = 1, 3, 8, 20
_INT, _INTS = 2, 7
_TYPES: Final = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7}
_IR_VERSION, _OPSET = 10, 21


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenNode:
    """One node of a model to be written.

    Attributes:
        kind: its operator.
        inputs: names of tensors.
        output: the name of the tensor that it makes.
        attributes: whole numbers, or lists of them.
        domain: of the operator; "" for ONNX's own.
    """

    kind: str
    inputs: Sequence[str]
    output: str
    attributes: Mapping[str, int | Sequence[int]] = field(default_factory=dict)
    domain: str = ""


def model_of(
    nodes: Sequence[WrittenNode],
    *,
    inputs: Mapping[str, Sequence[int]],
    tensors: Mapping[str, NDArray[np.generic]],
) -> bytes:
    """Return a model of a few nodes, whose only output is that of the last.

    Args:
        nodes: in the order in which they are computed.
        inputs: name -> shape, of float32.
        tensors: name -> values.

    Returns:
        An ONNX file's content.
    """
    graph = [bytes_field(_GRAPH_NODE, node_message(node)) for node in nodes]
    graph.append(bytes_field(_GRAPH_NAME, b"graph"))
    graph += [
        bytes_field(_GRAPH_TENSOR, tensor_message(name, values)) for name, values in tensors.items()
    ]
    graph += [bytes_field(_GRAPH_INPUT, _declared(name, shape)) for name, shape in inputs.items()]
    graph.append(bytes_field(_GRAPH_OUTPUT, _declared(nodes[-1].output, None)))
    domains = sorted({"", *(node.domain for node in nodes)})
    opsets = [
        bytes_field(_OPSET_DOMAIN, domain.encode())
        + number_field(_OPSET_VERSION, 1 if domain else _OPSET)
        for domain in domains
    ]
    return b"".join([
        number_field(_MODEL_VERSION, _IR_VERSION),
        *(bytes_field(_MODEL_OPSET, one) for one in opsets),
        bytes_field(_MODEL_GRAPH, b"".join(graph)),
    ])


def node_message(node: WrittenNode, *, name: str = "") -> bytes:
    """Return a node; its own name is that of its output unless another is given."""
    texts = [(_NODE_INPUT, text) for text in node.inputs]
    texts += [(_NODE_OUTPUT, node.output), (_NODE_NAME, name or node.output)]
    texts.append((_NODE_KIND, node.kind))
    if node.domain:
        texts.append((_NODE_DOMAIN, node.domain))
    fields = [bytes_field(number, text.encode()) for number, text in texts]
    fields += [
        bytes_field(_NODE_ATTRIBUTE, _attribute(key, value))
        for key, value in node.attributes.items()
    ]
    return b"".join(fields)


def tensor_message(name: str, values: NDArray[np.generic]) -> bytes:
    """Return a tensor of one of the types that small models need.

    Args:
        name: its name.
        values: float32, uint8, int8 or int64, of any shape.

    Returns:
        The message.
    """
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    fields = [number_field(_TENSOR_DIMS, size) for size in little.shape]
    fields += [
        number_field(_TENSOR_TYPE, _TYPES[values.dtype.name]),
        bytes_field(_TENSOR_NAME, name.encode()),
    ]
    return b"".join([*fields, bytes_field(_TENSOR_RAW, little.tobytes())])


def bytes_field(number: int, content: bytes) -> bytes:
    """Return a field that holds bytes, a text or a message."""
    return b"".join([varint(number << 3 | 2), varint(len(content)), content])


def number_field(number: int, value: int) -> bytes:
    """Return a field that holds a whole number from 0 on."""
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    """Return a number above or equal to 0 as protocol buffers write it."""
    content = bytearray()
    while value > 127:
        content.append(value & 127 | 128)
        value >>= 7
    content.append(value)
    return bytes(content)


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    head = bytes_field(_ATTRIBUTE_NAME, name.encode())
    if isinstance(value, int):
        return b"".join([
            head,
            number_field(_ATTRIBUTE_INT, value),
            number_field(_ATTRIBUTE_TYPE, _INT),
        ])
    numbers = [number_field(_ATTRIBUTE_INTS, one) for one in value]
    return b"".join([head, *numbers, number_field(_ATTRIBUTE_TYPE, _INTS)])


def _declared(name: str, shape: Sequence[int] | None) -> bytes:
    sizes = [bytes_field(1, number_field(1, size)) for size in shape or ()]
    tensor = number_field(1, _TYPES["float32"])
    if shape is not None:
        tensor += bytes_field(2, b"".join(sizes))
    return bytes_field(1, name.encode()) + bytes_field(2, bytes_field(1, tensor))
