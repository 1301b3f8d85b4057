"""Which point of a front answers a budget, and which ceiling is to blame where none does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from onhand.core.budget import AXES, Budget
from onhand.host.search.network_front import Candidate

__all__ = ["Refusal", "excess", "next_candidate", "refuse", "worth"]

_LOSS: Final = "quality_loss"
_LATENCY: Final = "latency_s"
_HUGE: Final = 1e30


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why no point holds a budget.

    Attributes:
        key: the ceiling that binds: without it, or with it higher, a point holds all others.
        ceiling: it.
        reachable: the least that a point reaches along it while all others hold; None where no
            single ceiling is to blame.
        nearest: the point that comes nearest.
    """

    key: str
    ceiling: float
    reachable: float | None
    nearest: Candidate

    def sentence(self, label: str) -> str:
        """Say it for people.

        Args:
            label: of the nearest point.
        """
        axis = AXES[self.key]
        limits = f"{self.key} is at most {axis.show(self.ceiling)}"
        if self.reachable is None:
            found = axis.show(self.nearest.predicted[axis.measurement])
            return (
                f"no choice of layers is predicted to hold the budget, and no single limit is to "
                f"blame; the nearest, {label}, misses {self.key} most: {found} where {limits}"
            )
        return (
            f"no choice of layers is predicted to hold the budget: {limits}, and with all other "
            f"limits held the least is {axis.show(self.reachable)} ({label}); allow "
            f"{self.key}={axis.show(self.reachable)}, or less of the others"
        )


def worth(one: Candidate, limits: Mapping[str, float]) -> tuple[float, ...]:
    """Return what is least of the best candidate.

    Where a budget limits the loss alone, the fastest is best; else what loses least.

    Args:
        one: the candidate.
        limits: key of an axis -> ceiling.
    """
    costs = (one.predicted.get(_LATENCY, 0.0), one.predicted.get("size_bytes", 0.0))
    return (*costs, one.damage) if set(limits) == {"loss"} else (one.damage, *costs)


def excess(
    one: Candidate, limits: Mapping[str, float], scales: Mapping[str, float]
) -> dict[str, float]:
    """Return key of an axis -> how far a forecast lies above its ceiling, as a share of it.

    Args:
        one: the candidate.
        limits: key -> ceiling.
        scales: name of a measurement -> what the forecast is multiplied with.
    """
    found: dict[str, float] = {}
    for key, ceiling in limits.items():
        name = AXES[key].measurement
        value = one.predicted.get(name)
        if value is None:
            continue
        value *= scales.get(name, 1.0)
        found[key] = value / ceiling - 1 if ceiling > 0 else (0.0 if value <= 0 else _HUGE)
    return found


def next_candidate(
    front: Sequence[Candidate],
    budget: Budget,
    *,
    scales: Mapping[str, float],
    tried: Sequence[Candidate],
    most_over: float,
) -> Candidate | None:
    """Return what is built next.

    Args:
        front: all candidates.
        budget: the limits.
        scales: what was learned of forecasts, see `excess`.
        tried: those built already.
        most_over: share of a ceiling that the forecast may be above it, where none holds all.

    Returns:
        The best that is predicted to hold, or the one nearest to it; None where all others are
        too far.
    """
    limits = budget.limits()
    left = [one for one in front if not any(one is other for other in tried)]
    over = {id(one): max(excess(one, limits, scales).values(), default=0.0) for one in left}
    holding = [one for one in left if over[id(one)] <= 0]
    if holding:
        return min(holding, key=lambda one: worth(one, limits))
    near = [one for one in left if over[id(one)] <= most_over]
    return min(near, key=lambda one: over[id(one)], default=None)


def refuse(
    front: Sequence[Candidate], budget: Budget, *, scales: Mapping[str, float] | None = None
) -> Refusal | None:
    """Return why no forecast holds a budget; None where one does.

    Args:
        front: all candidates.
        budget: the limits.
        scales: see `excess`.
    """
    limits = budget.limits()
    overs = [excess(one, limits, scales or {}) for one in front]
    if any(max(over.values(), default=0.0) <= 0 for over in overs):
        return None
    best: Refusal | None = None
    least = _HUGE
    for key in limits:
        able = [
            (over[key], one)
            for over, one in zip(overs, front, strict=True)
            if key in over and all(other <= 0 for name, other in over.items() if name != key)
        ]
        if not able:
            continue
        by, one = min(able, key=lambda pair: pair[0])
        if by < least:
            least = by
            best = Refusal(
                key=key, ceiling=limits[key], reachable=limits[key] * (1 + by), nearest=one
            )
    if best is not None:
        return best
    worst, one = min(
        zip((max(o.values()) for o in overs), front, strict=True), key=lambda pair: pair[0]
    )
    over = excess(one, limits, scales or {})
    key = next(name for name, by in over.items() if by == worst)
    return Refusal(key=key, ceiling=limits[key], reachable=None, nearest=one)
