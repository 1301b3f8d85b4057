"""Gradients of look-ups: what was read several times gets the sum."""

from collections.abc import Sequence
from typing import Final

from onnx import NodeProto

from onhand.core.errors import SourceError
from onhand.host.learning.rules import Gradients, Rules, only, whole_of
from onhand.host.learning.tape import Tape, called

__all__ = ["RULES"]


def _gather(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Add each slice of the gradient to the slice that it was read from."""
    x, indices = node.input
    passed, rank = only(node, given), len(tape.shape(x))
    axis = whole_of(node, "axis", 0) % rank
    depth = len(tape.shape(indices))
    places = tape.add("Unsqueeze", indices, tape.integers([-1]))
    if axis == 0:
        return [_scattered(tape, tape.zeros(x), places, passed), None]
    # The looked-up axes go first for the scattering, and the result's axis back to its place.
    looked = list(range(axis, axis + depth))
    others = [a for a in range(rank - 1 + depth) if a not in looked]
    moved = tape.add("Transpose", passed, perm=[*looked, *others]) if depth else passed
    order = [axis, *[a for a in range(rank) if a != axis]]
    zeros = tape.add("Transpose", tape.zeros(x), perm=order)
    scattered = _scattered(tape, zeros, places, moved)
    back = [order.index(a) for a in range(rank)]
    return [tape.add("Transpose", scattered, perm=back), None]


def _scattered(tape: Tape, zeros: str, places: str, passed: str) -> str:
    return tape.add("ScatterND", zeros, places, passed, reduction="add")


def _gather_elements(
    tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]
) -> Gradients:
    x, indices = node.input
    inputs = [tape.zeros(x), indices, only(node, given)]
    axis = whole_of(node, "axis", 0)
    return [tape.add("ScatterElements", *inputs, axis=axis, reduction="add"), None]


def _gather_places(
    tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]
) -> Gradients:
    """GatherND.

    Raises:
        SourceError: if it has batch axes.
    """
    x, places = node.input
    if whole_of(node, "batch_dims", 0):
        raise SourceError(f"{called(node)}: batch_dims has no rule")
    return [_scattered(tape, tape.zeros(x), places, only(node, given)), None]


RULES: Final[Rules] = {
    ("", "Gather"): _gather,
    ("", "GatherElements"): _gather_elements,
    ("", "GatherND"): _gather_places,
}
