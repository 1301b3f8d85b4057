"""The search itself: build the few points near the budget, learn from each, take the best."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from onhand.core.budget import Breach
from onhand.core.errors import BudgetExceeded
from onhand.core.measurement import Measurement
from onhand.core.progress import Progress
from onhand.host.search.exact import best_pick
from onhand.host.search.front import FrontPoint, front_json, thinned
from onhand.host.search.knapsack import Group, Pick
from onhand.host.search.planner import Planner, Refusal
from onhand.host.search.sensitivity import FormLoss
from onhand.host.search.treatments import named_treatment, ranks_of

__all__ = ["Built", "Search", "SearchPlan", "plan_search", "sensitivity_json"]

MOST_BUILDS = 6
# A point that is smaller, or better, by less than this is not worth a build.
_WORTH = 0.01
_FRONT_POINTS = 24
# Sizes of further variants beside the chosen one, in the order in which they are added.
_STEPS = (0.8, 1.25, 0.64, 1.5625)

Measure = Callable[[Mapping[str, str]], Mapping[str, Measurement]]
"""Matrix -> format in words -> the figures of the bundle that was built so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A point that was built.

    Attributes:
        pick: its choices.
        measured: its figures.
        breaches: limits that it does not hold.
    """

    pick: Pick
    measured: Mapping[str, Measurement]
    breaches: Sequence[Breach]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What a search is predicted to find.

    Attributes:
        points: the front, from the smallest to the best.
        chosen: label of the point that would be built first; "" if none.
        refusal: why no point can hold the budget; None if one may.
        limits: axis key -> limit.
        notes: what the user should know.
    """

    points: Sequence[FrontPoint]
    chosen: str
    refusal: Refusal | None
    limits: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return a JSON object."""
        return {
            "binding": list(self.refusal.binding) if self.refusal else [],
            "budget": dict(self.limits),
            "chosen": self.chosen,
            "estimated": True,
            "front": front_json(self.points, chosen=self.chosen),
            "notes": list(self.notes),
            "refusal": self.refusal.sentence(self.limits) if self.refusal else None,
        }


def plan_search(planner: Planner, *, notes: tuple[str, ...] = ()) -> SearchPlan:
    """Say what a search would find, without a build.

    Args:
        planner: of the search.
        notes: what the user should know.
    """
    pick, refusal = planner.propose(), planner.refusal()
    front = [point for _, point in planner.front()]
    points = thinned(front, by="size_bytes", most=_FRONT_POINTS)
    chosen = "" if pick is None or refusal is not None else planner.point(pick).label
    if pick is not None and chosen and all(point.label != chosen for point in points):
        points = sorted(
            [*points, planner.point(pick)], key=lambda point: point.predicted["size_bytes"]
        )
    return SearchPlan(
        points=points,
        chosen=chosen,
        refusal=refusal,
        limits=planner.budget.limits(),
        notes=notes,
    )


@dataclass(slots=True, kw_only=True)
class Search:
    """One search. Not for several threads.

    Attributes:
        planner: knows what to build.
        measure: builds a point and measures it.
        accept_estimates: whether an estimated figure may satisfy a limit.
        progress: told of every point.
        built: points built so far.
        rejected: choices that held the budget once, and then did not.
    """

    planner: Planner
    measure: Measure
    accept_estimates: bool
    progress: Progress
    built: list[Built] = field(default_factory=list)
    rejected: list[Pick] = field(default_factory=list)

    def run(self) -> Built:
        """Return the best point that holds every limit when it is built and measured.

        Raises:
            BudgetExceeded: if there is none: the limit that binds, and the nearest point.
        """
        while len(self.built) < MOST_BUILDS:
            pick = self.planner.propose()
            if pick is None or self._is_known(pick) or not self._is_worth(pick):
                break
            self._build(pick)
        best = self._best()
        if best is None:
            raise BudgetExceeded(self._why())
        return best

    def reject(self, built: Built, measured: Mapping[str, Measurement]) -> None:
        """Take back a point that, measured again, does not hold the budget.

        Args:
            built: the point.
            measured: its new figures.
        """
        self.rejected.append(built.pick)
        self.planner.observe(built.pick, measured)

    def steps(self, chosen: Pick, *, n_variants: int) -> list[Pick]:
        """Return smaller and larger points of the front beside a chosen one.

        Args:
            chosen: the point.
            n_variants: how many there are to be, the chosen one among them.
        """
        size = self.planner.table.names.index("size_bytes")
        fixed = self.planner.table.fixed[size]
        found: list[Pick] = []
        groups = [_of_rank(group, chosen.choices[group.name]) for group in self.planner.groups]
        for share in _STEPS:
            if len(found) == n_variants - 1:
                break
            most: list[float | None] = [None] * len(self.planner.table.names)
            # Where most of a bundle is no weights, a step is taken in what the weights add.
            added = chosen.costs[size]
            most[size] = max((added + fixed) * share - fixed, added * share**3)
            pick = best_pick(groups, most=most)
            if pick is not None and all(pick.choices != one.choices for one in [chosen, *found]):
                found.append(pick)
        return found

    def front(self, chosen: Pick) -> dict[str, object]:
        """Return what a report says of the front, with what was measured.

        Args:
            chosen: the point that was chosen.
        """
        points = thinned(
            [point for _, point in self.planner.front()], by="size_bytes", most=_FRONT_POINTS
        )
        mine = [self.planner.point(one.pick, one.measured) for one in self.built]
        labels = {point.label for point in mine}
        points = [*mine, *(point for point in points if point.label not in labels)]
        points.sort(key=lambda point: point.predicted["size_bytes"])
        return front_json(points, chosen=self.planner.point(chosen).label)

    def _build(self, pick: Pick) -> None:
        point = self.planner.point(pick)
        expected = point.predicted["perplexity_increase"]
        self.progress.note(
            f"building {point.label}: {expected:+.2%} perplexity and "
            f"{point.predicted['size_bytes'] / 2**20:.2f} MiB are predicted"
        )
        measured = self.measure(self.planner.choices(pick))
        breaches = self.planner.budget.breaches(
            measured.values(), accept_estimates=self.accept_estimates
        )
        self.built.append(Built(pick=pick, measured=measured, breaches=breaches))
        self.planner.observe(pick, measured)

    def _is_known(self, pick: Pick) -> bool:
        return any(one.pick.choices == pick.choices for one in self.built)

    def _is_worth(self, pick: Pick) -> bool:
        """Say whether a point may be better than the best that holds already."""
        best = self._best()
        if best is None:
            return True
        if self._counts_size():
            size = self.planner.point(pick).predicted["size_bytes"]
            return size < best.measured["size_bytes"].value * (1 - _WORTH)
        expected = self.planner.point(pick).predicted["kl_divergence"]
        return expected < best.measured["kl_divergence"].value * (1 - _WORTH)

    def _counts_size(self) -> bool:
        """Say whether the smallest point wins: where nothing but quality is limited."""
        return set(self.planner.budget.limits()) <= {"quality"}

    def _best(self) -> Built | None:
        name = "size_bytes" if self._counts_size() else "kl_divergence"
        holding = [one for one in self.built if not one.breaches and one.pick not in self.rejected]
        return min(holding, key=lambda one: one.measured[name].value, default=None)

    def _why(self) -> str:
        """Say why nothing holds the budget."""
        limits = self.planner.budget.limits()
        refusal = self.planner.refusal()
        if refusal is not None:
            return refusal.sentence(limits)
        nearest = min(self.built, key=lambda one: _excess(one.breaches), default=None)
        if nearest is None:
            return "the search has nothing to build"
        said = "; ".join(f"{one.key} {one.why}" for one in nearest.breaches)
        point = self.planner.point(nearest.pick)
        again = " when it was measured again" if not said else ""
        return (
            f"none of {len(self.built)} points built holds the budget; the nearest, "
            f"{point.label}{again}: {said or 'does not'}"
        )


def _of_rank(group: Group, chosen: str) -> Group:
    """Keep choices of the same rank: variants of one bundle have the same matrices."""
    rank = ranks_of({"": chosen})
    return replace(group, choices=tuple(c for c in group.choices if ranks_of({"": c.name}) == rank))


def _excess(breaches: Sequence[Breach]) -> float:
    """Return how far a point is over its worst limit, as a share of it."""
    worst = 0.0
    for one in breaches:
        if one.found is None or one.ceiling == 0:
            return float("inf")
        worst = max(worst, abs(one.found / one.ceiling - 1))
    return worst


def sensitivity_json(losses: Sequence[FormLoss]) -> list[dict[str, object]]:
    """Return what a report says of a table of losses.

    Args:
        losses: the table.
    """
    rows: list[dict[str, object]] = []
    for row in losses:
        form = named_treatment(row.form).form
        rows.append({
            "group": row.matrix,
            "choice": row.form,
            "bits": 32 if form is None else form.bits,
            "damage": row.damage,
            "size_bytes": row.size_bytes,
        })
    return rows
