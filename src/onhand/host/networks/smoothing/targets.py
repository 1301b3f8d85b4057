"""Where the channels of an activation can be scaled, and the scaling itself: exact in float."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.host.networks.graph import Array, Graph, Node, fresh_name

__all__ = ["Target", "find_targets", "scale_channels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An activation (..., C) that products with constants read.

    Attributes:
        data: its name.
        layers: the MatMul and Gemm nodes that read it.
        parts: constants whose channels give way, name -> axis of the channels: they are divided.
            Empty where a product with a vector must stand before the layers.
        where: what gives way, in words.
    """

    data: str
    layers: tuple[Node, ...]
    parts: Mapping[str, int]
    where: str

    def weights(self, graph: Graph) -> list[FloatArray]:
        """Return the layers' weights, (C, N) each."""
        found = [graph.constants[node.inputs[1]].astype(np.float32) for node in self.layers]
        return [
            weight if _inputs_axis(node) == 0 else weight.T
            for node, weight in zip(self.layers, found, strict=True)
        ]


def find_targets(graph: Graph) -> tuple[list[Target], dict[str, str]]:
    """Find activations that layers with constant weights read.

    Args:
        graph: the network.

    Returns:
        The activations, in the graph's order; and names of layers -> why they are none's.
    """
    producers, readers = graph.producers(), graph.readers()
    groups: dict[str, list[Node]] = {}
    kept: dict[str, str] = {}
    for node in graph.nodes:
        if node.op not in {"MatMul", "Gemm"} or node.domain:
            continue
        weight = graph.constants.get(node.inputs[1])
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
            kept[node.name] = "it has no constant float32 matrix"
        elif node.whole("transA", 0):
            kept[node.name] = "its data are transposed"
        elif node.inputs[0] not in producers:
            kept[node.name] = "it reads an input of the network"
        else:
            groups.setdefault(node.inputs[0], []).append(node)
    outside = set(graph.output_names())
    walk = _Walk(graph, producers, readers, outside)
    targets: list[Target] = []
    for data, layers in groups.items():
        alone = {node.name for node in readers[data]} == {node.name for node in layers}
        parts, where = walk.parts(data) if alone and data not in outside else ({}, "")
        targets.append(
            Target(
                data=data,
                layers=tuple(layers),
                parts=parts,
                where=where or "a product before it",
            )
        )
    return targets, kept


def scale_channels(graph: Graph, target: Target, scales: FloatArray) -> Graph:
    """Divide the channels of an activation, and multiply what reads them.

    Args:
        graph: the network.
        target: of `find_targets` on this graph, or on one that other targets were scaled in.
        scales: (C,), above 0.

    Returns:
        A graph of the same function, up to rounding.
    """
    constants = dict(graph.constants)
    taken = graph.names()
    renamed: dict[str, str] = {}
    names = {node.name for node in target.layers}
    readers = graph.readers()

    def put(name: str, array: Array, whose: set[str]) -> None:
        """Change a constant; where others read it as well, a copy of it."""
        if {node.name for node in readers[name]} <= whose:
            constants[name] = array
        else:
            renamed[name] = fresh_name(taken, f"{name}.smooth")
            constants[renamed[name]] = array

    for node in {node.inputs[1]: node for node in target.layers}.values():
        weight = graph.constants[node.inputs[1]].astype(np.float32)
        shape = (-1, 1) if _inputs_axis(node) == 0 else (1, -1)
        put(node.inputs[1], weight * scales.reshape(shape), names)
    changed: dict[str, Node] = {}
    nodes = list(graph.nodes)
    for node in nodes:
        if node.name in names and renamed:
            inputs = tuple(renamed.get(name, name) for name in node.inputs)
            changed[node.name] = replace(node, inputs=inputs)
    if target.parts:
        for name, axis in target.parts.items():
            array = graph.constants[name].astype(np.float32)
            shape_of: list[int] = [1] * array.ndim
            shape_of[axis] = -1
            constants[name] = array / scales.reshape(shape_of)
    else:
        divided = fresh_name(taken, f"{target.data}.smooth")
        factor = fresh_name(taken, f"{target.data}.smooth.factor")
        constants[factor] = (1 / scales).astype(np.float32)
        product = Node(op="Mul", inputs=(target.data, factor), outputs=(divided,))
        first = next(i for i, node in enumerate(nodes) if node.name in names)
        nodes.insert(first, product)
        for name in names:
            node = changed.get(name) or next(one for one in nodes if one.name == name)
            changed[name] = replace(node, inputs=(divided, *node.inputs[1:]))
    return replace(
        graph,
        nodes=tuple(changed.get(node.name, node) for node in nodes),
        constants=constants,
    )


def _inputs_axis(node: Node) -> int:
    """Return which axis of a layer's matrix counts its inputs."""
    return 1 if node.op == "Gemm" and node.whole("transB", 0) else 0


@dataclass(frozen=True, slots=True)
class _Walk:
    """Goes from an activation back to constants whose channels are its own."""

    graph: Graph
    producers: Mapping[str, Node]
    readers: Mapping[str, Sequence[Node]]
    outside: set[str]

    def parts(self, data: str) -> tuple[dict[str, int], str]:
        """Return the constants that can give way, name -> axis; none where there are none."""
        node = self.producers[data]
        if node.op == "LayerNormalization" and node.whole("axis", -1) == -1:
            names = [name for name in node.inputs[1:] if name]
            found = {name: 0 for name in names if self._is_own(name, 1)}
            return (found, "the norm before it") if len(found) == len(names) else ({}, "")
        if (values := self._values(node)) is not None:
            found = self._linear(values)
            return found, "the values of the attention" if found else ""
        if node.op == "Relu":  # a factor above 0 goes through it
            data = node.inputs[0]
            if not self._is_alone(data) or data not in self.producers:
                return {}, ""
        found = self._linear(data)
        return found, "the layer before it" if found else ""

    def _linear(self, data: str) -> dict[str, int]:
        """Return weight and bias of the layer that makes a value."""
        node = self.producers.get(data)
        parts: dict[str, int] = {}
        if node is not None and node.op == "Add":
            bias, rest = self._constant_of(node)
            if not bias or not self._is_own(bias, 1) or not self._is_alone(rest):
                return {}
            parts[bias] = 0
            node = self.producers.get(rest)
        if node is None or node.domain or node.op not in {"MatMul", "Gemm"}:
            return {}
        if not self._is_own(node.inputs[1], 2):
            return {}
        if len(node.inputs) > 2 and node.inputs[2]:
            if not self._is_own(node.inputs[2], 1):
                return {}
            parts[node.inputs[2]] = 0
        return parts | {node.inputs[1]: 1 - _inputs_axis(node)}

    def _values(self, node: Node) -> str | None:
        """Return (B, T, D), of which heads (B, T, H, D/H) were mixed, turned and joined again."""
        if node.op != "Reshape":
            return None
        turned = self._maker(node.inputs[0], "Transpose", (0, 2, 1, 3))
        mixed = turned and self._maker(turned.inputs[0], "MatMul")
        back = mixed and self._maker(mixed.inputs[1], "Transpose", (0, 2, 1, 3))
        heads = back and self._maker(back.inputs[0], "Reshape")
        if heads is None:
            return None
        joined, split = self._sizes(node.inputs[1]), self._sizes(heads.inputs[1])
        if len(joined) != 3 or len(split) != 4 or joined[2] != split[2] * split[3] > 0:
            return None
        if min(split[2], split[3]) < 1 or not self._is_alone(heads.inputs[0]):
            return None
        return heads.inputs[0]

    def _maker(self, name: str, op: str, perm: tuple[int, ...] = ()) -> Node | None:
        node = self.producers.get(name)
        if node is None or node.op != op or node.domain or not self._is_alone(name):
            return None
        return node if node.wholes("perm") == perm else None

    def _sizes(self, name: str) -> list[int]:
        array = self.graph.constants.get(name)
        return [] if array is None else array.astype(np.int64).reshape(-1).tolist()

    def _constant_of(self, node: Node) -> tuple[str, str]:
        left, right = node.inputs
        return (left, right) if left in self.graph.constants else (right, left)

    def _is_own(self, name: str, rank: int) -> bool:
        """Whether a constant of some rank is read by one node alone."""
        array: NDArray[np.generic] | None = self.graph.constants.get(name)
        one = array is not None and array.ndim == rank and array.dtype == np.float32
        return one and len(self.readers[name]) == 1

    def _is_alone(self, name: str) -> bool:
        """Whether a value is read by one node alone, and nobody outside."""
        return len(self.readers.get(name, ())) == 1 and name not in self.outside
