"""Integers for activations and weights: scales, zero points and rounding."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import ShapeError

__all__ = ["Grid", "WeightCodes", "least_scales", "round_weight", "shaped_for"]

Floats = NDArray[np.float32]
# A bias is int32 in units of both scales; half of its range is left for the products' sum.
_MOST_BIAS = 2.0**30
_CLIPS = 30
# A channel of zeros needs some scale; products of scales must not vanish in float32.
_LEAST_PEAK = np.float32(1e-20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The 256 values that an activation may have: scale * (code - zero).

    Attributes:
        scale: step between neighbours; a float32.
        zero: code of 0.0.
        signed: int8 instead of uint8.
    """

    scale: float
    zero: int
    signed: bool = False

    @staticmethod
    def of(low: float, high: float, *, symmetric: bool) -> "Grid":
        """Return the grid from `low` to `high`; it holds 0.0 exactly.

        Args:
            low: least value to be held.
            high: greatest.
            symmetric: int8 with zero point 0; else uint8 with any.

        Returns:
            The grid.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if symmetric:
            scale = _scale(max(-low, high) / 127)
            return Grid(scale=scale, zero=0, signed=True)
        scale = _scale((high - low) / 255)
        zero = int(np.clip(np.rint(-low / scale), 0, 255))
        return Grid(scale=scale, zero=zero)

    def bounds(self) -> tuple[int, int]:
        """Return the least and the greatest code."""
        return (-128, 127) if self.signed else (0, 255)

    def low(self) -> float:
        """Return the least value."""
        return (self.bounds()[0] - self.zero) * self.scale

    def high(self) -> float:
        """Return the greatest value."""
        return (self.bounds()[1] - self.zero) * self.scale

    def rounded(self, values: Floats) -> Floats:
        """Return each value's nearest neighbour on the grid, as QuantizeLinear finds it."""
        least, most = self.bounds()
        codes = np.rint(values / np.float32(self.scale))
        codes = np.clip(codes, least - self.zero, most - self.zero)
        return np.asarray(codes * np.float32(self.scale), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightCodes:
    """A rounded weight: scale * code, without a zero point.

    Attributes:
        codes: int8, of the weight's shape.
        scales: (channels,) float32, or () where all channels share one.
        axis: of the channels.
        bits: width of a code.
    """

    codes: NDArray[np.int8]
    scales: Floats
    axis: int
    bits: int = 8

    def values(self) -> Floats:
        """Return what the codes stand for."""
        return self.codes.astype(np.float32) * shaped_for(self.scales, self.codes.ndim, self.axis)


def round_weight(
    weight: Floats, *, axis: int, bits: int, per_channel: bool, least: Floats | None = None
) -> WeightCodes:
    """Round a weight to signed integers, symmetric around zero.

    With 8 bits the greatest value sets the scale; below, the scale with the least squared error
    among some that clip.

    Args:
        weight: float32 of any shape.
        axis: of the output channels.
        bits: width of a code, 2 to 8.
        per_channel: one scale for each channel; else one for all.
        least: (channels,) the least scales that may be used; None for any.

    Returns:
        Codes within +-(2**(bits - 1) - 1), and scales.

    Raises:
        ShapeError: if the weight has no such axis.
    """
    if not 0 <= axis < weight.ndim:
        raise ShapeError(f"weight of shape {weight.shape} has no axis {axis}")
    top = 2 ** (bits - 1) - 1
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)  # (N, K)
    flat = rows if per_channel else rows.reshape(1, -1)  # (N, K) or (1, N K)
    scales = np.maximum(np.abs(flat).max(axis=1), _LEAST_PEAK) / np.float32(top)  # (N,)
    if bits < 8:
        scales = _best_clip(flat, scales, top)
    if least is not None:
        scales = np.maximum(scales, least if per_channel else least.max())
    scales = scales.astype(np.float32)
    given = scales if per_channel else scales.reshape(())
    codes = np.rint(weight / shaped_for(given, weight.ndim, axis))
    return WeightCodes(
        codes=np.clip(codes, -top, top).astype(np.int8), scales=given, axis=axis, bits=bits
    )


def least_scales(bias: Floats | None, input_scale: float) -> Floats | None:
    """Return the least scales of a weight with which its bias still fits 32 bits."""
    if bias is None:
        return None
    return np.asarray(np.abs(bias) / (_MOST_BIAS * input_scale), dtype=np.float32)


def shaped_for(scales: Floats, n_dims: int, axis: int) -> Floats:
    """Return scales as an array that broadcasts along `axis` of `n_dims` axes."""
    if scales.ndim == 0:
        return scales
    return scales.reshape([-1 if i == axis else 1 for i in range(n_dims)])


def _best_clip(rows: Floats, scales: Floats, top: int) -> Floats:
    best, found = scales, np.full(scales.shape, np.inf)
    for factor in np.linspace(1.0, 0.4, _CLIPS, dtype=np.float32):
        tried = scales * factor
        codes = np.clip(np.rint(rows / tried[:, None]), -top, top)
        error = np.square(rows - codes * tried[:, None]).sum(axis=1)
        best = np.where(error < found, tried, best)
        found = np.minimum(error, found)
    return best


def _scale(step: float) -> float:
    """Return a step as float32 holds it; any will do where all values are zero."""
    return float(np.float32(step)) if step > 1e-30 else 1.0
