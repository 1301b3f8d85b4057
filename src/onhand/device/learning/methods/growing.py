"""More classes than a head had: its values, and whatever an optimizer keeps about them, grow."""

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.device.learning.base import Values

__all__ = ["grow_head", "imprinted"]


def grow_head(
    lesson: Lesson, values: Values, n_classes: int, *, rows: Values | None = None
) -> dict[str, FloatArray]:
    """Return values whose head has more classes; an optimizer's moments grow alike.

    Args:
        lesson: what is learned.
        values: name -> array: of every trainable, or of some, or what is kept for each of them.
        n_classes: of the grown head; at least as many as there are.
        rows: name -> the new classes' rows; zeros for the names that it lacks.

    Returns:
        New arrays for what grew, the old ones for the rest.

    Raises:
        InputError: if nothing in the lesson grows, there would be fewer classes, or rows do not
            fit.
    """
    if not any(made.grows for made in lesson.trainables.values()):
        raise InputError(
            f"a lesson of kind {lesson.kind} without its head learns no new classes: build with "
            "--learnable head"
        )
    grown = dict(values)
    for name, value in values.items():
        if not lesson.trainables[name].grows:
            continue
        missing = n_classes - len(value)
        if missing < 0:
            raise InputError(f"{name!r} has {len(value)} classes, {n_classes} are fewer")
        shape = (missing, *value.shape[1:])
        new = np.zeros(shape, np.float32) if rows is None or name not in rows else rows[name]
        if new.shape != shape:
            raise InputError(f"the new rows of {name!r} are {new.shape}, expected {shape}")
        grown[name] = np.concatenate([value, new]).astype(np.float32)
    return grown


def imprinted(
    lesson: Lesson,
    values: Values,
    latents: FloatArray,
    labels: np.ndarray,
    n_classes: int,
    *,
    centre: FloatArray | None = None,
) -> dict[str, FloatArray]:
    """Return rows for new classes of a linear head: the mean directions of their examples.

    Each row is as long as the old rows are on average; its bias is the mean of the old ones. With
    a centre, directions are those from it, and there a new class scores as old ones on average.

    Args:
        lesson: of a head.
        values: of every trainable, not grown yet.
        latents: (B, D) of examples of the new classes.
        labels: (B,) their classes, from the first new one to `n_classes` - 1.
        n_classes: of the grown head.
        centre: (D,) the mean of all latents, which of most trunks is far from zero; None for zero.

    Returns:
        Name -> rows, for `grow_head`.

    Raises:
        InputError: if the head is not linear in the latents, or a new class has no example.

    Source:
        Weight imprinting: Qi et al. 2018, arXiv:1712.07136.
    """
    growing = {name: values[name] for name, made in lesson.trainables.items() if made.grows}
    weights = [name for name, value in growing.items() if value.ndim == 2]
    if len(weights) != 1 or latents.ndim != 2 or latents.shape[1] != growing[weights[0]].shape[1]:
        raise InputError(f"latents {latents.shape}: imprinting needs a linear head of their width")
    weight = growing[weights[0]]
    # A head that has no class yet, or rows of zeros, says nothing of their length.
    length = (float(np.linalg.norm(weight, axis=1).mean()) if len(weight) else 0.0) or 1.0
    middle = np.zeros(latents.shape[1], np.float32) if centre is None else centre
    latents = latents - middle
    units = latents / np.maximum(np.linalg.norm(latents, axis=1, keepdims=True), 1e-12)
    rows = np.zeros((n_classes - len(weight), weight.shape[1]), np.float32)
    for i in range(len(rows)):
        mine = units[np.asarray(labels) == len(weight) + i]
        if not len(mine):
            raise InputError(f"new class {len(weight) + i} has no example to be imprinted from")
        mean = mine.mean(axis=0)
        rows[i] = mean * (length / max(float(np.linalg.norm(mean)), 1e-12))
    made: dict[str, FloatArray] = {weights[0]: rows}
    usual = weight.mean(axis=0) if len(weight) else np.zeros_like(middle)
    shift = (usual - rows) @ middle  # (new classes,)
    for name, bias in growing.items():
        if name != weights[0]:
            mean = float(bias.mean()) if bias.size else 0.0
            shifted = mean + shift.reshape(-1, *[1] * (bias.ndim - 1))
            made[name] = np.broadcast_to(shifted, (len(rows), *bias.shape[1:])).astype(np.float32)
    return made
