"""Graphs in integers made ready for training, and made integers again.

An integer weight before a DequantizeLinear becomes a float shadow before a QuantizeLinear of the
same scales: rounding to codes is then part of what is trained. A bias in int32 becomes float; it
is as good as exact. A scale that is learned becomes scale * exp(factor), so that steps are
relative and it stays positive.

Source:
    Shadow weights and straight-through gradients: arXiv:1712.05877. Learned scales: LSQ,
    arXiv:1902.08153.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.host.networks.graph import Array, Graph, Node, fresh_name

__all__ = ["CodedForm", "Shadow", "coded_weights", "trainable_form"]

_INTEGERS: Final = {"int4", "uint4", "int8", "uint8"}
_PRODUCTS: Final = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int8": (-128, 127),
    "uint8": (0, 255),
}
# Codes within so many around zero keep to a range of 7 bits on purpose.
_SEVEN_BITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """What keeps a shadow's codes in range.

    Attributes:
        node: its DequantizeLinear, whose attributes place the scales.
        scale: constant of the scales.
        factor: constant of what they are multiplied with as they are learned; None for fixed ones.
        low: least code above the zero point, broadcastable to the shadow.
        high: greatest.
    """

    node: Node
    scale: str
    factor: str | None
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weight:
    """An integer weight: its decoding node, and the shadow that stands for it."""

    node: Node
    codes: str
    shadow: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bias:
    """An int32 bias: its decoding node, its float form, and the scales that make its own."""

    node: Node
    codes: str
    value: str
    scales: tuple[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedForm:
    """A graph in integers, in the form that is trained.

    Attributes:
        source: the graph in integers.
        graph: what is trained.
        shadows: constant in `graph` that stands for integers -> its range.
        factors: constants in `graph` whose exponential a learned scale is multiplied with.
        sources: other constants of `graph` -> what they are made of in `source`.
    """

    source: Graph
    graph: Graph
    shadows: Mapping[str, Shadow]
    factors: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    _weights: tuple[_Weight, ...] = field(default=(), repr=False)
    _coded_biases: tuple[_Bias, ...] = field(default=(), repr=False)
    _scales: Mapping[str, str] = field(default_factory=dict, repr=False)

    def back(self, trained: Graph) -> Graph:
        """Return the graph in integers of trained constants.

        Args:
            trained: `graph` with other numbers in its constants.

        Returns:
            `source`, nodes and dtypes the same, with new codes, and scales where they are learned.
        """
        constants = dict(self.source.constants)
        constants |= {n: a for n, a in trained.constants.items() if n in constants}
        for name, factor in self._scales.items():
            old = self.source.constants[name]
            constants[name] = (old * np.exp(trained.constants[factor])).astype(old.dtype)
        for weight in self._weights:
            old = self.source.constants[weight.codes]
            zero = _zero(weight.node, constants, old)
            scale = _spread(weight.node, constants[weight.node.inputs[1]], old)
            # Both in float32, as QuantizeLinear divides.
            shadow = trained.constants[weight.shadow].astype(np.float32)
            low, high = _code_limits(old, zero)
            codes = np.rint(shadow / scale.astype(np.float32)) + zero
            constants[weight.codes] = np.clip(codes, low, high).astype(old.dtype)
        for bias in self._coded_biases:
            self._write_bias(bias, trained, constants)
        return replace(self.source, constants=constants)

    def _write_bias(self, bias: _Bias, trained: Graph, constants: dict[str, Array]) -> None:
        name = bias.node.inputs[1]
        if bias.scales is not None and any(s in self._scales for s in bias.scales):
            # Engines add the bias to sums in units of both scales, whatever its own scale says.
            first, second = (constants[s].reshape(-1) for s in bias.scales)
            made = first.astype(np.float32) * second.astype(np.float32)
            constants[name] = made.reshape(self.source.constants[name].shape)
        old = self.source.constants[bias.codes]
        scale = _spread(bias.node, constants[name], old).astype(np.float64)
        codes = np.rint(trained.constants[bias.value].astype(np.float64) / scale)
        constants[bias.codes] = np.clip(codes, -(2**31), 2**31 - 1).astype(np.int32)


def coded_weights(graph: Graph) -> tuple[str, ...]:
    """Return the integer constants that are decoded, each by one DequantizeLinear and alone.

    One of 4 bits may be widened by a Cast before that.
    """
    return tuple(node.inputs[0] for node in _decoders(_narrow(graph), _INTEGERS))


def trainable_form(graph: Graph, *, learn_scales: bool) -> CodedForm:
    """Make a graph in integers ready for training.

    Args:
        graph: with QuantizeLinear and DequantizeLinear.
        learn_scales: whether scales of activations and of weights are trained as well; one that
            several share stays shared, and zero points stay as they are.

    Returns:
        The form; it computes what `graph` computes.
    """
    maker = _Maker(_narrow(graph))
    return replace(maker.make(learn_scales=learn_scales), source=graph)


class _Maker:
    """Makes one form; its state is what has been written so far."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._taken = graph, graph.names()
        self._constants: dict[str, Array] = dict(graph.constants)
        self._nodes: dict[str, tuple[Node, ...]] = {}
        self._shadows: dict[str, Shadow] = {}

    def make(self, *, learn_scales: bool) -> CodedForm:
        weights = tuple(self._weight(node) for node in _decoders(self._graph, _INTEGERS))
        biases = tuple(self._bias(node) for node in _decoders(self._graph, {"int32"}))
        made = self._graph.rebuilt(lambda node: self._nodes.get(node.name, (node,)))
        scales: dict[str, str] = {}
        if learn_scales:
            made, scales = self._learned(made)
        return CodedForm(
            source=self._graph,
            graph=replace(made, constants=self._constants).live(),
            shadows={
                name: replace(shadow, factor=scales.get(shadow.scale))
                for name, shadow in self._shadows.items()
            },
            factors=tuple(scales.values()),
            sources={bias.value: bias.codes for bias in biases}
            | {factor: name for name, factor in scales.items()},
            _weights=weights,
            _coded_biases=biases,
            _scales=scales,
        )

    def _weight(self, node: Node) -> _Weight:
        codes = self._graph.constants[node.inputs[0]]
        zero = _zero(node, self._graph.constants, codes)
        scale = _spread(node, self._graph.constants[node.inputs[1]], codes)
        low, high = _code_limits(codes, zero)
        shadow = fresh_name(self._taken, f"{node.inputs[0]}.shadow")
        rounded = fresh_name(self._taken, f"{node.inputs[0]}.rounded")
        exact = (codes.astype(np.float32) - zero) * scale
        self._constants[shadow] = exact.astype(np.float32)
        self._shadows[shadow] = Shadow(
            node=node,
            scale=node.inputs[1],
            factor=None,
            low=(low - zero).astype(np.float32),
            high=(high - zero).astype(np.float32),
        )
        inputs = [shadow, *node.inputs[1:]]
        if len(inputs) < 3 or not inputs[2] or codes.dtype.name.endswith("int4"):
            # In torch codes of 4 bits are codes of 8 that the bounds keep small.
            dtype = np.int8 if codes.dtype.name.startswith("int") else np.uint8
            given = self._graph.constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
            point = np.zeros_like(self._graph.constants[node.inputs[1]]) if given is None else given
            inputs[2:] = [fresh_name(self._taken, f"{node.inputs[0]}.zero")]
            self._constants[inputs[2]] = point.astype(dtype)
        self._nodes[node.name] = (
            Node(
                op="QuantizeLinear",
                inputs=tuple(inputs),
                outputs=(rounded,),
                attributes=node.attributes,
            ),
            replace(node, inputs=(rounded, inputs[1], inputs[2])),
        )
        return _Weight(node=node, codes=node.inputs[0], shadow=shadow)

    def _bias(self, node: Node) -> _Bias:
        codes = self._graph.constants[node.inputs[0]]
        scale = _spread(node, self._graph.constants[node.inputs[1]], codes)
        value = fresh_name(self._taken, f"{node.inputs[0]}.value")
        self._constants[value] = (codes * scale.astype(np.float64)).astype(np.float32)
        self._nodes[node.name] = (Node(op="Identity", inputs=(value,), outputs=node.outputs),)
        return _Bias(
            node=node, codes=node.inputs[0], value=value, scales=_scales_of(self._graph, node)
        )

    def _learned(self, graph: Graph) -> tuple[Graph, dict[str, str]]:
        users = [n for n in graph.nodes if n.op in {"QuantizeLinear", "DequantizeLinear"}]
        names = dict.fromkeys(n.inputs[1] for n in users if n.inputs[1] in graph.constants)
        factors: dict[str, str] = {}
        grown: list[Node] = []
        learned: dict[str, str] = {}
        for name in names:
            factors[name] = fresh_name(self._taken, f"{name}.factor")
            power = fresh_name(self._taken, f"{name}.power")
            learned[name] = fresh_name(self._taken, f"{name}.learned")
            self._constants[factors[name]] = np.zeros_like(graph.constants[name])
            grown += [
                Node(op="Exp", inputs=(factors[name],), outputs=(power,)),
                Node(op="Mul", inputs=(name, power), outputs=(learned[name],)),
            ]
        return replace(graph, nodes=(*grown, *graph.renamed(learned).nodes)), factors


def _spread(node: Node, value: Array, like: Array) -> NDArray[np.float64]:
    """Give a scale or a zero point the shape that it is multiplied with.

    Args:
        node: with the attributes axis and block_size.
        value: (), (1,), (C,), or as `like` with one size a block_size-th.
        like: what is quantized.

    Returns:
        The same numbers in float64, broadcastable to `like`.
    """
    numbers: NDArray[np.float64] = value.astype(np.float64)
    if numbers.size == 1:
        return numbers.reshape(())
    axis = node.whole("axis", 1) % like.ndim
    block = node.whole("block_size", 0)
    if block and numbers.ndim == like.ndim:
        return np.repeat(numbers, block, axis=axis).take(range(like.shape[axis]), axis=axis)
    return numbers.reshape([-1 if i == axis else 1 for i in range(like.ndim)])


def _narrow(graph: Graph) -> Graph:
    """Return a graph that decodes constants of 4 bits as they are, without a Cast before."""
    readers, outputs = graph.readers(), set(graph.output_names())
    casts = {
        node.outputs[0]: node.inputs[0]
        for node in graph.nodes
        if node.op == "Cast"
        and node.inputs[0] in graph.constants
        and graph.constants[node.inputs[0]].dtype.name in {"int4", "uint4"}
        and node.outputs[0] not in outputs
        and all(
            reader.op == "DequantizeLinear" and reader.inputs[0] == node.outputs[0]
            for reader in readers.get(node.outputs[0], [])
        )
    }
    if not casts:
        return graph
    nodes = tuple(node for node in graph.nodes if node.outputs[0] not in casts)
    return replace(graph, nodes=nodes).renamed(casts)


def _decoders(graph: Graph, dtypes: set[str]) -> list[Node]:
    readers, outputs = graph.readers(), set(graph.output_names())
    return [
        node
        for node in graph.nodes
        if node.op == "DequantizeLinear"
        and node.inputs[0] in graph.constants
        and graph.constants[node.inputs[0]].dtype.name in dtypes
        and node.inputs[1] in graph.constants
        and all(not name or name in graph.constants for name in node.inputs[2:])
        and len(readers[node.inputs[0]]) == 1
        and node.inputs[0] not in outputs
    ]


def _zero(node: Node, constants: Mapping[str, Array], codes: Array) -> NDArray[np.float64]:
    if len(node.inputs) < 3 or not node.inputs[2]:
        return np.zeros(())
    return _spread(node, constants[node.inputs[2]], codes)


def _code_limits(codes: Array, zero: NDArray[np.float64]) -> tuple[int, int]:
    low, high = _LIMITS[codes.dtype.name]
    if codes.dtype.name != "int8" or zero.any() or not codes.size:
        return low, high
    found = codes.astype(np.int32)
    least, most = int(found.min()), int(found.max())
    if max(-least, most) <= _SEVEN_BITS:
        low, high = -_SEVEN_BITS, _SEVEN_BITS - 1
    # Around zero both signs have the same range; what is beyond it already may stay.
    return min(-high, least), max(high, most)


def _scales_of(graph: Graph, bias: Node) -> tuple[str, str] | None:
    # The scales of the two factors whose product the bias is added to.
    producers = graph.producers()
    for node in graph.readers().get(bias.outputs[0], []):
        if node.op not in _PRODUCTS or len(node.inputs) < 3 or node.inputs[2] != bias.outputs[0]:
            continue
        sides = [producers.get(name) for name in node.inputs[:2]]
        if all(s is not None and s.op == "DequantizeLinear" for s in sides):
            first, second = (s.inputs[1] for s in sides if s is not None)
            if first in graph.constants and second in graph.constants:
                return first, second
    return None
