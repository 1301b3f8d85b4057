"""From a source network to a proven bundle: load, run the recipe, pack, prove, hold the budget."""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from onhand import __version__
from onhand.core.budget import Budget
from onhand.core.bundle import REPORT_PAGE, stage_bundle, write_report
from onhand.core.errors import BudgetExceeded, InputError, ResourceError
from onhand.core.network import Network
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress, Quiet
from onhand.core.units import format_bytes
from onhand.device.networks.boxes import box_reader
from onhand.device.networks.texts import TOKENIZER
from onhand.device.probe import current_profile
from onhand.device.threads import usable_threads
from onhand.host.ablation import LeaveOut, ablation, numbered
from onhand.host.build import BuildResult
from onhand.host.evaluate import record_original
from onhand.host.networks.checks import check_network
from onhand.host.networks.clean import clean
from onhand.host.networks.data import DataSplit, hash_data, read_data, split_data
from onhand.host.networks.graph import Graph
from onhand.host.networks.learnable import Source, wish_json, with_lesson
from onhand.host.networks.loading import load_network, with_inputs
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.options import NetworkOptions
from onhand.host.networks.pack import describe, pack_network
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.prove import NetworkProof, prove_network
from onhand.host.networks.samples import Samples
from onhand.host.networks.steps import Finished, Step, apply_steps
from onhand.host.passes.base import pass_options
from onhand.host.prove import Report
from onhand.host.report import render_report
from onhand.host.work import BuildWork, open_work

__all__ = [
    "PreparedNetwork",
    "build_network",
    "network_leave_outs",
    "prepare_network",
    "split_watched",
]

# Of the calibration examples, those that judge each step of a recipe of several.
_WATCHED = 5  # one in so many
_MOST_WATCHED = 512  # training gains more by the others than a judgement does
_NONE = Samples(feeds=[])


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedNetwork:
    """A build before its first step.

    Attributes:
        model: the source.
        graph: its graph, cleaned.
        network: its description.
        data: the examples.
        profile: of the device built for.
        threads: to use.
    """

    model: NetworkModel
    graph: Graph
    network: Network
    data: DataSplit
    profile: DeviceProfile
    threads: int


def build_network(
    source: str | NetworkModel,
    out: Path,
    options: NetworkOptions,
    *,
    home: Path,
    progress: Progress | None = None,
    ready: PreparedNetwork | None = None,
    findings: Mapping[str, object] | None = None,
) -> BuildResult:
    """Compress a network, prove the result in its real engine, and write the bundle.

    Nothing is left at `out` unless every limit of the budget holds.

    Args:
        source: a file, a folder, or a network that is loaded already.
        out: the bundle's folder; must not exist.
        options: what is asked for.
        home: the builder's state folder.
        progress: told how far it is.
        ready: what `prepare_network` gave for the same source and options; None to do so.
        findings: more for the report, by its keys: what a search found. Notes come on top.

    Returns:
        The bundle's place and its report.

    Raises:
        InputError: if source, data or an option cannot be used.
        SourceError: if the source is damaged or unknown.
        BudgetExceeded: if a limit does not hold or could not be measured.
        ResourceError: if the disk does not suffice; what is finished is kept.
        EngineError: if the bundle does not run.
    """
    shown = progress or Quiet()
    ready = ready or prepare_network(source, options, shown)
    _note(ready.model.notes, shown)
    _check_disk(ready, options, out)
    with (
        open_work(out, _fingerprint(ready, options), resume=options.resume) as work,
        stage_bundle(out, inside=work.root) as staged,
    ):
        finished = {
            name: _finish(ready, name, steps, options, work, shown)
            for name, steps in options.variants.items()
        }
        graphs = {name: made.graph for name, made in finished.items()}
        provenance = _provenance(ready, options)
        packed = pack_network(ready.model, ready.network, graphs, staged, provenance=provenance)
        made_of = Source(ready.model, ready.graph, ready.data.calibration, ready.threads)
        lesson = with_lesson(packed, options.learnable, made_of, shown)
        proof = _proof(ready, finished, options, staged, home)
        if (report := prove_network(proof, progress=shown)).breaches:
            raise BudgetExceeded("; ".join(f"{one.key}: {one.why}" for one in report.breaches))
        content = _with_findings(_with_findings(report.content, findings or {}), lesson)
        if options.ablate:
            content |= _ablation(report, source, options, work, home, shown)
        write_report(staged, content)
        (staged / REPORT_PAGE).write_text(render_report(content), encoding="utf-8")
        _remember(source, ready, report.manifest_sha256, home)
    return BuildResult(root=out, report=json.loads(json.dumps(content)))


def _ablation(
    report: Report,
    source: str | NetworkModel,
    options: NetworkOptions,
    work: BuildWork,
    home: Path,
    shown: Progress,
) -> dict[str, object]:
    return ablation(
        report,
        network_leave_outs(options),
        partial(_without, source, home, shown),
        folder=work.ablation,
        loss="quality_loss",
        progress=shown,
    )


def _without(
    source: str | NetworkModel,
    home: Path,
    shown: Progress,
    options: NetworkOptions,
    place: Path,
    resume: bool,
) -> Mapping[str, object]:
    without = replace(options, resume=resume)
    return build_network(source, place, without, home=home, progress=shown).report


def network_leave_outs(options: NetworkOptions) -> list[LeaveOut[NetworkOptions]]:
    """Return what can be left out of a network's build: each step of its default variant.

    Args:
        options: of the whole build.

    Returns:
        Builds of its default variant, one for each step.
    """
    name, steps = next(iter(options.variants.items()))
    plain = replace(options, budget=Budget(), measure_original=False, try_ways=False, ablate=False)
    plain = replace(plain, learnable=None)
    labels = numbered([step.transform.name for step in steps])
    return [
        LeaveOut(
            label=label,
            options=replace(plain, variants={name: (*steps[:place], *steps[place + 1 :])}),
        )
        for place, label in enumerate(labels)
    ]


def _note(notes: Iterable[str], shown: Progress) -> None:
    for note in notes:
        shown.note(note)


def _remember(
    source: str | NetworkModel, ready: PreparedNetwork, manifest_sha256: str, home: Path
) -> None:
    """Remember where the original lies, so that bundles can be compared with it."""
    if isinstance(source, str):
        place = str(Path(source).resolve())
        record_original(home, manifest_sha256, place, ready.model.sha256)


def _with_findings(
    content: Mapping[str, object], findings: Mapping[str, object]
) -> dict[str, object]:
    notes, more = content["notes"], findings.get("notes", [])
    together = [*notes, *more] if isinstance(notes, list) and isinstance(more, list) else notes
    return {**content, **findings, "notes": together}


def _proof(
    ready: PreparedNetwork,
    finished: dict[str, Finished],
    options: NetworkOptions,
    staged: Path,
    home: Path,
) -> NetworkProof:
    return NetworkProof(
        root=staged,
        model=ready.model,
        original=ready.graph,
        network=ready.network,
        finished=finished,
        data=ready.data,
        profile=ready.profile,
        options=options,
        threads=ready.threads,
        home=home,
    )


def prepare_network(
    source: str | NetworkModel, options: NetworkOptions, shown: Progress
) -> PreparedNetwork:
    """Read a source and its examples.

    Args:
        source: a file, a folder, or a network that is loaded already.
        options: what is asked for.
        shown: told how far it is.

    Returns:
        All that a build begins with.

    Raises:
        InputError: if source, data or an option cannot be used.
        SourceError: if the source is damaged or unknown.
    """
    shown.start("reading the source", 1)
    loaded = load_network(source, task=options.task) if isinstance(source, str) else source
    check_network(loaded.graph)
    model = with_inputs(loaded, feed=options.feed, labels=options.labels)
    shown.advance(1)
    network = describe(model, options.task)
    if box_reader(network) is None and options.task == "detection":
        shown.note("no [detection] in the file of --feed: answers are arrays, and not boxes")
    if network.detection is not None and options.task != "detection":
        raise InputError(f"[detection] is for --task detection, the task is {options.task}")
    data = _read_data(model, network, options)
    if options.data is None:
        shown.note("no --data: nothing can be calibrated, and what is lost is not judged")
    return PreparedNetwork(
        model=model,
        graph=clean(model.graph),
        network=network,
        data=data,
        profile=options.device or current_profile(),
        threads=options.threads or usable_threads(),
    )


def _read_data(model: NetworkModel, network: Network, options: NetworkOptions) -> DataSplit:
    if options.data is None:
        return DataSplit(calibration=_NONE, heldout=_NONE, what="no examples", sha256="")
    tokenizer = model.files.get(TOKENIZER)

    def read(path: Path) -> Samples:
        return read_data(path, network, model.labels, tokenizer=tokenizer)

    names = [path for path in (options.data, options.heldout) if path is not None]
    return split_data(
        read(options.data),
        n_calibration=options.n_calibration,
        what=f"examples of {' and '.join(path.name for path in names)}",
        sha256=" ".join(hash_data(path) for path in names),
        heldout=None if options.heldout is None else read(options.heldout),
    )


def _finish(
    ready: PreparedNetwork,
    name: str,
    steps: tuple[Step, ...],
    options: NetworkOptions,
    work: BuildWork,
    shown: Progress,
) -> Finished:
    """Run one variant's steps; where there are several, each is judged on examples put aside."""
    calibration, watch = ready.data.calibration, _NONE
    limit = options.budget.quality_loss
    if len(steps) > 1 or any(step.guard.most_loss is not None for step in steps):
        calibration, watch = split_watched(calibration)
    bench = Workbench(
        original=ready.graph,
        calibration=calibration,
        task=options.task,
        threads=ready.threads,
        profile=ready.profile,
        progress=shown,
        reader=box_reader(ready.network),
    )
    return apply_steps(
        ready.graph,
        steps,
        bench,
        watch=watch,
        most_loss=limit,
        folder=work.steps / name,
        progress=shown,
    )


def split_watched(calibration: Samples) -> tuple[Samples, Samples]:
    """Put some examples aside that judge steps.

    Args:
        calibration: all that steps could see.

    Returns:
        What steps see, and what judges them: nothing, where there are fewer than five.
    """
    if len(calibration) < _WATCHED:
        return calibration, _NONE
    every = range(len(calibration))
    watched = set(every[:: max(_WATCHED, -(-len(every) // _MOST_WATCHED))])
    return (
        calibration.part([i for i in every if i not in watched]),
        calibration.part(sorted(watched)),
    )


def _check_disk(ready: PreparedNetwork, options: NetworkOptions, out: Path) -> None:
    parent = out.absolute().parent
    if not parent.is_dir():
        raise InputError(f"{parent} is not a folder; create it first")
    n_steps = 1 + sum(len(steps) for steps in options.variants.values())
    needed = ready.graph.size_bytes() * (n_steps + 2) + 2**20
    if (free := shutil.disk_usage(parent).free) < needed:
        raise ResourceError(
            f"{parent} has {format_bytes(free)} free, the build needs {format_bytes(needed)}"
        )


def _provenance(ready: PreparedNetwork, options: NetworkOptions) -> dict[str, object]:
    merged = {"merged": dict(options.merged)} if options.merged else {}
    return (
        wish_json(options.learnable)
        | merged
        | {
            "calibration": len(ready.data.calibration),
            "data_sha256": ready.data.sha256,
            "family": ready.model.family,
            "onhand": __version__,
            "recipe": {
                name: [pass_options(step.transform) for step in steps]
                for name, steps in options.variants.items()
            },
            "source_sha256": ready.model.sha256,
            "task": options.task,
        }
    )


def _fingerprint(ready: PreparedNetwork, options: NetworkOptions) -> dict[str, object]:
    """Return all that decides the bytes of a bundle."""
    guards = {
        name: [[step.guard.most_loss, step.guard.undo] for step in steps]
        for name, steps in options.variants.items()
    }
    return _provenance(ready, options) | {
        "detection": ready.network.to_json().get("detection"),
        "feed": ready.network.to_json()["feed"],
        "guards": guards,
        "labels": list(ready.model.labels),
        "numpy": version("numpy"),
        "onnxruntime": version("onnxruntime"),
        "quality_loss": options.budget.quality_loss,
        "threads": ready.threads,
    }
