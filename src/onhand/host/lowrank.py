"""Products of two thin matrices instead of one, with the least error on the inputs that come.

Source:
    SVD-LLM, arXiv:2403.07378: with S S^T the inputs' second moments, the truncated singular value
    decomposition of W S has the least error of W x in the mean, and its energy is the sum of the
    squares of the values that are left out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError, SourceError

__all__ = ["Spectrum", "correct_rounding", "whitening"]

Numbers = NDArray[np.float64]
# Share of the mean diagonal that is added to it: inputs that the examples hardly ever move.
_DAMPING = 1e-3


def whitening(moments: FloatArray | Numbers) -> Numbers:
    """Return S, lower, with S S^T the damped second moments of a layer's inputs.

    Args:
        moments: (K, K) mean second moments.

    Returns:
        (K, K) float64.

    Raises:
        SourceError: if they are not finite, or no damping makes them definite.
    """
    if not np.isfinite(moments).all():
        raise SourceError("the second moments of a matrix's inputs are not finite")
    whole = moments.astype(np.float64)
    mean = float(np.trace(whole)) / len(whole)
    whole[np.diag_indices_from(whole)] += _DAMPING * mean if mean > 0 else 1.0
    try:
        root = np.linalg.cholesky(whole).astype(np.float64, copy=False)
    except np.linalg.LinAlgError as error:
        raise SourceError(f"the second moments of a matrix's inputs: {error}") from error
    return root


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A matrix taken apart, for products of any rank.

    Attributes:
        left: (N, R) float64, orthogonal columns.
        values: (R,) falling; squared, the energy that each adds to the outputs.
        right: (R, K) float64: the matrix is left * values @ right.
    """

    left: Numbers
    values: Numbers
    right: Numbers

    @classmethod
    def of(cls, weight: FloatArray | Numbers, root: Numbers | None = None) -> "Spectrum":
        """Take a matrix apart.

        Args:
            weight: (N, K), finite.
            root: (K, K) from `whitening`; None where the inputs are not known.
        """
        whole = weight.astype(np.float64)
        if root is None:
            return cls(*np.linalg.svd(whole, full_matrices=False))
        left, values, right = np.linalg.svd(whole @ root, full_matrices=False)
        # right S^-1, without an inverse.
        return cls(left, values, np.linalg.solve(root.T, right.T).T)

    def factors(self, rank: int) -> tuple[FloatArray, FloatArray]:
        """Return (N, rank) and (rank, K), float32; each takes the root of the values."""
        roots = np.sqrt(self.values[:rank])
        left = self.left[:, :rank] * roots
        right = self.right[:rank] * roots[:, None]
        return left.astype(np.float32), right.astype(np.float32)

    def lost(self) -> Numbers:
        """Return the share of the outputs' energy that rank 0, 1, ... R leaves out, (R + 1,)."""
        energy = np.square(self.values)
        total = energy.sum()
        left = np.concatenate([np.cumsum(energy[::-1])[::-1], [0.0]])
        return left / total if total > 0 else left


def correct_rounding(
    weight: FloatArray, rounded: FloatArray, *, rank: int, moments: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return two thin matrices whose product makes good for most of a rounding error.

    Beside the rounded weights an engine computes A (B x): W x is nearly Q x + A (B x).

    Args:
        weight: (N, K) the original.
        rounded: (N, K) what the codes stand for.
        rank: of the product, from 1 to min(N, K).
        moments: (K, K) mean second moments of the inputs; None where they are not known.

    Returns:
        A (N, rank) and B (rank, K), float32.

    Raises:
        InputError: if the shapes differ, or the rank is out of bounds.
        SourceError: if the moments are not finite.

    Source:
        LQER, arXiv:2402.02446, with all second moments instead of their diagonal.
    """
    if weight.shape != rounded.shape or weight.ndim != 2:
        raise InputError(f"weights {weight.shape} and {rounded.shape}, must be one shape (N, K)")
    if not 1 <= rank <= min(weight.shape):
        raise InputError(f"rank is {rank}, must be from 1 to {min(weight.shape)}")
    root = None if moments is None else whitening(moments)
    return Spectrum.of(weight.astype(np.float64) - rounded, root).factors(rank)
