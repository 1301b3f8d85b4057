"""Exact picks under several ceilings at once, by integer programming (HiGHS, through SciPy)."""

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.host.search.knapsack import Group, Pick, Table, check_groups

__all__ = ["best_pick", "nearest_pick"]

# HiGHS holds a row to about 1e-6 of its scale; a pick over its ceiling by that is asked again.
_TIGHTER = 2e-6
_MOST_TRIES = 8

_Ceiling = tuple[NDArray[np.float64], float]


def best_pick(
    groups: Sequence[Group],
    *,
    most: Sequence[float | None],
    most_damage: float | None = None,
    gap: float = 1e-6,
    limit_s: float | None = None,
) -> Pick | None:
    """Return the pick of least damage under several ceilings at once, by integer programming.

    Among equal damage the least cost along the first axis wins, then what comes first by name.

    Args:
        groups: all groups.
        most: ceiling of each axis; None for none.
        most_damage: ceiling of the damage; None for none.
        gap: how far from the optimum a pick may be, as a share of its damage.
        limit_s: seconds after which the best pick found so far is returned; None for no limit
            (with one, the answer may depend on the machine's speed).

    Returns:
        The pick, or None if there is none.

    Raises:
        InputError: if the groups are not usable, or a ceiling is missing.
    """
    table = Table(check_groups(groups, by_name=True))
    ceilings = _ceilings(table, most, most_damage)
    scale = max((float(d.max()) for d in table.damages), default=0.0) or 1.0
    damages = np.concatenate(table.damages) / scale
    index = _solve(table, damages, ceilings, gap=gap, limit_s=limit_s)
    if index is None:
        return None
    # What is left of a tie is settled by the cost along the first axis.
    least = table.pick(index)
    first = np.concatenate([costs[:, 0] for costs in table.costs])
    among = [*ceilings, (np.concatenate(table.damages), least.damage)]
    again = _solve(table, first / (first.max() or 1.0), among, gap=1e-6, limit_s=limit_s)
    cheapest = least if again is None else table.pick(again)
    better = cheapest.damage <= least.damage and cheapest.costs[0] < least.costs[0]
    return cheapest if better else least


def nearest_pick(
    groups: Sequence[Group],
    *,
    most: Sequence[float | None],
    most_damage: float | None = None,
    limit_s: float | None = None,
) -> tuple[Pick, float]:
    """Return the pick whose worst ceiling is overstepped least, for a budget that none holds.

    Args:
        groups: all groups.
        most: ceiling of each axis, above 0; None for none.
        most_damage: ceiling of the damage, above 0; None for none.
        limit_s: as in `best_pick`.

    Returns:
        The pick, and its largest excess as a share of the ceiling (at most 0 if all hold).

    Raises:
        InputError: if the groups are not usable, or a ceiling is missing or not above 0.
    """
    table = Table(check_groups(groups, by_name=True))
    ceilings = _ceilings(table, most, most_damage)
    if not ceilings or min(most for _, most in ceilings) <= 0:
        raise InputError("nearest pick: needs a ceiling, each above 0")
    index = _least_excess(table, ceilings, limit_s=limit_s)
    x = table.columns(index)
    return table.pick(index), max(float(row @ x) / most - 1 for row, most in ceilings)


def _ceilings(
    table: Table, most: Sequence[float | None], most_damage: float | None
) -> list[_Ceiling]:
    """Return a row over all choices, and what it may add up to, for each ceiling that is set.

    Raises:
        InputError: if there is not one entry for each axis.
    """
    if len(most) != table.n_axes:
        raise InputError(f"{len(most)} ceilings: expected one for each of {table.n_axes} axes")
    stacked = np.concatenate(table.costs)
    rows = [(stacked[:, axis], limit) for axis, limit in enumerate(most) if limit is not None]
    if most_damage is not None:
        rows.append((np.concatenate(table.damages), most_damage))
    return rows


def _solve(
    table: Table,
    objective: NDArray[np.float64],
    ceilings: Sequence[_Ceiling],
    *,
    gap: float,
    limit_s: float | None,
) -> list[int] | None:
    """Return each group's choice of least objective under the ceilings, or None."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    owners = table.owners
    ones = csr_array(
        (np.ones(len(owners)), (owners, np.arange(len(owners)))),
        shape=(len(table.groups), len(owners)),
    )
    tighter = [0.0] * len(ceilings)
    for _ in range(_MOST_TRIES):
        rows = [LinearConstraint(ones, 1, 1)]
        for (row, limit), by in zip(ceilings, tighter, strict=True):
            size = float(np.abs(row).max()) or 1.0
            rows.append(LinearConstraint(row[None] / size, -np.inf, (limit - by) / size))
        options = {"mip_rel_gap": gap} | ({} if limit_s is None else {"time_limit": limit_s})
        with _solver_beside():
            found = milp(
                objective,
                constraints=rows,
                integrality=np.ones(len(owners)),
                bounds=Bounds(0, 1),
                options=options,
            )
        if found.x is None:
            return None
        index = _rounded(table, found.x)
        x = table.columns(index)
        over = [float(row @ x) - limit for row, limit in ceilings]
        if all(excess <= 0 for excess in over):
            return index
        for number, excess in enumerate(over):
            if excess > 0:
                tighter[number] += excess + _TIGHTER * abs(ceilings[number][1])
    return None


def _least_excess(
    table: Table, ceilings: Sequence[_Ceiling], *, limit_s: float | None
) -> list[int]:
    """Return each group's choice with the smallest largest share over a ceiling."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    owners = table.owners
    n = len(owners)
    ones = np.zeros((len(table.groups), n + 1))
    ones[owners, np.arange(n)] = 1.0
    rows = [LinearConstraint(ones, 1, 1)]
    for row, limit in ceilings:
        # A sum over its ceiling is at most the worst share.
        rows.append(LinearConstraint(np.append(row / limit, -1.0)[None], -np.inf, 0))
    with _solver_beside():
        found = milp(
            np.append(np.zeros(n), 1.0),
            constraints=rows,
            integrality=np.append(np.ones(n), 0.0),
            bounds=Bounds(np.append(np.zeros(n), -np.inf), np.append(np.ones(n), np.inf)),
            options={"mip_rel_gap": 1e-6} | ({} if limit_s is None else {"time_limit": limit_s}),
        )
    if found.x is None:  # only a time limit does this: then the cheapest along the first ceiling
        row = ceilings[0][0]
        return [int(np.argmin(row[owners == number])) for number in range(len(table.groups))]
    return _rounded(table, found.x[:n])


@contextmanager
def _solver_beside() -> Iterator[None]:
    """Send what the solver's own code prints to stderr: stdout is for results."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # a process without stdout
        yield
        return
    os.dup2(2, 1)
    try:
        yield
    finally:
        with suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).fflush(None)  # it is buffered by the C library, if that can be asked
        os.dup2(kept, 1)
        os.close(kept)


def _rounded(table: Table, x: NDArray[np.float64]) -> list[int]:
    """Return the choice of each group that a solution holds most of."""
    return [int(np.argmax(x[table.owners == number])) for number in range(len(table.groups))]
