"""What a network learned, put into its own weights: products of low rank, and a head, in codes.

A sum W + scale * B A is stored as W was: floats, whole numbers around zero with its own scales, or
groups of a few bits. A head that was learned stands in floats beside a network on integers; it is
stored as the old head was.

Source:
    LoRA: arXiv:2106.09685.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.lesson import Codes, Lesson
from onhand.core.quantized import GroupFormat
from onhand.device.learning.rounding import Rounded, round_weight
from onhand.host.learning.network_graph import few_bit_matrix, folded
from onhand.host.learning.network_weights import stored_codes
from onhand.host.networks.graph import Array, Graph, Node, fresh_name
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.rounding import round_matrix

__all__ = ["FoldLearned"]

_HALF, _FLOAT = np.dtype(np.float16), 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldLearned:
    """Put learned products of low rank and a learned head into the weights. See `NetworkPass`.

    Attributes:
        lesson: what was learned; its trainables are constants of the graph.
        old_heads: names of weights that the bundle stores as whole numbers.
    """

    name: ClassVar[str] = "merge"

    lesson: Lesson
    old_heads: frozenset[str] = frozenset()

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """Fold what was learned.

        Raises:
            EngineError: if ONNX Runtime cannot compute a weight.
        """
        work = _Folding(graph)
        tensors = [made.tensor for made in self.lesson.trainables.values() if made.part == "lora_A"]
        for tensor in tensors:
            names = {
                made.part: name
                for name, made in self.lesson.trainables.items()
                if made.tensor == tensor
            }
            work.fold(names["lora_A"], names["lora_B"])
        head = self.lesson.trainables.get("head.weight")
        if head is not None and head.tensor in self.old_heads:
            work.round_head("head.weight")
        return PassResult(graph=work.finished(), changed=work.changed, kept=work.kept)


@dataclass(slots=True)
class _Folding:
    """A graph while something is folded into its weights."""

    graph: Graph
    changed: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    _known: dict[str, str] = field(default_factory=dict)

    def fold(self, first: str, second: str) -> None:
        """Fold one pair of factors into each product that it adds to."""
        graph = self.graph
        readers, makers = graph.readers(), graph.producers()
        right, left = graph.constants[first], graph.constants[second]  # (R, K), (N, R)
        (crosswise,) = readers[first]
        for narrow in readers[crosswise.name]:
            (wide,) = readers[narrow.name]
            (scaled,) = readers[wide.name]
            (added,) = readers[scaled.name]
            factor = float(graph.constants[scaled.inputs[1]].reshape(()))
            change = factor * (right.T @ left.T)  # (K, N)
            plain = makers[next(name for name in added.inputs if name != scaled.name)]
            self._fold_one(plain, added, change.astype(np.float32), first)

    def _fold_one(self, plain: Node, added: Node, change: FloatArray, what: str) -> None:
        if plain.op == "MatMulNBits":
            made = self._few_bits(plain, change)
            if made is None:
                self.kept[what] = "the weight has zero points for its groups: the sum stays apart"
                return
            before, node = made
        else:
            weight = plain.inputs[1]
            turned = bool(plain.whole("transB", 0))
            before, name = self._whole(weight, change.T if turned else change)
            node = replace(plain, inputs=(plain.inputs[0], name, *plain.inputs[2:]))
        node = replace(node, outputs=added.outputs)

        def swapped(one: Node) -> Iterable[Node]:
            if one is plain:
                yield from (*before, node)
            elif one is not added:
                yield one

        self.graph = self.graph.rebuilt(swapped)
        self.changed[what] = f"folded into {plain.inputs[1]!r}"

    def _whole(self, weight: str, change: FloatArray) -> tuple[tuple[Node, ...], str]:
        """Return the nodes that make a changed weight, once, and its name."""
        if weight in self._known:  # layers may share a weight
            return (), self._known[weight]
        stored = stored_codes(self.graph, weight)
        array = folded(self.graph, [weight])[weight] + change
        if stored is None:
            name = self._constant(f"{weight}.merged", array.astype(np.float32))
            nodes: tuple[Node, ...] = ()
        else:
            nodes, name = self._decoded(f"{weight}.merged", round_weight(array, *stored))
        self._known[weight] = name
        return nodes, name

    def _decoded(self, wanted: str, made: Rounded) -> tuple[tuple[Node, ...], str]:
        codes = self._constant(f"{wanted}.codes", made.codes)
        scales = self._constant(f"{wanted}.scales", made.scales)
        zeros = self._constant(f"{wanted}.zeros", np.zeros(made.scales.shape, np.int8))
        taken = self.graph.names() | set(self.graph.constants)
        name = fresh_name(taken, wanted)
        node = Node(
            op="DequantizeLinear",
            inputs=(codes, scales, zeros),
            outputs=(name,),
            attributes={} if made.axis is None else {"axis": made.axis},
        )
        return (node,), name

    def _few_bits(self, plain: Node, change: FloatArray) -> tuple[tuple[Node, ...], Node] | None:
        """Return a product of the changed matrix in groups of a few bits; None if it has zeros."""
        if any(plain.inputs[3:5]):
            return None
        matrix = few_bit_matrix(self.graph, plain) + change  # (K, N)
        form = GroupFormat(bits=plain.whole("bits", 4), group_size=plain.whole("block_size", 32))
        wide = np.ascontiguousarray(matrix.T, np.float32)  # (N, K)
        tensor = round_matrix(wide, form, method="clip").tensor
        codes = self._constant(f"{plain.inputs[1]}.merged", tensor.codes)
        steps = self._constant(f"{plain.inputs[2]}.merged.half", tensor.scales.astype(_HALF))
        taken = self.graph.names() | set(self.graph.constants)
        widened = Node(
            op="Cast",
            inputs=(steps,),
            outputs=(fresh_name(taken, f"{plain.inputs[2]}.merged"),),
            attributes={"to": _FLOAT},
        )
        inputs = (plain.inputs[0], codes, widened.name, *plain.inputs[3:])
        return (widened,), replace(plain, inputs=inputs)

    def round_head(self, name: str) -> None:
        """Store a learned head's weight, (C, K), as whole numbers, one scale for each class."""
        (reader,) = self.graph.readers()[name]
        array, axis, value = self.graph.constants[name], 0, name
        if reader.op == "Transpose":
            array, axis, value = np.ascontiguousarray(array.T), 1, reader.name
        made = round_weight(array.astype(np.float32), Codes(bits=8, axis=axis))
        nodes, decoded = self._decoded(f"{name}.rounded", made)

        def swapped(one: Node) -> Iterable[Node]:
            if value != name and one is reader:
                yield from nodes
                return
            if value == name and one is reader:
                yield from nodes
            yield one

        self.graph = self.graph.rebuilt(swapped).renamed({value: decoded})
        self.changed[name] = f"8 bits, {made.scales.size} scales"

    def _constant(self, wanted: str, array: Array) -> str:
        taken = self.graph.names() | set(self.graph.constants)
        name = fresh_name(taken, wanted)
        constants: Mapping[str, Array] = {**self.graph.constants, name: array}
        self.graph = replace(self.graph, constants=constants)
        return name

    def finished(self) -> Graph:
        """Return the graph, without what nobody reads any more."""
        return self.graph.live()
