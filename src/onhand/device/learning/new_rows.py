"""How the rows of new classes begin: at zero, or at the mean direction of their examples."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.base import Teachable, Values
from onhand.device.learning.class_feeds import ClassSource
from onhand.device.learning.methods.growing import grow_head, imprinted
from onhand.device.learning.training import Source

__all__ = ["NewRows", "begin_classes"]

NewRows = Literal["zeros", "imprinted"]
"""imprinted: where the head is linear in what a frozen trunk gives."""
_MOST_OF_A_CLASS: Final = 64
_BATCH: Final = 16
_MOST_SEEN: Final = 128


def begin_classes(
    teachable: Teachable,
    values: Values,
    source: Source,
    past: Source,
    *,
    width: int,
    kind: NewRows,
) -> tuple[dict[str, FloatArray], str]:
    """Return values whose head has rows for new classes, and a sentence on how they begin.

    Args:
        teachable: the lesson.
        values: of every trainable.
        source: examples, of the new classes too.
        past: examples of what is known; the middle of all is that of both.
        width: classes of the grown head.
        kind: how.

    Returns:
        The values; and what the user should know, "" for nothing.

    Raises:
        InputError: if nothing in the lesson grows, or rows are to be imprinted and cannot be.
        EngineError: if the trunk fails.
    """
    rows: Mapping[str, FloatArray] | None = None
    if kind == "imprinted":
        rows = _rows(teachable, values, source, past, width)
    grown = grow_head(teachable.lesson, values, width, rows=rows)
    how = "" if rows is None else "new classes begin at the mean direction of their examples"
    return grown, how


def _rows(
    teachable: Teachable, values: Values, source: Source, past: Source, width: int
) -> Mapping[str, FloatArray]:
    """Return the rows of new classes.

    Raises:
        InputError: if they cannot be imprinted.
    """
    lesson = teachable.lesson
    weights = [v for n, v in values.items() if lesson.trainables[n].grows and v.ndim == 2]
    why = ""
    if lesson.kind != "head" or lesson.trunk is None or not isinstance(source, ClassSource):
        why = f"a lesson of kind {lesson.kind} has no frozen trunk before a head alone"
    elif len(weights) != 1:
        why = "its head is no single matrix"
    else:
        chosen = _chosen(source.labels, first=len(weights[0]))
        latents = _latents(source, chosen)
        if latents is not None:
            some = (_latents(one, range(min(len(one), _MOST_SEEN))) for one in (source, past))
            means = [one.mean(axis=0) for one in some if one is not None]
            centre = np.mean(means, axis=0)
            labels = source.labels[chosen]
            return imprinted(lesson, values, latents, labels, width, centre=centre)
        why = "what its trunk gives is no vector for each example"
    raise InputError(f"--new-rows imprinted: {why}; take zeros")


def _latents(source: Source, numbers: Sequence[int]) -> FloatArray | None:
    """Return what the trunk gives of some examples, (N, D); None where that are no vectors."""
    found = [
        source.feeds(numbers[low : low + _BATCH], scale=1.0)["latent"]
        for low in range(0, len(numbers), _BATCH)
    ]
    if not found or any(one.ndim != 2 for one in found):
        return None
    return np.concatenate(found)


def _chosen(labels: np.ndarray, *, first: int) -> list[int]:
    """Return the numbers of some examples of each new class."""
    found: list[int] = []
    for label in sorted(set(labels.tolist())):
        if label >= first:
            found += np.flatnonzero(labels == label)[:_MOST_OF_A_CLASS].tolist()
    return found
