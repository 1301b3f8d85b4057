"""Figures of a stream of tasks: what was learned, what was forgotten, and how sure it is of it.

R is the accuracy matrix: R[i, j] is the accuracy on task j after task i was learned; T tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import ShapeError

__all__ = [
    "StreamFigures",
    "average_accuracy",
    "backward_transfer",
    "calibration_error",
    "figures_of",
    "forgetting",
]

_Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFigures:
    """What a stream gave, as fractions.

    Attributes:
        average_accuracy: over all tasks, after the last.
        forgetting: what was lost of the best that was had, over all tasks but the last.
        backward_transfer: what later tasks gave to earlier ones, or took if it is below 0.
        learned: accuracy on each task just after it was learned, on average.
    """

    average_accuracy: float
    forgetting: float
    backward_transfer: float
    learned: float


def average_accuracy(matrix: Sequence[Sequence[float]] | _Doubles) -> float:
    """Return the mean of the last row: the accuracy over all tasks once all were learned.

    Args:
        matrix: (T, T), see the module.

    Raises:
        ShapeError: if it is not square.

    Source:
        ACC of Lopez-Paz and Ranzato 2017, arXiv:1706.08840.
    """
    return float(_square(matrix)[-1].mean())


def backward_transfer(matrix: Sequence[Sequence[float]] | _Doubles) -> float:
    """Return the mean of R[T, j] - R[j, j] over all tasks but the last; 0 for a single task.

    Args:
        matrix: (T, T), see the module.

    Raises:
        ShapeError: if it is not square.

    Source:
        BWT of Lopez-Paz and Ranzato 2017, arXiv:1706.08840.
    """
    found = _square(matrix)
    if len(found) == 1:
        return 0.0
    return float((found[-1] - np.diag(found))[:-1].mean())


def forgetting(matrix: Sequence[Sequence[float]] | _Doubles) -> float:
    """Return the mean of max over l < T of R[l, j] - R[T, j], over all tasks but the last.

    The maximum is over the rows where the task was learned already, j <= l < T; 0 for one task.

    Args:
        matrix: (T, T), see the module.

    Raises:
        ShapeError: if it is not square.

    Source:
        Chaudhry et al. 2018, arXiv:1801.10112, equation 3; where a task's accuracy before it is
        learned is at most chance, the maximum over all l < T is the same.
    """
    found = _square(matrix)
    n = len(found)
    if n == 1:
        return 0.0
    return float(np.mean([found[j : n - 1, j].max() - found[-1, j] for j in range(n - 1)]))


def figures_of(matrix: Sequence[Sequence[float]] | _Doubles) -> StreamFigures:
    """Return all figures of a stream.

    Args:
        matrix: (T, T), see the module.

    Raises:
        ShapeError: if it is not square.
    """
    return StreamFigures(
        average_accuracy=average_accuracy(matrix),
        forgetting=forgetting(matrix),
        backward_transfer=backward_transfer(matrix),
        learned=float(np.diag(_square(matrix)).mean()),
    )


def calibration_error(chances: np.ndarray, labels: np.ndarray, *, n_bins: int = 15) -> float:
    """Return by how much the chances that a classifier gives its answers miss their accuracy.

    Args:
        chances: (B, C), each row sums to 1.
        labels: (B,) the right classes.
        n_bins: of equal width, over the chance of the answer.

    Returns:
        The expected calibration error: the mean over the bins, weighted by their examples, of
        |accuracy - mean chance|.

    Raises:
        ShapeError: if there is not a label for each row, or no row.

    Source:
        Naeini et al. 2015; with 15 bins as Guo et al. 2017, arXiv:1706.04599.
    """
    if chances.ndim != 2 or labels.shape != chances.shape[:1] or not len(labels):
        raise ShapeError(f"chances {chances.shape} and labels {labels.shape}: need (B, C) and (B,)")
    sure = chances.max(axis=1).astype(np.float64)
    right = (chances.argmax(axis=1) == labels).astype(np.float64)
    # Bins are open below, as in the source; a chance is never 0.
    bins = np.clip(np.ceil(sure * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, right - sure, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(labels))


def _square(matrix: Sequence[Sequence[float]] | _Doubles) -> _Doubles:
    """Return a matrix.

    Raises:
        ShapeError: if it is not square, or empty.
    """
    found = np.asarray(matrix, np.float64)
    if found.ndim != 2 or found.shape[0] != found.shape[1] or not len(found):
        raise ShapeError(f"an accuracy matrix is (T, T), this is {found.shape}")
    return found
