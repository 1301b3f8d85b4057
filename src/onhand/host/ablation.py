"""What each technique of a build brought, measured by building without it.

Every build without one technique is a whole one: packed, opened in its engine and measured in the
same way. What is finished is kept, so that an interrupted build goes on from there.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from onhand.core.budget import Budget
from onhand.core.errors import InputError, OnhandError, ResourceError
from onhand.core.evaluation import Part, Waterfall, inverse
from onhand.core.measurement import Measurement, measurement_from_json
from onhand.core.progress import Progress
from onhand.core.recipe import Guard
from onhand.host.options import BuildOptions
from onhand.host.passes.as_is import AsIs
from onhand.host.passes.base import Pass, ShapingStep
from onhand.host.passes.quantize import Quantize
from onhand.host.prove import Report
from onhand.host.scale_tables import SCALE_BITS
from onhand.host.ways import without_paths
from onhand.host.work import BuildWork, work_folder

__all__ = [
    "Ablation",
    "LeaveOut",
    "ablate",
    "ablated",
    "ablation",
    "ablation_waterfalls",
    "decoder_leave_outs",
    "numbered",
]

Options = TypeVar("Options")
# What a part of a recipe loses alone is a finding here, and no reason to stop.
_ANY_LOSS = Guard(most_loss=1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveOut(Generic[Options]):
    """One technique left out.

    Attributes:
        label: what it is called.
        options: those of a build without it.
    """

    label: str
    options: Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What the builds gave.

    Attributes:
        figures: technique -> the measurements of a build without it.
        missing: technique -> why it could not be left out.
    """

    figures: Mapping[str, Mapping[str, Measurement]]
    missing: Mapping[str, str]


def decoder_leave_outs(options: BuildOptions) -> list[LeaveOut[BuildOptions]]:
    """Return what can be left out of a language model's build: steps, and choices within the last.

    Args:
        options: of the whole build.

    Returns:
        Builds of its default variant, one for each technique.
    """
    name, transform = next(iter(options.transforms.items()))
    plain = replace(
        options,
        transforms={name: transform},
        # A search goes by its budget; nothing else needs one here.
        budget=Budget() if options.search is None else options.budget,
        measure_original=False,
        try_ways=False,
        ablate=False,
        n_variants=1,
        learnable=None,
    )
    labels = numbered([step.transform.name for step in options.shaping])
    found = [
        LeaveOut(label=label, options=replace(plain, shaping=_unguarded(options, place)))
        for place, label in enumerate(labels)
    ]
    if options.search is not None:
        uniform = Quantize(method=options.search.method)
        found.append(_instead(plain, "a format for each layer, not 4 bits for all", uniform))
    elif isinstance(transform, Quantize):
        found += [_instead(plain, label, changed) for label, changed in _plainer(transform).items()]
    if options.search is not None or isinstance(transform, Quantize):
        bits = "few" if not isinstance(transform, Quantize) or options.search else transform.bits
        whole = AsIs(how="left out", formats={}, bits=0)
        found.append(_instead(plain, f"{bits} bits instead of float32", whole))
    return found


def _instead(plain: BuildOptions, label: str, transform: Pass) -> LeaveOut[BuildOptions]:
    """Return a build of one given transform, without a search or a budget."""
    given = replace(
        plain, transforms={"plain": transform}, search=None, budget=Budget(), keep_codes=False
    )
    return LeaveOut(label=label, options=given)


def _plainer(transform: Quantize) -> dict[str, Quantize]:
    """Return what is more than plain in a quantiser: its label, and the quantiser without it."""
    made: dict[str, Quantize] = {}
    if transform.distil:
        made["trained scales"] = replace(transform, distil=0)
    if transform.method != "rtn":
        made[f"method {transform.method} instead of rtn"] = replace(
            transform, method="rtn", distil=0
        )
    if transform.embed_bits not in {0, transform.bits}:
        made[f"{transform.embed_bits} bits of the embedding"] = replace(transform, embed_bits=0)
    if transform.scale_bits != max(SCALE_BITS):
        made["scales in 8 bits"] = replace(transform, scale_bits=max(SCALE_BITS))
    if transform.layers:
        made["formats of their own for some matrices"] = replace(transform, layers={})
    return made


def _unguarded(options: BuildOptions, left_out: int) -> tuple[ShapingStep, ...]:
    return tuple(
        step if step.guard.most_loss is not None else replace(step, guard=_ANY_LOSS)
        for place, step in enumerate(options.shaping)
        if place != left_out
    )


def numbered(names: Sequence[str]) -> list[str]:
    """Return labels that differ: a name that comes twice is numbered."""
    seen: dict[str, int] = {}
    labels: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        labels.append(name if names.count(name) == 1 else f"{name} {seen[name]}")
    return labels


def ablate(
    leaving: Sequence[LeaveOut[Options]],
    build: Callable[[Options, Path, bool], Mapping[str, object]],
    *,
    folder: Path,
    progress: Progress,
) -> Ablation:
    """Build without each technique, one after the other.

    Args:
        leaving: what to leave out.
        build: builds with options at a place, resumed or not, and returns its report.
        folder: keeps what is finished.
        progress: told how far it is.

    Returns:
        What the builds gave.

    Raises:
        ResourceError: if disk or memory does not suffice; what is finished is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, dict[str, Measurement]] = {}
    missing: dict[str, str] = {}
    for place, one in enumerate(leaving, start=1):
        kept = folder / f"{place}.json"
        if (known := _read(kept, one.label)) is not None:
            figures[one.label] = known
            continue
        progress.note(f"building without {one.label}, {place} of {len(leaving)}")
        root = folder / str(place)
        shutil.rmtree(root, ignore_errors=True)
        try:
            report = build(one.options, root, work_folder(root).exists())
        except ResourceError:
            raise
        except OnhandError as error:
            missing[one.label] = without_paths(str(error))
            continue
        figures[one.label] = _default_figures(report)
        _write(kept, one.label, figures[one.label])
        shutil.rmtree(root, ignore_errors=True)
    return Ablation(figures=figures, missing=missing)


def _default_figures(report: Mapping[str, object]) -> dict[str, Measurement]:
    from onhand.device.report_data import parse_report

    parsed = parse_report(report)
    return dict(parsed.variants[parsed.default_variant].figures)


def _write(place: Path, label: str, figures: Mapping[str, Measurement]) -> None:
    table = {"label": label, "figures": {name: one.to_json() for name, one in figures.items()}}
    beside = place.with_suffix(".new")
    beside.write_text(json.dumps(table), encoding="utf-8")
    beside.replace(place)


def _read(place: Path, label: str) -> dict[str, Measurement] | None:
    """Return what an interrupted build kept; None where it is not there, or of another one."""
    try:
        table = json.loads(place.read_text(encoding="utf-8"))
        if table["label"] != label:
            return None
        return {name: measurement_from_json(one) for name, one in table["figures"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError):
        return None


def ablation_waterfalls(
    found: Ablation,
    *,
    figures: Mapping[str, Measurement],
    original: Mapping[str, Measurement],
    loss: str,
) -> list[Waterfall]:
    """Say what each technique brought in size, quality and time.

    Args:
        found: what the builds without each gave.
        figures: of the whole build.
        original: of the original.
        loss: the measurement of what is lost, 0 for the original itself.

    Returns:
        A waterfall for each figure that is known of the original and of the whole.
    """
    nothing = Measurement(
        name=loss,
        value=0.0,
        unit="fraction",
        samples=1,
        spread=0.0,
        how="by definition: the original beside itself",
    )
    before = {**_timed(original), loss: nothing}
    after = _timed(figures)
    parts = {label: _timed(one) for label, one in found.figures.items()}
    return [
        Waterfall(
            measurement=name,
            before=before[name],
            after=after[name],
            parts=tuple(
                Part(label=label, without=one[name]) for label, one in parts.items() if name in one
            ),
            missing=found.missing,
        )
        for name in ("size_bytes", loss, "token_s", "latency_s")
        if name in before and name in after
    ]


def _timed(figures: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """Add the time of a token, which adds up, to the rate, which does not."""
    rate = figures.get("decode_tokens_per_s")
    if rate is None or not (rate.value > 0 and math.isfinite(rate.value)):
        return dict(figures)
    return {**figures, "token_s": inverse("token_s", rate)}


class _Built(Protocol):
    @property
    def report(self) -> Mapping[str, object]: ...


def ablated(
    report: Report,
    source: str,
    options: BuildOptions,
    build: Callable[..., _Built],
    work: BuildWork,
    *,
    home: Path,
    progress: Progress,
) -> dict[str, object]:
    """Return a language model's report, with what each technique brought where that was asked for.

    Args:
        report: of the whole build.
        source: a folder, or an id on a hub.
        options: of the whole build.
        build: `build_bundle`.
        work: the folder of the whole build.
        home: the builder's state folder.
        progress: told how far it is.

    Returns:
        What `report.json` holds.

    Raises:
        ResourceError: if disk or memory does not suffice; what is finished is kept.
    """
    if not options.ablate:
        return report.content

    def again(plainer: BuildOptions, place: Path, resume: bool) -> Mapping[str, object]:
        without = replace(plainer, resume=resume)
        return build(source, place, without, home=home, progress=progress).report

    return report.content | ablation(
        report,
        decoder_leave_outs(options),
        again,
        folder=work.ablation,
        loss="perplexity_increase",
        progress=progress,
    )


def ablation(
    report: Report,
    leaving: Sequence[LeaveOut[Options]],
    build: Callable[[Options, Path, bool], Mapping[str, object]],
    *,
    folder: Path,
    loss: str,
    progress: Progress,
) -> dict[str, object]:
    """Build without each technique; return what changes in the report of the whole.

    Args:
        report: of the whole build.
        leaving: what to leave out.
        build: as in `ablate`.
        folder: keeps what is finished.
        loss: the measurement of what is lost.
        progress: told how far it is.

    Returns:
        The key "waterfalls", with those that were there.

    Raises:
        ResourceError: if disk or memory does not suffice; what is finished is kept.
    """
    found = ablate(leaving, build, folder=folder, progress=progress)
    falls = ablation_waterfalls(found, figures=report.figures, original=report.original, loss=loss)
    known = report.content.get("waterfalls")
    before = list(known) if isinstance(known, list) else []
    return {"waterfalls": [*before, *(fall.to_json() for fall in falls)]}
