"""From a source model to a proven bundle: plan, calibrate, pack, prove, hold the budget."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onhand import __version__
from onhand.core.budget import AXES, Budget
from onhand.core.bundle import stage_bundle, write_report
from onhand.core.errors import BudgetExceeded, InputError, ResourceError
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress, Quiet
from onhand.core.units import format_bytes
from onhand.device.probe import current_profile
from onhand.device.text_files import parse_text_files
from onhand.device.threads import usable_threads
from onhand.host.advice import nearest_settings
from onhand.host.calibrate import run_original
from onhand.host.evaluate import record_original
from onhand.host.memory import MemoryGuard
from onhand.host.model import Model
from onhand.host.pack import VariantPlan, pack_bundle, plan_variants
from onhand.host.passes.base import Pass
from onhand.host.plan import BuildPlan, make_plan, text_tokens
from onhand.host.prove import Proof, prove_bundle
from onhand.host.report import render_report
from onhand.host.sources import load_model
from onhand.host.texts import Texts, split_texts

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
    *,
    transforms: Mapping[str, Pass],
    device: DeviceProfile | None = None,
    calibrate: Path | None = None,
    max_ram: int | None = None,
    accuracy_level: int = 4,
    threads: int | None = None,
    progress: Progress | None = None,
) -> BuildPlan:
    """Say what a build would give and take, without doing it.

    Args:
        source: a folder, or an id on a hub.
        transforms: variant name -> its pass; the first is the default variant.
        device: the device built for; None for this machine.
        calibrate: a text; only checked here.
        max_ram: memory ceiling of the build, in bytes.
        accuracy_level: as it would be built.
        threads: threads to use; None for all usable ones.
        progress: told how far it is.

    Returns:
        The forecast.

    Raises:
        SourceError: if the source is unknown, incomplete or damaged.
        InputError: if the text cannot be used.
    """
    shown = progress or Quiet()
    shown.start("reading the source", 1)
    model = load_model(source)
    shown.advance(1)
    _texts(model, calibrate)
    return make_plan(
        model,
        plan_variants(model.decoder, transforms),
        device or current_profile(),
        accuracy_level=accuracy_level,
        threads=threads or usable_threads(),
        max_ram=max_ram,
    )


def build_bundle(
    source: str,
    out: Path,
    *,
    transforms: Mapping[str, Pass],
    budget: Budget | None = None,
    device: DeviceProfile | None = None,
    calibrate: Path | None = None,
    max_ram: int | None = None,
    accept_estimates: bool = False,
    accuracy_level: int = 4,
    threads: int | None = None,
    measure_original: bool = True,
    home: Path,
    progress: Progress | None = None,
) -> BuildResult:
    """Compress a model, prove the result in its real engine, and write the bundle.

    Nothing is left at `out` unless every limit of the budget holds.

    Args:
        source: a folder, or an id on a hub.
        out: the bundle's folder; must not exist.
        transforms: variant name -> its pass; the first is the default variant.
        budget: limits on the default variant; None for none.
        device: the device built for; None for this machine.
        calibrate: a text; its beginning calibrates, its end is held out. None takes the
            built-in sample, and says so.
        max_ram: memory ceiling of the build, in bytes; None for the machine's memory.
        accept_estimates: whether an estimated figure may satisfy a limit.
        accuracy_level: MatMulNBits setting: 4 multiplies in int8, 0 in float32.
        threads: threads to use; None for all usable ones.
        measure_original: whether to measure the original's speed and memory as well.
        home: the builder's state folder.
        progress: told how far it is.

    Returns:
        The bundle's place and its report.

    Raises:
        InputError: if source, text or an option cannot be used.
        BudgetExceeded: if a limit does not hold or could not be measured.
        ResourceError: if disk or memory does not suffice.
        EngineError: if the bundle does not run.
    """
    shown = progress or Quiet()
    limits = budget or Budget()
    n_threads = threads or usable_threads()
    guard = MemoryGuard(max_ram)
    shown.start("reading the source", 1)
    model = load_model(source)
    shown.advance(1)
    plans = plan_variants(model.decoder, transforms)
    texts = _texts(model, calibrate)
    profile = device or current_profile()
    plan = make_plan(
        model,
        plans,
        profile,
        accuracy_level=accuracy_level,
        threads=n_threads,
        max_ram=max_ram,
    )
    for note in (*model.notes, *texts.notes):
        shown.note(note)
    _check_plan(plan, plans, limits, out, max_ram)
    with stage_bundle(out) as staged:
        run = run_original(
            model,
            calibration=texts.calibration.sequences if _needs_text(plans) else [],
            heldout=texts.heldout.sequences,
            block=_largest_group(plans),
            progress=shown,
        )
        guard.check("running the original")
        packed = pack_bundle(
            model,
            plans,
            run.statistics,
            staged,
            accuracy_level=accuracy_level,
            provenance=_provenance(model, plans, texts, accuracy_level),
            threads=n_threads,
            progress=shown,
        )
        guard.check("quantizing")
        proof = Proof(
            model=model,
            packed=packed,
            plans=plans,
            texts=texts,
            hidden=run.hidden,
            profile=profile,
            threads=n_threads,
            measure_original=measure_original,
            max_ram=max_ram,
        )
        report = prove_bundle(
            proof, limits, accept_estimates=accept_estimates, guard=guard, progress=shown
        )
        if breaches := report.breaches:
            advice = nearest_settings(
                model, plans[0], run.statistics, breaches, report, accuracy_level=accuracy_level
            )
            raise BudgetExceeded("; ".join(advice))
        write_report(staged, report.content)
        (staged / "report.html").write_text(render_report(report.content), encoding="utf-8")
        record_original(home, packed.bundle, _absolute(source), model)
    return BuildResult(root=out, report=report.content)


def _texts(model: Model, calibrate: Path | None) -> Texts:
    tokenizer = parse_text_files(model.files, where=str(model.location)).tokenizer
    return split_texts(tokenizer, calibrate, model.decoder, max_tokens=text_tokens(model.decoder))


def _needs_text(plans: list[VariantPlan]) -> bool:
    return any(plan.report.needs_calibration for plan in plans)


def _largest_group(plans: list[VariantPlan]) -> int:
    forms = [form for plan in plans for form in plan.report.formats.values()]
    return max((form.group_size for form in forms if form is not None), default=32)


def _absolute(source: str) -> str:
    return str(Path(source).resolve()) if Path(source).is_dir() else source


def _check_plan(
    plan: BuildPlan,
    plans: list[VariantPlan],
    budget: Budget,
    out: Path,
    max_ram: int | None,
) -> None:
    """Refuse at once what cannot end well.

    Raises:
        BudgetExceeded: if the size is over its ceiling already from shapes alone.
        ResourceError: if disk or memory does not suffice.
        InputError: if the place is taken.
    """
    default = plans[0].name
    size = plan.size_bytes[default]
    if budget.size_bytes is not None and size > budget.size_bytes:
        axis = AXES["disk"]
        raise BudgetExceeded(
            f"disk: {default} takes {axis.show(size)} by its shapes, at most "
            f"{axis.show(budget.size_bytes)} allowed; the source has {plan.n_parameters} weights: "
            "fewer --bits or a larger --group take less"
        )
    if max_ram is not None and plan.build_memory_bytes > max_ram:
        raise ResourceError(
            f"the build needs about {format_bytes(plan.build_memory_bytes)} of memory, "
            f"--max-ram allows {format_bytes(max_ram)}; give more"
        )
    parent = out.absolute().parent
    if not parent.is_dir():
        raise InputError(f"{parent} is not a folder; create it first")
    # Staged bundle, and the original in float32 that it is measured beside.
    needed = max(plan.size_bytes.values()) + 2**20
    if (free := shutil.disk_usage(parent).free) < needed:
        raise ResourceError(
            f"{parent} has {format_bytes(free)} free, the bundle needs {format_bytes(needed)}"
        )


def _provenance(
    model: Model, plans: list[VariantPlan], texts: Texts, accuracy_level: int
) -> dict[str, object]:
    return {
        "accuracy_level": accuracy_level,
        "calibration_sha256": texts.calibration.sha256 if _needs_text(plans) else None,
        "calibration_tokens": texts.calibration.n_tokens if _needs_text(plans) else 0,
        "family": model.family,
        "onhand": __version__,
        "recipe": {plan.name: repr(plan.transform) for plan in plans},
        "source_sha256": model.sha256,
        "source_weight_bits": model.weight_bits,
    }
