"""The proof: the packed bundle, reopened in its real engine, beside the original."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from onhand import __version__
from onhand.core.arrays import FloatArray
from onhand.core.budget import Breach
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.measurement import Measurement
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress
from onhand.core.sparse_form import SparseForm
from onhand.core.units import format_bytes
from onhand.device.bench import bench
from onhand.device.energy import choose_meter
from onhand.device.opening import open_engine
from onhand.device.probe import current_profile
from onhand.host.calibrate import head_logits
from onhand.host.compare import compare_tokens, quality_figures
from onhand.host.evaluating import DecoderWays, evaluate_decoder, try_decoder, try_original
from onhand.host.memory import MemoryGuard
from onhand.host.model import Model
from onhand.host.options import BuildOptions
from onhand.host.pack import ORIGINAL, Packed, VariantPlan, pack_original
from onhand.host.repair import Repair, propose_repair
from onhand.host.shaping import ShapedStep
from onhand.host.texts import Texts
from onhand.host.transfer import figures_for, is_same_device
from onhand.host.ways import Originals

__all__ = ["Proof", "Report", "measure_variant", "prove_bundle"]

REPORT_FORMAT = 1
_RUNS = 5
# The original in float32 can be slow: fewer runs and tokens, which its figures say.
_ORIGINAL_RUNS = 3
_ORIGINAL_TOKENS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What there is to prove.

    Attributes:
        model: the source.
        shaped: what was stored: the source itself, or what shaping passes made of it.
        steps: what each shaping pass gave.
        packed: the staged bundle.
        plans: its variants.
        texts: what calibrated, and what was held out.
        hidden: the original's inputs of its head for each held-out sequence.
        profile: the device built for.
        options: what was asked for; its memory ceiling bounds the original's process too.
        threads: threads to use.
    """

    model: Model
    shaped: Model
    packed: Packed
    plans: Sequence[VariantPlan]
    texts: Texts
    hidden: Sequence[FloatArray]
    profile: DeviceProfile
    options: BuildOptions
    threads: int
    steps: Sequence[ShapedStep] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The evidence.

    Attributes:
        content: what `report.json` holds.
        manifest_sha256: the bundle's identity.
        figures: the default variant's measurements, by name.
        original: the original's.
        breaches: limits that do not hold.
    """

    content: dict[str, object]
    manifest_sha256: str
    figures: Mapping[str, Measurement]
    original: Mapping[str, Measurement]
    breaches: Sequence[Breach]


def prove_bundle(proof: Proof, *, guard: MemoryGuard, progress: Progress) -> Report:
    """Measure every variant and the original, and judge the default variant by the budget.

    Args:
        proof: what there is to prove.
        guard: the build's memory ceiling.
        progress: told how far it is.

    Returns:
        The report.

    Raises:
        EngineError: if the bundle does not run, or gives a NaN.
        ResourceError: if the memory ceiling was passed.
    """
    # Read again from disk, hashes and all: what is judged is what will ship.
    bundle = read_bundle(proof.packed.bundle.root)
    here = _here(proof)
    variants: dict[str, dict[str, Measurement]] = {}
    engines: dict[str, str] = {}
    for plan in proof.plans:
        figures = measure_variant(proof, bundle, plan.name, guard=guard, progress=progress)
        variants[plan.name], engines[plan.name] = figures
    name = proof.plans[0].name
    ways = _ways(proof, bundle, engines[name], here, progress)
    original, missing, originals = _original_figures(proof, here, ways, guard, progress)
    guard.check("running the original", child_bytes=_peak(original))
    default = variants[name]
    budget = proof.options.budget
    breaches = budget.breaches(default.values(), accept_estimates=proof.options.accept_estimates)
    content = _content(proof, variants, original, missing, engines[name])
    content |= evaluate_decoder(
        ways, originals, figures=default, original=original, missing=missing
    )
    content |= {
        "notes": [
            *proof.model.notes,
            *proof.texts.notes,
            *(step.sentence() for step in proof.steps),
            *_warnings(proof),
            *(note for plan in proof.plans if (note := _without_zeros(bundle, plan.name))),
            f"the build took at most {format_bytes(guard.peak_bytes)} of memory, the processes "
            "that it measured included",
        ],
        "budget": {"limits": budget.limits(), "breaches": [asdict(breach) for breach in breaches]},
    }
    return Report(
        content=content,
        manifest_sha256=bundle.manifest_sha256,
        figures=default,
        original=original,
        breaches=breaches,
    )


def measure_variant(
    proof: Proof, bundle: Bundle, variant: str, *, guard: MemoryGuard, progress: Progress
) -> tuple[dict[str, Measurement], str]:
    """Measure one variant: what it lost, in this process, and its speed, in fresh ones.

    Args:
        proof: what there is to prove.
        bundle: as it was read from disk.
        variant: which of its variants.
        guard: the build's memory ceiling.
        progress: told how far it is.

    Returns:
        The measurements by name, and the engine that ran it.

    Raises:
        EngineError: if it does not run, or gives a NaN.
        ResourceError: if the memory ceiling was passed.
    """
    here = _here(proof)
    quality, engine = _quality(proof, bundle, variant, progress)
    guard.check("comparing with the original")
    measured = bench(
        bundle.root,
        variant=variant,
        threads=proof.threads,
        runs=_RUNS,
        profile=here,
        progress=progress,
    )
    guard.check(f"running {variant}", child_bytes=_peak(measured))
    return quality | _on_device(proof, here, measured), engine


def _here(proof: Proof) -> DeviceProfile:
    """Return this machine's profile."""
    here = current_profile()
    # A profile that describes this machine may know better what it draws.
    return proof.profile if is_same_device(proof.profile, here) else here


def _ways(
    proof: Proof, bundle: Bundle, engine: str, here: DeviceProfile, progress: Progress
) -> DecoderWays | None:
    if not proof.options.try_ways:
        return None
    return try_decoder(
        bundle,
        variant=proof.plans[0].name,
        engine=engine,
        threads=proof.threads,
        here=here,
        progress=progress,
    )


def _without_zeros(bundle: Bundle, variant: str) -> str:
    """Say what a variant stores without its zeros; "" where it stores nothing so."""
    chosen = bundle.manifest.variants[variant]
    forms = [form for form in chosen.sparse.values() if isinstance(form, SparseForm)]
    if not forms:
        return ""
    stored, whole = sum(f.stored_bytes for f in forms), sum(f.size_bytes for f in forms)
    coded = sum(form is not None for form in chosen.matrices.values())
    return (
        f"{variant}: the codes of {len(forms)} of {coded} matrices are stored without "
        f"their zeros, in {format_bytes(stored)} instead of {format_bytes(whole)}; those of the "
        "others would not be a tenth smaller, are looked up row by row, or have zero points"
    )


def _quality(
    proof: Proof, bundle: Bundle, variant: str, progress: Progress
) -> tuple[dict[str, Measurement], str]:
    """Compare one variant with the original; return the figures and the engine's name."""
    loaded, engine, _ = open_engine(bundle, variant=variant, engine=None, threads=proof.threads)
    tokens = compare_tokens(
        loaded,
        proof.texts.heldout.sequences,
        proof.hidden,
        head_logits(proof.model),
        progress=progress,
        what=f"comparing {variant} with the original",
    )
    loaded.close()
    how = f"onhand evaluate {bundle.manifest.name} --text FILE --variant {variant}"
    return quality_figures(tokens, how=how), engine


def _peak(figures: Mapping[str, Measurement]) -> int:
    found = figures.get("peak_memory_bytes")
    return 0 if found is None else int(found.value)


def _on_device(
    proof: Proof, here: DeviceProfile, measured: Mapping[str, Measurement]
) -> dict[str, Measurement]:
    bandwidth = measured["read_bandwidth"].value
    return figures_for(proof.profile, replace(here, read_bandwidth=(bandwidth,)), measured)


def _original_figures(
    proof: Proof,
    here: DeviceProfile,
    ways: DecoderWays | None,
    guard: MemoryGuard,
    progress: Progress,
) -> tuple[dict[str, Measurement], str | None, Originals | None]:
    """Measure the source in float32 in an engine that can run it, or say why not."""
    model = proof.model
    size = Measurement(
        name="size_bytes",
        value=model.source_bytes,
        unit="byte",
        samples=1,
        spread=0.0,
        how="size of the source's weight files",
    )
    if not proof.options.measure_original:
        asked = "the original's speed was not asked for (--no-original)"
        return {"size_bytes": size}, asked, None
    # Mapped file, packed copy and what a process takes besides, with this one beside it.
    needed = 9 * model.decoder.n_parameters + 2**28 + guard.resident_bytes()
    limit = proof.options.max_ram or proof.profile.memory_bytes // 2
    if needed > limit:
        large = (
            f"the original in float32 would take about {format_bytes(needed)} of memory, over "
            f"{format_bytes(limit)}: its speed was not measured"
        )
        return {"size_bytes": size}, large, None
    parent = proof.packed.bundle.root.parent
    with tempfile.TemporaryDirectory(dir=parent, prefix=".original-") as folder:
        progress.start("writing the original in float32", 1)
        pack_original(model, Path(folder))
        progress.advance(1)
        figures = bench(
            Path(folder),
            variant=ORIGINAL,
            threads=proof.threads,
            generated_tokens=_ORIGINAL_TOKENS,
            runs=_ORIGINAL_RUNS,
            profile=here,
            progress=progress,
        )
        originals = None if ways is None else try_original(Path(folder), ways, progress=progress)
    return _on_device(proof, here, figures) | {"size_bytes": size}, None, originals


def _content(
    proof: Proof,
    variants: Mapping[str, Mapping[str, Measurement]],
    original: Mapping[str, Measurement],
    missing: str | None,
    engine: str,
) -> dict[str, object]:
    bundle, model = proof.packed.bundle, proof.model
    default = proof.plans[0].name
    bandwidth = variants[default]["read_bandwidth"]
    meter = choose_meter(proof.profile)
    return {
        "format": REPORT_FORMAT,
        "name": bundle.manifest.name,
        "manifest_sha256": bundle.manifest_sha256,
        "onhand_version": __version__,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": asdict(proof.profile),
        "engine": {
            "name": engine,
            "package": "onnxruntime" if engine == "onnx" else "onhand",
            "version": version("onnxruntime") if engine == "onnx" else __version__,
            "threads": proof.threads,
            "accuracy_level": bundle.manifest.variants[default].accuracy_level,
        },
        "read_bandwidth": bandwidth.to_json(),
        "source": {
            "family": model.family,
            "sha256": model.sha256,
            "n_parameters": model.decoder.n_parameters,
            "weight_bits": model.weight_bits,
            "size_bytes": model.source_bytes,
        },
        "original": {"figures": _as_json(original), "missing": missing},
        "default_variant": default,
        "variants": {
            plan.name: {
                "figures": _as_json(variants[plan.name]),
                "matrices": _matrices(proof, plan),
                "kept": dict(plan.report.kept),
                "repair": None if (found := _repair(proof, plan)) is None else found.to_json(),
            }
            for plan in proof.plans
        },
        "text": {
            "calibration": proof.texts.calibration.to_json(),
            "heldout": proof.texts.heldout.to_json(),
        },
        "energy": {"how": meter.how, "estimated": meter.estimated},
        **_steps(proof),
        **({} if proof.packed.lesson is None else {"lesson": proof.packed.lesson}),
    }


def _steps(proof: Proof) -> dict[str, object]:
    """Return what each shaping step gave; every variant has the same ones."""
    if not proof.steps:
        return {}
    rows = [asdict(step.row(proof.model.weight_bits)) for step in proof.steps]
    return {
        "shaping": [step.to_json() for step in proof.steps],
        "steps": {plan.name: rows for plan in proof.plans},
    }


def _as_json(figures: Mapping[str, Measurement]) -> dict[str, object]:
    return {name: figure.to_json() for name, figure in figures.items() if name != "read_bandwidth"}


def _repair(proof: Proof, plan: VariantPlan) -> Repair | None:
    shapes = proof.shaped.decoder.matrices()
    return propose_repair(plan.name, plan.transform, proof.packed.losses[plan.name], shapes)


def _warnings(proof: Proof) -> list[str]:
    """Say for each variant which few matrices lose most of what is lost, if so."""
    found: list[str] = []
    for plan in proof.plans:
        repair = _repair(proof, plan)
        if repair is not None and repair.stands_out:
            found.append(
                f"{plan.name}: {', '.join(repair.worst)} lose most, {repair.share:.0%} of all that "
                f"is lost; {format_bytes(repair.added_bytes)} more should leave "
                f"{repair.remaining:.0%} of it: onhand report NAME --repair prints the recipe"
            )
    return found


def _matrices(proof: Proof, plan: VariantPlan) -> list[dict[str, object]]:
    shapes, coded = proof.shaped.decoder.matrices(), proof.shaped.coded
    in_codes = coded.source_bytes() if coded else {}
    rows: list[dict[str, object]] = []
    for loss in proof.packed.losses[plan.name]:
        n, k = shapes[loss.name]
        original = in_codes.get(loss.name, n * k * proof.model.weight_bits // 8)
        rows.append(asdict(loss) | {"original_bytes": original})
    return rows
