"""How likely the tokens of an answer were."""

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.device.serving.asks import Score
from onhand.device.text import Tokenizer

__all__ = ["ScoreKeeper"]


class ScoreKeeper:
    """Watches an answer and keeps the scores of its tokens; see `Watcher`. One thread at a time."""

    def __init__(self, tokenizer: Tokenizer, *, n_others: int) -> None:
        """Start with none.

        Args:
            tokenizer: the model's.
            n_others: likeliest tokens to name at each place.
        """
        self._tokenizer = tokenizer
        self._n_others = n_others
        self._kept: list[Score] = []

    def forbidden(self) -> NDArray[np.bool_] | None:
        """See `Watcher`."""
        return None

    def chose(self, logits: FloatArray, token: int) -> None:
        """See `Watcher`."""
        wide = logits.astype(np.float64)
        top = wide.max()
        total = top + np.log(np.exp(wide - top).sum())
        n = min(self._n_others, len(wide))
        likeliest = np.argsort(-wide, kind="stable")[:n] if n else ()
        others = tuple(self._score(int(i), float(wide[i] - total)) for i in likeliest)
        chosen = self._score(token, float(wide[token] - total))
        self._kept.append(Score(chosen.token, chosen.logprob, others))

    def at(self, place: int) -> Score:
        """Return the score of the answer's token at a place, counted from 0."""
        return self._kept[place]

    def _score(self, token: int, logprob: float) -> Score:
        # A logit of -inf has no finite logarithm, and JSON no other.
        return Score(self._tokenizer.token_bytes(token), max(logprob, -9999.0))
