"""What was learned, or an adapter, merged into a language model's bundle: a new bundle."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onhand.core.adapter import Adapter, read_adapter
from onhand.core.bundle import Bundle, stage_bundle
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.core.progress import Progress, Quiet
from onhand.core.quantized import GroupFormat
from onhand.core.table_form import TableForm
from onhand.core.trusting import making
from onhand.device.learning.adapters import check_of_original, write_version
from onhand.device.learning.in_use import choose_version, versions_of
from onhand.device.learning.lesson_files import can_learn, read_lesson
from onhand.device.learning.versions import learned_folder
from onhand.host.build import BuildResult, build_bundle
from onhand.host.bundle_source import BundleCodes, load_bundle
from onhand.host.learning.wanted import Learnable
from onhand.host.options import BuildOptions
from onhand.host.passes.as_is import AsIs
from onhand.host.passes.base import Pass
from onhand.host.passes.quantize import METHODS, WHOLE_BITS, Quantize
from onhand.host.plain import read_plain_bundle
from onhand.host.scale_tables import SCALE_BITS

__all__ = ["MergeOptions", "merge_bundle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOptions:
    """What is merged, and how the result is made.

    Attributes:
        adapter: a LoRA adapter in PEFT's layout; None for a learned version.
        version: which; None for the one in use.
        source: the model that the bundle was built from; None to take the bundle's own weights.
        calibrate: as for a build.
        threads: as for a build.
        measure_original: as for a build.
    """

    adapter: Path | None = None
    version: int | None = None
    source: str | None = None
    calibrate: Path | None = None
    threads: int | None = None
    measure_original: bool = True

    def __post_init__(self) -> None:
        if self.adapter is not None and self.version is not None:
            raise InputError("an adapter and a version: one of the two is merged")


def merge_bundle(
    root: Path,
    out: Path,
    options: MergeOptions,
    *,
    home: Path,
    progress: Progress | None = None,
) -> BuildResult:
    """Merge what was learned into a bundle's matrices, and prove the new bundle.

    With the original at hand the adapter is merged before anything is rounded. Without, the
    matrices that it changes are rounded a second time, each in the format that it had, and all
    others keep their codes; the report says what that costs: it compares the new bundle with the
    old one and the adapter.

    Args:
        root: the bundle's folder; its default variant is taken.
        out: the new bundle's folder; must not exist.
        options: what is merged.
        home: the state folder.
        progress: told how far it is.

    Returns:
        The new bundle's place and report; its version counter is one higher.

    Raises:
        InputError: if there is nothing to merge, or it does not fit.
        SourceError: if the original is damaged, or a matrix cannot take a sum.
        BundleError: if the bundle or the version is damaged.
        ResourceError: if disk or memory does not suffice.
        EngineError: if the new bundle does not run.
    """
    bundle = read_plain_bundle(root)
    name, variant = bundle.variant(None)
    if options.source is not None:
        check_of_original(bundle)
    place, number = _adapter(bundle, options, home, progress or Quiet())
    adapter = read_adapter(place, bundle.manifest.decoder)
    work = BuildOptions(
        transforms={name: _transform(bundle, adapter, has_source=options.source is not None)},
        accuracy_level=variant.accuracy_level,
        calibrate=options.calibrate,
        threads=options.threads,
        measure_original=options.measure_original,
        adapter=place,
        learnable=_learnable(read_lesson(bundle)) if can_learn(bundle) else None,
        merged={
            "bundle_sha256": bundle.manifest_sha256,
            "bundle_version": bundle.manifest.version,
            "learned_version": number,
        },
    )
    source = str(root) if options.source is None else options.source
    with making():
        return build_bundle(source, out, work, home=home, progress=progress)


def _adapter(
    bundle: Bundle, options: MergeOptions, home: Path, shown: Progress
) -> tuple[Path, int]:
    """Return the adapter's folder, and the number of the version that it is; 0 for none.

    Raises:
        InputError: if nothing was learned.
    """
    if options.adapter is not None:
        return options.adapter, 0
    in_use, version = choose_version(bundle, home, options.version)
    if in_use.passed_over:
        raise InputError(f"{in_use.passed_over[0]}; say with --version which one is meant")
    if version is None:
        raise InputError(
            f"{bundle.root} is used as it was built: there is nothing learned to merge; give "
            "--adapter DIR, or --version N"
        )
    if versions_of(bundle, home).scope(version) is not None:
        shown.note(
            f"version {version.number} answers only prompts like those it was taught; merged, what "
            "was learned answers all, and no gate has seen that"
        )
    # It stays: whoever compares the new bundle with its original needs it again.
    place = learned_folder(home, bundle.manifest_sha256) / "adapters" / version.sha256
    if not place.is_dir():
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with stage_bundle(place) as staged:
            write_version(bundle, version, staged, home=home)
    return place, version.number


def _transform(bundle: Bundle, adapter: Adapter, *, has_source: bool) -> Pass:
    """Return the pass that stores each matrix as the bundle does."""
    name, variant = bundle.variant(None)
    method = _method(bundle, name)
    has_tables = any(isinstance(form, TableForm) for form in variant.sparse.values())
    scale_bits = min(SCALE_BITS) if has_tables else max(SCALE_BITS)
    formats = dict(variant.matrices)
    if "head" in adapter.pairs and "head" not in formats:  # it is tied no longer
        formats["head"] = formats[bundle.manifest.decoder.head]
    if has_source:
        layers = {n: _table(form) for n, form in formats.items()}
        return Quantize(method=method, layers=layers, scale_bits=scale_bits)
    coded = load_bundle(bundle.root).coded
    kept: Mapping[str, GroupFormat] = {}
    if isinstance(coded, BundleCodes):
        kept = coded.without(adapter.pairs).formats()
    changed = {n: _table(form) for n, form in formats.items() if n not in kept}
    return AsIs(how="bundle", formats=kept, method=method, layers=changed, scale_bits=scale_bits)


def _table(form: GroupFormat | None) -> Mapping[str, int | bool]:
    if form is None:
        return {"bits": WHOLE_BITS}
    return {"bits": form.bits, "group_size": form.group_size, "symmetric": form.symmetric}


def _method(bundle: Bundle, variant: str) -> str:
    """Return how the bundle's own build rounded; one that scaled inputs did it once for all."""
    recipe = bundle.manifest.provenance.get("recipe")
    step = recipe.get(variant) if isinstance(recipe, dict) else None
    found = step.get("method") if isinstance(step, dict) else None
    plain = {"awq": "clip", "awq+gptq": "gptq"}.get(str(found), str(found))
    return plain if plain in METHODS else Quantize().method


def _learnable(lesson: Lesson) -> Learnable:
    targets = dict.fromkeys(made.tensor.rpartition(".")[2] for made in lesson.trainables.values())
    return Learnable(kind=lesson.kind, rank=lesson.rank, alpha=lesson.alpha, targets=tuple(targets))
