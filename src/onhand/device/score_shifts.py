"""What is added to the scores of tokens before one is chosen."""

import math
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError

__all__ = ["ScoreShifts", "check_biased", "check_shifts"]


class ScoreShifts:
    """Biases, and penalties for tokens that an answer has already. One thread at a time."""

    def __init__(
        self,
        *,
        frequency_penalty: float,
        presence_penalty: float,
        bias: Sequence[tuple[int, float]],
        counts: Mapping[int, int] | None = None,
    ) -> None:
        """Start before the first token.

        Args:
            frequency_penalty: taken from a token's score for each time that it was chosen.
            presence_penalty: taken from the scores of tokens that were chosen.
            bias: token ids, and what is added to their scores.
            counts: token -> how often the answer has it; None for a new answer.
        """
        self._frequency = frequency_penalty
        self._presence = presence_penalty
        self._bias = dict(bias)
        self._counts = dict(counts or {})

    @property
    def is_idle(self) -> bool:
        """Whether it never changes a score."""
        return not (self._bias or self._frequency or self._presence)

    def chose(self, token: int) -> None:
        """Count a token of the answer."""
        if self._frequency or self._presence:
            self._counts[token] = self._counts.get(token, 0) + 1

    def added_to(self, scores: FloatArray) -> FloatArray:
        """Return (V,) scores with all of it; ids beyond them are left out."""
        shifts = dict(self._bias)
        for token, n in self._counts.items():
            shifts[token] = shifts.get(token, 0.0) - n * self._frequency - self._presence
        known = {token: shift for token, shift in shifts.items() if token < scores.size}
        if not known:
            return scores
        shifted = scores.copy()
        ids = np.fromiter(known, dtype=np.int64)
        shifted[ids] += np.fromiter(known.values(), dtype=np.float32)
        return shifted

    def copy(self) -> Self:
        """Return another that has counted the same."""
        return type(self)(
            frequency_penalty=self._frequency,
            presence_penalty=self._presence,
            bias=tuple(self._bias.items()),
            counts=self._counts,
        )


def check_shifts(
    frequency_penalty: float, presence_penalty: float, bias: Sequence[tuple[int, float]]
) -> None:
    """Refuse shifts that are no numbers.

    Args:
        frequency_penalty: as `ScoreShifts` takes it.
        presence_penalty: likewise.
        bias: likewise.

    Raises:
        InputError: if one is not finite, or a token's id is negative.
    """
    penalties = {"frequency_penalty": frequency_penalty, "presence_penalty": presence_penalty}
    for name, value in penalties.items():
        if not math.isfinite(value):
            raise InputError(f"sampling: {name} is {value}, must be a finite number")
    for token, value in bias:
        if token < 0 or not math.isfinite(value):
            raise InputError(f"sampling: logit_bias of token {token} is {value}, must be finite")


def check_biased(bias: Sequence[tuple[int, float]], vocab_size: int) -> None:
    """Refuse biases for tokens that a model does not have.

    Args:
        bias: as `ScoreShifts` takes it.
        vocab_size: V, the model's scores.

    Raises:
        InputError: if a token's id is V or above.
    """
    beyond = [token for token, _ in bias if token >= vocab_size]
    if beyond:
        raise InputError(f"logit_bias: there is no token {beyond[0]}, but {vocab_size} of them")
