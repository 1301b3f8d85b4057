"""The proof for a network: the packed bundle in its real engine, beside the original."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from onhand import __version__
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.measurement import Measurement, summarize
from onhand.core.network import Network
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress
from onhand.device.energy import choose_meter
from onhand.device.networks.bench import bench_network
from onhand.device.networks.boxes import box_reader
from onhand.device.probe import current_profile, default_buffer_bytes, sample_read_bandwidth
from onhand.host.networks.data import DataSplit
from onhand.host.networks.evaluating import (
    NetworkWays,
    evaluate_network,
    try_network,
    try_original_network,
)
from onhand.host.networks.graph import Graph
from onhand.host.networks.judge import answer_bundle, answer_graph, compare_answers
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.options import NetworkOptions
from onhand.host.networks.pack import pack_network
from onhand.host.networks.sparse_storage import stored_without_zeros
from onhand.host.networks.standing import ORIGINAL, Standing, stand
from onhand.host.networks.steps import Finished
from onhand.host.prove import REPORT_FORMAT, Report
from onhand.host.transfer import figures_for, is_same_device
from onhand.host.ways import Originals

__all__ = ["NetworkProof", "prove_network"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkProof:
    """What there is to prove.

    Attributes:
        root: the staged bundle.
        model: the source.
        original: its graph, cleaned.
        network: its description.
        finished: variant name -> what its steps gave; the first is the default one.
        data: the examples.
        profile: the device built for.
        options: what was asked for.
        threads: to use.
        home: the builder's state folder, where the choice of an engine is kept.
    """

    root: Path
    model: NetworkModel
    original: Graph
    network: Network
    finished: Mapping[str, Finished]
    data: DataSplit
    profile: DeviceProfile
    options: NetworkOptions
    threads: int
    home: Path


def prove_network(proof: NetworkProof, *, progress: Progress) -> Report:
    """Measure every variant and the original, and judge the default variant by the budget.

    Args:
        proof: what there is to prove.
        progress: told how far it is.

    Returns:
        The report.

    Raises:
        EngineError: if the bundle does not run, or gives a NaN.
    """
    # Read again from disk, hashes and all: what is judged is what will ship.
    bundle = read_bundle(proof.root)
    here = current_profile()
    here = proof.profile if is_same_device(proof.profile, here) else here
    progress.start("measuring the memory's bandwidth", 1)
    bandwidth = summarize(
        "read_bandwidth",
        sample_read_bandwidth(proof.threads, buffer_bytes=default_buffer_bytes()),
        unit="byte/s",
        how="onhand probe",
    )
    progress.advance(1)
    engines: dict[str, str] = {}
    variants: dict[str, dict[str, Measurement]] = {}
    for name in proof.finished:
        measured, engines[name] = _speed(proof, bundle.root, name, here, proof.home, progress)
        variants[name] = measured
    for name, quality in _quality(proof, bundle, engines, progress).items():
        variants[name] |= quality
    default = next(iter(proof.finished))
    figures = variants[default]
    ways = _ways(proof, bundle, engines[default], here, progress)
    original, missing, standing, originals = _original(proof, bundle, here, ways, progress)
    for warning in () if standing is None else standing.warnings():
        progress.note(warning)
    budget = proof.options.budget
    accepted = proof.options.accept_estimates
    breaches = budget.breaches(figures.values(), accept_estimates=accepted)
    content = _content(proof, bundle, variants, original, missing, engines[default])
    content |= evaluate_network(
        ways, originals, figures=figures, original=original, missing=missing
    )
    content |= {
        "budget": {"limits": budget.limits(), "breaches": [asdict(breach) for breach in breaches]},
        "notes": [*_notes(proof, bundle, engines), *(standing.notes() if standing else [])],
        "ranking": [] if standing is None else standing.to_json(),
        "read_bandwidth": bandwidth.to_json(),
    }
    return Report(
        content=content,
        manifest_sha256=bundle.manifest_sha256,
        figures=figures,
        original=original,
        breaches=breaches,
    )


def _ways(
    proof: NetworkProof, bundle: Bundle, engine: str, here: DeviceProfile, progress: Progress
) -> NetworkWays | None:
    if not proof.options.try_ways:
        return None
    return try_network(
        bundle,
        variant=next(iter(proof.finished)),
        engine=engine,
        threads=proof.threads,
        here=here,
        home=proof.home,
        progress=progress,
    )


def _speed(
    proof: NetworkProof,
    root: Path,
    variant: str,
    here: DeviceProfile,
    home: Path,
    progress: Progress,
) -> tuple[dict[str, Measurement], str]:
    figures, engine = bench_network(
        root,
        variant=variant,
        engine=proof.options.engine,
        threads=proof.threads,
        profile=here,
        home=home,
        progress=progress,
    )
    return figures_for(proof.profile, here, figures), engine


def _quality(
    proof: NetworkProof, bundle: Bundle, engines: Mapping[str, str], progress: Progress
) -> dict[str, dict[str, Measurement]]:
    """Compare every variant with the original; nothing where there are no examples."""
    heldout = proof.data.heldout
    if not len(heldout):
        return {}
    theirs = answer_graph(proof.original, heldout, threads=proof.threads, progress=progress)
    found: dict[str, dict[str, Measurement]] = {}
    for name in proof.finished:
        ours = answer_bundle(
            bundle.root,
            heldout,
            variant=name,
            engine=engines[name],
            threads=proof.threads,
            progress=progress,
        )
        found[name] = compare_answers(
            theirs,
            ours,
            task=proof.options.task,
            labels=heldout.labels,
            reader=box_reader(proof.network),
            truths=heldout.truths,
            how=f"onhand evaluate {bundle.manifest.name} --data DIR --variant {name}",
        )
    return found


def _original(
    proof: NetworkProof,
    bundle: Bundle,
    here: DeviceProfile,
    ways: NetworkWays | None,
    progress: Progress,
) -> tuple[dict[str, Measurement], str | None, Standing | None, Originals | None]:
    """Measure the source in its own precision in the fastest engine, or say why not.

    Returns:
        Its figures, why some are missing, how quick the variants are beside it, and what it gave
        on the ways that were tried.
    """
    size = Measurement(
        name="size_bytes",
        value=proof.model.source_bytes,
        unit="byte",
        samples=1,
        spread=0.0,
        how="size of the source's files",
    )
    engine, threads = proof.options.engine, proof.threads
    if not proof.options.measure_original:
        several = len(proof.finished) > 1
        standing = stand(bundle, None, engine=engine, threads=threads) if several else None
        return (
            {"size_bytes": size},
            "the original's speed was not asked for (--no-original)",
            standing,
            None,
        )
    with tempfile.TemporaryDirectory(dir=proof.root.parent, prefix=".original-") as folder:
        root, home = Path(folder) / ORIGINAL, Path(folder) / "home"
        root.mkdir()
        graphs = {ORIGINAL: proof.original}
        packed = pack_network(proof.model, proof.network, graphs, root, provenance={})
        figures, _ = _speed(proof, root, ORIGINAL, here, home, progress)
        tried = None if ways is None else try_original_network(root, ways, progress=progress)
        # A variant without steps is the original.
        is_inside = any(not made.steps for made in proof.finished.values())
        standing = stand(bundle, None if is_inside else packed, engine=engine, threads=threads)
    return figures | {"size_bytes": size}, None, standing, tried


def _content(
    proof: NetworkProof,
    bundle: Bundle,
    variants: Mapping[str, Mapping[str, Measurement]],
    original: Mapping[str, Measurement],
    missing: str | None,
    engine: str,
) -> dict[str, object]:
    meter = choose_meter(proof.profile)
    package = {"onnx": "onnxruntime", "openvino": "openvino"}.get(engine, "onhand")
    return {
        "format": REPORT_FORMAT,
        "kind": "network",
        "name": bundle.manifest.name,
        "manifest_sha256": bundle.manifest_sha256,
        "onhand_version": __version__,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": asdict(proof.profile),
        "engine": {
            "name": engine,
            "package": package,
            "version": version(package),
            "threads": proof.threads,
            "accuracy_level": 4,
        },
        "source": {
            "family": proof.model.family,
            "sha256": proof.model.sha256,
            "n_parameters": proof.network.n_parameters,
            "weight_bits": proof.model.weight_bits,
            "size_bytes": proof.model.source_bytes,
        },
        "original": {
            "figures": {name: figure.to_json() for name, figure in original.items()},
            "missing": missing,
        },
        "default_variant": next(iter(variants)),
        "variants": {
            name: {
                "figures": {key: figure.to_json() for key, figure in figures.items()},
                "matrices": [],
                "kept": proof.finished[name].kept,
                "repair": None,
            }
            for name, figures in variants.items()
        },
        "steps": {
            name: [asdict(step) for step in made.steps] for name, made in proof.finished.items()
        },
        "text": {
            "calibration": _examples(proof, len(proof.data.calibration)),
            "heldout": _examples(proof, len(proof.data.heldout)),
        },
        "energy": {"how": meter.how, "estimated": meter.estimated},
    }


def _examples(proof: NetworkProof, n: int) -> dict[str, object]:
    data = proof.data
    return {"what": data.what, "n_tokens": n, "sha256": data.sha256, "counted": "examples"}


def _notes(proof: NetworkProof, bundle: Bundle, engines: Mapping[str, str]) -> list[str]:
    notes = [*proof.model.notes]
    for name, made in proof.finished.items():
        notes += [f"{name}: {note}" for note in made.notes]
        if said := stored_without_zeros(made.graph, bundle, name):
            notes.append(f"{name}: {said}")
        notes.append(f"{name} was measured in the engine {engines[name]}")
    if not len(proof.data.heldout):
        notes.append("no examples were given: what was lost is not known")
    return notes
