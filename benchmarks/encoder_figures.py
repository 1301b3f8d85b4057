"""What vectors are worth: intents by the nearest mean, pairs by their cosine; with intervals."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["area", "interval", "quartiles", "rows_of_pairs"]

_SEED, _RESAMPLES = 20260101, 1000
Doubles = NDArray[np.float64]
Wholes = NDArray[np.int64]


def area(scores: Doubles, labels: Wholes) -> float:
    """Return the area under the ROC curve.

    Args:
        scores: (N,), higher for what should be 1.
        labels: (N,) of 0 and 1, both there.

    Returns:
        The chance that a 1 has a higher score than a 0, ties counted half.
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # ties share the mean of theirs
    n_ones = int(labels.sum())
    above = float(ranks[labels == 1].sum()) - n_ones * (n_ones + 1) / 2
    return above / (n_ones * (len(labels) - n_ones))


def interval(n: int, figure: Callable[[Wholes], float]) -> tuple[float, float]:
    """Return the 95 % interval of a figure over resampled examples.

    Args:
        n: examples.
        figure: of some of them, by their numbers; a difference of two systems on the same examples
            gives a paired interval.

    Returns:
        Low and high.
    """
    rng = np.random.default_rng(_SEED)
    found = [figure(rng.integers(0, n, n)) for _ in range(_RESAMPLES)]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def quartiles(seconds: list[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return {"median": float(middle), "q1": float(low), "q3": float(high)}


def rows_of_pairs(first: NDArray[np.float32], second: NDArray[np.float32]) -> Doubles:
    """Return (N,) cosines of (N, D) vectors, row by row."""
    wide, other = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1) * np.linalg.norm(other, axis=1)
    cosines: Doubles = (wide * other).sum(axis=1) / np.maximum(lengths, 1e-12)
    return cosines
