"""Which weights of a matrix become zero, and how the others make good for them.

Rows are outputs and do not depend on each other, so a large matrix can be taken block by block.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError, SourceError
from onhand.core.sparse import Pattern

__all__ = ["METHODS", "Repair", "Share", "cubic_ratios", "prune_rows", "zero_share"]

METHODS: Final = ("sparsegpt", "wanda", "magnitude")
"""Ways to choose; the first two need the inputs' second moments."""
# Share of the mean diagonal that is added to it: inputs that the examples hardly ever move.
_DAMPING = 0.01
_BLOCK = 128


def cubic_ratios(ratio: float, steps: int, *, first: float = 0.0) -> tuple[float, ...]:
    """Return the share of zeros after each of some steps: many early, few late.

    Args:
        ratio: after the last step, from 0 to 1.
        steps: at least 1; between them a network is trained.
        first: before the first step.

    Returns:
        (steps,) rising shares.

    Source:
        To prune, or not to prune, arXiv:1710.01878, equation 1.
    """
    return tuple(ratio + (first - ratio) * (1 - i / steps) ** 3 for i in range(1, steps + 1))


@dataclass(frozen=True, slots=True)
class Share:
    """How many weights of each row become zero.

    Attributes:
        ratio: from 0 to below 1.
        pattern: at most N of M weights in a row stay; None for any. It stands above the ratio.
    """

    ratio: float = 0.5
    pattern: Pattern | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise InputError(f"ratio is {self.ratio}, must be from 0 to below 1")

    def why_not(self, n_inputs: int) -> str | None:
        """Say why rows of so many weights cannot follow the pattern, or None."""
        if self.pattern is not None and n_inputs % self.pattern.m:
            return f"{n_inputs} inputs are no multiple of {self.pattern.m}"
        return None

    def stays(self, scores: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return where weights stay, for (N, K) scores of which the lowest go first."""
        n, k = scores.shape
        if self.pattern is None:
            return _without_lowest(scores, round(self.ratio * k))
        blocks = scores.reshape(-1, self.pattern.m)
        return _without_lowest(blocks, self.pattern.m - self.pattern.n).reshape(n, k)


def _without_lowest(scores: NDArray[np.floating], n: int) -> NDArray[np.bool_]:
    stays = np.ones(scores.shape, dtype=np.bool_)
    if n:
        np.put_along_axis(stays, np.argsort(scores, axis=1, kind="stable")[:, :n], False, axis=1)
    return stays


@dataclass(frozen=True, slots=True)
class Repair:
    """What later columns need to make good for earlier ones.

    Attributes:
        factor: (K, K) float32, upper: U^T U is the inverse of the inputs' second moments.
    """

    factor: FloatArray

    @classmethod
    def of(cls, moments: FloatArray) -> "Repair":
        """Factorise the mean second moments of the inputs, (K, K).

        Raises:
            SourceError: if they are not finite, or no damping makes them definite.
        """
        if not np.isfinite(moments).all():
            raise SourceError("the second moments of a matrix's inputs are not finite")
        mean = float(np.trace(moments, dtype=np.float64)) / len(moments)
        whole = moments.astype(np.float64) / (mean if mean > 0 else 1.0)
        whole[np.diag_indices_from(whole)] += _DAMPING
        try:
            factor = np.linalg.cholesky(np.linalg.inv(whole), upper=True)
        except np.linalg.LinAlgError as error:
            raise SourceError(f"the second moments of a matrix's inputs: {error}") from error
        return cls(factor.astype(np.float32))


def prune_rows(
    weight: FloatArray,
    share: Share,
    *,
    method: str,
    moments: FloatArray | None = None,
    repair: Repair | None = None,
) -> FloatArray:
    """Make weights zero, the same share of each row.

    Args:
        weight: (N, K) float32.
        share: how many; a pattern must fit K.
        method: "magnitude" takes the smallest weights; "wanda" those that, times the size of their
            inputs, are smallest; "sparsegpt" those that cost least once the later columns have
            made good for them, which they then do.
        moments: (K, K) mean second moments of the inputs, or (K,) mean squares for "wanda".
        repair: of the moments, where many blocks of rows share it; "sparsegpt" makes it itself
            otherwise.

    Returns:
        (N, K) float32.

    Raises:
        InputError: if the method is unknown, or lacks the moments, or the pattern does not fit.
        SourceError: if the moments are not finite.

    Source:
        Wanda, arXiv:2306.11695; SparseGPT, arXiv:2301.00774, here with the same share for each row
        of a block of columns.
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}, must be one of {', '.join(METHODS)}")
    if why := share.why_not(weight.shape[1]):
        raise InputError(f"a weight of shape {weight.shape}: {why}")
    if method == "magnitude":
        return weight * share.stays(np.abs(weight))
    if moments is None:
        raise InputError(f"{method!r} needs the inputs' second moments: give examples")
    if method == "wanda":
        squares = np.diagonal(moments) if moments.ndim == 2 else moments
        return weight * share.stays(np.abs(weight) * np.sqrt(np.maximum(squares, 0)))
    return _repaired(weight, share, repair or Repair.of(moments))


def _repaired(weight: FloatArray, share: Share, repair: Repair) -> FloatArray:
    rest = weight.T.copy()  # (K, N): a column is contiguous
    factor, K = repair.factor, len(rest)
    width = _BLOCK if share.pattern is None else _BLOCK // share.pattern.m * share.pattern.m
    done = _spread(share, K, width)
    for low in range(0, K, width):
        high = min(low + width, K)
        block, diagonal = rest[low:high], np.diagonal(factor)[low:high]
        stays = np.ones(block.shape, dtype=np.bool_)
        if share.pattern is None:
            stays = _without_lowest((block / diagonal[:, None]).T ** 2, done[low // width]).T
        errors = np.empty_like(block)
        for j in range(high - low):
            if share.pattern is not None and j % share.pattern.m == 0:
                # Of each M weights as they are by now.
                inside = slice(j, j + share.pattern.m)
                scores = np.square(block[inside] / diagonal[inside, None])
                stays[inside] = share.stays(scores.T).T
            errors[j] = np.where(stays[j], 0, block[j] / diagonal[j])
            block[j + 1 :] -= factor[low + j, low + j + 1 : high, None] * errors[j]
            block[j] *= stays[j]
        rest[high:] -= factor[low:high, high:].T @ errors
    return np.ascontiguousarray(rest.T)


def _spread(share: Share, n_inputs: int, width: int) -> list[int]:
    """Return how many weights of a row go in each block of columns: in all, the share."""
    ends = np.minimum(np.arange(0, n_inputs + width, width), n_inputs)
    return [int(n) for n in np.diff(np.rint(share.ratio * ends))]


def zero_share(array: NDArray[np.generic]) -> float:
    """Return the share of zeros in an array."""
    return 1 - np.count_nonzero(array) / max(array.size, 1)
