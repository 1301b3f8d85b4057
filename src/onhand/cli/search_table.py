"""The front that a search is predicted to find, for people."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from onhand.cli.output import say, write_table
from onhand.core.units import format_bytes

__all__ = ["Point", "SearchForecast", "write_search_plan"]

_NAMED = 3


class Point(Protocol):
    """One point of a front. See `onhand.host.search.front.FrontPoint`."""

    @property
    def label(self) -> str:
        """Its name."""
        ...

    @property
    def choices(self) -> Mapping[str, str]:
        """Group -> its choice in words."""
        ...

    @property
    def predicted(self) -> Mapping[str, float]:
        """Name of a figure -> value."""
        ...


class SearchForecast(Protocol):
    """The part of the host's `SearchPlan` that is shown."""

    @property
    def points(self) -> Sequence[Point]:
        """The front, from the smallest point to the best."""
        ...

    @property
    def chosen(self) -> str:
        """Label of the point that would be built first; "" if none."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        ...


def write_search_plan(plan: SearchForecast) -> None:
    """Write a predicted front as a table on stdout, and its notes on stderr.

    Args:
        plan: the forecast.
    """
    write_table(
        ["", "point", "perplexity", "KL (nat)", "size", "memory", "tokens/s", "formats"],
        [
            (
                "*" if point.label == plan.chosen else "",
                point.label,
                f"{point.predicted['perplexity_increase']:+.2%}",
                f"{point.predicted['kl_divergence']:.4f}",
                format_bytes(int(point.predicted["size_bytes"])),
                format_bytes(int(point.predicted["peak_memory_bytes"])),
                f"{point.predicted['decode_tokens_per_s']:.1f}",
                _formats(point.choices),
            )
            for point in plan.points
        ],
    )
    for note in plan.notes:
        say(f"note: {note}")
    if plan.chosen:
        say(f"note: all figures are predicted; the search would build {plan.chosen} (*) first")


def _formats(choices: Mapping[str, str]) -> str:
    """Say which formats are taken most: "5 of 9 int4 g32, 3 int8 g128"."""
    counted = Counter(choices.values()).most_common()
    said = [f"{count} {name}" for name, count in counted[:_NAMED]]
    more = [f"{len(counted) - _NAMED} more"] if len(counted) > _NAMED else []
    return ", ".join([*said, *more])
