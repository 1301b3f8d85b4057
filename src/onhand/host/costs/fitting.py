"""From what micro-measurements found to the parts that explain it: least squares, none below 0."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.host.costs.calibration import StepCosts
from onhand.host.costs.work import StepWork

__all__ = ["Timed", "explained_s", "fit_parts", "fit_step_costs", "spread_of"]

_MOST_SPREAD: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A step, or a prompt, that was timed.

    Attributes:
        seconds: it took.
        products_s: of these for products, as the products alone were timed.
        work: what else it did.
        threads: that did it.
        weight_bytes: that each of them read once, and that products timed alone found near.
    """

    seconds: float
    products_s: float
    work: StepWork
    threads: int
    weight_bytes: float = 0.0


def explained_s(costs: StepCosts, work: StepWork, *, threads: int) -> float:
    """Return the seconds of a step beside its products, whose bytes are theirs to count.

    Args:
        costs: of this device.
        work: what the step does.
        threads: that do it.
    """
    meets = 0.0 if threads == 1 else work.meets * costs.meet_s
    return (
        work.steps * costs.step_s
        + work.layers * costs.layer_s
        + work.values * costs.value_s
        + work.scores * costs.score_s
        + work.pairs * costs.pair_s
        + meets
    )


def fit_step_costs(timed: Sequence[Timed]) -> tuple[StepCosts, float]:
    """Find what explains some timed steps best.

    Args:
        timed: steps of models that differ in every part; those of one thread explain all but
            what waiting for each other costs.

    Returns:
        The costs, and how far what they say of those steps lies off: see `spread_of`.
    """
    alone = [one for one in timed if one.threads == 1]
    rows = [(*astuple(one.work)[:5], one.weight_bytes) for one in alone]
    parts = fit_parts(rows, [one.seconds - one.products_s for one in alone], near=alone)
    costs = StepCosts(
        step_s=parts[0],
        layer_s=parts[1],
        value_s=parts[2],
        score_s=parts[3],
        pair_s=parts[4],
        meet_s=0.0,
        byte_s=parts[5],
    )
    waits = [
        (one.seconds - _said_s(costs, one)) / one.work.meets for one in timed if one.threads > 1
    ]
    costs = replace(costs, meet_s=max(0.0, statistics.median(waits) if waits else 0.0))
    said = [_said_s(costs, one) for one in alone]
    return costs, spread_of(said, [one.seconds for one in alone])


def _said_s(costs: StepCosts, one: Timed) -> float:
    """Return what costs say of a step, but for threads that wait for each other."""
    beside = explained_s(costs, one.work, threads=1)
    return one.products_s + one.weight_bytes * costs.byte_s + beside


def fit_parts(
    rows: Sequence[Sequence[float]], seconds: Sequence[float], *, near: Sequence[Timed]
) -> list[float]:
    """Solve rows x parts = seconds, no part below 0, each row by its own share.

    Args:
        rows: how often each part occurs.
        seconds: what all parts of a row take.
        near: what was timed, whose whole time says what an error weighs.

    Returns:
        A part for each column.
    """
    weights = np.array([1 / one.seconds for one in near])
    matrix = np.array(rows, dtype=np.float64) * weights[:, None]
    wanted = np.array(seconds, dtype=np.float64) * weights
    columns = range(matrix.shape[1])
    best, least = np.zeros(matrix.shape[1]), float(np.square(wanted).sum())
    # Few parts: every choice of those above 0 is tried.
    for n in range(1, len(columns) + 1):
        for chosen in itertools.combinations(columns, n):
            some = matrix[:, chosen]
            scale = np.maximum(np.abs(some).max(axis=0), 1e-300)
            found = np.linalg.lstsq(some / scale, wanted, rcond=None)[0] / scale
            error = float(np.square(some @ found - wanted).sum())
            if found.min() >= 0 and error < least:
                least, best = error, np.zeros(matrix.shape[1])
                best[list(chosen)] = found
    return [float(one) for one in best]


def spread_of(said: Sequence[float], found: Sequence[float]) -> float:
    """Return how far forecasts lie off: the 80 % quantile of their relative errors.

    Args:
        said: forecasts.
        found: what was measured, above 0.
    """
    errors: FloatArray = np.abs(np.array(said) / np.array(found) - 1)
    return min(float(np.quantile(errors, 0.8)), _MOST_SPREAD)
