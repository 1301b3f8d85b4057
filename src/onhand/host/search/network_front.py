"""The front of a network's choices: the knapsack's, and then what borders between layers cost.

The knapsack knows sums over layers alone. Where integers meet float, a border costs time, which is
no sum: for each of its points the best choices along the chain of layers are found by dynamic
programming with the borders in it, and the borders that leave the chain by trying each layer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.host.costs.networks import NetworkCosts, lies_as
from onhand.host.search.exact import best_pick
from onhand.host.search.knapsack import Choice, Group, Pick, hull_front
from onhand.host.search.network_damage import Damages

__all__ = ["Candidate", "Space", "candidates", "dominated", "picks_under"]

_AXES: Final = ("size_bytes", "latency_s", "peak_memory_bytes")
# What a front is looked for along: one cost alone, or several as shares of float's.
_DIRECTIONS: Final = (
    (1.0, 0.0, 0.0),
    (0.0, 1.0, 0.0),
    (0.0, 0.0, 1.0),
    (1.0, 1.0, 0.0),
    (1.0, 3.0, 1.0),
    (3.0, 1.0, 0.0),
)
_MOST_POINTS: Final = 24  # of each sweep that are looked at closely
_ROUNDS: Final = 3
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """One network whose layers have choices, in one engine.

    Attributes:
        base: what was done to it before: "" for nothing.
        engine: that runs it.
        costs: of its layers.
        damages: of its layers.
        choices: layer -> choices.
    """

    base: str
    engine: str
    costs: NetworkCosts
    damages: Damages
    choices: Mapping[str, tuple[str, ...]]

    def predicted(self, choices: Mapping[str, str]) -> dict[str, float]:
        """Forecast a whole network: its costs and `quality_loss`."""
        whole = self.costs.whole(choices, self.engine)
        return whole | {"quality_loss": self.damages.loss(choices)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A choice for every layer, and what is expected of it.

    Attributes:
        space: it is a point of.
        choices: layer -> choice.
        damage: squared error expected at the network's end.
        predicted: figures by the names of measurements.
    """

    space: Space
    choices: Mapping[str, str]
    damage: float
    predicted: Mapping[str, float]


def candidates(space: Space) -> list[Candidate]:
    """Return points of least loss for their costs.

    Args:
        space: to look in.

    Returns:
        Those that no other one beats in loss, size, time and memory at once; by rising loss.
    """
    groups = _groups(space)
    reference = space.costs.whole({n: c[0] for n, c in space.choices.items()}, space.engine)
    scale = [1 / max(reference.get(axis, 0.0), 1e-12) for axis in _AXES]
    found: dict[tuple[str, ...], dict[str, str]] = {}

    def keep(choices: Mapping[str, str]) -> None:
        found.setdefault(tuple(choices[n] for n in space.choices), dict(choices))

    for direction in _DIRECTIONS:
        weights = [d * s for d, s in zip(direction, scale, strict=True)]
        picks = hull_front(groups, weights=weights)
        for price, pick in _thinned(picks, weights):
            keep(pick.choices)
            keep(_with_borders(space, groups, pick.choices, [price * w for w in weights]))
    made = [_candidate(space, choices) for choices in found.values()]
    return sorted(
        (one for one in made if not any(dominated(one, other) for other in made)),
        key=lambda one: (one.damage, one.predicted["size_bytes"]),
    )


def picks_under(
    space: Space, *, size_bytes: float | None, latency_s: float | None, memory: float | None
) -> list[Candidate]:
    """Return the least loss that holds ceilings, by integer programming.

    What borders will cost is not known beforehand: the ceiling of time is lowered by what they
    cost in the answer, a few times.

    Args:
        space: to look in.
        size_bytes: ceiling of the size; None for none.
        latency_s: ceiling of the time.
        memory: ceiling of the memory.
    """
    groups = _groups(space)
    found: list[Candidate] = []
    border = 0.0
    for _ in range(_ROUNDS):
        size = None if size_bytes is None else size_bytes - space.costs.fixed_bytes
        time = None if latency_s is None else latency_s - border
        if min(size or 1.0, time or 1.0) <= 0:
            break
        pick = best_pick(groups, most=[size, time, memory], gap=1e-3, limit_s=20.0)
        if pick is None:
            break
        found.append(_candidate(space, pick.choices))
        cost = space.costs.border_s(pick.choices, space.engine)
        if latency_s is None or cost <= border * 1.001:
            break
        border = cost
    return found


def dominated(one: Candidate, other: Candidate) -> bool:
    """Say whether another candidate is nowhere worse and somewhere better."""
    ours = [one.damage, *(one.predicted.get(axis, 0.0) for axis in _AXES)]
    theirs = [other.damage, *(other.predicted.get(axis, 0.0) for axis in _AXES)]
    return theirs != ours and all(b <= a for a, b in zip(ours, theirs, strict=True))


def _candidate(space: Space, choices: Mapping[str, str]) -> Candidate:
    return Candidate(
        space=space,
        choices={name: choices[name] for name in space.choices},
        damage=space.damages.total(choices),
        predicted=space.predicted(choices),
    )


def _groups(space: Space) -> list[Group]:
    groups: list[Group] = []
    for name, choices in space.choices.items():
        made = []
        for choice in choices:
            cost = space.costs.layer(name, choice, space.engine)
            made.append(
                Choice(
                    name=choice,
                    damage=space.damages.layers[name][choice],
                    costs=(cost.size_bytes, cost.latency_s, cost.peak_memory_bytes),
                )
            )
        groups.append(Group(name, tuple(made)))
    return groups


def _thinned(picks: Sequence[Pick], weights: Sequence[float]) -> list[tuple[float, Pick]]:
    """Return some of a sweep's picks, each with the damage that a unit of cost is worth there."""
    costs = [float(np.dot(pick.costs, weights)) for pick in picks]
    priced: list[tuple[float, Pick]] = []
    for i, pick in enumerate(picks):
        before, after = max(i - 1, 0), min(i + 1, len(picks) - 1)
        gap = costs[after] - costs[before]
        price = (picks[before].damage - picks[after].damage) / gap if gap > 0 else 0.0
        priced.append((price, pick))
    if len(priced) <= _MOST_POINTS:
        return priced
    places = np.unique(np.linspace(0, len(priced) - 1, _MOST_POINTS).round().astype(int))
    return [priced[i] for i in places]


def _with_borders(
    space: Space, groups: Sequence[Group], begun: Mapping[str, str], prices: Sequence[float]
) -> dict[str, str]:
    """Return choices of least damage plus priced costs, borders among them."""
    engine = space.costs.engines[space.engine]
    names = [group.name for group in groups]
    own = [
        np.array([c.damage + float(np.dot(c.costs, prices)) for c in group.choices])
        for group in groups
    ]
    kinds = [np.array([lies_as(c.name) for c in group.choices]) for group in groups]

    def toll(n_values: int) -> float:
        return prices[1] * (engine.border_s + engine.value_s * n_values)

    following = {(b.before, b.after): toll(b.n_values) for b in space.costs.borders}
    steps = [following.get(pair, 0.0) for pair in pairwise(names)]
    index = _along_chain(own, kinds, steps)
    choices = {n: g.choices[i].name for n, g, i in zip(names, groups, index, strict=True)}
    best = min((choices, dict(begun)), key=lambda one: _priced(one, groups, own, space, toll))
    return _by_trying(best, groups, own, space, toll)


def _along_chain(
    own: Sequence[Doubles], kinds: Sequence[NDArray[np.int64]], steps: Sequence[float]
) -> list[int]:
    """Return the choices of least sum along a chain (Viterbi)."""
    total, back = own[0], list[NDArray[np.int64]]()
    for i in range(1, len(own)):
        # (before, after): the toll where values lie in two ways.
        moved = total[:, None] + steps[i - 1] * (kinds[i - 1][:, None] != kinds[i][None])
        back.append(moved.argmin(axis=0))
        total = moved.min(axis=0) + own[i]
    index = [int(total.argmin())]
    for places in reversed(back):
        index.append(int(places[index[-1]]))
    return index[::-1]


def _priced(
    choices: Mapping[str, str],
    groups: Sequence[Group],
    own: Sequence[Doubles],
    space: Space,
    toll: Callable[[int], float],
) -> float:
    whole = 0.0
    for group, values in zip(groups, own, strict=True):
        names = [choice.name for choice in group.choices]
        whole += float(values[names.index(choices[group.name])])
    return whole + sum(toll(place.n_values) for place in space.costs.crossed(choices))


def _by_trying(
    begun: dict[str, str],
    groups: Sequence[Group],
    own: Sequence[Doubles],
    space: Space,
    toll: Callable[[int], float],
) -> dict[str, str]:
    """Return choices that no change of a single layer makes better."""
    choices = dict(begun)
    for _ in range(_ROUNDS):
        changed = False
        for group, values in zip(groups, own, strict=True):
            places = space.costs.borders_of_layer[group.name]

            def worth(i: int, group: Group = group, values: Doubles = values) -> float:
                tried = lies_as(group.choices[i].name)
                crossed = sum(
                    toll(place.n_values)
                    for place in places  # noqa: B023 (called at once)
                    if place.before
                    and lies_as(choices[_other(place.before, place.after, group.name)]) != tried
                )
                return float(values[i]) + crossed

            best = min(range(len(group.choices)), key=lambda i: (worth(i), i))
            if group.choices[best].name != choices[group.name]:
                choices[group.name] = group.choices[best].name
                changed = True
        if not changed:
            break
    return choices


def _other(before: str, after: str, name: str) -> str:
    return after if name == before else before
