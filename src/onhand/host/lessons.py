"""What a model is trained on: tokens for each step, the same for a step whenever it is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import InputError

__all__ = ["Batch", "Lessons", "TextLessons", "pad_rows"]

Batch = tuple[TokenArray, FloatArray]
"""Tokens (B, T) int64, and (B, T) float32: how much what follows each of them counts."""


class Lessons(Protocol):
    """Gives the tokens of each step of training."""

    @property
    def longest(self) -> int:
        """Return the most tokens of a row."""
        ...

    def batch(self, step: int) -> Batch:
        """Return the rows of one step.

        Args:
            step: the same step gives the same rows, so that training can be resumed.

        Returns:
            tokens: (B, T) int64.
            weights: (B, T) float32: how much what follows each token counts; 0.0 where nothing is
                learnt.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLessons:
    """Sequences of a text, in an order drawn anew each time through. See `Lessons`.

    Attributes:
        sequences: (T,) int64 each; shorter ones are filled up at their end, which does not count.
        batch_tokens: most tokens of one step; at least one sequence is taken.
        seed: of the order.
    """

    sequences: Sequence[TokenArray]
    batch_tokens: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sequences:
            raise InputError("there is no text to train on")

    @property
    def longest(self) -> int:
        """See `Lessons`."""
        return max(tokens.size for tokens in self.sequences)

    def batch(self, step: int) -> Batch:
        """See `Lessons`."""
        n_rows = min(max(self.batch_tokens // self.longest, 1), len(self.sequences))
        places = np.arange(step * n_rows, (step + 1) * n_rows)
        rounds, within = np.divmod(places, len(self.sequences))
        rows = [
            self.sequences[_order(len(self.sequences), self.seed, int(turn))[place]]
            for turn, place in zip(rounds, within, strict=True)
        ]
        return pad_rows(rows)


def _order(n: int, seed: int, turn: int) -> np.ndarray:
    return np.random.default_rng([seed, turn]).permutation(n)


def pad_rows(rows: Sequence[TokenArray]) -> Batch:
    """Put sequences above each other, filled up at their ends with what does not count.

    Args:
        rows: (T,) int64 each.

    Returns:
        tokens: (B, T) int64, T of the longest.
        weights: (B, T) float32, 1.0 for every token of a sequence.
    """
    longest = max(row.size for row in rows)
    tokens = np.zeros((len(rows), longest), dtype=np.int64)
    weights = np.zeros((len(rows), longest), dtype=np.float32)
    for i, row in enumerate(rows):
        tokens[i, : row.size] = row
        weights[i, : row.size] = 1.0
    return tokens, weights
