"""Scales and zero points fitted to the weights alone, outliers left out of account: no text needed.

Source:
    Half-quadratic quantisation, HQQ (Badri and Shaji, 2023, mobiusml.github.io/hqq_blog): minimise
    |w - w^|_p^p, p < 1, by turns: the error is split into a sparse part, shrunk towards zero, and
    the rest, to which the zero point is fitted. Here errors are in units of a step, so that the
    result does not depend on the weights' magnitude; zero points stay whole, as the format has
    them; and scales are fitted too, by least squares.
"""

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.quantized import GroupFormat
from onhand.host.rounding import (
    Rounding,
    as_stored,
    made_rounding,
    nearest_codes,
    padded_groups,
    plain_scales,
)

__all__ = ["round_half_quadratic"]

_POWER = 0.7
_BETA, _GROWTH = 10.0, 1.01
_ROUNDS = 20


def round_half_quadratic(weight: FloatArray, form: GroupFormat) -> Rounding:
    """Round a matrix, or a block of its rows.

    Args:
        weight: (N, K) float32, finite.
        form: bits, group size, symmetric or not.

    Returns:
        The codes and the error, all inputs weighed alike; never worse than plain rounding in the
        p-norm of the error.

    Raises:
        SourceError: if a weight is too large for a float16 scale.
    """
    padded = padded_groups(weight, form)  # (N, G, g)
    scales, zeros = plain_scales(padded, form)
    best = (scales, zeros)
    least = _loss(padded, scales, zeros, form)
    beta = _BETA
    for _ in range(_ROUNDS):
        codes = nearest_codes(padded, scales, zeros, form)
        sparse = _shrunk(padded, codes, scales, beta)  # (N, G, g)
        scales = _fitted(padded - sparse, codes, scales)
        if not form.symmetric:
            steps = np.where(scales == 0, 1, scales)[:, :, None]
            shift = np.mean(codes - (padded - sparse) / steps, axis=2)
            zeros = np.clip(np.rint(zeros + shift), 0, form.top).astype(np.float32)
        loss = _loss(padded, scales, zeros, form)
        better = loss < least
        least = np.where(better, loss, least)
        best = (np.where(better, scales, best[0]), np.where(better, zeros, best[1]))
        beta *= _GROWTH
    codes = nearest_codes(padded, *best, form)
    return made_rounding(
        codes=codes,
        scales=best[0],
        zeros=best[1],
        n_inputs=weight.shape[1],
        form=form,
        squared_error=float(np.square(padded - codes * best[0][:, :, None]).sum(dtype=np.float64)),
        squared_norm=float(np.square(padded).sum(dtype=np.float64)),
    )


def _loss(
    padded: FloatArray, scales: FloatArray, zeros: FloatArray, form: GroupFormat
) -> FloatArray:
    codes = nearest_codes(padded, scales, zeros, form)
    errors = np.abs(padded - codes * scales[:, :, None])
    summed: FloatArray = np.power(errors, np.float32(_POWER)).sum(axis=2)
    return summed


def _shrunk(padded: FloatArray, codes: FloatArray, scales: FloatArray, beta: float) -> FloatArray:
    """Return the sparse part of the error: each error, less what the p-norm's proximity takes."""
    steps = np.abs(np.where(scales == 0, 1, scales))[:, :, None]
    errors = (padded - codes * scales[:, :, None]) / steps  # in steps
    size = np.maximum(np.abs(errors), np.float32(1e-8))
    kept = np.maximum(size - np.power(size, np.float32(_POWER - 1)) / np.float32(beta), 0)
    sparse: FloatArray = np.sign(errors) * kept * steps
    return sparse


def _fitted(wanted: FloatArray, codes: FloatArray, scales: FloatArray) -> FloatArray:
    """Return least-squares scales for the codes, as float16 holds them."""
    below = np.einsum("ngk,ngk->ng", codes, codes)
    above = np.einsum("ngk,ngk->ng", codes, wanted)
    top = float(np.finfo(np.float16).max)
    fitted = np.where(below > 0, above / np.where(below > 0, below, 1), scales)
    return as_stored(np.clip(fitted, -top, top))
