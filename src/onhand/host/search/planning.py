"""A front forecast before a build, and budgets refused from shapes alone."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from onhand.core.errors import InputError
from onhand.core.progress import Progress, Quiet
from onhand.host.calibrate import InputStatistics, run_original
from onhand.host.options import BuildOptions
from onhand.host.passes.base import pass_options
from onhand.host.prepare import Prepared, prepare
from onhand.host.search.choices import SearchSpace
from onhand.host.search.lesson_room import room_beside_decoder
from onhand.host.search.opening import QUICK, Basis, check_costs, knows_losses, open_planner
from onhand.host.search.search import SearchPlan, plan_search

__all__ = ["check_budget_costs", "plan_searched", "search_basis", "searches"]


def searches(ready: Prepared, options: BuildOptions) -> bool:
    """Say whether a build looks for formats itself: not where the source has codes already.

    Args:
        ready: the build.
        options: what is asked for.
    """
    return options.search is not None and ready.model.coded is None


def plan_searched(
    source: str, options: BuildOptions, *, home: Path, progress: Progress | None = None
) -> SearchPlan:
    """Say what front a search would find, without building a point of it.

    Args:
        source: a folder, or an id on a hub.
        options: what is asked for; `search` is set.
        home: the builder's state folder: what was measured of this source before is taken up.
        progress: told how far it is.

    Returns:
        The predicted front, the point that would be built first, or why none holds the budget.

    Raises:
        InputError: if the source, its text or the budget cannot be used, the source is quantised
            already, or is to be changed before it is stored.
        BudgetExceeded: if shapes alone say that a limit cannot hold.
    """
    shown = progress or Quiet()
    ready = prepare(source, options, home, shown)
    if not searches(ready, options) or options.shaping:
        raise InputError(
            f"{source}: a front is forecast of weights as they are, and these are quantised "
            "already or changed first; plan with --bits"
        )
    check_budget_costs(ready, options, home)
    basis = search_basis(ready, options, InputStatistics(), home)
    with TemporaryDirectory(prefix="onhand-plan-") as folder:
        if not knows_losses(basis, operations=QUICK):
            run = run_original(
                ready.model,
                calibration=ready.texts.calibration.sequences,
                heldout=(),
                threads=ready.threads,
                progress=shown,
                whole=any(plan.report.whole_moments for plan in ready.plans),
                folder=Path(folder),
            )
            basis = replace(basis, statistics=run.statistics)
        opened = open_planner(basis, operations=QUICK, progress=shown)
    notes = (*ready.model.notes, *ready.texts.notes, *opened.notes)
    return plan_search(opened.planner, notes=notes)


def search_basis(
    ready: Prepared, options: BuildOptions, statistics: InputStatistics, home: Path
) -> Basis:
    """Return what a search starts from.

    Args:
        ready: the build, with what is stored.
        options: what is asked for.
        statistics: of the calibration text.
        home: the builder's state folder.
    """
    return Basis(
        model=ready.shaped,
        statistics=statistics,
        sequences=ready.texts.calibration.sequences,
        text_sha256=ready.texts.calibration.sha256,
        profile=ready.profile,
        budget=room_beside_decoder(options.budget, ready.shaped.decoder, options.learnable),
        space=options.search or SearchSpace(),
        accuracy_level=options.accuracy_level,
        threads=ready.threads,
        home=home,
        shaping=[pass_options(step.transform) for step in options.shaping],
    )


def check_budget_costs(ready: Prepared, options: BuildOptions, home: Path) -> None:
    """Refuse at once a budget that no format can hold.

    Args:
        ready: the build.
        options: what is asked for.
        home: the builder's state folder.
    """
    check_costs(
        ready.shaped,
        room_beside_decoder(options.budget, ready.shaped.decoder, options.learnable),
        options.search or SearchSpace(),
        ready.profile,
        accuracy_level=options.accuracy_level,
        threads=ready.threads,
        home=home,
    )
