"""From where to where an activation's integers reach, judged from a histogram."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.host.networks.quantization.grid import Grid
from onhand.host.networks.quantization.histogram import Histogram

__all__ = ["METHODS", "choose_range", "squared_error"]

METHODS: Final = ("min-max", "percentile", "mse", "entropy")
_STEPS: Final = 48
_LEAST_SHARE: Final = 0.25
Judge = Callable[[Histogram, Grid], float]


def choose_range(
    histogram: Histogram, method: str, *, symmetric: bool, percentile: float
) -> tuple[float, float]:
    """Choose how far an activation's grid reaches.

    Args:
        histogram: of its values.
        method: "min-max" keeps all; "percentile" leaves out as much at either end; "mse" has the
            least squared error of rounding and clipping; "entropy" the least Kullback-Leibler
            divergence of the rounded values from the true ones.
        symmetric: the grid will be symmetric around zero.
        percentile: values kept, in percent, for "percentile".

    Returns:
        Least and greatest value.

    Raises:
        InputError: if there is no such method.

    Source:
        Entropy: Migacz, 8-bit inference with TensorRT, GTC 2017.
    """
    if method == "min-max" or histogram.total() == histogram.zeros:
        return histogram.low, histogram.high
    if method == "percentile":
        return _percentile(histogram, percentile)
    if method not in METHODS:
        raise InputError(f"range {method!r} is unknown; known: {', '.join(METHODS)}")
    judge = squared_error if method == "mse" else _divergence
    return _search(histogram, judge, symmetric=symmetric)


def _percentile(histogram: Histogram, percentile: float) -> tuple[float, float]:
    counts = histogram.counts.astype(np.float64)
    counts[-histogram.first] += histogram.zeros
    share = np.cumsum(counts) / counts.sum()
    tail = 1 - percentile / 100
    low_bin = int(np.searchsorted(share, tail, side="right"))
    high_bin = int(np.searchsorted(share, 1 - tail, side="left"))
    width = histogram.width()
    low = (histogram.first + low_bin) * width
    high = (histogram.first + min(high_bin, counts.size - 1) + 1) * width
    return max(min(low, 0.0), histogram.low), min(max(high, 0.0), histogram.high)


def _search(histogram: Histogram, judge: Judge, *, symmetric: bool) -> tuple[float, float]:
    """Shrink both ends, one after the other, as long as that helps."""
    shares = np.linspace(1.0, _LEAST_SHARE, _STEPS)
    low, high = histogram.low, histogram.high
    if symmetric:
        reach = max(-low, high)
        costs = [judge(histogram, Grid.of(-reach * s, reach * s, symmetric=True)) for s in shares]
        reach *= float(shares[int(np.argmin(costs))])
        return max(low, -reach), min(high, reach)
    for _ in range(2):
        for end in ("high", "low"):
            whole = histogram.high if end == "high" else histogram.low
            if whole == 0.0:
                continue
            tried = [
                (low, whole * float(s)) if end == "high" else (whole * float(s), high)
                for s in shares
            ]
            costs = [judge(histogram, Grid.of(a, b, symmetric=False)) for a, b in tried]
            low, high = tried[int(np.argmin(costs))]
    return low, high


def squared_error(histogram: Histogram, grid: Grid) -> float:
    """Return the sum of squares of what a grid changes, over all values that were counted."""
    centres = histogram.centres()
    error = centres - _nearest(centres, grid)
    return float(np.square(error) @ histogram.counts)


def _divergence(histogram: Histogram, grid: Grid) -> float:
    """Return the divergence of the values as rounded, spread over each code's bins, from the true.

    What is clipped counts as probability that the ends take over, as in the source.
    """
    centres, counts = histogram.centres(), histogram.counts.astype(np.float64)
    inside = (centres >= grid.low()) & (centres <= grid.high())
    if not inside.any():
        return float("inf")
    codes = np.rint(centres[inside] / grid.scale).astype(np.int64)
    codes -= codes.min()
    true = counts[inside].copy()
    filled = true > 0
    per_code = np.bincount(codes, weights=true)
    bins = np.bincount(codes, weights=filled.astype(np.float64))
    spread = np.where(filled, per_code[codes] / np.maximum(bins[codes], 1), 0.0)
    below = counts[: int(np.argmax(inside))].sum()
    above = counts[inside.size - int(np.argmax(inside[::-1])) :].sum()
    true[0] += below
    true[-1] += above
    true, spread = true / true.sum(), spread / max(spread.sum(), 1.0)
    used = true > 0
    floor = 1e-9
    return float(np.sum(true[used] * np.log(true[used] / np.maximum(spread[used], floor))))


def _nearest(values: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    least, most = grid.bounds()
    codes = np.clip(np.rint(values / grid.scale), least - grid.zero, most - grid.zero)
    return codes * grid.scale
