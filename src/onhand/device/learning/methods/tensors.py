"""Arrays for each trainable of a lesson: read from the disk, and grown with its head."""

from collections.abc import Mapping

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson

__all__ = ["check_tensors", "like", "n_classes"]

_MOST_CLASSES = 2**20


def check_tensors(
    lesson: Lesson, arrays: Mapping[str, np.ndarray], what: str
) -> dict[str, FloatArray]:
    """Return arrays once there is one for each trainable, of its shape and finite; or none at all.

    Args:
        lesson: what is learned; a head may have more or fewer classes than it says, all alike.
        arrays: trainable's name -> value.
        what: they are, for messages.

    Raises:
        InputError: if one is missing, unknown, of another shape or type, or not finite.
    """
    if not arrays:
        return {}
    if odd := sorted(set(arrays) ^ set(lesson.trainables)):
        raise InputError(f"{what}: {odd[0]!r} is missing, or the lesson has no such trainable")
    grown: set[int] = set()
    for name, made in lesson.trainables.items():
        found = arrays[name]
        if found.dtype != np.float32 or found.ndim != len(made.shape):
            raise InputError(f"{what}: {name!r} is {found.dtype} {found.shape}, not {made.shape}")
        # Only what grows may differ, and only in its first size.
        if found.shape[made.grows :] != made.shape[made.grows :]:
            raise InputError(f"{what}: {name!r} is {found.shape}, the lesson says {made.shape}")
        if made.grows:
            grown.add(len(found))
        if not np.isfinite(found).all():
            raise InputError(f"{what}: {name!r} holds a value that is not finite")
    if len(grown) > 1 or any(not 1 <= n <= _MOST_CLASSES for n in grown):
        raise InputError(f"{what}: heads of {sorted(grown)} classes do not belong together")
    return {name: np.array(arrays[name]) for name in lesson.trainables}


def n_classes(lesson: Lesson, values: Mapping[str, np.ndarray]) -> int | None:
    """Return how many classes the head of some values has; None where nothing grows."""
    for name, made in lesson.trainables.items():
        if made.grows and name in values:
            return len(values[name])
    return None


def like(value: FloatArray, array: FloatArray) -> FloatArray:
    """Return an array with as many rows as a value that has grown, the new rows 0."""
    missing = len(value) - len(array) if value.ndim else 0
    if missing <= 0:
        return array
    return np.pad(array, ((0, missing), *((0, 0) for _ in range(array.ndim - 1))))
