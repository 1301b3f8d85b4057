"""The exponential function, to the same bits on every processor."""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["exponentials"]

# exp(x) = 2^k exp(r), |r| at most ln(2) / 2, by Taylor's series: sums and products alone, so that
# every processor and the native part give the same bits, which exp() of libraries do not.
_LOWEST = -708.0  # below it, 0
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_SERIES = [1 / math.factorial(i) for i in range(13, -1, -1)]
_PIECE = 4096  # numbers that stay in the first caches


def exponentials(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exp(x) of (N,) numbers up to 0, to 2 units in the last place; 0 below -708."""
    result = np.empty_like(x)
    for start in range(0, len(x), _PIECE):
        part = np.maximum(x[start : start + _PIECE], _LOWEST)
        powers = np.rint(part * _LOG2_E)
        part -= powers * _LN2_HIGH
        part -= powers * _LN2_LOW
        sums = np.full_like(part, _SERIES[0])
        for term in _SERIES[1:]:
            sums *= part
            sums += term
        # A double's exponent, made of its bits.
        sums *= ((powers.astype(np.int64) + 1023) << 52).view(np.float64)
        result[start : start + _PIECE] = sums
    result[x < _LOWEST] = 0
    return result
