"""Attention that is written as products, transposes and a softmax, as one of ONNX Runtime's."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from onhand.host.networks.fusing.activations import MICROSOFT
from onhand.host.networks.fusing.patterns import Rewritten
from onhand.host.networks.graph import Graph, Node, Value

__all__ = ["fuse_attention"]

_SPLIT: Final = (0, 2, 1, 3)  # (B, T, H, D) to (B, H, T, D), and back
_KEYS: Final = (0, 2, 3, 1)  # (B, T, H, D) to (B, H, D, T)
_TURNED: Final = (0, 1, 3, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heads:
    """A value (B, T, H D) that was split into heads, (B, H, T, D), and multiplied by a factor."""

    source: str
    n_heads: int
    width: int
    factor: float


def fuse_attention(graph: Graph, types: Mapping[str, Value]) -> Rewritten:
    """Put softmax(Q K^T scale) V of several heads into MultiHeadAttention of ONNX Runtime.

    It never holds all scores at once, and so gains the more the longer a sequence is. With a mask
    it does, and gains nothing that could be measured: such a group stays.

    Args:
        graph: the graph.
        types: of its values.

    Returns:
        The graph; each softmax between products that stays is kept, with the reason.

    Source:
        FlashAttention, arXiv:2205.14135, as ONNX Runtime has it on processors.
    """
    finder = _Finder(graph, types)
    placed: dict[str, Node] = {}
    kept: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == "Softmax" and finder.is_between_products(node):
            found = finder.fused(node)
            if isinstance(found, str):
                kept[node.name] = found
            else:
                placed[found.name] = found
    if not placed:
        return Rewritten(graph=graph, kept=kept)
    made = graph.rebuilt(lambda node: (placed.get(node.name, node),)).live()
    before = len(graph.nodes) - len(made.nodes)
    what = f"MultiHeadAttention of {before // len(placed) + 1} operators"
    return Rewritten(graph=made, changed=dict.fromkeys(placed, what), kept=kept)


class _Finder:
    """Follows values back and forth in one graph."""

    def __init__(self, graph: Graph, types: Mapping[str, Value]) -> None:
        self._graph, self._types = graph, types
        self._producers, self._readers = graph.producers(), graph.readers()
        self._outputs = set(graph.output_names())

    def is_between_products(self, softmax: Node) -> bool:
        """Whether a product reads it, and a product stands somewhere in what it reads."""
        after = self._readers.get(softmax.name, [])
        source, _ = self._unscaled(self._unmasked(softmax.inputs[0])[0])
        before = self._producers.get(source)
        return (
            any(node.op == "MatMul" and node.inputs[0] == softmax.name for node in after)
            and before is not None
            and before.op == "MatMul"
        )

    def fused(self, softmax: Node) -> Node | str:
        """Return the operator that does all the work, or why there is none."""
        value = self._types.get(softmax.name)
        rank = 4 if value is None else len(value.shape)
        if softmax.whole("axis", -1) not in {-1, rank - 1} or rank != 4:
            return "its softmax is not over the last of four axes"
        scores, is_masked = self._unmasked(softmax.inputs[0])
        if is_masked:
            return "with a mask ONNX Runtime's operator is not faster"
        scaled, scale = self._unscaled(scores)
        mixed = self._next(softmax.name, "MatMul")
        back = None if mixed is None else self._next(mixed.name, "Transpose")
        last = None if back is None else self._next(back.name, "Reshape")
        if mixed is None or back is None or last is None or back.wholes("perm") != _SPLIT:
            return "what it gives is read by others, or is not joined to (B, T, D)"
        product = self._producers[scaled]
        query, key = product.inputs
        heads = [self._heads(query), self._heads(key, is_key=True), self._heads(mixed.inputs[1])]
        found = [h for h in heads if h is not None]
        if len(found) < len(heads) or found[2].factor != 1:
            return "queries, keys or values are no heads of (B, T, D)"
        if len({h.n_heads for h in found}) > 1 or found[0].width != found[1].width:
            return "its heads differ in number or width"
        joined = self._types.get(last.name)
        if joined is None or len(joined.shape) != 3:
            return "the sizes of what it gives are not known"
        if joined.shape[2] != found[2].n_heads * found[2].width:
            return "what it gives is not joined to (B, T, D)"
        return replace(
            last,
            op="MultiHeadAttention",
            domain=MICROSOFT,
            inputs=tuple(h.source for h in found),
            attributes={
                "num_heads": found[0].n_heads,
                "scale": scale * found[0].factor * found[1].factor,
            },
        )

    def _heads(self, name: str, *, is_key: bool = False) -> _Heads | None:
        """Return what (B, H, T, D), or of keys (B, H, D, T), was made of."""
        name, factor = self._unscaled(name)
        turn = self._producers.get(name)
        if turn is None or turn.op != "Transpose":
            return None
        perm = turn.wholes("perm")
        if is_key and perm == _TURNED:
            found = self._heads(turn.inputs[0])
            return None if found is None else replace(found, factor=factor * found.factor)
        split = self._producers.get(turn.inputs[0])
        if perm != (_KEYS if is_key else _SPLIT) or split is None or split.op != "Reshape":
            return None
        whole, parts = self._types.get(split.inputs[0]), self._types.get(split.name)
        if whole is None or parts is None or len(whole.shape) != 3 or len(parts.shape) != 4:
            return None
        H, D = parts.shape[2:]
        if not isinstance(H, int) or not isinstance(D, int) or whole.shape[2] != H * D:
            return None
        if whole.dtype != np.float32 or not self._keeps_rows(split, whole, parts):
            return None
        return _Heads(source=split.inputs[0], n_heads=H, width=D, factor=factor)

    def _keeps_rows(self, split: Node, whole: Value, parts: Value) -> bool:
        """Whether a Reshape leaves batch and time as they are."""
        target = self._graph.constants.get(split.inputs[1])
        if target is not None and list(target[:2]) == [0, 0] and not split.whole("allowzero", 0):
            return True
        return None not in whole.shape[:2] and whole.shape[:2] == parts.shape[:2]

    def _next(self, name: str, op: str) -> Node | None:
        """Return the one reader of a value, of this operator, that reads it first."""
        after = self._readers.get(name, [])
        if name in self._outputs or len(after) != 1 or after[0].op != op:
            return None
        return after[0] if after[0].inputs[0] == name else None

    def _unmasked(self, name: str) -> tuple[str, bool]:
        """Return the scores before an addition, and whether there is one."""
        node = self._producers.get(name)
        if node is None or node.op not in {"Add", "Where"}:
            return name, False
        given = node.inputs[1:] if node.op == "Where" else node.inputs
        for part in given:
            source = self._producers.get(self._unscaled(part)[0])
            if source is not None and source.op == "MatMul":
                return part, True
        return name, False

    def _unscaled(self, name: str) -> tuple[str, float]:
        """Return what a value is a multiple of, and the factor."""
        node = self._producers.get(name)
        if node is None or node.op not in {"Div", "Mul"}:
            return name, 1.0
        for at in (0, 1) if node.op == "Mul" else (1,):
            number = self._graph.constants.get(node.inputs[at])
            if number is not None and number.size == 1 and number.dtype == np.float32:
                factor = float(number.reshape(()))
                source, inner = self._unscaled(node.inputs[1 - at])
                return source, inner * (factor if node.op == "Mul" else 1 / factor)
        return name, 1.0
