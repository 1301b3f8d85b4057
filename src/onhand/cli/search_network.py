"""`onhand build` of a network with a budget and no recipe: the choices are searched for."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onhand.cli.output import say, write_json, write_table
from onhand.cli.progress import shown_progress
from onhand.core.errors import BudgetExceeded, InputError
from onhand.core.progress import Progress
from onhand.core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from onhand.host.build import BuildResult
    from onhand.host.networks.options import NetworkOptions
    from onhand.host.search.network_front import Candidate
    from onhand.host.search.network_search import NetworkPlan

__all__ = ["is_search", "plan", "search", "wanted_variants"]

_MOST_ROWS = 24


def wanted_variants(asked: Mapping[str, Any]) -> int | None:
    """Return how many points of the front `--variants` asks for; None where it names variants."""
    variants = asked["variants"]
    if variants is None:
        return 1
    return int(variants) if variants.strip().isdigit() else None


def is_search(asked: Mapping[str, Any]) -> bool:
    """Say whether a network's choices are to be searched for.

    Args:
        asked: the command's options.

    Raises:
        InputError: if `--plan` or a number of variants is given with what leaves nothing to search.
    """
    fixed = [key for key in ("recipe", "bits") if asked[key] is not None]
    fixed += ["recover"] * bool(asked["recover"])
    n_variants = wanted_variants(asked)
    is_number = asked["variants"] is not None and n_variants is not None
    if fixed or n_variants is None:
        if asked["plan"] or is_number:
            what = "--plan" if asked["plan"] else "a number of --variants"
            other = f"--{fixed[0]}" if fixed else "names of --variants"
            raise InputError(f"{what} is for a search, and {other} leaves nothing to search for")
        return False
    if asked["data"] is None:
        if asked["plan"] or is_number:
            raise InputError("a search is judged on examples: give them as --data")
        return False
    return bool(asked["plan"] or is_number or asked["budget"] is not None)


def plan(source: str, options: "NetworkOptions", *, home: Path, as_json: bool) -> None:
    """Show the predicted front.

    Args:
        source: of the network.
        options: what is asked for.
        home: the state folder.
        as_json: whether a program reads it.

    Raises:
        BudgetExceeded: if no point is predicted to hold the budget.
    """
    from onhand.host.search.networks import plan_network

    with shown_progress() as progress:
        made = plan_network(source, options, home=home, progress=progress)
    if as_json:
        write_json(made.to_json())
    else:
        _write(made)
    if made.refusal:
        raise BudgetExceeded(made.refusal)


def search(
    source: str,
    output: Path,
    options: "NetworkOptions",
    *,
    n_variants: int,
    home: Path,
    progress: Progress,
) -> "BuildResult":
    """Search and build; see `search_network`."""
    from onhand.host.search.networks import search_network

    return search_network(
        source, output, options, home=home, n_variants=n_variants, progress=progress
    )


def _write(made: "NetworkPlan") -> None:
    step = max(-(-len(made.front) // _MOST_ROWS), 1)
    rows = [one for i, one in enumerate(made.front) if i % step == 0 or one is made.chosen]
    write_table(
        ["predicted point", "lost", "size", "one run", "memory"],
        [_row(one, is_chosen=one is made.chosen) for one in rows],
    )
    if len(rows) < len(made.front):
        say(f"note: {len(rows)} of {len(made.front)} points; all with --json")
    say("note: nothing was built; a build measures the points near the budget")


def _row(one: "Candidate", *, is_chosen: bool) -> tuple[str, ...]:
    from onhand.host.search.network_report import label_of

    figures = one.predicted
    memory = figures.get("peak_memory_bytes")
    return (
        label_of(one) + (" (built first)" if is_chosen else ""),
        f"{figures['quality_loss']:.2%}",
        format_bytes(figures["size_bytes"]),
        format_seconds(figures["latency_s"]),
        "unknown" if memory is None else format_bytes(memory),
    )
