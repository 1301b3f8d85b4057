"""Codes refined for correlated inputs: coordinate descent within each group.

The error of a group's products is d H d, with d the weight error and H the second moments of
the group's inputs. Rounding every weight to its nearest code minimises it only if H is diagonal.
One weight after the other takes the code that is best given all others; then the scale is refit.

Source:
    Coordinate descent on the layer-wise objective: QuantEase, arXiv:2309.01885, here restricted
    to one group at a time, so that groups are independent and memory is small.
"""

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray

__all__ = ["damped", "descend", "group_errors"]

_SWEEPS = 3
# Share of the mean diagonal that is added to it: few tokens give a singular H.
_DAMPING = 0.01


def damped(moments: FloatArray) -> FloatArray:
    """Scale each group's moments to a mean diagonal of 1 and add a little to the diagonal.

    Args:
        moments: (G, g, g), positive semidefinite.

    Returns:
        (G, g, g), positive definite.
    """
    width = moments.shape[1]
    mean = np.trace(moments, axis1=1, axis2=2) / width
    scaled = moments / np.where(mean > 0, mean, 1)[:, None, None]
    result: FloatArray = scaled + np.float32(_DAMPING) * np.eye(width, dtype=np.float32)
    return result


def group_errors(difference: FloatArray, moments: FloatArray) -> FloatArray:
    """Return d H d for each group: (G, g, n) and (G, g, g) -> (G, n)."""
    errors: FloatArray = np.einsum("gin,gin->gn", difference, moments @ difference)
    return errors


def descend(
    weight: FloatArray,
    codes: FloatArray,
    scales: FloatArray,
    low: FloatArray,
    high: FloatArray,
    moments: FloatArray,
    *,
    fixed: NDArray[np.bool_] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Improve codes and scales; never worse than what is given.

    Args:
        weight: (G, g, n) float32, n rows of G groups of g inputs.
        codes: (G, g, n) whole numbers, zero point taken off.
        scales: (G, n), exactly representable in float16.
        low: (G, n) smallest code.
        high: (G, n) largest code.
        moments: (G, g, g), positive definite.
        fixed: (G, g, n) codes that stay; None for none.

    Returns:
        Codes (G, g, n) and scales (G, n), exactly representable in float16.
    """
    best_codes, best_scales = codes, scales
    best = group_errors(weight - codes * scales[:, None, :], moments)
    codes = codes.copy()
    for _ in range(_SWEEPS):
        _sweep(weight, codes, scales, low, high, moments, fixed)
        scales = _refit(weight, codes, scales, moments)
        errors = group_errors(weight - codes * scales[:, None, :], moments)
        better = errors < best
        best = np.where(better, errors, best)
        best_scales = np.where(better, scales, best_scales)
        best_codes = np.where(better[:, None, :], codes, best_codes)
    return best_codes, best_scales


def _sweep(
    weight: FloatArray,
    codes: FloatArray,
    scales: FloatArray,
    low: FloatArray,
    high: FloatArray,
    moments: FloatArray,
    fixed: NDArray[np.bool_] | None,
) -> None:
    """Give each weight in turn its best code; `codes` changes in place."""
    gradient = moments @ (weight - codes * scales[:, None, :])  # (G, g, n)
    inverse = np.where(scales == 0, 0, 1 / np.where(scales == 0, 1, scales))  # (G, n)
    for j in range(weight.shape[1]):
        wanted = gradient[:, j] * (inverse / moments[:, j, j, None])
        wanted += codes[:, j]
        np.rint(wanted, out=wanted)
        np.clip(wanted, low, high, out=wanted)
        if fixed is not None:
            np.copyto(wanted, codes[:, j], where=fixed[:, j])
        step = (wanted - codes[:, j]) * scales  # (G, n)
        codes[:, j] = wanted
        gradient -= moments[:, :, j, None] * step[:, None, :]


def _refit(
    weight: FloatArray, codes: FloatArray, scales: FloatArray, moments: FloatArray
) -> FloatArray:
    """Return the least-squares scale for the codes, as float16 holds it, where it is better."""
    weighted = moments @ codes  # (G, g, n)
    below = np.einsum("gin,gin->gn", codes, weighted)
    above = np.einsum("gin,gin->gn", weight, weighted)
    top = float(np.finfo(np.float16).max)
    fitted = np.where(below > 0, above / np.where(below > 0, below, 1), scales)
    stored = np.clip(fitted, -top, top).astype(np.float16).astype(np.float32)
    # s^2 q H q - 2 s w H q, up to a constant: compare before and after rounding to float16.
    loss = stored * (stored * below - 2 * above)
    return np.where(loss < scales * (scales * below - 2 * above), stored, scales)
