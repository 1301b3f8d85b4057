"""One choice for each group: the whole front of least damage for a cost, in one sweep.

The multiple-choice knapsack. Damages and costs are sums over groups; both are known beforehand.
Exact points under several ceilings at once: `onhand.host.search.exact`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError

__all__ = [
    "Choice",
    "Group",
    "Pick",
    "Table",
    "check_groups",
    "hull_front",
    "pick_of",
    "tie_groups",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One way to store a group.

    Attributes:
        name: what a person reads, unique within its group: "4 bit, groups of 32".
        damage: what it loses, at least 0; any unit that adds up over groups.
        costs: what it takes along each axis, the same axes for all choices of all groups.
    """

    name: str
    damage: float
    costs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """What shares one choice: a matrix, or several that are stored alike.

    Attributes:
        name: unique: "layers.3.down".
        choices: at least one.
    """

    name: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One choice for every group.

    Attributes:
        choices: group -> the name of its choice.
        damage: the sum over groups.
        costs: the sums over groups, along each axis.
    """

    choices: Mapping[str, str]
    damage: float
    costs: tuple[float, ...]


def pick_of(groups: Sequence[Group], choices: Mapping[str, str]) -> Pick:
    """Add up what given choices cost.

    Args:
        groups: all groups.
        choices: group -> the name of its choice.

    Returns:
        The pick.

    Raises:
        InputError: if a group has no choice, or one of another name.
    """
    table = Table(check_groups(groups))
    index: list[int] = []
    for group in groups:
        names = [choice.name for choice in group.choices]
        if (found := choices.get(group.name)) not in names:
            raise InputError(f"{group.name}: no choice {found!r}; known: {', '.join(names)}")
        index.append(names.index(found))
    return table.pick(index)


def tie_groups(groups: Sequence[Group], ties: Iterable[Sequence[str]]) -> list[Group]:
    """Join groups that must be stored alike into one group with the choices all of them have.

    Args:
        groups: all groups.
        ties: names of groups that share a choice; a group is in one tie at most.

    Returns:
        The groups, each tie in the place of its first member and named "a + b".

    Raises:
        InputError: if a name is unknown or in two ties, or the members have no choice in common.
    """
    known = {group.name: group for group in groups}
    joined: dict[str, Group] = {}
    gone: set[str] = set()
    for names in ties:
        members = [known[name] for name in names if name in known and name not in gone]
        if len(members) != len(names) or not members:
            raise InputError(f"tie {', '.join(names)}: a group is unknown or already tied")
        gone.update(names)
        joined[names[0]] = _joined(members)
    kept = [group for group in groups if group.name in joined or group.name not in gone]
    return [joined.get(group.name, group) for group in kept]


def hull_front(groups: Sequence[Group], *, weights: Sequence[float] = (1.0,)) -> list[Pick]:
    """Return every pick on the convex hull of damage against cost, in one sweep.

    A Lagrange multiplier sweeps from dear to free. Each group walks along the lower convex hull
    of its own choices, and the steps of all groups are taken in order of damage saved for cost
    added, so one sort gives the whole front. Between two neighbours may lie exact picks that no
    multiplier finds: see `onhand.host.search.exact`.

    Args:
        groups: all groups.
        weights: one for each axis, at least 0: the cost that counts is the weighted sum.

    Returns:
        The picks, from cheapest to least damage; equal steps are taken in the groups' order.

    Raises:
        InputError: if a group has no choices, or damages, costs or weights are not usable.

    Source:
        Everett 1963, doi:10.1287/opre.11.3.399; hulls: Sinha and Zoltners 1979,
        doi:10.1287/opre.27.3.503.
    """
    table = Table(check_groups(groups))
    if len(weights) != table.n_axes or min(weights, default=0.0) < 0:
        raise InputError(f"weights {tuple(weights)}: expected {table.n_axes}, each at least 0")
    weighted = [costs @ np.asarray(weights, dtype=np.float64) for costs in table.costs]
    hulls = [_hull(cost, damage) for cost, damage in zip(weighted, table.damages, strict=True)]
    steps: list[tuple[float, int, int]] = []
    for number, hull in enumerate(hulls):
        for place in range(1, len(hull)):
            before, after = hull[place - 1], hull[place]
            saved = table.damages[number][before] - table.damages[number][after]
            added = weighted[number][after] - weighted[number][before]
            steps.append((-saved / added, number, place))
    # Along a hull the savings fall, so a sort keeps each group's own steps in order.
    steps.sort(key=lambda step: (step[0], step[1], step[2]))
    index = [hull[0] for hull in hulls]
    front = [table.pick(index)]
    for _, number, place in steps:
        index[number] = hulls[number][place]
        front.append(table.pick(index))
    return front


class Table:
    """Damages and costs of all groups as arrays.

    Attributes:
        groups: the groups.
        n_axes: how many costs each choice has.
        damages: of each group, (C,).
        costs: of each group, (C, n_axes).
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        """Take groups that `check_groups` has seen.

        Args:
            groups: all groups.
        """
        self.groups = groups
        self.n_axes = len(groups[0].choices[0].costs)
        self.damages = [np.array([c.damage for c in g.choices], dtype=np.float64) for g in groups]
        self.costs = [
            np.array([c.costs for c in g.choices], dtype=np.float64).reshape(-1, self.n_axes)
            for g in groups
        ]

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """Return the group of each choice, all choices in a row: (C,)."""
        return np.repeat(np.arange(len(self.groups)), [len(g.choices) for g in self.groups])

    def columns(self, index: Sequence[int]) -> NDArray[np.float64]:
        """Return 1 for each picked choice and 0 for the others: (C,).

        Args:
            index: the number of each group's choice.
        """
        x = np.zeros(len(self.owners))
        starts = np.concatenate([[0], np.cumsum([len(g.choices) for g in self.groups])[:-1]])
        x[starts + np.asarray(index)] = 1.0
        return x

    def pick(self, index: Sequence[int]) -> Pick:
        """Return the pick of given choices.

        Args:
            index: the number of each group's choice.
        """
        chosen = [group.choices[i] for group, i in zip(self.groups, index, strict=True)]
        return Pick(
            choices={g.name: c.name for g, c in zip(self.groups, chosen, strict=True)},
            damage=float(sum(c.damage for c in chosen)),
            costs=tuple(float(sum(c.costs[axis] for c in chosen)) for axis in range(self.n_axes)),
        )


def check_groups(groups: Sequence[Group], *, by_name: bool = False) -> list[Group]:
    """Return the groups after a look at every number.

    Args:
        groups: all groups.
        by_name: sort groups and choices by name, so that their order does not matter.

    Raises:
        InputError: if there is none, a name is used twice, or a number is not usable.
    """
    if not groups or any(not group.choices for group in groups):
        raise InputError("knapsack: needs at least one group, each with at least one choice")
    if len({group.name for group in groups}) != len(groups):
        raise InputError("knapsack: two groups have the same name")
    n_axes = len(groups[0].choices[0].costs)
    for group in groups:
        if len({choice.name for choice in group.choices}) != len(group.choices):
            raise InputError(f"{group.name}: two choices have the same name")
        for choice in group.choices:
            numbers = np.array([choice.damage, *choice.costs], dtype=np.float64)
            if len(numbers) != n_axes + 1 or not np.isfinite(numbers).all() or numbers[0] < 0:
                raise InputError(
                    f"{group.name}, {choice.name}: damage {choice.damage} and costs "
                    f"{choice.costs} must be finite, the damage at least 0, {n_axes} costs"
                )
    if not by_name:
        return list(groups)
    return [
        Group(group.name, tuple(sorted(group.choices, key=lambda choice: choice.name)))
        for group in sorted(groups, key=lambda group: group.name)
    ]


def _joined(members: Sequence[Group]) -> Group:
    """Return one group in place of several.

    Raises:
        InputError: if they have no choice in common.
    """
    tables = [{choice.name: choice for choice in group.choices} for group in members]
    common = [c.name for c in members[0].choices if all(c.name in table for table in tables)]
    if not common:
        raise InputError(f"{', '.join(g.name for g in members)}: have no choice in common")
    choices = tuple(
        Choice(
            name=name,
            damage=sum(table[name].damage for table in tables),
            costs=tuple(map(sum, zip(*(table[name].costs for table in tables), strict=True))),
        )
        for name in common
    )
    return Group(" + ".join(group.name for group in members), choices)


def _hull(cost: NDArray[np.float64], damage: NDArray[np.float64]) -> list[int]:
    """Return the choices on the lower left convex hull, from cheapest to least damage."""
    order = sorted(range(len(cost)), key=lambda i: (cost[i], damage[i], i))
    hull: list[int] = []
    for i in order:
        if hull and damage[i] >= damage[hull[-1]]:
            continue
        while len(hull) > 1 and _bends_up(hull[-2], hull[-1], i, cost, damage):
            hull.pop()
        hull.append(i)
    return hull


def _bends_up(
    a: int, b: int, c: int, cost: NDArray[np.float64], damage: NDArray[np.float64]
) -> bool:
    """Return whether b lies on or above the line from a to c."""
    return bool(
        (damage[a] - damage[b]) * (cost[c] - cost[b])
        <= (damage[b] - damage[c]) * (cost[b] - cost[a])
    )
