"""A build that searches: from the original's run to a proven bundle of chosen points."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onhand.core.errors import BudgetExceeded
from onhand.core.measurement import Measurement
from onhand.core.progress import Progress
from onhand.host.memory import MemoryGuard
from onhand.host.pack import Packed, VariantPlan, plan_variants
from onhand.host.prove import Report, prove_bundle
from onhand.host.search.candidates import Candidates, ProofOf, lend_matrices
from onhand.host.search.knapsack import Pick
from onhand.host.search.opening import THOROUGH, Basis, Opened, open_planner
from onhand.host.search.search import Search, sensitivity_json
from onhand.host.search.treatments import Stored, as_quantize, stored_as

__all__ = ["SearchBuild", "search_and_prove"]

# A chosen point that does not hold when it is measured again is given up, so often.
_MOST_PROOFS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBuild:
    """What a searching build works with.

    Attributes:
        basis: what the search starts from.
        n_variants: points of the front in the bundle.
        accept_estimates: whether an estimated figure may satisfy a limit.
        pack: writes a bundle of variants into the staged folder.
        proof_of: what there is to prove of it.
        staged: the folder.
        matrices: where the build looks for finished matrices of each variant.
        kept: the search's own folder in that of the build.
        guard: the build's memory ceiling.
        progress: told how far it is.
    """

    basis: Basis
    n_variants: int
    accept_estimates: bool
    pack: Callable[[list[VariantPlan], Stored], Packed]
    proof_of: ProofOf
    staged: Path
    matrices: Path
    kept: Path
    guard: MemoryGuard
    progress: Progress


def search_and_prove(work: SearchBuild) -> Report:
    """Search, write the chosen points as a bundle, and prove it.

    Args:
        work: what there is.

    Returns:
        The report, with the front and the sensitivity in it.

    Raises:
        BudgetExceeded: if no point holds the budget: the limit that binds, and the nearest one.
    """
    opened = open_planner(work.basis, operations=THOROUGH, progress=work.progress)
    for note in opened.notes:
        work.progress.note(note)
    work.guard.check("measuring what layers lose")
    candidates = Candidates(
        proof_of=work.proof_of,
        model=work.basis.model,
        statistics=work.basis.statistics,
        method=work.basis.space.method,
        scale_bits=opened.ground.scale_bits,
        store=opened.ground.store,
        folder=work.kept,
        guard=work.guard,
        progress=work.progress,
        accuracy_level=work.basis.accuracy_level,
        threads=work.basis.threads,
    )
    search = Search(
        planner=opened.planner,
        measure=candidates.measure,
        accept_estimates=work.accept_estimates,
        progress=work.progress,
    )
    chosen = search.run()
    report = _proven(work, opened, search, chosen.pick)
    for _ in range(_MOST_PROOFS - 1):
        if not report.breaches:
            return report
        search.reject(chosen, report.figures)
        chosen = search.run()
        report = _proven(work, opened, search, chosen.pick)
    if not report.breaches:
        return report
    said = "; ".join(f"{one.key} {one.why}" for one in report.breaches)
    raise BudgetExceeded(f"points that held the budget did not when measured again: {said}")


def _proven(work: SearchBuild, opened: Opened, search: Search, chosen: Pick) -> Report:
    """Write the chosen point, and those beside it, and prove all."""
    planner = opened.planner
    picks = [chosen, *search.steps(chosen, n_variants=work.n_variants)]
    if len(picks) < work.n_variants:
        work.progress.note(f"the front has no more than {len(picks)} points that far apart")
    variants = {}
    for pick in picks:
        choices = planner.choices(pick)
        variants[planner.label(choices)] = choices
    method = work.basis.space.method
    stored = stored_as(work.basis.model, work.basis.statistics, planner.choices(chosen))
    plans = plan_variants(
        stored.model.decoder,
        {
            label: as_quantize(own, method=method, scale_bits=opened.ground.scale_bits)
            for label, own in variants.items()
        },
    )
    for label, own in variants.items():
        lend_matrices(opened.ground.store, own, work.matrices / label)
    _emptied(work.staged)
    packed = work.pack(plans, stored)
    work.guard.check("quantizing")
    report = prove_bundle(
        work.proof_of(packed, plans, stored), guard=work.guard, progress=work.progress
    )
    report.content["front"] = search.front(chosen)
    report.content["sensitivity"] = sensitivity_json(opened.losses)
    report.content["search"] = {
        "builds": [_said(planner.point(one.pick).label, one.measured, one.breaches)
                   for one in search.built],
        "engine": opened.engine,
        "method": method,
        "scale_bits": opened.ground.scale_bits,
    }  # fmt: skip
    return report


def _said(
    label: str, measured: Mapping[str, Measurement], breaches: Sequence[object]
) -> dict[str, object]:
    return {
        "label": label,
        "holds": not breaches,
        "figures": {name: one.to_json() for name, one in measured.items()},
    }


def _emptied(folder: Path) -> None:
    """Remove what an earlier attempt wrote."""
    for found in folder.iterdir():
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink()
