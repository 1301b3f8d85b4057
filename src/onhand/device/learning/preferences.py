"""Losses of preferences: what each whole text's log-probability counts in the next step.

The gradient of any loss of whole texts' log-probabilities is that of a weighted sum of their
tokens' log-probabilities, so that the graph of a language model, whose weights may be negative,
computes it: it is run once for the log-probabilities, and again with the weights found here.
"""

import math
from dataclasses import dataclass

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError

__all__ = ["LOSSES", "Judged", "Preferring", "by_opinions", "by_pairs"]

LOSSES = ("dpo", "kto")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferring:
    """How much answers that were liked are to be preferred.

    Attributes:
        beta: how closely the model stays with what it was: the smaller, the further it may go.
        smoothing: of pairs: the share of them whose order is expected to be a slip.
        imitation: of pairs: what the liked answer's own log-probability counts, a token's mean,
            so that it does not fall together with the other's.
        liked: of single opinions: what an answer that was liked counts.
        disliked: likewise, of one that was not.
    """

    beta: float = 0.1
    smoothing: float = 0.0
    imitation: float = 0.0
    liked: float = 1.0
    disliked: float = 1.0

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            InputError: if one is out of its range.
        """
        for name, least, most in (
            ("beta", 1e-6, 100.0),
            ("smoothing", 0.0, 0.499),
            ("imitation", 0.0, 1e3),
            ("liked", 0.0, 1e3),
            ("disliked", 0.0, 1e3),
        ):
            value = getattr(self, name)
            if not math.isfinite(value) or not least <= value <= most:
                raise InputError(f"{name} is {value}, must be from {least:g} to {most:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Texts under a loss of preferences.

    Attributes:
        losses: of each pair, or of each opinion.
        slopes: (B,) of the sum of losses by each text's log-probability.
        rewards: (B,) beta times what the text's log-probability grew.
    """

    losses: FloatArray
    slopes: FloatArray
    rewards: FloatArray


def by_pairs(
    logprobs: FloatArray, references: FloatArray, lengths: FloatArray, how: Preferring
) -> Judged:
    """Judge pairs of answers to the same.

    Args:
        logprobs: (B,) of whole texts: a liked answer, then the other, and so on.
        references: (B,) the same of the model as it was.
        lengths: (B,) tokens of each answer.
        how: the settings.

    Returns:
        losses (B / 2,), slopes and rewards (B,).

    Raises:
        InputError: if the numbers do not fit each other.

    Source:
        Direct preference optimization, arXiv:2305.18290, equation 7; smoothed: "conservative
        DPO", Mitchell 2023; with imitation: arXiv:2404.19733, equation 1.
    """
    _check(logprobs, references, lengths)
    if len(logprobs) % 2:
        raise InputError(f"{len(logprobs)} texts are no pairs")
    rewards = how.beta * (logprobs.astype(np.float64) - references)  # (B,)
    margins = rewards[0::2] - rewards[1::2]  # (B / 2,)
    losses = (1 - how.smoothing) * _softplus(-margins) + how.smoothing * _softplus(margins)
    slope = how.smoothing * _sigmoid(margins) - (1 - how.smoothing) * _sigmoid(-margins)
    slopes = np.empty_like(rewards)
    slopes[0::2], slopes[1::2] = how.beta * slope, -how.beta * slope
    if how.imitation:
        each = how.imitation / np.maximum(lengths[0::2], 1)
        losses = losses - each * logprobs[0::2]
        slopes[0::2] -= each
    return _judged(losses, slopes, rewards)


def by_opinions(
    logprobs: FloatArray,
    references: FloatArray,
    is_liked: np.ndarray,
    how: Preferring,
    *,
    drift: float,
) -> Judged:
    """Judge answers of which each was liked or not.

    Args:
        logprobs: (B,) of whole texts.
        references: (B,) the same of the model as it was.
        is_liked: (B,) bool.
        how: the settings.
        drift: how far the model has gone from what it was, in nat: the mean growth of
            log-probabilities of answers that belong to other prompts, at least 0; no gradient
            goes through it.

    Returns:
        losses, slopes and rewards, (B,) each.

    Raises:
        InputError: if the numbers do not fit each other.

    Source:
        Kahneman-Tversky optimization, arXiv:2402.01306, equations 7 and 8.
    """
    _check(logprobs, references, np.asarray(is_liked))
    rewards = how.beta * (logprobs.astype(np.float64) - references)
    away = rewards - how.beta * max(drift, 0.0)
    signs = np.where(is_liked, 1.0, -1.0)
    counts = np.where(is_liked, how.liked, how.disliked)
    values = _sigmoid(signs * away)
    slopes = -counts * signs * how.beta * values * (1 - values)
    return _judged(counts * (1 - values), slopes, rewards)


def _judged(losses: np.ndarray, slopes: np.ndarray, rewards: np.ndarray) -> Judged:
    return Judged(
        losses=losses.astype(np.float32),
        slopes=slopes.astype(np.float32),
        rewards=rewards.astype(np.float32),
    )


def _check(logprobs: FloatArray, references: FloatArray, others: np.ndarray) -> None:
    """Refuse what is not of one length, or not finite.

    Raises:
        InputError: in these cases.
    """
    shapes = {logprobs.shape, references.shape, others.shape}
    if len(shapes) > 1 or logprobs.ndim != 1:
        raise InputError(f"log-probabilities, references and texts differ in shape: {shapes}")
    if not np.isfinite(logprobs).all() or not np.isfinite(references).all():
        raise InputError("a text's log-probability is not finite")


def _softplus(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.logaddexp(0.0, x)
    return result


def _sigmoid(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.exp(-np.logaddexp(0.0, -x))
    return result
