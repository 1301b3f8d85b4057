"""Which point to build next, and whether a budget can be met: pure, without a model at hand."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from onhand.core.budget import AXES, Budget
from onhand.core.measurement import Measurement
from onhand.host.search.correction import Curve, Observation, correction, largest_below
from onhand.host.search.cost_table import CostTable, as_cost
from onhand.host.search.exact import best_pick, nearest_pick
from onhand.host.search.front import AXES as FRONT_AXES
from onhand.host.search.front import FrontPoint, on_front
from onhand.host.search.knapsack import Choice, Group, Pick, hull_front

__all__ = ["Planner", "Refusal"]

_QUALITY = "perplexity_increase"
# A prediction of quality may be off by this factor before, and after, a real build near it.
_DOUBT_BEFORE, _DOUBT_AFTER = 2.0, 1.15
# The machine's state changes between two measurements, so time is planned with some to spare.
_TIME_MARGIN = 0.05
_DOUBT_MEASURED = 0.1
_MOST_DAMAGE = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why no point holds a budget.

    Attributes:
        binding: keys of the limits that cannot hold, as in `AXES`: one alone, or several that
            cannot hold together.
        best: the best figure that can be reached for each of these with the others held.
        nearest: the point that oversteps least, with what is predicted of it.
    """

    binding: tuple[str, ...]
    best: Mapping[str, float]
    nearest: FrontPoint

    def sentence(self, limits: Mapping[str, float]) -> str:
        """Say it in one sentence.

        Args:
            limits: axis key -> limit.
        """
        found = self.nearest.measured or {}
        said: list[str] = []
        for key in limits:
            name = AXES[key].measurement
            if name in found:
                said.append(f"{key} {AXES[key].show(found[name].value)} measured")
            elif name in self.nearest.predicted:
                said.append(f"{key} {AXES[key].show(self.nearest.predicted[name])} predicted")
        near = f"the nearest point has {', '.join(said)}"
        if len(self.binding) == 1:
            (key,) = self.binding
            axis = AXES[key]
            return (
                f"{key}: at {axis.limit} {axis.show(limits[key])} allowed, the best that can be "
                f"reached is {axis.show(self.best[key])}; {near}"
            )
        alone = [f"{key} {AXES[key].show(limits[key])}" for key in self.binding]
        return f"{' and '.join(alone)} cannot hold together; {near}"


@dataclass(slots=True, kw_only=True)
class Planner:
    """What is known of a search, and what follows from it. Not for several threads.

    Attributes:
        groups: matrices, or those that are tied, with damages in nats and costs along the axes
            of the table.
        members: group -> its matrices.
        table: what matrices cost.
        budget: what must hold.
        observations: whole models that were run.
        label: names a point by its matrices' formats.
        factors: figure -> measured cost / predicted cost, of the points built so far.
    """

    groups: Sequence[Group]
    members: Mapping[str, Sequence[str]]
    table: CostTable
    budget: Budget
    observations: list[Observation]
    label: Callable[[Mapping[str, str]], str]
    factors: dict[str, float] = field(default_factory=dict)

    @property
    def curve(self) -> Curve:
        """From predicted damage to what is expected to be measured."""
        return correction(self.observations)

    def choices(self, pick: Pick) -> dict[str, str]:
        """Return matrix -> format.

        Args:
            pick: of the groups.
        """
        return {name: pick.choices[group] for group in self.members for name in self.members[group]}

    def point(self, pick: Pick, measured: Mapping[str, Measurement] | None = None) -> FrontPoint:
        """Say what is predicted of a pick.

        Args:
            pick: of the groups.
            measured: what was measured of it, if it was built.
        """
        figures = self.table.figures(self.choices(pick))
        for name in figures:
            cost = as_cost(name, figures[name]) * self.factors.get(name, 1.0)
            figures[name] = as_cost(name, cost)
        curve = self.curve
        return FrontPoint(
            label=self.label(self.choices(pick)),
            choices=dict(pick.choices),
            predicted=figures
            | {
                "kl_divergence": curve.expected_divergence(pick.damage),
                _QUALITY: curve.expected_perplexity_increase(pick.damage),
                "damage": pick.damage,
            },
            measured=measured,
        )

    def front(self) -> list[tuple[Pick, FrontPoint]]:
        """Return the predicted front, from the smallest point to the best."""
        found: dict[tuple[tuple[str, str], ...], Pick] = {}
        for axis in range(len(self.table.names)):
            weights = [1.0 if at == axis else 0.0 for at in range(len(self.table.names))]
            for pick in hull_front(self.groups, weights=weights):
                found.setdefault(tuple(sorted(pick.choices.items())), pick)
        made = [(pick, self.point(pick)) for pick in found.values()]
        axes = [name for name in FRONT_AXES if name in made[0][1].predicted]
        best = on_front([point.predicted for _, point in made], axes)
        kept = [one for one, is_best in zip(made, best, strict=True) if is_best]
        return sorted(kept, key=lambda one: (one[1].predicted["size_bytes"], one[0].damage))

    def propose(self) -> Pick | None:
        """Return the point to build next.

        It is the one of least damage that is predicted to hold every ceiling; where quality alone
        is limited, the smallest that is predicted to be good enough. Where none is predicted to
        hold, but the forecast may be wrong by enough, the nearest. None if that is hopeless.
        """
        ceilings, damage = self.ceilings(doubt=False), self.most_damage(doubt=1.0)
        found: Pick | None
        if any(limit is not None for limit in ceilings):
            found = best_pick(self.groups, most=ceilings, most_damage=damage)
        else:
            found = self._smallest(damage)
        if found is not None or self.refusal() is not None:
            return found
        # In doubt, build the best that holds the costs: then it is known.
        return best_pick(self.groups, most=ceilings) or best_pick(
            self.groups, most=self.ceilings(doubt=True)
        )

    def observe(self, pick: Pick, measured: Mapping[str, Measurement]) -> None:
        """Learn from a built point.

        Args:
            pick: what was built.
            measured: its figures.
        """
        predicted = self.table.figures(self.choices(pick))
        for name, value in predicted.items():
            if name not in measured:
                continue
            figure = measured[name]
            slow = figure.value
            axis = next((one for one in AXES.values() if one.measurement == name), None)
            if axis is not None and axis.timed:
                slow += figure.spread if axis.limit == "most" else -figure.spread
            ratio = as_cost(name, slow) / max(as_cost(name, value), 1e-30)
            self.factors[name] = max(ratio, self.factors.get(name, 0.0))
        increase = measured["perplexity_increase"].value
        self.observations.append(
            Observation(
                damage=pick.damage,
                divergence=measured["kl_divergence"].value,
                loss_increase=math.log1p(max(increase, -0.999)),
                is_real=True,
            )
        )

    def refusal(self) -> Refusal | None:
        """Say which limits cannot hold, even if the forecast is wrong by all its spread."""
        limits = self.budget.limits()
        if self._holds(limits):
            return None
        alone = [key for key in limits if not self._holds({key: limits[key]})]
        binding = alone[:1] or self._together(limits)
        others = {key: value for key, value in limits.items() if key not in binding}
        reach = {key: self._reach(key, others) for key in binding}
        return Refusal(binding=tuple(binding), best=reach, nearest=self.point(self._nearest()))

    def _together(self, limits: Mapping[str, float]) -> list[str]:
        """Return a smallest set of limits that cannot hold together."""
        kept = dict(limits)
        for key in list(kept):
            without = {other: value for other, value in kept.items() if other != key}
            if without and not self._holds(without):
                kept = without
        return list(kept)

    def _holds(self, limits: Mapping[str, float]) -> bool:
        """Say whether some point may hold limits."""
        budget = Budget(**{AXES[key].measurement: value for key, value in limits.items()})
        asked = replace(self, budget=budget)
        doubt = _DOUBT_AFTER if self._has_built() else _DOUBT_BEFORE
        damage = asked.most_damage(doubt=doubt)
        if damage is not None and damage <= 0:
            return False
        return (
            best_pick(self.groups, most=asked.ceilings(doubt=True), most_damage=damage, gap=0.05)
            is not None
        )

    def _reach(self, key: str, others: Mapping[str, float]) -> float:
        """Return the best figure of one axis with other limits held, or without if none holds."""
        budget = Budget(**{AXES[other].measurement: value for other, value in others.items()})
        name = AXES[key].measurement
        asked = replace(self, budget=budget)
        ceilings, damage = asked.ceilings(doubt=True), asked.most_damage(doubt=1.0)
        if name == _QUALITY:
            pick = best_pick(self.groups, most=ceilings) or self._nearest()
        else:
            axis = self.table.names.index(name)
            ordered = [_swapped(group, axis) for group in self.groups]
            within = [*ceilings, damage]
            found = best_pick(ordered, most=within) or best_pick(ordered, most=[None] * len(within))
            pick = self._nearest() if found is None else self._same(found)
        return self.point(pick).predicted[name]

    def _same(self, pick: Pick) -> Pick:
        """Return a pick of swapped groups with its own damage and costs."""
        chosen = [
            next(one for one in group.choices if one.name == pick.choices[group.name])
            for group in self.groups
        ]
        return Pick(
            choices=pick.choices,
            damage=sum(one.damage for one in chosen),
            costs=tuple(map(sum, zip(*(one.costs for one in chosen), strict=True))),
        )

    def _nearest(self) -> Pick:
        """Return the point that oversteps its worst limit least."""
        ceilings = self.ceilings(doubt=False)
        fixed = dict(zip(self.table.names, self.table.fixed, strict=True))
        # Shares of the whole count, so each group carries its part of what is fixed.
        n = len(self.groups)
        whole = [
            Group(
                group.name,
                tuple(
                    replace(
                        one,
                        costs=tuple(
                            cost + fixed[name] / n
                            for name, cost in zip(self.table.names, one.costs, strict=True)
                        ),
                    )
                    for one in group.choices
                ),
            )
            for group in self.groups
        ]
        most = [
            None if limit is None else max(limit + fixed[name], 1e-12)
            for name, limit in zip(self.table.names, ceilings, strict=True)
        ]
        damage = self.most_damage(doubt=1.0)
        pick, _ = nearest_pick(
            whole, most=most, most_damage=None if damage is None else max(damage, 1e-6)
        )
        return self._same(pick)

    def _smallest(self, damage: float | None) -> Pick | None:
        """Return the smallest point with at most some damage."""
        axis = self.table.names.index("size_bytes")
        ordered = [_swapped(group, axis) for group in self.groups]
        most: list[float | None] = [None] * len(self.table.names)
        found = best_pick(ordered, most=[*most, damage])
        return None if found is None else self._same(found)

    def ceilings(self, *, doubt: bool) -> list[float | None]:
        """Return what the groups may cost along each axis.

        Args:
            doubt: whether all counts that may turn out to hold, not only what should.
        """
        found: list[float | None] = []
        limits = {
            AXES[key].measurement: (key, limit) for key, limit in self.budget.limits().items()
        }
        for name, fixed in zip(self.table.names, self.table.fixed, strict=True):
            if name not in limits:
                found.append(None)
                continue
            key, limit = limits[name]
            factor = self.factors.get(name, 1.0)
            most = as_cost(name, limit) / factor
            if doubt:
                seen = name in self.factors
                spread = self.table.spread.get(name, 0.0)
                most *= 1 + (min(spread, _DOUBT_MEASURED) if seen else spread)
            elif AXES[key].timed:
                most *= 1 - _TIME_MARGIN
            found.append(most - fixed)
        return found

    def most_damage(self, *, doubt: float) -> float | None:
        """Return the damage that the limit of quality allows; None for no limit, 0 for none.

        Args:
            doubt: factor on the limit.
        """
        limit = self.budget.perplexity_increase
        if limit is None:
            return None
        found = largest_below(
            self.curve.expected_perplexity_increase, limit * doubt, most=_MOST_DAMAGE
        )
        return 0.0 if found is None else found

    def _has_built(self) -> bool:
        return any(one.is_real for one in self.observations)


def _swapped(group: Group, axis: int) -> Group:
    """Return a group whose damage is one of its costs, and its damage the last cost."""
    return Group(
        group.name,
        tuple(
            Choice(name=one.name, damage=one.costs[axis], costs=(*one.costs, one.damage))
            for one in group.choices
        ),
    )
