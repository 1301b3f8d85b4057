"""The search for a network's budget: a predicted front, a few real builds, an answer."""

from dataclasses import replace
from pathlib import Path

from onhand.core.errors import BudgetExceeded, InputError
from onhand.core.progress import Progress, Quiet
from onhand.host.build import BuildResult
from onhand.host.networks.build import build_network, prepare_network
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.options import NetworkOptions
from onhand.host.networks.steps import Step
from onhand.host.search.network_front import Candidate
from onhand.host.search.network_ground import Ground
from onhand.host.search.network_report import label_of
from onhand.host.search.network_search import MOST_BUILDS, NetworkPlan, NetworkSearch

__all__ = ["plan_network", "search_network"]


def plan_network(
    source: str | NetworkModel,
    options: NetworkOptions,
    *,
    home: Path,
    progress: Progress | None = None,
) -> NetworkPlan:
    """Predict the front of a network without building any of its points.

    Args:
        source: a file, a folder, or a network that is loaded already.
        options: what is asked for; its variants are not looked at.
        home: the builder's state folder.
        progress: told how far it is.

    Raises:
        InputError: if source, data or an option cannot be used.
        EngineError: if the network does not run.
    """
    shown = progress or Quiet()
    ready = prepare_network(source, options, shown)
    return NetworkSearch(Ground(ready, options, home=home, progress=shown)).plan()


def search_network(
    source: str | NetworkModel,
    out: Path,
    options: NetworkOptions,
    *,
    home: Path,
    n_variants: int = 1,
    progress: Progress | None = None,
) -> BuildResult:
    """Find the choices of a network's layers that hold a budget, and build the bundle.

    Args:
        source: a file, a folder, or a network that is loaded already.
        out: the bundle's folder; must not exist.
        options: what is asked for; its variants are not looked at.
        home: the builder's state folder; what was measured is kept there by its content, so that
            an interrupted search goes on where it was.
        n_variants: points of the front in the bundle.
        progress: told how far it is.

    Returns:
        The bundle's place and its report, with the front.

    Raises:
        InputError: if source, data or an option cannot be used.
        BudgetExceeded: if no point holds the budget: with the ceiling that binds.
        EngineError: if the bundle does not run.
    """
    if n_variants < 1:
        raise InputError(f"--variants is {n_variants}, must be 1 or more")
    if out.exists():
        raise InputError(f"{out} exists; remove it or choose another name")
    shown = progress or Quiet()
    ready = prepare_network(source, options, shown)
    search = NetworkSearch(Ground(ready, options, home=home, progress=shown))
    failed: BudgetExceeded | None = None
    for _ in range(MOST_BUILDS):
        try:
            chosen = search.find(max(MOST_BUILDS - len(search.measured), 1))
        except BudgetExceeded as error:
            raise failed or error from None
        shown.note(f"chosen: {label_of(chosen)}")
        variants = _variants(search, chosen, n_variants, shown)
        try:
            return build_network(
                source,
                out,
                replace(options, variants=variants),
                home=home,
                progress=shown,
                ready=ready,
                findings=search.findings(chosen),
            )
        except BudgetExceeded as error:
            # On a machine that others use a time may hold once and not again.
            shown.note(f"{label_of(chosen)} did not hold the budget again: {error}")
            failed = error
    raise failed or BudgetExceeded("no point of the front held the budget when measured again")


def _variants(
    search: NetworkSearch, chosen: Candidate, n: int, shown: Progress
) -> dict[str, tuple[Step, ...]]:
    """Return the recipes of a bundle's points, the answer's first."""
    points = search.together(chosen, n)
    if len(points) < n:
        shown.note(
            f"the bundle has {len(points)} of {n} variants: no more of the front fit into the "
            "budget's disk beside the first"
        )
    return {_variant(i): search.steps(one) for i, one in enumerate(points)}


def _variant(i: int) -> str:
    return "mixed" if i == 0 else f"mixed-{i + 1}"
