"""Learned weights as the integers that the network that answers keeps them in.

What is learned is float32, so that small steps add up. What answers is rounded as the bundle's own
weights are: whole numbers around zero, a scale for each output channel or one for all. A scale that
the bundle had stays where it serves, so that a weight that nobody changed keeps its code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.errors import BundleCorrupt
from onhand.core.lesson import Codes, Lesson
from onhand.device.learning.base import Values

__all__ = ["Rounded", "round_weight", "rounded_values", "rounded_weights", "scale_name"]

_TOP: Final = 127
# A scale is kept while its codes use at least this share of their range.
_LEAST_USED: Final = 0.5


@dataclass(frozen=True, slots=True)
class Rounded:
    """A weight in integers.

    Attributes:
        codes: int8, of the weight's shape.
        scales: float32, () or (C,).
        axis: that the scales lie along; None for one.
    """

    codes: NDArray[np.int8]
    scales: FloatArray
    axis: int | None

    def floats(self) -> FloatArray:
        """Return the numbers that the codes stand for."""
        found: FloatArray = self.codes.astype(np.float32) * _along(
            self.scales, self.axis, self.codes.ndim
        )
        return found


def scale_name(trainable: str) -> str:
    """Return the name of a trainable's scales in the file of its starting value."""
    return f"scale.{trainable}"


def round_weight(weight: FloatArray, codes: Codes, known: FloatArray | None = None) -> Rounded:
    """Round a weight to integers, to the nearest.

    Args:
        weight: float32, finite.
        codes: how.
        known: (C,) or () float32, the scales that it had; fewer than there are channels now, where
            channels were added. None for none.

    Returns:
        The integers. A scale is the known one if the channel's largest weight fits into it and
        uses half of its range; else that largest weight divided by 127.
    """
    axis = codes.axis
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    peaks = np.asarray(np.abs(weight).max(axis=others), dtype=np.float32)  # (C,) or ()
    # A channel of zeros has peak 0; any positive scale gives codes of 0.
    scales = np.where(peaks > 0, peaks / np.float32(_TOP), np.float32(1.0)).astype(np.float32)
    if known is not None:
        old = np.zeros_like(scales)
        if scales.ndim:
            old[: known.size] = known.reshape(-1)[: scales.size]
        else:
            old = known.reshape(())
        high, low = weight.max(axis=others), weight.min(axis=others)
        fits = (high <= (_TOP + 0.5) * old) & (low >= -(_TOP + 1.5) * old)
        serves = fits & (old > 0) & (peaks >= _LEAST_USED * _TOP * old)
        scales = np.where(serves, old, scales).astype(np.float32)
    found = np.rint(weight / _along(scales, axis, weight.ndim))
    whole = np.clip(found, -_TOP - 1, _TOP).astype(np.int8)
    return Rounded(codes=whole, scales=scales, axis=axis)


def _along(scales: FloatArray, axis: int | None, rank: int) -> FloatArray:
    if axis is None:
        return scales.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return scales.reshape(shape)


def rounded_weights(
    lesson: Lesson, values: Values, scales: Mapping[str, FloatArray]
) -> dict[str, Rounded]:
    """Return the weights that answer as integers.

    Args:
        lesson: what they are.
        values: of every trainable.
        scales: trainable's name -> its starting value's scales.

    Raises:
        BundleCorrupt: if scales do not fit.
    """
    found: dict[str, Rounded] = {}
    for name, made in lesson.trainables.items():
        if made.codes is None:
            continue
        known = scales.get(name)
        axis = made.codes.axis
        size = 1 if axis is None else made.shape[axis]
        if known is not None and (known.size != size or not (known > 0).all()):
            raise BundleCorrupt(f"the scales of {name!r} are {known.shape}, it is {made.shape}")
        found[name] = round_weight(values[name], made.codes, known)
    return found


def rounded_values(
    lesson: Lesson, values: Values, scales: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Return the values that answer: those that are integers there rounded, the others as they are.

    Args:
        lesson: what they are.
        values: of every trainable.
        scales: trainable's name -> its starting value's scales.

    Raises:
        BundleCorrupt: if scales do not fit.
    """
    rounded = rounded_weights(lesson, values, scales)
    return dict(values) | {name: made.floats() for name, made in rounded.items()}
