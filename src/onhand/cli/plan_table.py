"""A build's forecast for people, and its check against the limits that it can judge."""

from collections.abc import Mapping
from typing import Protocol

from onhand.cli.output import say, write_table
from onhand.core.budget import AXES, Budget
from onhand.core.errors import BudgetExceeded
from onhand.core.units import format_bytes, format_seconds

__all__ = ["Forecast", "check_plan", "write_plan"]


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


def check_plan(plan: Forecast, budget: Budget) -> None:
    """Refuse a forecast that is over a limit; other limits can only be measured.

    Args:
        plan: the forecast.
        budget: the limits, on the default variant.

    Raises:
        BudgetExceeded: if size or memory are predicted to be over their ceiling.
    """
    default = next(iter(plan.size_bytes))
    predicted = {"disk": plan.size_bytes[default], "ram": plan.running_memory_bytes[default]}
    limits = budget.limits()
    over = [
        f"{key}: {default} is predicted to take {AXES[key].show(figure)}, at most "
        f"{AXES[key].show(limits[key])} allowed"
        for key, figure in predicted.items()
        if figure > limits.get(key, figure)
    ]
    if over:
        raise BudgetExceeded("; ".join(over))
