"""A build's forecast for people, and its check against the limits that it can judge."""

from collections.abc import Mapping
from typing import Protocol

from onhand.cli.output import say, write_table
from onhand.core.budget import AXES, Axis, Budget
from onhand.core.errors import BudgetExceeded
from onhand.core.units import format_bytes, format_seconds

__all__ = ["Forecast", "Predicted", "check_plan", "write_plan"]

# Shown of what a variant costs: the axis, and the words over its column.
_SHOWN = {"first-token": "first token", "prefill": "prompt", "decode": "answer", "energy": "energy"}


class Predicted(Protocol):
    """The part of the host's `Forecast` of one variant that is shown and judged."""

    @property
    def spread(self) -> Mapping[str, float]:
        """Name of a figure -> how far it may lie off, as a fraction of it."""
        ...

    @property
    def limits(self) -> Mapping[str, str]:
        """Name of a timed figure -> what it waits for."""
        ...

    def figures(self) -> dict[str, float]:
        """Return name -> value of what is forecast."""
        ...


class Forecast(Protocol):
    """The part of the host's `BuildPlan` that is shown; the first variant is the default."""

    @property
    def n_parameters(self) -> int:
        """Weights of the source."""
        ...

    @property
    def original_bytes(self) -> int:
        """Size of the source's weights."""
        ...

    @property
    def size_bytes(self) -> Mapping[str, int]:
        """Variant -> size on disk."""
        ...

    @property
    def running_memory_bytes(self) -> Mapping[str, int]:
        """Variant -> peak memory of a process that runs it."""
        ...

    @property
    def forecasts(self) -> Mapping[str, Predicted]:
        """Variant -> what it costs on the device."""
        ...

    @property
    def build_memory_bytes(self) -> int:
        """Peak memory of the build."""
        ...

    @property
    def build_disk_bytes(self) -> int:
        """Disk that the build takes meanwhile."""
        ...

    @property
    def minutes(self) -> float:
        """Time of the build."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        ...


def write_plan(plan: Forecast) -> None:
    """Write a forecast as tables on stdout and its notes on stderr."""
    write_table(
        ["variant", "size on disk", "of the original", "memory when running"],
        [
            (
                name,
                format_bytes(size),
                f"{size / max(plan.original_bytes, 1):.1%}",
                f"about {format_bytes(plan.running_memory_bytes[name])}",
            )
            for name, size in plan.size_bytes.items()
        ],
    )
    axes = {key: AXES[key] for key in _SHOWN}
    write_table(
        ["variant", *(f"{words}, predicted" for words in _SHOWN.values()), "waits for"],
        [
            (name, *(_with_margin(one, axis) for axis in axes.values()), _waits(one))
            for name, one in plan.forecasts.items()
        ],
    )
    write_table(
        ["the build", ""],
        [
            ("source", f"{plan.n_parameters:,} weights, {format_bytes(plan.original_bytes)}"),
            ("memory", f"about {format_bytes(plan.build_memory_bytes)}"),
            ("disk meanwhile", f"about {format_bytes(plan.build_disk_bytes)}"),
            ("time", f"about {format_seconds(plan.minutes * 60)}"),
        ],
    )
    for note in plan.notes:
        say(f"note: {note}")


def _with_margin(one: Predicted, axis: Axis) -> str:
    value = one.figures()[axis.measurement]
    return f"{axis.show(value)} ±{one.spread[axis.measurement]:.0%}"


def _waits(one: Predicted) -> str:
    return one.limits[AXES["decode"].measurement]


def check_plan(plan: Forecast, budget: Budget) -> None:
    """Refuse a forecast that is over a limit; quality can only be measured.

    Size and memory are judged as they are predicted. Times and energy are refused only where the
    limit does not hold even at the better end of their margin: the build measures the rest.

    Args:
        plan: the forecast.
        budget: the limits, on the default variant.

    Raises:
        BudgetExceeded: if a figure is predicted to be beyond its limit; it names every one.
    """
    default = next(iter(plan.size_bytes))
    sizes = {"disk": plan.size_bytes[default], "ram": plan.running_memory_bytes[default]}
    limits = budget.limits()
    over = [
        f"{key}: {default} is predicted to take {AXES[key].show(figure)}, at most "
        f"{AXES[key].show(limits[key])} allowed"
        for key, figure in sizes.items()
        if figure > limits.get(key, figure)
    ]
    known = plan.forecasts[default]
    figures = known.figures()
    for key, limit in limits.items():
        axis = AXES[key]
        if axis.timed and axis.measurement in figures:
            over += _over_time(key, default, known, limit)
    if over:
        raise BudgetExceeded("; ".join(over))


def _over_time(key: str, variant: str, known: Predicted, limit: float) -> list[str]:
    """Return a clause if a limit does not hold at the better end of a forecast's margin."""
    axis = AXES[key]
    value = known.figures()[axis.measurement]
    spread = known.spread[axis.measurement]
    best = value * (1 - spread) if axis.limit == "most" else value * (1 + spread)
    holds = best <= limit if axis.limit == "most" else best >= limit
    if holds:
        return []
    found = f"{variant} is predicted to reach {axis.show(value)}, {axis.show(best)} at the best"
    waits = known.limits.get(axis.measurement, "overhead")
    return [f"{key}: {found} (it waits for {waits}), at {axis.limit} {axis.show(limit)} allowed"]
