"""Counts of values that stream by, in constant memory: bins widen as the values do."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.host.networks.graph import Array

__all__ = ["Histogram"]

_MOST_BINS: Final = 2048
# Below this no activation differs from zero; it keeps a bin's width a normal number.
_LEAST_EXPONENT: Final = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often values fell where.

    A bin's width is a power of two and its borders are multiples of the width, so making bins
    twice as wide adds neighbours up, and two histograms merge without any loss: what is counted
    depends neither on the order of the values nor on how they were cut into batches.

    Attributes:
        low: the least value, or 0.0 where all are above.
        high: the greatest value, or 0.0 where all are below.
        exponent: bin i holds values from i to (i + 1) times 2 ** exponent.
        first: number of the first bin.
        counts: (bins,) int64, of values other than 0.0.
        zeros: how many values are exactly 0.0.
    """

    low: float
    high: float
    exponent: int
    first: int
    counts: NDArray[np.int64]
    zeros: int

    @staticmethod
    def of(values: Array) -> "Histogram":
        """Count values.

        Args:
            values: float32 of any shape.

        Returns:
            Their histogram.

        Raises:
            InputError: if a value is not finite.
        """
        flat = np.asarray(values, dtype=np.float32).reshape(-1)
        if flat.size == 0:
            return Histogram(
                low=0.0, high=0.0, exponent=_LEAST_EXPONENT, first=0,
                counts=np.zeros(1, np.int64), zeros=0,
            )  # fmt: skip
        low, high = min(float(flat.min()), 0.0), max(float(flat.max()), 0.0)
        if not np.isfinite(low) or not np.isfinite(high):
            raise InputError("an example makes a value that is not finite: check how it is fed")
        exponent = _exponent(low, high)
        first, last = _bin(low, exponent), _bin(high, exponent)
        # Multiplying by a power of two is exact; so are the borders.
        scaled = flat * np.float32(2.0**-exponent)
        np.floor(scaled, out=scaled)
        counts = np.bincount(scaled.astype(np.int32) - first, minlength=last - first + 1)
        zeros = int(flat.size - np.count_nonzero(flat))
        counts[-first] -= zeros
        return Histogram(
            low=low, high=high, exponent=exponent, first=first, counts=counts, zeros=zeros
        )

    def merged(self, other: "Histogram") -> "Histogram":
        """Return the histogram of both one's values."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        exponent = max(_exponent(low, high), self.exponent, other.exponent)
        first, last = _bin(low, exponent), _bin(high, exponent)
        counts = np.zeros(last - first + 1, np.int64)
        for one in (self, other):
            wide = one.widened(exponent)
            start = wide.first - first
            counts[start : start + wide.counts.size] += wide.counts
        return Histogram(
            low=low, high=high, exponent=exponent, first=first, counts=counts,
            zeros=self.zeros + other.zeros,
        )  # fmt: skip

    def widened(self, exponent: int) -> "Histogram":
        """Return the same counts in bins of width 2 ** `exponent`, not narrower than they are."""
        shift = exponent - self.exponent
        first = self.first >> shift
        where = ((np.arange(self.counts.size) + self.first) >> shift) - first
        counts = np.zeros(int(where[-1]) + 1, np.int64)
        np.add.at(counts, where, self.counts)
        return Histogram(
            low=self.low, high=self.high, exponent=exponent, first=first, counts=counts,
            zeros=self.zeros,
        )  # fmt: skip

    def width(self) -> float:
        """Return the width of a bin."""
        return float(2.0**self.exponent)

    def centres(self) -> NDArray[np.float64]:
        """Return (bins,): the middle of each bin, or the end of all values inside it."""
        middles = np.arange(self.counts.size, dtype=np.float64) + (self.first + 0.5)
        # What a Clip has cut off lies at the end, all of it.
        return np.asarray(np.clip(middles * self.width(), self.low, self.high), dtype=np.float64)

    def total(self) -> int:
        """Return how many values were counted."""
        return int(self.counts.sum()) + self.zeros


def _exponent(low: float, high: float) -> int:
    """Return the least exponent whose bins suffice from low to high."""
    exponent = _LEAST_EXPONENT
    if high > low:
        exponent = max(exponent, int(np.floor(np.log2((high - low) / _MOST_BINS))))
    while _bin(high, exponent) - _bin(low, exponent) >= _MOST_BINS:
        exponent += 1
    return exponent


def _bin(value: float, exponent: int) -> int:
    return int(np.floor(value * 2.0**-exponent))
