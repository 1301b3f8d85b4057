"""Arrays as sums of products of vectors, one vector along each axis (CP, CANDECOMP/PARAFAC).

Source:
    T. G. Kolda and B. W. Bader, Tensor decompositions and applications, SIAM Review 51 (2009),
    section 3.4: alternating least squares. For convolutions: V. Lebedev et al., arXiv:1412.6553.
"""

from collections.abc import Iterator, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError

__all__ = ["canonical_sums", "columnwise"]

Numbers = NDArray[np.float64]
# Share of the mean diagonal that is added to it: without, terms grow and cancel one another.
_RIDGE = 1e-6
_SWEEPS = 40
# Of the array's energy; a sweep that gains less is the last.
_GAIN = 3e-5


def canonical_sums(array: Numbers, ranks: Sequence[int]) -> Iterator[tuple[Numbers, ...]]:
    """Yield an array as sums of ever more terms.

    Term r is the outer product of column r of each factor. Each sum begins with the terms of the
    one before. All columns of a term have the same length, so that factors round alike.

    Args:
        array: of two axes or more, finite.
        ranks: numbers of terms, rising, from 1 on.

    Yields:
        For each rank R, a factor (size, R) for each axis; the same for the same arguments.

    Raises:
        InputError: if there are too few axes, or the ranks do not rise from 1 on.
    """
    if array.ndim < 2:
        raise InputError(f"an array {array.shape} has too few axes for sums of products")
    if any(after <= before for before, after in zip([0, *ranks], ranks, strict=False)):
        raise InputError(f"ranks are {list(ranks)}, must rise from 1 on")
    rng = np.random.default_rng(0)
    unfolded = [np.moveaxis(array, i, 0).reshape(n, -1) for i, n in enumerate(array.shape)]
    factors = [np.zeros((n, 0)) for n in array.shape]
    for rank in ranks:
        factors = [
            np.hstack([old, rng.normal(size=(len(old), rank - old.shape[1])) / np.sqrt(len(old))])
            for old in factors
        ]
        _fit(unfolded, factors)
        yield tuple(factors)


def columnwise(factors: Sequence[Numbers]) -> Numbers:
    """Return the products of columns of the same number, (product of the sizes, R).

    Args:
        factors: each (size, R).
    """
    return reduce(
        lambda left, right: (left[:, None] * right[None]).reshape(-1, left.shape[1]), factors
    )


def _fit(unfolded: Sequence[Numbers], factors: list[Numbers]) -> None:
    """Fit each factor in turn, in place, for as long as it helps."""
    energy = float(np.square(unfolded[0]).sum())
    before = np.inf
    for _ in range(_SWEEPS):
        gain = 0.0
        for axis, rows in enumerate(unfolded):
            others = [f for i, f in enumerate(factors) if i != axis]
            gram = np.prod([f.T @ f for f in others], axis=0)
            seen = rows @ columnwise(others)  # (size, R)
            damped = gram + np.eye(len(gram)) * (_RIDGE * np.trace(gram) / len(gram) + 1e-300)
            made = np.asarray(np.linalg.solve(damped, seen.T).T, dtype=np.float64)
            factors[axis] = made
            # What the terms take from the array's energy, the others being as they are now.
            gain = 2 * float((seen * made).sum()) - float(((made @ gram) * made).sum())
        error = energy - gain
        factors[:] = _evened(factors)
        if before - error <= _GAIN * energy:
            break
        before = error


def _evened(factors: Sequence[Numbers]) -> list[Numbers]:
    lengths = np.array([np.linalg.norm(f, axis=0) for f in factors])  # (axes, R)
    lengths = np.maximum(lengths, 1e-150)
    each = np.exp(np.log(lengths).mean(axis=0))  # (R,)
    return [f * (each / length) for f, length in zip(factors, lengths, strict=True)]
