"""From a source model to a proven bundle: plan, calibrate, pack, prove, hold the budget."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from onhand import __version__
from onhand.core.budget import AXES, Breach
from onhand.core.bundle import REPORT_PAGE, stage_bundle, write_report
from onhand.core.errors import (
    BudgetExceeded,
    BundleCorrupt,
    InputError,
    ResourceError,
    SourceError,
)
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress, Quiet
from onhand.core.units import format_bytes
from onhand.device.probe import current_profile
from onhand.device.text_files import parse_text_files
from onhand.device.threads import usable_threads
from onhand.host.ablation import ablated
from onhand.host.adapters import merge_adapter
from onhand.host.advice import nearest_settings
from onhand.host.awq import scale_inputs
from onhand.host.calibrate import InputStatistics, run_original
from onhand.host.distil import ScaleTraining, check_torch
from onhand.host.evaluate import record_original
from onhand.host.memory import MemoryGuard
from onhand.host.model import Model, ShapesAlone
from onhand.host.options import BuildOptions
from onhand.host.pack import Packed, VariantPlan, pack_bundle, plan_variants
from onhand.host.passes.as_is import choose_transforms
from onhand.host.passes.base import pass_options
from onhand.host.passes.prune_weights import PruneWeights
from onhand.host.plan import BuildPlan, calibration_tokens, make_plan, text_tokens
from onhand.host.prove import Proof, Report, prove_bundle
from onhand.host.report import render_report
from onhand.host.shaping import Shaped, add_to_forecast, plan_shaping, shape_model
from onhand.host.sources import load_model
from onhand.host.texts import Texts, split_texts
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A build before its first weight is read."""

    model: Model
    shaped: Model  # what is stored: `model`, or what shaping makes of it, shapes alone until then
    plans: list[VariantPlan]
    texts: Texts
    profile: DeviceProfile
    threads: int
    forecast: BuildPlan


def plan_build(
    source: str, options: BuildOptions, *, progress: Progress | None = None
) -> BuildPlan:
    """Say what a build would give and take, without doing it.

    Args:
        source: a folder, or an id on a hub.
        options: what is asked for; the budget is not judged here.
        progress: told how far it is.

    Returns:
        The forecast.

    Raises:
        SourceError: if the source is unknown, incomplete or damaged.
        InputError: if the text cannot be used.
    """
    return _prepare(source, options, progress or Quiet()).forecast


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
    ready = _prepare(source, options, shown)
    for note in (*ready.model.notes, *ready.texts.notes):
        shown.note(note)
    _check_forecast(ready, options, out)
    with (
        open_work(out, _fingerprint(ready, options), resume=options.resume) as work,
        MemoryGuard(options.max_ram) as guard,
        stage_bundle(out, inside=work.root) as staged,
    ):
        if options.resume and not work.has_finished():
            shown.note("there is nothing to resume: the build starts anew")
        report = _staged(ready, options, work, staged, guard, shown)
        if _load(source, options).sha256 != ready.model.sha256:
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


def _load(source: str, options: BuildOptions) -> Model:
    model = load_model(source)
    return model if options.adapter is None else merge_adapter(model, options.adapter)


def _prepare(source: str, options: BuildOptions, shown: Progress) -> _Prepared:
    shown.start("reading the source", 1)
    model = _load(source, options)
    shown.advance(1)
    transforms, notes = choose_transforms(model, options.transforms, keep_codes=options.keep_codes)
    model = replace(model, notes=(*model.notes, *notes))
    shape_plan = plan_shaping(model.decoder, options.shaping, tokens=text_tokens(model.decoder))
    plans = plan_variants(shape_plan.decoder, transforms)
    if any(plan.report.rounds for plan in plans):
        check_torch()
    try:
        files = parse_text_files(model.files, where=str(model.location))
    except BundleCorrupt as error:
        raise SourceError(str(error)) from error
    texts = split_texts(
        files.tokenizer,
        options.calibrate,
        model.decoder,
        max_tokens=text_tokens(model.decoder),
        calibration_tokens=calibration_tokens(model.decoder, plans),
        training_tokens=shape_plan.training_tokens,
        template=files.template,
    )
    threads = options.threads or usable_threads()
    shaped = replace(model, weights=ShapesAlone(shape_plan.decoder)) if options.shaping else model
    forecast = make_plan(
        shaped,
        plans,
        accuracy_level=options.accuracy_level,
        threads=threads,
        calibration_tokens=texts.calibration.n_tokens,
        heldout_tokens=texts.heldout.n_tokens,
        notes=(*model.notes, *texts.notes),
    )
    return _Prepared(
        model=model,
        shaped=shaped,
        plans=plans,
        texts=texts,
        profile=options.device or current_profile(),
        threads=threads,
        forecast=add_to_forecast(forecast, model.decoder, shape_plan),
    )


def _staged(
    ready: _Prepared,
    options: BuildOptions,
    work: BuildWork,
    staged: Path,
    guard: MemoryGuard,
    shown: Progress,
) -> Report:
    """Write the bundle into a staged folder, measure it, and hold it to the budget.

    Raises:
        BudgetExceeded: if a limit does not hold or could not be measured.
    """
    ready, shaped = _shaped(ready, options, work, shown)
    guard.check("shaping the model")
    run = run_original(
        ready.shaped,
        calibration=ready.texts.calibration.sequences if _needs_text(ready.plans) else (),
        heldout=() if shaped.hidden else ready.texts.heldout.sequences,
        threads=ready.threads,
        progress=shown,
        whole=any(plan.report.whole_moments for plan in ready.plans),
        folder=work.original,
    )
    guard.check("running the original")
    packed = _packed(ready, options, work, staged, run.statistics, shown)
    guard.check("quantizing")
    proof = Proof(
        model=ready.model,
        shaped=ready.shaped,
        steps=shaped.steps,
        packed=packed,
        plans=ready.plans,
        texts=ready.texts,
        hidden=shaped.hidden or run.hidden,
        profile=ready.profile,
        options=options,
        threads=ready.threads,
    )
    report = prove_bundle(proof, guard=guard, progress=shown)
    if report.breaches:
        advice = nearest_settings(
            ready.shaped,
            ready.plans[0],
            run.statistics,
            report.breaches,
            accuracy_level=options.accuracy_level,
        )
        raise BudgetExceeded("; ".join(advice))
    return report


def _shaped(
    ready: _Prepared, options: BuildOptions, work: BuildWork, shown: Progress
) -> tuple[_Prepared, Shaped]:
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
    ready: _Prepared,
    options: BuildOptions,
    work: BuildWork,
    staged: Path,
    statistics: InputStatistics,
    shown: Progress,
) -> Packed:
    """Round the matrices of every variant and write the bundle."""
    model, statistics = _scaled(ready, statistics, shown)
    return pack_bundle(
        model,
        ready.plans,
        statistics,
        staged,
        accuracy_level=options.accuracy_level,
        provenance=_provenance(ready, options),
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


def _scaled(
    ready: _Prepared, statistics: InputStatistics, shown: Progress
) -> tuple[Model, InputStatistics]:
    """Scale inputs for the first variant that asks for it; to all others the model is the same."""
    for plan in ready.plans:
        if plan.report.scales_inputs:
            shown.start("scaling inputs", len(plan.report.formats))
            return scale_inputs(
                ready.shaped, statistics, plan.report.formats, advance=shown.advance
            )
    return ready.shaped, statistics


def _fingerprint(ready: _Prepared, options: BuildOptions) -> dict[str, object]:
    """Return all that decides the bytes of a bundle."""
    return _provenance(ready, options) | {
        "heldout": ready.texts.heldout.sha256,
        "numpy": version("numpy"),
        "threads": ready.threads,
    }


def _needs_text(plans: list[VariantPlan]) -> bool:
    return any(plan.report.needs_calibration for plan in plans)


def _absolute(source: str) -> str:
    return str(Path(source).resolve()) if Path(source).is_dir() else source


def _check_forecast(ready: _Prepared, options: BuildOptions, out: Path) -> None:
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


def _provenance(ready: _Prepared, options: BuildOptions) -> dict[str, object]:
    calibrated = _needs_text(ready.plans) or bool(options.shaping)
    calibration = ready.texts.calibration
    adapter = ready.model.adapter_sha256
    training = ready.texts.training
    shaping = {
        "shaping": [
            {**pass_options(step.transform), **asdict(step.guard)} for step in options.shaping
        ],
        "training_sha256": None if training is None else training.sha256,
    }
    return {
        **(shaping if options.shaping else {}),
        **({"adapter_sha256": adapter} if adapter else {}),
        "accuracy_level": options.accuracy_level,
        "calibration_sha256": calibration.sha256 if calibrated else None,
        "calibration_tokens": calibration.n_tokens if calibrated else 0,
        "family": ready.model.family,
        "onhand": __version__,
        "recipe": {plan.name: pass_options(plan.transform) for plan in ready.plans},
        "source_sha256": ready.model.sha256,
        "source_weight_bits": ready.model.weight_bits,
    }
