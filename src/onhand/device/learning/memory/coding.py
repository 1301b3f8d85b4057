"""How fractions are kept in a memory: in 32 bits, in 16, or in 8 with the range of each array."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError

__all__ = ["RANGE", "coded", "decoded"]

RANGE: Final = ".range"
"""Ends the name of what holds the smallest and the largest value of an array kept in 8 bits."""
_LARGEST_HALF: Final = 65504.0


def coded(item: Mapping[str, np.ndarray], precision: str) -> dict[str, np.ndarray]:
    """Return an example with its fractions (float32) kept smaller; all else stays as it is.

    Args:
        item: name -> array.
        precision: "float32", "float16" or "uint8".

    Returns:
        name -> array, and name + `RANGE` -> (2,) float32 for what is kept in 8 bits.

    Raises:
        InputError: if a fraction is not finite, or is too large for 16 bits.

    Source:
        8 bits for the latents of a replay memory: Ravaglia et al. 2021, arXiv:2110.10486.
    """
    made: dict[str, np.ndarray] = {}
    for name, array in item.items():
        if array.dtype != np.float32:
            made[name] = array
            continue
        if not np.isfinite(array).all():
            raise InputError(f"an example's {name} holds a value that is not finite")
        if precision == "uint8" and array.size > 1:
            made[name], made[name + RANGE] = _bytes_of(array)
        elif precision == "float32":
            made[name] = array
        else:
            # A lone number is as small in 16 bits as its range in 8 would be.
            if array.size and np.abs(array).max() > _LARGEST_HALF:
                raise InputError(
                    f"an example's {name} holds {np.abs(array).max():g}, over {_LARGEST_HALF:g}: "
                    "keep it with precision float32"
                )
            made[name] = array.astype(np.float16)
    return made


def decoded(item: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what `coded` was given, within half a step of what was kept."""
    made: dict[str, np.ndarray] = {}
    for name, array in item.items():
        if name.endswith(RANGE):
            continue
        if array.dtype == np.uint8 and name + RANGE in item:
            low, high = (float(end) for end in item[name + RANGE])
            # float64: the step of a range near zero may be too small for float32.
            made[name] = (low + array * np.float64((high - low) / 255)).astype(np.float32)
        elif array.dtype == np.float16:
            made[name] = array.astype(np.float32)
        else:
            made[name] = array
    return made


def _bytes_of(array: FloatArray) -> tuple[np.ndarray, FloatArray]:
    """Return (...) uint8, and the range that it is spread over."""
    # float64: the difference of two float32 may be too large for float32.
    low, high = float(array.min()), float(array.max())
    step = (high - low) / 255 if high > low else 1.0
    codes = np.rint((array.astype(np.float64) - low) / step)
    return codes.clip(0, 255).astype(np.uint8), np.array([low, high], np.float32)
