"""How sure a model is of its answer, from the probabilities of its own tokens, and what is enough.

Every measure is a number from 0 to 1 that does not grow with the answer's length:

mean: the geometric mean of the chosen tokens' probabilities.
least: the smallest of them.
margin: how far the likeliest token was ahead of the second, averaged over the first
`MARGIN_TOKENS`; an answer's direction is decided there.

Source:
    Sequence probability as confidence: arXiv:2002.07650. Cascades by it: FrugalGPT,
    arXiv:2305.05176; margins of first tokens: arXiv:2404.10136.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from onhand.core.errors import InputError
from onhand.device.serving.asks import Score

__all__ = [
    "MARGIN_TOKENS",
    "MEASURES",
    "Calibration",
    "Judge",
    "Judged",
    "Measure",
    "Verdict",
    "calibrate",
    "confidence",
    "threshold_for_share",
]

Measure = Literal["mean", "least", "margin"]
Verdict = Literal["sure", "unsure", "open"]
MEASURES: Final[tuple[Measure, ...]] = ("mean", "least", "margin")
MARGIN_TOKENS: Final = 8


def confidence(scores: Sequence[Score], measure: Measure) -> float:
    """Return how sure a model was.

    Args:
        scores: of the answer's tokens; with two others each for "margin".
        measure: which.

    Returns:
        From 0 to 1; 1 for an answer without tokens, of which nothing can be said.
    """
    if not scores:
        return 1.0
    if measure == "mean":
        return math.exp(sum(score.logprob for score in scores) / len(scores))
    if measure == "least":
        return math.exp(min(score.logprob for score in scores))
    margins = [_margin(score) for score in scores[:MARGIN_TOKENS]]
    return sum(margins) / len(margins)


def _margin(score: Score) -> float:
    likeliest = sorted((math.exp(other.logprob) for other in score.others), reverse=True)
    if len(likeliest) < 2:
        return math.exp(score.logprob)
    return likeliest[0] - likeliest[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """When an answer is sure enough to be shown.

    Attributes:
        measure: of confidence.
        threshold: confidence from which an answer is sure.
        window_tokens: tokens after which it is judged in any case; before, it is sure only by
            `early`.
        early_tokens: tokens after which it may be sure early.
        early: confidence that is enough then; above `threshold`, as few tokens say little.
    """

    measure: Measure = "mean"
    threshold: float = 0.6
    window_tokens: int = 24
    early_tokens: int = 6
    early: float = 0.9

    @property
    def n_scores(self) -> int:
        """Likeliest tokens that the measure needs at each place."""
        return 2 if self.measure == "margin" else 0

    def verdict(self, scores: Sequence[Score], *, is_end: bool) -> Verdict:
        """Judge what there is of an answer.

        Args:
            scores: of its tokens so far.
            is_end: whether no more will come, or there is no time to wait for more.

        Returns:
            "open" where more tokens should be waited for.
        """
        found = confidence(scores, self.measure)
        if is_end or len(scores) >= self.window_tokens:
            return "sure" if scores and found >= self.threshold else "unsure"
        is_early = len(scores) >= self.early_tokens and found >= max(self.early, self.threshold)
        return "sure" if is_early else "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One answer of the device beside one from elsewhere.

    Attributes:
        confidence: of the device's.
        local: how good the device's is, 0 to 1; for right or wrong, 1 or 0.
        cloud: how good the other is.
    """

    confidence: float
    local: float
    cloud: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A threshold, and what it does on the examples that it was found with.

    Attributes:
        threshold: for `Judge`.
        cloud_share: share of answers below it.
        quality: mean quality of the answers that are shown.
    """

    threshold: float
    cloud_share: float
    quality: float


def threshold_for_share(confidences: Sequence[float], share: float) -> float:
    """Return the threshold below which a share of answers lies.

    Args:
        confidences: of answers like those that will come.
        share: of them to send elsewhere, 0 to 1; of equal ones all or none are sent, and so at
            most this share.

    Raises:
        InputError: if there are none, or the share is not from 0 to 1.
    """
    if not confidences or not 0 <= share <= 1:
        raise InputError(
            f"{len(confidences)} confidences and a share of {share}: needs one or more, and 0 to 1"
        )
    order = sorted(confidences)
    n_sent = math.floor(share * len(order) + 1e-9)
    return order[n_sent] if n_sent < len(order) else math.nextafter(order[-1], math.inf)


def calibrate(examples: Sequence[Judged], *, kept: float) -> Calibration:
    """Find the threshold that sends the fewest answers elsewhere and keeps enough quality.

    Args:
        examples: judged by both, like those that will come.
        kept: quality wanted, as a share of the way from the device's mean to the other's: 0 is
            the device alone, 1 the other alone.

    Returns:
        The threshold, and what it does here; new examples do a little worse.

    Raises:
        InputError: if there are none, or `kept` is not from 0 to 1.
    """
    if not examples or not 0 <= kept <= 1:
        raise InputError(
            f"{len(examples)} examples and kept = {kept}: needs one or more, and 0 to 1"
        )
    n = len(examples)
    order = sorted(examples, key=lambda one: one.confidence)
    local = sum(one.local for one in order)
    cloud = sum(one.cloud for one in order)
    wanted = local + kept * (cloud - local)
    quality = local
    for n_sent, one in enumerate(order):
        is_cut = n_sent == 0 or order[n_sent - 1].confidence < one.confidence
        if is_cut and quality >= wanted - 1e-9:
            return Calibration(
                threshold=one.confidence, cloud_share=n_sent / n, quality=quality / n
            )
        quality += one.cloud - one.local
    above = math.nextafter(order[-1].confidence, math.inf)
    return Calibration(threshold=above, cloud_share=1.0, quality=quality / n)
