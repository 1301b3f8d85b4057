"""Feedback that should not be learned as it is: damaged, contradictory, or a flood.

Pure decisions. What is no example at all is refused; what may be an error or an attack waits in
quarantine until somebody looks at it. See `quarantine` for where it waits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError

__all__ = [
    "Finding",
    "History",
    "Limits",
    "Seen",
    "extreme_losses",
    "judge",
    "unlikely_many",
]

Outcome = Literal["taken", "quarantined", "refused"]

_MAD_TO_DEVIATION: Final = 1.4826  # of a normal distribution
_LEAST_SPREAD: Final = 0.05  # of the median: losses that are all alike have none of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One example as far as suspicion needs it; it holds nothing that anybody wrote.

    Attributes:
        tenant: who gave it.
        claims: what it says, as pairs of hashes: of a subject, such as the input, and of what is
            right for it, such as the answer. The first is what is learned.
        size: of the example: bytes of its text, or of its picture.
        numbers: what else it has, such as a rating; each must be finite.
    """

    tenant: str
    claims: tuple[tuple[str, str], ...]
    size: int
    numbers: tuple[float, ...] = ()


class History:
    """What was taken so far. One thread at a time."""

    def __init__(self) -> None:
        """Begin without any."""
        self._said: dict[str, str] = {}
        self._labels: dict[str, list[str]] = {}

    def add(self, one: Seen) -> None:
        """Note an example that was taken; what it says counts from now on."""
        self._said |= dict(one.claims)
        self._labels.setdefault(one.tenant, []).append(one.claims[0][1])

    def said(self, subject: str) -> str | None:
        """Return what was last said of a subject; None for nothing."""
        return self._said.get(subject)

    def labels(self, tenant: str) -> Sequence[str]:
        """Return what a tenant's examples taught, the latest last."""
        return self._labels.get(tenant, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When an example is suspect.

    Attributes:
        most_bytes: of one example.
        window: last examples of a tenant that are looked at for a flood.
        chance: probability below which so many of one label are no coincidence.
        usual_share: share that one label may have anyway: who teaches a new class gives many of
            it in a row. With 0.5 and a chance of 1e-9, thirty in a row are a flood.
        most_deviation: robust z-score above which a loss is extreme.
        least_losses: losses that must be known before one is extreme.
        most_share: of them that can be extreme: more are no slips but a kind of their own, such
            as what is taught for the first time.
    """

    most_bytes: int = 64 * 2**10
    window: int = 64
    chance: float = 1e-9
    usual_share: float = 0.5
    most_deviation: float = 8.0
    least_losses: int = 20
    most_share: float = 0.1

    def __post_init__(self) -> None:
        for name in ("most_bytes", "window", "least_losses"):
            if int(getattr(self, name)) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, must be 1 or more")
        for name in ("chance", "usual_share", "most_share"):
            if not 0 < float(getattr(self, name)) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, must be above 0 and below 1")
        if not self.most_deviation > 0:
            raise InputError(f"most_deviation is {self.most_deviation}, must be above 0")


@dataclass(frozen=True, slots=True)
class Finding:
    """What becomes of an example.

    Attributes:
        outcome: "taken", "quarantined" or "refused".
        reason: why not taken; "" for one that is.
    """

    outcome: Outcome
    reason: str = ""


def judge(one: Seen, past: History, limits: Limits) -> Finding:
    """Decide what becomes of an example.

    Args:
        one: the example.
        past: examples that were taken before; those in quarantine are not among them.
        limits: when it is suspect.

    Returns:
        Whether it is taken, and if not, why.
    """
    if not all(math.isfinite(number) for number in one.numbers):
        return Finding("refused", "a number in it is not finite")
    if one.size > limits.most_bytes:
        return Finding("refused", f"it has {one.size} bytes, at most {limits.most_bytes} are taken")
    known = [(past.said(subject), label) for subject, label in one.claims]
    if all(before == label for before, label in known):
        return Finding("refused", "the same example was taken before")
    if any(before not in {None, label} for before, label in known):
        return Finding("quarantined", "another answer to the same input was taken before")
    return _flood(one.claims[0][1], past.labels(one.tenant), limits)


def _flood(label: str, labels: Sequence[str], limits: Limits) -> Finding:
    recent = [*labels[-(limits.window - 1) :], label]
    before = labels[: len(labels) - (len(recent) - 1)]
    # As if it had come once, and once not: without a history nothing is known.
    usual = (before.count(label) + 1) / (len(before) + 2)
    share = max(limits.usual_share, min(usual, 1 - 1e-6))
    # The latest alone may be a flood, too: all beginnings of the window count, each doubled.
    for n in _widths(len(recent)):
        found = recent[-n:].count(label)
        if unlikely_many(found, n, share=share, chance=limits.chance):
            return Finding("quarantined", f"{found} of the last {n} examples have this answer")
    return Finding("taken")


def _widths(n: int) -> list[int]:
    return sorted({min(n, 2**power) for power in range(n.bit_length() + 1)})


def unlikely_many(found: int, n: int, *, share: float, chance: float) -> bool:
    """Return whether so many of one kind are no coincidence.

    Args:
        found: of one kind.
        n: of all.
        share: probability of the kind.
        chance: bound.

    Returns:
        Whether the probability of `found` or more, by the binomial distribution, is below it.
    """
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(share)
        + (n - k) * math.log1p(-share)
        for k in range(found, n + 1)
    ]
    top = max(logs)
    return top + math.log(sum(math.exp(one - top) for one in logs)) < math.log(chance)


def extreme_losses(losses: FloatArray, past: FloatArray, limits: Limits) -> dict[int, str]:
    """Find examples whose loss is far above what is usual, or is no number.

    Args:
        losses: (E,) of new examples, nats.
        past: (P,) of those that were taken before; with the new ones they are what is usual.
        limits: when one is extreme.

    Returns:
        Index in `losses` -> why.

    Source:
        Robust z-score by the median absolute deviation: Iglewicz and Hoaglin, How to Detect and
        Handle Outliers, 1993.
    """
    known = np.concatenate((past, losses)).astype(np.float64)
    known = known[np.isfinite(known)]
    found = dict.fromkeys(np.flatnonzero(~np.isfinite(losses)).tolist(), "its loss is not finite")
    if known.size < limits.least_losses:
        return found
    median = float(np.median(known))
    spread = _MAD_TO_DEVIATION * float(np.median(np.abs(known - median)))
    spread = max(spread, _LEAST_SPREAD * abs(median), 1e-6)
    deviations = (losses - median) / spread
    is_far = np.isfinite(losses) & (deviations > limits.most_deviation)
    if (known > median + limits.most_deviation * spread).mean() > limits.most_share:
        return found
    for i in np.flatnonzero(is_far).tolist():
        loss, deviation = float(losses[i]), float(deviations[i])
        found[i] = (
            f"its loss of {loss:.3g} is {deviation:.1f} deviations above the median, {median:.3g}"
        )
    return found
