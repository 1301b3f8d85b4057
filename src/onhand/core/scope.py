"""Which prompts a learned version answers: those that are like what it was taught.

What is unlike it is answered as if nothing had been learned, so that nothing of it can be lost.

Source:
    A model beside the one that was edited, and a classifier of what is in the edits' scope:
    SERAC, Mitchell et al. 2022, arXiv:2206.06520. Hashed features: Weinberger et al. 2009,
    arXiv:0902.2206.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError

__all__ = ["SCOPE_WIDTH", "Scope", "features_of", "scope_from"]

_BITS: Final = 14
SCOPE_WIDTH: Final = 1 << _BITS
"""Features: a text's runs of one to four letters, each hashed to one of so many."""
_LONGEST_RUN: Final = 4
_MOST_PARTS: Final = 1024
_TIMES, _MIX = np.uint64(0x100000001B3), np.uint64(0x9E3779B97F4A7C15)
_WEIGHTS, _BIASES = "scope.weights", "scope.biases"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Linear classifiers of texts, one of each time that something was taught.

    Attributes:
        weights: (P, `SCOPE_WIDTH`) float32.
        biases: (P,) float32.
    """

    weights: FloatArray
    biases: FloatArray

    def holds(self, texts: Iterable[str]) -> bool:
        """Say whether one of some texts is like what was taught.

        Args:
            texts: what a user said, each thing by itself.
        """
        return any(self.score(text) >= 0 for text in texts)

    def score(self, text: str) -> float:
        """Return how like what was taught a text is: 0 and more belongs to it.

        Args:
            text: any.
        """
        features = features_of(text)
        sums = self.weights[:, features].sum(axis=1, dtype=np.float64)
        return float((sums / np.sqrt(max(features.size, 1)) + self.biases).max())

    def joined(self, other: "Scope") -> "Scope":
        """Return a scope that holds what one of the two does.

        Args:
            other: of what was taught at another time.

        Raises:
            InputError: if it was taught too often.
        """
        if len(self.biases) + len(other.biases) > _MOST_PARTS:
            raise InputError(
                f"a scope of {_MOST_PARTS} parts is full: teach all examples again in one file"
            )
        return Scope(
            weights=np.concatenate((self.weights, other.weights)),
            biases=np.concatenate((self.biases, other.biases)),
        )

    def arrays(self) -> dict[str, FloatArray]:
        """Return it as tensors for `scope_from`."""
        return {_BIASES: self.biases, _WEIGHTS: self.weights}


def scope_from(arrays: Mapping[str, FloatArray]) -> tuple[Scope | None, dict[str, FloatArray]]:
    """Take a scope out of tensors.

    Args:
        arrays: name -> float32.

    Returns:
        the scope, None where there is none, and the other tensors.

    Raises:
        InputError: if it is not valid.
    """
    others = {name: array for name, array in arrays.items() if name not in (_WEIGHTS, _BIASES)}
    if len(others) == len(arrays):
        return None, others
    weights, biases = arrays.get(_WEIGHTS), arrays.get(_BIASES)
    if weights is None or biases is None:
        raise InputError(f"of the scope, {_WEIGHTS if weights is None else _BIASES} is missing")
    parts = len(biases) if biases.ndim == 1 else 0
    if not 0 < parts <= _MOST_PARTS or weights.shape != (parts, SCOPE_WIDTH):
        raise InputError(
            f"the scope is {weights.shape} and {biases.shape}, expected (P, {SCOPE_WIDTH}) and "
            f"(P,) for 1 to {_MOST_PARTS} parts"
        )
    if not (np.isfinite(weights).all() and np.isfinite(biases).all()):
        raise InputError("the scope holds a NaN or an infinity")
    return Scope(weights=weights, biases=biases), others


def features_of(text: str) -> NDArray[np.intp]:
    """Return the features of a text: its runs of letters, hashed, each once, in order.

    Args:
        text: any; case and the width of spaces make no difference.
    """
    spaced = f" {' '.join(text.casefold().split())} "
    letters = np.frombuffer(spaced.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    found = []
    for length in range(1, _LONGEST_RUN + 1):
        n_runs = max(letters.size - length + 1, 0)
        hashes = np.full(n_runs, length, np.uint64)
        for at in range(length):
            hashes = hashes * _TIMES + letters[at : at + n_runs]
        found.append(hashes * _MIX >> np.uint64(64 - _BITS))
    return np.unique(np.concatenate(found)).astype(np.intp)
