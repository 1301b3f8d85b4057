"""Choosing the next token from a row of logits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import EngineError, InputError

__all__ = ["Sampler", "Sampling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen; the defaults take the most likely one, always.

    The steps run in this order, as in transformers' `GenerationMixin._get_logits_processor`:
    repetition penalty, temperature, top-k, top-p, min-p.

    Attributes:
        temperature: logits are divided by it; 0 takes the most likely token and draws nothing.
        top_k: keep this many of the most likely tokens (more where they tie); 0 keeps all.
        top_p: keep the fewest most likely tokens that hold this probability; 1 keeps all.
        min_p: keep tokens at least this many times as likely as the likeliest; 0 keeps all.
        repetition_penalty: above 1 makes every token of the prompt or answer so far less likely:
            a positive logit is divided by it, a negative one multiplied.
        seed: the same seed draws the same tokens; None draws others each time.

    Source:
        Repetition penalty: CTRL, arXiv:1909.05858. Top-k: arXiv:1805.04833. Top-p:
        arXiv:1904.09751. Min-p: arXiv:2407.01082.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"sampling: temperature is {self.temperature}, must be 0 or more")
        if self.top_k < 0:
            raise InputError(f"sampling: top_k is {self.top_k}, must be 0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"sampling: top_p is {self.top_p}, must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"sampling: min_p is {self.min_p}, must be from 0 to 1")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise InputError(
                f"sampling: repetition_penalty is {self.repetition_penalty}, must be above 0"
            )
        if self.seed is not None and self.seed < 0:
            raise InputError(f"sampling: seed is {self.seed}, must be 0 or more")


class Sampler:
    """Draws the tokens of one answer and remembers them. One thread at a time."""

    def __init__(
        self,
        sampling: Sampling,
        *,
        seen: Sequence[int] | TokenArray = (),
        forbidden: NDArray[np.bool_] | None = None,
    ) -> None:
        """Start an answer.

        Args:
            sampling: how to choose.
            seen: the prompt's tokens, for the repetition penalty.
            forbidden: (V,) True for ids that may never be chosen.
        """
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._forbidden = forbidden
        self._seen = {int(i) for i in seen} if sampling.repetition_penalty != 1 else set()

    def sample(self, logits: FloatArray) -> int:
        """Choose a token and remember it.

        Args:
            logits: (V,) float32.

        Returns:
            A token id.

        Raises:
            EngineError: if a logit is NaN or infinite upwards, or no token may be chosen.
        """
        if self.sampling.temperature == 0:
            chosen = int(self._scores(logits).argmax())
        else:
            ids, probabilities = self.distribution(logits)
            sums = np.cumsum(probabilities)
            place = np.searchsorted(sums, self._random.random() * sums[-1], side="right")
            chosen = int(ids[min(int(place), len(ids) - 1)])
        if self.sampling.repetition_penalty != 1:
            self._seen.add(chosen)
        return chosen

    def distribution(self, logits: FloatArray) -> tuple[TokenArray, NDArray[np.float64]]:
        """Return the tokens that `sample` draws from, and their probabilities.

        Args:
            logits: (V,) float32.

        Returns:
            ids: (N,) ascending, at least one.
            probabilities: (N,) float64, above 0, sum 1.

        Raises:
            EngineError: as in `sample`.
        """
        sampling = self.sampling
        scores = self._scores(logits)
        if sampling.temperature == 0:
            return np.asarray([scores.argmax()], dtype=np.int64), np.ones(1)
        ids = _top_k(scores, sampling.top_k)  # (N,)
        # Subtract first: dividing by a tiny temperature may overflow.
        kept = (scores[ids].astype(np.float64) - scores.max()) / sampling.temperature
        weights = np.exp(kept)  # (N,)
        keep = _top_p(weights, sampling.top_p)
        keep &= (weights >= sampling.min_p) & (weights > 0)
        weights = weights[keep]
        return ids[keep], weights / weights.sum()

    def _scores(self, logits: FloatArray) -> FloatArray:
        scores = logits
        if self._seen:
            scores = scores.copy()
            seen = np.fromiter((i for i in self._seen if i < len(logits)), dtype=np.int64)
            penalty = np.float32(self.sampling.repetition_penalty)
            scores[seen] = np.where(
                scores[seen] < 0, scores[seen] * penalty, scores[seen] / penalty
            )
        if self._forbidden is not None:
            scores = np.where(self._forbidden, np.float32(-np.inf), scores)
        # The maximum of a row with a NaN is NaN.
        top = scores.max()
        if not np.isfinite(top):
            what = "no token may be chosen" if top == -np.inf else f"the highest is {top}"
            raise EngineError(f"logits: {what}, expected finite numbers; the model is damaged")
        return scores


def _top_k(scores: FloatArray, k: int) -> TokenArray:
    if k == 0 or k >= len(scores):
        return np.arange(len(scores), dtype=np.int64)
    place = len(scores) - k
    least = np.partition(scores, place)[place]
    return np.flatnonzero(scores >= least)


def _top_p(weights: NDArray[np.float64], top_p: float) -> NDArray[np.bool_]:
    """Mark the fewest most likely that hold `top_p` of the sum; one at least."""
    keep = np.ones(len(weights), dtype=np.bool_)
    if top_p == 1:
        return keep
    spare = (1 - top_p) * weights.sum()
    # Tokens below the mean of what may be dropped are dropped whatever their order: most of a
    # vocabulary is, and needs no sorting.
    low = weights < spare / len(weights)
    rest = np.flatnonzero(~low)
    order = rest[np.argsort(weights[rest], kind="stable")]
    below = weights[low].sum() + np.cumsum(weights[order])
    keep[low] = False
    keep[order[:-1][below[:-1] <= spare]] = False
    return keep
