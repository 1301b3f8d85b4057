"""MobileNetV2 lightly pruned and distilled: accuracy against latency, in integers.

    python -m benchmarks.vision_front --work DIR [--points NAME,NAME] [--steps 300]
        [--rounds 15] [--out FILE.json]

Each point goes through the project's own passes: some channels out, or none; training on what the
original says of unlabelled photographs, or none; integers. What it is trained on is the 100
photographs that calibrate, and all others of the assets but the 400 that judge: whole, and parts of
random size and shape, which training mirrors, moves and mixes. The bundles stay in DIR with what
their making took, and so does what each pass gave: the next run with the same DIR and `--steps`
makes only what is missing. A step takes about a second of processor time.
All bundles are timed in each engine, taking turns; then each is judged in its fastest by a fresh
process that holds the device's code alone, on the 400 photographs, picture by picture against the
original (bootstrap over pictures).
"""

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.vision import (
    FEED,
    MOBILENET,
    N_CALIBRATION,
    PICTURES,
    SEED,
    read_examples,
)
from benchmarks.vision_engines import Floats
from benchmarks.vision_parts import training_arrays
from onhand.core.bundle import read_bundle, stage_bundle
from onhand.core.errors import EngineError
from onhand.core.measurement import Measurement
from onhand.core.progress import Quiet
from onhand.device.networks.opening import PREFERRED_ENGINES, open_network
from onhand.device.probe import current_profile
from onhand.device.threads import usable_threads
from onhand.host.networks.clean import clean
from onhand.host.networks.costs import count_operations
from onhand.host.networks.graph import Graph
from onhand.host.networks.judge import answer_bundle, answer_graph, compare_answers
from onhand.host.networks.loading import load_network
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.onnx_files import model_bytes, read_onnx
from onhand.host.networks.pack import describe, pack_network
from onhand.host.networks.passes.base import NetworkPass, Workbench
from onhand.host.networks.passes.distil import Distil
from onhand.host.networks.passes.prune_channels import PruneChannels
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.samples import Samples
from onhand.host.passes.base import pass_options

__all__ = ["main"]

TASK = "image-classification"
RUNS = 20  # in a row, before the next one's turn
INTEGERS = QuantizeNetwork()
LEARN = Distil(
    steps=300,
    batch=16,
    learning_rate=5e-5,
    warm_up=0.1,
    temperature=2.0,
    judgements=4,
    augment=("flip", "crop", "mixup"),
)
# Codes and their scales move little: what is learned is which way to round.
LEARN_CODES = replace(LEARN, learning_rate=1e-5, quantized="on", learn_scales=True)


def points(steps: int) -> dict[str, tuple[NetworkPass, ...]]:
    """Return what is built: name -> passes.

    Args:
        steps: of training, where there is any.
    """
    learn, learn_codes = replace(LEARN, steps=steps), replace(LEARN_CODES, steps=steps)
    four = QuantizeNetwork(bits=4)
    made: dict[str, tuple[NetworkPass, ...]] = {"float32": (), "int8": (INTEGERS,)}
    for percent in (5, 10, 20):
        prune = PruneChannels(ratio=percent / 100)
        made[f"pruned-{percent}"] = (prune, INTEGERS)
        made[f"pruned-{percent}-distilled"] = (prune, learn, INTEGERS)
    made["pruned-10-parameters"] = (PruneChannels(ratio=0.1, of="parameters"), INTEGERS)
    made["int8-symmetric"] = (QuantizeNetwork(activations="symmetric"),)
    made["int8-trained"] = (INTEGERS, learn_codes)
    made["weights-4"] = (four,)
    made["weights-4-adaround"] = (replace(four, adaround=300),)
    made["weights-4-trained"] = (four, learn_codes)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What every point is made from.

    Attributes:
        model: the source.
        graph: its graph, cleaned.
        calibration: the 100 photographs.
        training: those and all others, whole and in parts.
        heldout: the 400 that judge.
        threads: of passes and of judging.
    """

    model: NetworkModel
    graph: Graph
    calibration: Samples
    training: Samples
    heldout: Samples
    threads: int


def main() -> None:
    """Build what is missing, judge and time all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--points", help="some, with commas between; else all")
    parser.add_argument("--steps", type=int, default=LEARN.steps)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/vision_front.json"))
    given = parser.parse_args()
    if not MOBILENET.is_file() or not PICTURES.is_dir():
        sys.exit(f"{MOBILENET} or {PICTURES} is absent: set ONHAND_ASSETS to their folder")
    known = points(given.steps)
    chosen = list(known) if given.points is None else given.points.split(",")
    if odd := [name for name in chosen if name not in known]:
        sys.exit(f"--points: no {odd[0]!r}; known: {', '.join(known)}")
    material = read_material(given.threads)
    made = {name: build(name, known[name], material, given.work) for name in chosen}
    if given.build_only:
        return
    times = take_turns(chosen, material, given.work, rounds=given.rounds)
    results = {
        "command": " ".join(["python -m benchmarks.vision_front", f"--rounds {given.rounds}"]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": current_profile().processor,
        "threads": usable_threads(),
        "examples": {
            "calibration": len(material.calibration),
            "training": len(material.training),
            "judged": len(material.heldout),
        },
        "steps": given.steps,
        "points": made,
        "quality": judge(fastest(times), material, given.work),
        "samples": times,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print(table(results))


def read_material(threads: int) -> Material:
    """Read the network and all photographs."""
    model = load_network(str(MOBILENET), task=TASK)
    examples = read_examples()
    order = np.random.default_rng(SEED).permutation(len(examples.labels))
    calibration, heldout = (
        examples.part(part) for part in (order[:N_CALIBRATION], order[N_CALIBRATION:])
    )
    graph = clean(model.graph)
    fed = graph.inputs[0].name
    return Material(
        model=replace(model, feed=FEED),
        graph=graph,
        calibration=_samples(calibration.arrays, fed),
        training=_samples(training_arrays(order[:N_CALIBRATION].tolist(), calibration), fed),
        heldout=replace(_samples(heldout.arrays, fed), labels=heldout.labels.tolist()),
        threads=threads,
    )


def _samples(arrays: Floats, fed: str) -> Samples:
    return Samples(feeds=[{fed: array[None]} for array in arrays])


def build(
    name: str, passes: tuple[NetworkPass, ...], material: Material, work: Path
) -> dict[str, object]:
    """Make a bundle, unless the same is there already.

    Returns:
        What its making took and gave.
    """
    place, about = work / name, work / f"{name}.json"
    recipe = [pass_options(one) for one in passes]
    wanted = {"recipe": recipe, "source": material.model.sha256}
    if place.is_dir() and about.is_file():
        kept: dict[str, object] = json.loads(about.read_text())
        if kept["made_from"] == json.loads(json.dumps(wanted)):
            return kept
        sys.exit(f"{place} was made with other settings: remove it, or take another folder")
    work.mkdir(parents=True, exist_ok=True)
    graph, seconds, notes = run_passes(passes, material, work)
    network = describe(material.model, TASK)
    with stage_bundle(place) as staged:
        pack_network(material.model, network, {name: graph}, staged, provenance={"recipe": recipe})
    made: dict[str, object] = {
        "made_from": wanted,
        "n_operations": count_operations(graph),
        "notes": notes,
        "seconds": seconds,
        "size_bytes": read_bundle(place).size_bytes(),
    }
    about.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
    print(f"{name}: {seconds:.0f} s; {'; '.join(notes)}", flush=True)
    return made


def run_passes(
    passes: tuple[NetworkPass, ...], material: Material, work: Path
) -> tuple[Graph, float, list[str]]:
    """Run a point's passes, but for those at its beginning that another point ran already.

    Returns:
        The graph, the seconds, and what the passes said.
    """
    graph, seconds, notes = material.graph, 0.0, list[str]()
    for i, one in enumerate(passes):
        done = [material.model.sha256, *(pass_options(earlier) for earlier in passes[: i + 1])]
        folder = work / "passes" / hashlib.sha256(json.dumps(done).encode()).hexdigest()[:16]
        if not (folder / "about.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            learns = one.name == Distil.name
            begun = time.perf_counter()
            result = one.apply(
                graph,
                Workbench(
                    original=material.graph,
                    calibration=material.training if learns else material.calibration,
                    task=TASK,
                    threads=material.threads,
                    folder=folder,
                    profile=current_profile(),
                ),
            )
            said = [f"{one.name}: {note}" for note in result.notes]
            (folder / "done.onnx").write_bytes(model_bytes(result.graph))
            about = {"notes": said, "seconds": time.perf_counter() - begun}
            (folder / "about.json").write_text(json.dumps(about))
        known = json.loads((folder / "about.json").read_text())
        graph = read_onnx(folder / "done.onnx")
        seconds, notes = seconds + known["seconds"], [*notes, *known["notes"]]
    return graph, seconds, notes


def fastest(times: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Return point -> the engine that answers quickest, by the median."""
    found: dict[str, str] = {}
    for pair in sorted(times, key=lambda pair: statistics.median(times[pair])):
        name, _, engine = pair.partition(" / ")
        found.setdefault(name, engine)
    return found


def judge(
    chosen: Mapping[str, str], material: Material, work: Path
) -> dict[str, dict[str, dict[str, object]]]:
    """Compare each bundle, in its fastest engine, with the original, on the 400."""
    theirs = answer_graph(
        material.graph, material.heldout, threads=material.threads, progress=Quiet()
    )
    found: dict[str, dict[str, dict[str, object]]] = {}
    for name, engine in chosen.items():
        ours = answer_bundle(
            work / name,
            material.heldout,
            variant=name,
            engine=engine,
            threads=material.threads,
            progress=Quiet(),
        )
        figures: Mapping[str, Measurement] = compare_answers(
            theirs,
            ours,
            task=TASK,
            labels=material.heldout.labels,
            how="python -m benchmarks.vision_front",
        )
        found[f"{name} / {engine}"] = {
            key: {"value": one.value, "interval": one.interval}
            for key, one in figures.items()
            if key in {"accuracy", "accuracy_loss", "agreement", "kl_divergence"}
        }
    return found


def engines(place: Path) -> list[str]:
    """Return the engines that open a bundle here, but for the slow one."""
    found: list[str] = []
    for engine in PREFERRED_ENGINES[:-1]:
        try:
            loaded, _, _ = open_network(read_bundle(place), engine=engine)
        except EngineError as error:
            print(f"{place.name}: {engine}: {error}")
        else:
            loaded.close()
            found.append(engine)
    return found


def take_turns(
    names: list[str], material: Material, work: Path, *, rounds: int
) -> dict[str, list[float]]:
    """Time one photograph in each bundle and engine: medians of runs in a row, in turn."""
    feeds = dict(material.heldout.feeds[0])
    runs: dict[str, Callable[[], object]] = {}
    for name in names:
        for engine in engines(work / name):
            loaded, _, _ = open_network(
                read_bundle(work / name), engine=engine, threads=usable_threads()
            )
            runs[f"{name} / {engine}"] = lambda loaded=loaded: loaded.run(feeds)  # type: ignore[misc]
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            run()  # finds the caches cold
            block: list[float] = []
            for _ in range(RUNS):
                begun = time.perf_counter()
                run()
                block.append(time.perf_counter() - begun)
            if number:  # the first round warms up
                taken[name].append(statistics.median(block))
    return taken


def table(results: Mapping[str, object]) -> str:
    """Lay the front out for people: each point in its fastest engine."""
    made, quality, samples = (results[key] for key in ("points", "quality", "samples"))
    if not isinstance(made, dict) or not isinstance(quality, dict) or not isinstance(samples, dict):
        raise TypeError("not a result")
    lines: list[str] = []
    chosen = fastest(samples)
    for name, one in made.items():
        best = f"{name} / {chosen[name]}"
        low, middle, high = (1e3 * q for q in statistics.quantiles(samples[best], n=4))
        right = quality[best]
        lost, (least, most) = right["accuracy_loss"]["value"], right["accuracy_loss"]["interval"]
        lines.append(
            f"{best}: {right['accuracy']['value']:.2%}, lost {lost:+.2%} ({least:+.2%} to "
            f"{most:+.2%}), agrees {right['agreement']['value']:.2%}, "
            f"{one['n_operations'] / 1e6:.0f} M operations, {one['size_bytes'] / 1e6:.2f} MB, "
            f"{middle:.2f} ms ({low:.2f} to {high:.2f})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
