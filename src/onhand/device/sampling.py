"""Choosing the next token from a row of logits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import EngineError, InputError
from onhand.device.exponentials import exponentials
from onhand.device.score_shifts import ScoreShifts, check_shifts

__all__ = [
    "Distribution",
    "Sampler",
    "Sampling",
    "Watcher",
    "acceptance",
    "check_highest",
    "check_max_tokens",
    "residual",
]

# Ids, ascending, and their probabilities: (N,) int64 and (N,) float64, above 0, sum 1.
Distribution = tuple[TokenArray, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen; the defaults take the most likely one, always.

    The steps run in this order, as in transformers' `GenerationMixin._get_logits_processor`:
    repetition penalty, the other penalties and biases, temperature, top-k, top-p, min-p.

    Attributes:
        temperature: logits are divided by it; 0 takes the most likely token and draws nothing.
        top_k: keep this many of the most likely tokens (more where they tie); 0 keeps all.
        top_p: keep the fewest most likely tokens that hold this probability; 1 keeps all.
        min_p: keep tokens at least this many times as likely as the likeliest; 0 keeps all.
        repetition_penalty: above 1 makes every token of the prompt or answer so far less likely:
            a positive logit is divided by it, a negative one multiplied.
        frequency_penalty: taken from a token's logit for each time that the answer has it.
        presence_penalty: taken from the logits of tokens that the answer has.
        logit_bias: token ids, and what is added to their logits.
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
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
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
        check_shifts(self.frequency_penalty, self.presence_penalty, self.logit_bias)
        if self.seed is not None and self.seed < 0:
            raise InputError(f"sampling: seed is {self.seed}, must be 0 or more")


def check_max_tokens(max_tokens: int | None) -> None:
    """Refuse an answer of no tokens.

    Args:
        max_tokens: most tokens of an answer; None for no limit.

    Raises:
        InputError: if it is below 1.
    """
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"max_tokens is {max_tokens}, must be 1 or more")


class Watcher(Protocol):
    """What follows an answer token by token, and may narrow what comes next."""

    def forbidden(self) -> NDArray[np.bool_] | None:
        """Return (V,) True for ids that may not come next; None where all may."""
        ...

    def chose(self, logits: FloatArray, token: int) -> None:
        """Hear what was chosen, from (V,) scores as the model gave them."""
        ...


class Sampler:
    """Draws the tokens of one answer and remembers them. One thread at a time."""

    def __init__(
        self,
        sampling: Sampling,
        *,
        seen: Sequence[int] | TokenArray = (),
        forbidden: NDArray[np.bool_] | None = None,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        """Start an answer.

        Args:
            sampling: how to choose.
            seen: the prompt's tokens, for the repetition penalty.
            forbidden: (V,) True for ids that may never be chosen.
            watchers: what follows it; engines hand such a sampler their logits.
        """
        self.sampling = sampling
        self.forbidden = forbidden
        self.watchers = tuple(watchers)
        self._put_back: list[float] = []
        self._shifts = ScoreShifts(
            frequency_penalty=sampling.frequency_penalty,
            presence_penalty=sampling.presence_penalty,
            bias=sampling.logit_bias,
        )
        self._seen: dict[int, None] = {}
        if sampling.repetition_penalty != 1:
            self._seen = dict.fromkeys(int(i) for i in seen)

    @property
    def needs_scores(self) -> bool:
        """Whether it must see logits: engines alone know nothing of watchers, biases and counts."""
        return bool(self.watchers) or not self._shifts.is_idle

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
            chosen = self._drawn(self._weights(logits))
        self._settle(logits, chosen)
        return chosen

    def sample_from(self, distribution: Distribution) -> int:
        """Draw a token from what `distribution` returned, and remember it.

        Args:
            distribution: tokens and their probabilities.

        Returns:
            A token id.
        """
        chosen = self._drawn(distribution)
        self.remember(chosen)
        return chosen

    def sample_drafted(self, logits: FloatArray, drafted: int, proposal: Distribution) -> int:
        """Choose a token where one was drafted, distributed as if none had been.

        The drafted token is taken with the probability `acceptance`, else one is drawn from
        `residual`: together that is the distribution of `sample`.

        Args:
            logits: (V,) float32.
            drafted: a token drawn from `proposal`.
            proposal: the draft's distribution at this place.

        Returns:
            A token id; `drafted` where the draft was taken.

        Raises:
            EngineError: as in `sample`.

        Source:
            Speculative sampling: arXiv:2211.17192, arXiv:2302.01318.
        """
        target = self.distribution(logits)
        is_taken = self.draw() < acceptance(target, proposal, drafted)
        chosen = drafted if is_taken else self._drawn(residual(target, proposal))
        self._settle(logits, chosen)
        return chosen

    def fork(self, *, temperature: float, forbidden: NDArray[np.bool_] | None) -> "Sampler":
        """Return a sampler that has seen the same tokens and draws by other random numbers.

        Args:
            temperature: its own.
            forbidden: (V',) True for ids that it may never choose; another model's rows may
                have another width.

        Returns:
            It; what it chooses is not remembered here.
        """
        sampling = replace(self.sampling, temperature=temperature, seed=None)
        forked = Sampler(sampling, forbidden=forbidden)
        forked._seen |= self._seen
        forked._shifts = self._shifts.copy()
        return forked

    @cached_property
    def _random(self) -> "np.random.Generator":
        # When it is needed: numpy loads this part by itself, and greedy answers never draw.
        return np.random.default_rng(self.sampling.seed)

    def draw(self) -> float:
        """Return the next random number, at least 0 and below 1; a choice takes one."""
        return self._put_back.pop() if self._put_back else self._random.random()

    def put_back(self, numbers: Sequence[float]) -> None:
        """Give the last numbers that `draw` returned back, so that they are drawn again.

        Args:
            numbers: in the order in which they were drawn.
        """
        self._put_back += reversed(numbers)

    def remember(self, token: int) -> None:
        """Count a token as seen, as `sample` does with what it chose."""
        self._shifts.chose(token)
        if self.sampling.repetition_penalty != 1:
            self._seen[token] = None

    def seen_since(self, n: int) -> list[int]:
        """Return the tokens that the repetition penalty counts, each once, but for the first `n`.

        They only ever grow in number, so who has asked before asks for what is new.
        """
        return [] if len(self._seen) == n else list(self._seen)[n:]

    def distribution(self, logits: FloatArray) -> Distribution:
        """Return the tokens that `sample` draws from, and their probabilities.

        Args:
            logits: (V,) float32.

        Returns:
            ids: (N,) ascending, at least one.
            probabilities: (N,) float64, above 0, sum 1.

        Raises:
            EngineError: as in `sample`.
        """
        ids, weights = self._weights(logits)
        return ids, weights / weights.sum()

    def _weights(self, logits: FloatArray) -> tuple[TokenArray, NDArray[np.float64]]:
        """Return the tokens that may be drawn, (N,) ascending, and their weights, 1 at most.

        `sampling.cpp` does the same steps in the same order, to the last bit: whichever of the
        two chooses, a seed gives the same tokens.
        """
        sampling = self.sampling
        scores = self._scores(logits)
        if sampling.temperature == 0:
            return np.asarray([scores.argmax()], dtype=np.int64), np.ones(1)
        ids = _top_k(scores, sampling.top_k)  # (N,)
        # Subtract first: dividing by a tiny temperature may overflow.
        with np.errstate(over="ignore"):
            kept = (scores[ids].astype(np.float64) - scores.max()) / sampling.temperature
        weights = exponentials(kept)  # (N,)
        keep = _top_p(weights, sampling.top_p)
        keep &= (weights >= sampling.min_p) & (weights > 0)
        return ids[keep], weights[keep]

    def _drawn(self, weighted: tuple[TokenArray, NDArray[np.float64]]) -> int:
        ids, weights = weighted
        sums = np.cumsum(weights)
        place = np.searchsorted(sums, self.draw() * sums[-1], side="right")
        return int(ids[min(int(place), len(ids) - 1)])

    def _settle(self, logits: FloatArray, chosen: int) -> None:
        self.remember(chosen)
        for watcher in self.watchers:
            watcher.chose(logits, chosen)

    def _scores(self, logits: FloatArray) -> FloatArray:
        scores = logits
        if self._seen:
            scores = scores.copy()
            seen = np.fromiter((i for i in self._seen if i < len(logits)), dtype=np.int64)
            penalty = np.float32(self.sampling.repetition_penalty)
            scores[seen] = np.where(
                scores[seen] < 0, scores[seen] * penalty, scores[seen] / penalty
            )
        scores = self._shifts.added_to(scores)
        for mask in (self.forbidden, *(watcher.forbidden() for watcher in self.watchers)):
            if mask is not None:
                scores = np.where(mask, np.float32(-np.inf), scores)
        # The maximum of a row with a NaN is NaN.
        check_highest(float(scores.max()))
        return scores


def check_highest(top: float) -> None:
    """Refuse a row of logits that nothing can be chosen from.

    Args:
        top: the highest of those that may be chosen, -inf if there is none, NaN if one is NaN.

    Raises:
        EngineError: if it is not finite.
    """
    if not math.isfinite(top):
        what = "no token may be chosen" if top == -math.inf else f"the highest is {top}"
        raise EngineError(f"logits: {what}, expected finite numbers; the model is damaged")


def acceptance(target: Distribution, proposal: Distribution, token: int) -> float:
    """Return the probability with which a drafted token is taken: min(1, target / proposal).

    Args:
        target: what tokens shall be distributed as.
        proposal: what `token` was drawn from.
        token: the drafted one.

    Returns:
        From 0 to 1.
    """
    drafted = float(_at(proposal, np.asarray([token]))[0])
    wanted = float(_at(target, np.asarray([token]))[0])
    return 1.0 if wanted >= drafted else wanted / drafted


def residual(target: Distribution, proposal: Distribution) -> Distribution:
    """Return what a token is drawn from after a draft was refused: max(0, target - proposal).

    Args:
        target: what tokens shall be distributed as.
        proposal: what the refused token was drawn from.

    Returns:
        The difference made to sum to 1; `target` where the two are equal and nothing is left.
    """
    ids, wanted = target
    left = np.maximum(wanted - _at(proposal, ids), 0)  # (N,)
    some = left > 0
    if not some.any():
        return target
    return ids[some], left[some] / left[some].sum()


def _at(distribution: Distribution, tokens: TokenArray) -> NDArray[np.float64]:
    """Look probabilities up; 0 for a token that is not there."""
    ids, probabilities = distribution
    places = np.minimum(np.searchsorted(ids, tokens), len(ids) - 1)
    return np.where(ids[places] == tokens, probabilities[places], 0.0)


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
    limit = top_p * np.cumsum(weights)[-1]
    # Tokens below the mean of what may be dropped are dropped whatever their order: most of a
    # vocabulary is, and needs no sorting, unless rounding keeps the others from the limit.
    low = (1 - top_p) / top_p * limit / len(weights)
    for rest in (np.flatnonzero(weights >= low), np.arange(len(weights))):
        order = rest[np.argsort(weights[rest], kind="stable")[::-1]]
        sums = np.cumsum(weights[order])
        if sums[-1] >= limit:
            keep[:] = False
            keep[order[: np.searchsorted(sums, limit) + 1]] = True
            break
    return keep
