"""Weights to integer codes: round to nearest, and importance-weighted clipping with refit.

Source:
    Full-range symmetric scales and the weighted refit s = sum(h w q) / sum(h q^2): llama.cpp's
    `make_qx_quants` (ggml-quants.c). Clipping search: AWQ's auto_clip, arXiv:2306.00978, here on
    weights, with h the mean square of each input. Then `descent`, on all second moments of a group.
"""

from dataclasses import dataclass

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import SourceError
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.host.descent import damped, descend, group_errors

__all__ = [
    "Rounding",
    "as_stored",
    "made_rounding",
    "nearest_codes",
    "padded_groups",
    "plain_scales",
    "reciprocal",
    "round_matrix",
    "searched_scales",
]

# Factors on the scale of plain rounding. Below 1 the outliers are clipped and the rest gets finer
# steps; just above 1 the extreme code moves inwards, which helps where it falls badly.
_FACTORS = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72, 0.68, 0.62, 0.56, 1.04, 1.08)
_REFITS = 3
_HALF_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """A rounded matrix and what it lost.

    Attributes:
        tensor: the codes.
        squared_error: sum of d H d, d = w - w^, over groups, or over whole rows where H is whole.
        squared_norm: the same sum of w H w.
    """

    tensor: QuantTensor
    squared_error: float
    squared_norm: float


def round_matrix(
    weight: FloatArray,
    form: GroupFormat,
    *,
    method: str,
    moments: FloatArray | None = None,
) -> Rounding:
    """Round a matrix, or a block of its rows.

    Args:
        weight: (N, K) float32, finite.
        form: bits, group size, symmetric or not.
        method: "rtn" rounds to nearest; "clip" searches scales and codes that minimise the error
            weighted by the moments (damped, see `descent`), and is never worse than "rtn" in it.
        moments: (G, g, g) second moments of each group's inputs; None weighs all inputs alike.

    Returns:
        The codes and the error. A weight of zero is zero after it: pruning has chosen it.

    Raises:
        SourceError: if a weight is too large for a float16 scale.
    """
    padded = padded_groups(weight, form)  # (N, G, g)
    scales, zeros = plain_scales(padded, form)
    codes = nearest_codes(padded, scales, zeros, form)  # (N, G, g), zero point taken off
    weighting = None if moments is None else damped(moments)
    if method == "clip":
        codes, scales, zeros = _clipped(padded, codes, scales, zeros, form, weighting)
    difference = padded - codes * scales[:, :, None]
    return made_rounding(
        codes=codes,
        scales=scales,
        zeros=zeros,
        n_inputs=weight.shape[1],
        form=form,
        squared_error=float(_weighted(difference, moments).sum(dtype=np.float64)),
        squared_norm=float(_weighted(padded, moments).sum(dtype=np.float64)),
    )


def made_rounding(
    *,
    codes: FloatArray,
    scales: FloatArray,
    zeros: FloatArray,
    n_inputs: int,
    form: GroupFormat,
    squared_error: float,
    squared_norm: float,
) -> Rounding:
    """Pack what a method found.

    Args:
        codes: (N, G, g) whole numbers, zero point taken off.
        scales: (N, G), exactly representable in float16.
        zeros: (N, G) whole numbers.
        n_inputs: K.
        form: bits, group size, symmetric or not.
        squared_error: see `Rounding`.
        squared_norm: see `Rounding`.
    """
    tensor = QuantTensor.pack(
        (codes + zeros[:, :, None]).astype(np.uint8),
        scales.astype(np.float16),
        None if form.symmetric else zeros.astype(np.uint8),
        n_inputs=n_inputs,
        format=form,
    )
    return Rounding(tensor=tensor, squared_error=squared_error, squared_norm=squared_norm)


def searched_scales(
    padded: FloatArray, h: FloatArray, form: GroupFormat
) -> tuple[FloatArray, FloatArray]:
    """Search the scale of each group that minimises the error weighted input by input.

    Args:
        padded: (N, G, g) float32.
        h: (G, g) weights of the squared errors.
        form: bits, group size, symmetric or not.

    Returns:
        Scales, exactly representable in float16, and zero points: (N, G) each.

    Raises:
        SourceError: if a weight is too large for a float16 scale.
    """
    scales, zeros = plain_scales(padded, form)
    search = _Search(padded, h[None], form, scales, zeros)
    for factor in _FACTORS[1:]:
        search.offer(scales * np.float32(factor), zeros)
        if form.symmetric:
            search.offer(scales * np.float32(-factor), zeros)
    for _ in range(_REFITS):
        search.refit()
    return search.scales, search.zeros


def _clipped(
    padded: FloatArray,
    codes: FloatArray,
    scales: FloatArray,
    zeros: FloatArray,
    form: GroupFormat,
    weighting: FloatArray | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return better codes (N, G, g), scales and zero points (N, G) than the plain ones given."""
    h = np.ones(padded.shape[1:], dtype=np.float32)
    if weighting is not None:
        h = np.ascontiguousarray(np.diagonal(weighting, axis1=1, axis2=2))  # (G, g)
    found_scales, found_zeros = searched_scales(padded, h, form)
    found = nearest_codes(padded, found_scales, found_zeros, form)
    if weighting is None:
        return found, found_scales, found_zeros
    # The search knew only the diagonal: where plain rounding is better on the whole, start there.
    better = _weighted(padded - found * found_scales[:, :, None], weighting) < _weighted(
        padded - codes * scales[:, :, None], weighting
    )
    codes = np.where(better[:, :, None], found, codes)
    scales = np.where(better, found_scales, scales)
    zeros = np.where(better, found_zeros, zeros)
    bottom = -zeros.T  # (G, N)
    columns = np.ascontiguousarray(padded.transpose(1, 2, 0))  # (G, g, N)
    fixed = columns == 0
    turned, fitted = descend(
        columns,
        np.ascontiguousarray(codes.transpose(1, 2, 0)),
        np.ascontiguousarray(scales.T),
        bottom,
        form.top + bottom,
        weighting,
        fixed=fixed if fixed.any() else None,
    )
    return turned.transpose(2, 0, 1), fitted.T, zeros


def _weighted(difference: FloatArray, moments: FloatArray | None) -> FloatArray:
    """Return d H d for each row and group: (N, G, g) -> (N, G); H is 1 for None."""
    if moments is None:
        errors: FloatArray = np.einsum("ngk,ngk->ng", difference, difference)
        return errors
    return group_errors(difference.transpose(1, 2, 0), moments).T


class _Search:
    """The best scales and zero points found so far, group by group, for a diagonal weighting."""

    def __init__(
        self,
        padded: FloatArray,
        h: FloatArray,
        form: GroupFormat,
        scales: FloatArray,
        zeros: FloatArray,
    ) -> None:
        self._padded = padded  # (N, G, g)
        self._h = h  # (1, G, g)
        self._form = form
        self.scales = scales  # (N, G), as stored
        self.zeros = zeros  # (N, G)
        self.errors = self._error(scales, zeros)  # (N, G)

    def offer(self, scales: FloatArray, zeros: FloatArray) -> None:
        """Keep the candidate in each group where it is better."""
        stored = as_stored(np.clip(scales, -_HALF_MAX, _HALF_MAX))
        errors = self._error(stored, zeros)
        better = errors < self.errors
        self.scales = np.where(better, stored, self.scales)
        self.zeros = np.where(better, zeros, self.zeros)
        self.errors = np.where(better, errors, self.errors)

    def refit(self) -> None:
        """Offer the scale that is best for the present codes: least squares in closed form."""
        codes = nearest_codes(self._padded, self.scales, self.zeros, self._form)
        weighted = self._h * codes
        above = np.einsum("ngk,ngk->ng", weighted, self._padded)
        below = np.einsum("ngk,ngk->ng", weighted, codes)
        fitted = np.where(below > 0, above / np.where(below > 0, below, 1), self.scales)
        self.offer(fitted.astype(np.float32), self.zeros)

    def _error(self, scales: FloatArray, zeros: FloatArray) -> FloatArray:
        difference = nearest_codes(self._padded, scales, zeros, self._form)
        difference *= scales[:, :, None]
        difference -= self._padded
        np.square(difference, out=difference)
        difference *= self._h
        errors: FloatArray = difference.sum(axis=2)
        return errors


def plain_scales(padded: FloatArray, form: GroupFormat) -> tuple[FloatArray, FloatArray]:
    """Return scales and zero points of round-to-nearest, as float16 holds them, each (N, G).

    Args:
        padded: (N, G, g) float32.
        form: bits, group size, symmetric or not.

    Raises:
        SourceError: if a weight is too large for a float16 scale.
    """
    scales, zeros = _plain(padded, form)
    if np.abs(scales).max(initial=0) > _HALF_MAX:
        raise SourceError("a weight is too large for a float16 scale")
    return as_stored(scales), zeros


def _plain(padded: FloatArray, form: GroupFormat) -> tuple[FloatArray, FloatArray]:
    """Return scales and zero points of round-to-nearest, each (N, G)."""
    if form.symmetric:
        place = np.abs(padded).argmax(axis=2)[:, :, None]
        extreme = np.take_along_axis(padded, place, axis=2)[:, :, 0]  # (N, G), sign kept
        # The largest weight gets the code of largest magnitude, which is negative: the full range
        # is used, and the scale takes the sign.
        scales = extreme / np.float32(-form.middle)
        return scales, np.full_like(scales, form.middle)
    low = np.minimum(padded.min(axis=2), 0)
    high = np.maximum(padded.max(axis=2), 0)
    top = np.float32(form.top)
    scales = high / top - low / top  # divided first: the difference may be beyond float32
    zeros = np.rint(-low / np.where(scales == 0, 1, scales))
    return scales, np.clip(zeros, 0, form.top).astype(np.float32)


def nearest_codes(
    padded: FloatArray, scales: FloatArray, zeros: FloatArray, form: GroupFormat
) -> FloatArray:
    """Round to the nearest codes, less their zero point.

    Args:
        padded: (N, G, g) float32.
        scales: (N, G).
        zeros: (N, G) whole numbers.
        form: bits, group size, symmetric or not.

    Returns:
        (N, G, g) whole float32 numbers.
    """
    codes: FloatArray = padded * reciprocal(scales)[:, :, None]
    np.rint(codes, out=codes)
    if form.symmetric:
        return np.clip(codes, -form.middle, form.top - form.middle, out=codes)
    return np.clip(codes, -zeros[:, :, None], form.top - zeros[:, :, None], out=codes)


def reciprocal(scales: FloatArray) -> FloatArray:
    """Return 1 / scale, and 0 where a group is all zeros or too small for float16."""
    safe = np.where(scales == 0, 1, scales)
    return np.where(scales == 0, np.float32(0), np.float32(1) / safe).astype(np.float32)


def as_stored(scales: FloatArray) -> FloatArray:
    """Round scales to what the file holds."""
    return scales.astype(np.float16).astype(np.float32)


def padded_groups(weight: FloatArray, form: GroupFormat) -> FloatArray:
    """Cut rows into groups, the last one padded with zeros: (N, K) -> (N, G, g)."""
    n, k = weight.shape
    groups = form.n_groups(k)
    wide = np.pad(weight, ((0, 0), (0, groups * form.group_size - k)))
    return wide.reshape(n, groups, form.group_size)
