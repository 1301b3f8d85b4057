"""From a source model to a proven bundle: plan, calibrate, pack, prove, hold the budget."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onhand.core.budget import AXES, Breach
from onhand.core.bundle import REPORT_PAGE, stage_bundle, write_report
from onhand.core.errors import (
    BudgetExceeded,
    InputError,
    ResourceError,
    SourceError,
)
from onhand.core.progress import Progress, Quiet
from onhand.core.units import format_bytes
from onhand.host.ablation import ablated
from onhand.host.advice import nearest_settings
from onhand.host.awq import scale_inputs
from onhand.host.calibrate import InputStatistics, OriginalRun, run_original
from onhand.host.distil import ScaleTraining
from onhand.host.evaluate import record_original
from onhand.host.learnable import with_decoder_lesson
from onhand.host.memory import MemoryGuard
from onhand.host.model import Model
from onhand.host.options import BuildOptions
from onhand.host.pack import Packed, VariantPlan, pack_bundle, plan_variants
from onhand.host.passes.base import ShapingStep
from onhand.host.passes.factorize import Factorize
from onhand.host.passes.prune_weights import PruneWeights
from onhand.host.plan import BuildPlan
from onhand.host.prepare import (
    Prepared,
    fingerprint,
    load_with_adapter,
    needs_text,
    prepare,
    provenance,
)
from onhand.host.prove import Proof, Report, prove_bundle
from onhand.host.report import render_report
from onhand.host.search.building import SearchBuild, search_and_prove
from onhand.host.search.planning import check_budget_costs, search_basis, searches
from onhand.host.search.treatments import Stored
from onhand.host.shaping import Shaped, shape_model
from onhand.host.work import BuildWork, open_work

__all__ = ["BuildResult", "build_bundle", "plan_build"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """A finished bundle.

    Attributes:
        root: the bundle's folder.
        report: the parsed `report.json`.
    """

    root: Path
    report: Mapping[str, object]


def plan_build(
    source: str,
    options: BuildOptions,
    *,
    home: Path | None = None,
    progress: Progress | None = None,
) -> BuildPlan:
    """Say what a build would give and take, without doing it.

    Args:
        source: a folder, or an id on a hub.
        options: what is asked for; the budget is not judged here.
        home: the builder's state folder, where this device's calibration is kept; None for none.
        progress: told how far it is.

    Returns:
        The forecast.

    Raises:
        SourceError: if the source is unknown, incomplete or damaged.
        InputError: if the text cannot be used.
    """
    return prepare(source, options, home, progress or Quiet()).forecast


def build_bundle(
    source: str,
    out: Path,
    options: BuildOptions,
    *,
    home: Path,
    progress: Progress | None = None,
) -> BuildResult:
    """Compress a model, prove the result in its real engine, and write the bundle.

    Nothing is left at `out` unless every limit of the budget holds.

    Args:
        source: a folder, or an id on a hub.
        out: the bundle's folder; must not exist.
        options: what is asked for.
        home: the builder's state folder.
        progress: told how far it is.

    Returns:
        The bundle's place and its report.

    Raises:
        InputError: if source, text or an option cannot be used.
        SourceError: if the source changed meanwhile.
        BudgetExceeded: if a limit does not hold or could not be measured.
        ResourceError: if disk or memory does not suffice; what is finished is kept.
        EngineError: if the bundle does not run.
    """
    shown = progress or Quiet()
    ready = prepare(source, options, home, shown)
    for note in (*ready.model.notes, *ready.texts.notes):
        shown.note(note)
    _check_forecast(ready, options, out)
    if searches(ready, options):
        check_budget_costs(ready, options, home)
    with (
        open_work(out, fingerprint(ready, options), resume=options.resume) as work,
        MemoryGuard(options.max_ram) as guard,
        stage_bundle(out, inside=work.root) as staged,
    ):
        if options.resume and not work.has_finished():
            shown.note("there is nothing to resume: the build starts anew")
        report = _staged(ready, options, work, staged, guard, shown, home)
        if load_with_adapter(source, options).sha256 != ready.model.sha256:
            raise SourceError(f"{source} changed while it was built from; build again")
        content = ablated(report, source, options, build_bundle, work, home=home, progress=shown)
        write_report(staged, content)
        (staged / REPORT_PAGE).write_text(render_report(content), encoding="utf-8")
        record_original(
            home,
            report.manifest_sha256,
            _absolute(source),
            ready.model.sha256,
            adapter=options.adapter,
        )
    return BuildResult(root=out, report=json.loads(json.dumps(content)))


def _staged(
    ready: Prepared,
    options: BuildOptions,
    work: BuildWork,
    staged: Path,
    guard: MemoryGuard,
    shown: Progress,
    home: Path,
) -> Report:
    """Write the bundle into a staged folder, measure it, and hold it to the budget.

    Raises:
        BudgetExceeded: if a limit does not hold or could not be measured.
    """
    ready, shaped = _shaped(ready, options, work, shown)
    guard.check("shaping the model")
    searching = searches(ready, options)
    run = _run(ready, shaped, work, shown, calibrates=needs_text(ready.plans) or searching)
    guard.check("running the original")

    def pack(plans: list[VariantPlan], stored: Stored) -> Packed:
        chosen = replace(ready, plans=plans, shaped=stored.model)
        return _packed(chosen, _said(options, stored), work, staged, stored.statistics, shown)

    def proof_of(packed: Packed, plans: list[VariantPlan], stored: Stored) -> Proof:
        return Proof(
            model=ready.model,
            shaped=stored.model,
            steps=shaped.steps,
            packed=packed,
            plans=plans,
            texts=ready.texts,
            hidden=shaped.hidden or run.hidden,
            profile=ready.profile,
            options=options,
            threads=ready.threads,
        )

    if searching:
        return search_and_prove(
            SearchBuild(
                basis=search_basis(ready, options, run.statistics, home),
                n_variants=options.n_variants,
                accept_estimates=options.accept_estimates,
                pack=pack,
                proof_of=proof_of,
                staged=staged,
                matrices=work.matrices,
                kept=work.search,
                guard=guard,
                progress=shown,
            )
        )
    stored = Stored(model=ready.shaped, statistics=run.statistics, ranks={})
    packed = pack(ready.plans, stored)
    guard.check("quantizing")
    report = prove_bundle(proof_of(packed, ready.plans, stored), guard=guard, progress=shown)
    if report.breaches:
        raise BudgetExceeded("; ".join(_advice(ready, options, run, report)))
    return report


def _said(options: BuildOptions, stored: Stored) -> BuildOptions:
    """Return options that say what a search made of the model, for its provenance."""
    if not stored.ranks:
        return options
    step = ShapingStep(transform=Factorize(ranks=dict(stored.ranks)))
    return replace(options, shaping=(*options.shaping, step))


def _run(
    ready: Prepared, shaped: Shaped, work: BuildWork, shown: Progress, *, calibrates: bool
) -> OriginalRun:
    return run_original(
        ready.shaped,
        calibration=ready.texts.calibration.sequences if calibrates else (),
        heldout=() if shaped.hidden else ready.texts.heldout.sequences,
        threads=ready.threads,
        progress=shown,
        whole=any(plan.report.whole_moments for plan in ready.plans),
        folder=work.original,
    )


def _advice(
    ready: Prepared, options: BuildOptions, run: OriginalRun, report: Report
) -> Sequence[str]:
    return nearest_settings(
        ready.shaped,
        ready.plans[0],
        run.statistics,
        report.breaches,
        accuracy_level=options.accuracy_level,
    )


def _shaped(
    ready: Prepared, options: BuildOptions, work: BuildWork, shown: Progress
) -> tuple[Prepared, Shaped]:
    """Shape the model, and plan the variants again where a text decided which parts stay."""
    shaped = shape_model(
        ready.model,
        options.shaping,
        ready.texts,
        budget=options.budget,
        folder=work.shaped,
        threads=ready.threads,
        progress=shown,
    )
    transforms = {plan.name: plan.transform for plan in ready.plans}
    is_as_planned = shaped.model.decoder == ready.shaped.decoder
    plans = ready.plans if is_as_planned else plan_variants(shaped.model.decoder, transforms)
    return replace(ready, shaped=shaped.model, plans=plans), shaped


def _packed(
    ready: Prepared,
    options: BuildOptions,
    work: BuildWork,
    staged: Path,
    statistics: InputStatistics,
    shown: Progress,
) -> Packed:
    """Round the matrices of every variant and write the bundle."""
    model, statistics = _scaled(ready, statistics, shown)
    packed = pack_bundle(
        model,
        ready.plans,
        statistics,
        staged,
        accuracy_level=options.accuracy_level,
        provenance=provenance(ready, options),
        threads=ready.threads,
        progress=shown,
        work=work.matrices,
        refine=ScaleTraining(
            original=ready.model,
            scaled=model,
            sequences=ready.texts.calibration.sequences,
            folder=work.matrices,
            threads=ready.threads,
            progress=shown,
        ).refine,
    )
    return with_decoder_lesson(packed, options.learnable, ready.threads, shown)


def _scaled(
    ready: Prepared, statistics: InputStatistics, shown: Progress
) -> tuple[Model, InputStatistics]:
    """Scale inputs for the first variant that asks for it; to all others the model is the same."""
    for plan in ready.plans:
        if plan.report.scales_inputs:
            shown.start("scaling inputs", len(plan.report.formats))
            return scale_inputs(
                ready.shaped, statistics, plan.report.formats, advance=shown.advance
            )
    return ready.shaped, statistics


def _absolute(source: str) -> str:
    return str(Path(source).resolve()) if Path(source).is_dir() else source


def _check_forecast(ready: Prepared, options: BuildOptions, out: Path) -> None:
    """Refuse at once what cannot end well.

    Raises:
        BudgetExceeded: if the size is over its ceiling already from shapes alone.
        ResourceError: if disk or memory does not suffice.
        InputError: if the place is not a folder.
    """
    forecast, default = ready.forecast, ready.plans[0]
    size, ceiling = forecast.size_bytes[default.name], options.budget.size_bytes
    # How much smaller codes without zeros are, only rounding tells.
    known = all(step.transform.name != PruneWeights.name for step in options.shaping)
    known = known and options.search is None  # which chooses the size itself
    if ceiling is not None and size > ceiling and known:
        axis = AXES["disk"]
        why = f"takes {axis.show(size)} by its shapes, at most {axis.show(ceiling)} allowed"
        breach = Breach(key="disk", ceiling=ceiling, found=size, why=why)
        advice = nearest_settings(
            ready.shaped,
            default,
            InputStatistics(),
            [breach],
            accuracy_level=options.accuracy_level,
        )
        raise BudgetExceeded(advice[0])
    if options.max_ram is not None and forecast.build_memory_bytes > options.max_ram:
        raise ResourceError(
            f"the build needs about {format_bytes(forecast.build_memory_bytes)} of memory, "
            f"--max-ram allows {format_bytes(options.max_ram)}; give more"
        )
    parent = out.absolute().parent
    if not parent.is_dir():
        raise InputError(f"{parent} is not a folder; create it first")
    needed = sum(forecast.size_bytes.values()) + forecast.build_disk_bytes + 2**20
    if (free := shutil.disk_usage(parent).free) < needed:
        raise ResourceError(
            f"{parent} has {format_bytes(free)} free, the build needs {format_bytes(needed)}"
        )
