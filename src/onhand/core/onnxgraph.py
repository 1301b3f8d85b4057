"""An ONNX graph as plain data, read without the onnx package.

It reads what a graph of operators needs and refuses the rest by name: functions, sparse tensors,
texts as tensors. Graphs inside of nodes are seen and not read.

Source:
    onnx.proto (https://github.com/onnx/onnx), protocol buffers' wire format.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.onnxattributes import number_of, text_attribute, whole_of, wholes_of
from onhand.core.onnxfields import (
    bytes_of,
    floats_of,
    messages,
    messages_in,
    number_in,
    signed,
    text_in,
    text_of,
    whole_numbers,
)
from onhand.core.onnxfile import Field, walk_fields
from onhand.core.onnxtensor import FOUR_BITS, TENSOR_DTYPES, parse_tensor

__all__ = ["Attribute", "DeclaredArray", "OnnxGraph", "OnnxNode", "declared_arrays", "parse_graph"]

Array = NDArray[np.generic]
Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Array | None
"""None stands for a graph, or for another kind that is not read."""


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

    def whole(self, key: str, default: int) -> int:
        """Return an attribute that is a whole number; see `onhand.core.onnxattributes`."""
        return whole_of(self.attributes, key, default, where=self.shown)

    def wholes(self, key: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return an attribute that is a list of whole numbers."""
        return wholes_of(self.attributes, key, default, where=self.shown)

    def number(self, key: str, default: float) -> float:
        """Return an attribute that is a number."""
        return number_of(self.attributes, key, default, where=self.shown)

    def text(self, key: str, default: str) -> str:
        """Return an attribute that is a text."""
        return text_attribute(self.attributes, key, default, where=self.shown)

    @property
    def shown(self) -> str:
        """How messages call it."""
        return f"{self.op} {self.outputs[0]!r}"


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
        four_bits: names of those of 4 bits.
        inputs: what it is fed.
        outputs: what it gives.
        opset: version of ONNX's operators.
        domains: version of other domains' operators.
    """

    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, Array]
    four_bits: frozenset[str]
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
    for number, value in messages(graph):
        if number == 5:
            constants.add(text_in(value, 8))
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
    for number, value in messages(model):
        if number == 8:
            versions[text_in(value, 1)] = number_in(value, 2)
        elif number in {20, 25}:
            raise InputError("the graph has functions of its own")
    inputs, outputs = declared_arrays(content)
    nodes: list[OnnxNode] = []
    constants: dict[str, Array] = {}
    four_bits: set[str] = set()
    for number, value in messages(_only_graph(model)):
        if number == 1:
            nodes.append(_node(value))
        elif number == 5:
            name, array = parse_tensor(value, files)
            constants[name] = array
            four_bits |= {name} if number_in(value, 2) in FOUR_BITS else set()
        elif number == 15:
            raise InputError("the graph has sparse tensors")
    return OnnxGraph(
        nodes=tuple(nodes),
        constants=constants,
        four_bits=frozenset(four_bits),
        inputs=inputs,
        outputs=outputs,
        opset=versions.pop("", versions.pop("ai.onnx", 0)),
        domains=versions,
    )


def _only_graph(model: memoryview) -> memoryview:
    graphs = [value for number, value in messages(model) if number == 7]
    if len(graphs) != 1:  # protobuf would merge two of them
        raise BundleCorrupt(f"not an ONNX model: it has {len(graphs)} graphs")
    return graphs[0]


def _node(message: memoryview) -> OnnxNode:
    names: dict[int, list[str]] = {1: [], 2: []}
    texts = {4: "", 7: ""}
    attributes: dict[str, Attribute] = {}
    for number, value in messages(message):
        if number in names:
            names[number].append(text_of(value))
        elif number in texts:
            texts[number] = text_of(value)
        elif number == 5:
            attributes[text_in(value, 1)] = _attribute(value)
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
        numbers = floats_of(found[2][-1], "<f4") if 2 in found else np.zeros(1)
        return float(numbers[-1]) if numbers.size else 0.0
    if kind == 2:
        return signed(number_in(message, 3))
    if kind == 3:
        return text_in(message, 4)
    if kind == 4:
        return parse_tensor(bytes_of(found[5][-1]), {})[1] if 5 in found else None
    if kind == 6:
        parts = [floats_of(field, "<f4") for field in found.get(7, [])]
        return tuple(float(number) for part in parts for number in part)
    if kind == 7:
        return tuple(signed(n) for field in found.get(8, []) for n in whole_numbers(field))
    if kind == 8:
        return tuple(text_of(bytes_of(field)) for field in found.get(9, []))
    return None


def _declared(message: memoryview) -> DeclaredArray:
    name, dtype = text_in(message, 1), ""
    shape: tuple[int | None, ...] | None = None
    for tensor in (one for kind in messages_in(message, 2) for one in messages_in(kind, 1)):
        dtype = TENSOR_DTYPES.get(number_in(tensor, 1), "")
        for sizes in messages_in(tensor, 2):
            # A size that is a name, or not told, has no number.
            shape = tuple(number_in(size, 1) or None for size in messages_in(sizes, 1))
    return DeclaredArray(name=name, dtype=dtype, shape=shape)
