"""Weights of zero: what they cost in quality, what the bundle saves, and that nothing is faster.

    python -m benchmarks.sparse [--minilm FOLDER] [--out FILE.json]

MobileNetV2 and, where its folder as sentence-transformers writes it is given, MiniLM: half of the
weights made zero in several ways, in float32 and int8. Each network is packed twice, with its
zeros and without them; size, seconds to open, peak memory of a process that opens it, and latency
are measured of both, in turns. TinyStories' model and the house assistant: divergence from the
original, perplexity and exact answers by method and share, in int4 and int8.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.encoder_texts import SETS, read_intents, spread_out
from benchmarks.sparse_decoders import Keep, judge_decoders
from benchmarks.vision import MOBILENET, N_CALIBRATION, PICTURES, SEED, read_examples
from onhand.core.bundle import Bundle, read_bundle, stage_bundle
from onhand.device.networks.base import Array, NetworkLoaded
from onhand.device.networks.embeddings import class_means, embed_texts
from onhand.device.networks.opening import named_engine
from onhand.device.networks.texts import TOKENIZER, open_texts
from onhand.device.probe import current_profile
from onhand.device.threads import usable_threads
from onhand.host.networks.clean import clean
from onhand.host.networks.data import read_data
from onhand.host.networks.graph import Graph
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.onnx_files import read_onnx
from onhand.host.networks.pack import describe, pack_network
from onhand.host.networks.passes.base import NetworkPass, Workbench
from onhand.host.networks.passes.prune_weights import PruneWeights
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.passes.smooth import Smooth
from onhand.host.networks.samples import Samples
from onhand.host.networks.sources.encoder import EncoderSource

__all__ = ["main"]

STEPS: Mapping[str, tuple[PruneWeights, ...]] = {
    "": (),
    "sparsegpt 50%": (PruneWeights(),),
    "sparsegpt 2:4": (PruneWeights(pattern="2:4"),),
    "wanda 50%": (PruneWeights(method="wanda"),),
    "magnitude 50%": (PruneWeights(method="magnitude"),),
}
IN_FLOAT = ("", "sparsegpt 50%", "sparsegpt 2:4")
ENGINE = "onnx"
MINILM = "all-MiniLM-L6-v2"
SHOTS = 5
# Opens a bundle, says how long that took and the most memory that this process had.
_OPENER = """
import sys, time
from pathlib import Path
import onnxruntime
from onhand.core.bundle import read_bundle
from onhand.device.networks.opening import named_engine
begun = time.perf_counter()
named_engine("onnx").open(read_bundle(Path(sys.argv[1])), threads=1)
seconds = time.perf_counter() - begun
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(seconds, 1024 * peak)
"""
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network and what judges it.

    Attributes:
        model: the source.
        bench: with calibration examples.
        task: what it is for.
        int8: steps behind the pruning.
        feeds: of one run, to be timed.
        judge: figures of a network in an engine.
    """

    model: NetworkModel
    bench: Workbench
    task: str
    int8: tuple[NetworkPass, ...]
    feeds: Mapping[str, Array]
    judge: Callable[[Bundle, NetworkLoaded], Figures]


def main() -> None:
    """Run the benchmark, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minilm", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--texts", type=int, default=400, help="judged")
    parser.add_argument("--commands", type=int, default=300, help="asked")
    parser.add_argument(
        "--only", action="append", choices=("networks", "tinystories", "house-assistant")
    )
    parser.add_argument("--network", action="append", choices=("mobilenet-v2", MINILM))
    parser.add_argument("--train", type=int, default=0, help="steps of distil behind pruning")
    parser.add_argument("--out", type=Path, default=Path("out/sparse.json"))
    given = parser.parse_args()
    parts = given.only or ["networks", "tinystories", "house-assistant"]
    options = f"--rounds {given.rounds} --texts {given.texts} --commands {given.commands}"
    minilm = f" --minilm {MINILM}" if given.minilm else ""
    options += f" --train {given.train}" if given.train else ""
    result: dict[str, Any] = {
        "command": f"python -m benchmarks.sparse{minilm} {options}",
        "date": datetime.now(UTC).date().isoformat(),
        "processor": current_profile().processor,
        "threads": usable_threads(),
        "versions": {name: version(name) for name in ("onnxruntime", "numpy")},
        "load_average": os.getloadavg(),
    }
    if given.out.is_file():  # parts that are measured one by one
        result = json.loads(given.out.read_text()) | result
    given.out.parent.mkdir(parents=True, exist_ok=True)

    def keep(part: str, model: str, row: str, figures: Mapping[str, object]) -> None:
        sys.stdout.write(f"{model}: {row}: {json.dumps(figures)}\n")
        sys.stdout.flush()
        result.setdefault(part, {}).setdefault(model, {})[row] = figures
        given.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")

    if "networks" in parts:
        networks(given, partial(keep, "networks"))
    wanted = [name for name in parts if name != "networks"]
    judge_decoders(
        wanted, commands=given.commands, train=given.train, keep=partial(keep, "decoders")
    )


def networks(given: argparse.Namespace, keep: Keep) -> None:
    """Measure the networks whose files are there, and hand each row on."""
    subjects: dict[str, Callable[[], Subject]] = {}
    if MOBILENET.is_file() and PICTURES.is_dir():
        subjects["mobilenet-v2"] = mobilenet
    if given.minilm:
        subjects[MINILM] = lambda: encoder(given.minilm, given.texts)
    if len(subjects) < 2:
        sys.stdout.write("a network is left out: set ONHAND_ASSETS, give --minilm\n")
    for name, load in subjects.items():
        if given.network and name not in given.network:
            continue
        subject = load()
        for step, pruning in STEPS.items():
            for kind in ("fp32", "int8"):
                if kind == "fp32" and step not in IN_FLOAT:
                    continue
                row = f"{kind}, {step}" if step else kind
                passes = (*pruning, *(subject.int8 if kind == "int8" else ()))
                keep(name, row, measure(subject, passes, rounds=given.rounds))


def mobilenet() -> Subject:
    """MobileNetV2 and photographs."""
    graph = clean(read_onnx(MOBILENET))
    order = np.random.default_rng(SEED).permutation(500)
    examples = read_examples()
    seen, judged = examples.part(order[:N_CALIBRATION]), examples.part(order[N_CALIBRATION:])
    fed, scores = graph.inputs[0].name, graph.outputs[0].name
    theirs: list[Array] = []

    def judge(_: Bundle, loaded: NetworkLoaded) -> Figures:
        found = [loaded.run({fed: picture[None]})[scores][0] for picture in judged.arrays]
        first = np.array(found).argmax(axis=1)
        if not theirs:  # float32 comes first
            theirs.append(first)
        return {
            "accuracy": float((first == judged.labels).mean()),
            "agreement": float((first == theirs[0]).mean()),
        }

    return Subject(
        model=NetworkModel(
            name="mobilenet-v2", family="onnx", graph=graph, sha256="0" * 64,
            source_bytes=MOBILENET.stat().st_size,
        ),
        bench=Workbench(
            original=graph,
            calibration=Samples(feeds=[{fed: array[None]} for array in seen.arrays]),
            task="image-classification",
            threads=usable_threads(),
            profile=current_profile(),
        ),
        task="image-classification",
        int8=(QuantizeNetwork(bias_correction="fast"),),
        feeds={fed: judged.arrays[:1]},
        judge=judge,
    )  # fmt: skip


def encoder(folder: Path, n_texts: int) -> Subject:
    """MiniLM, and intents by the nearest mean of five examples of each class."""
    source = EncoderSource().load(str(folder), task="text-embedding")
    shown = read_intents(SETS[0], "train")
    train, named = shown.texts, shown.names
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "calibration.txt"
        chosen = [train[i] for i in spread_out(len(train), 100)]
        data.write_text("\n".join(chosen) + "\n", encoding="utf-8")
        network = describe(source, "text-embedding")
        calibration = read_data(data, network, (), tokenizer=source.files[TOKENIZER])
    graph = clean(source.graph)
    classes = sorted(set(named))
    shots = [i for c in classes for i in [j for j, k in enumerate(named) if k == c][:SHOTS]]
    held_out = read_intents(SETS[0], "test")
    texts, wanted = held_out.texts, held_out.names
    asked = spread_out(len(texts), n_texts)
    theirs: list[Array] = []

    def judge(bundle: Bundle, loaded: NetworkLoaded) -> Figures:
        reader = open_texts(bundle)
        vectors = embed_texts(loaded, reader, [train[i] for i in shots]).vectors
        means = class_means(vectors, [classes.index(named[i]) for i in shots])
        found = embed_texts(loaded, reader, [texts[i] for i in asked]).vectors
        if not theirs:
            theirs.append(found)
        sizes = np.linalg.norm(found, axis=1) * np.linalg.norm(theirs[0], axis=1)
        right = means.nearest(found) == [classes.index(wanted[i]) for i in asked]
        return {
            "accuracy": float(np.mean(right)),
            "cosine": float(np.mean((found * theirs[0]).sum(axis=1) / sizes)),
        }

    return Subject(
        model=source,
        bench=Workbench(
            original=graph,
            calibration=calibration,
            task="text-embedding",
            threads=usable_threads(),
            profile=current_profile(),
        ),
        task="text-embedding",
        int8=(Smooth(), QuantizeNetwork()),
        feeds=calibration.feeds[0],
        judge=judge,
    )


def measure(subject: Subject, passes: Sequence[NetworkPass], *, rounds: int) -> dict[str, object]:
    """Apply passes, pack with the zeros and without, and measure both."""
    graph = clean(subject.model.graph)
    begun = time.perf_counter()
    for step in passes:
        graph = step.apply(graph, subject.bench).graph
    seconds = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as scratch:
        bundles = {
            "with zeros": _packed(subject, graph, Path(scratch) / "whole", shrinks=False),
            "without": _packed(subject, graph, Path(scratch) / "sparse", shrinks=True),
        }
        opened = {
            name: named_engine(ENGINE).open(bundle, threads=1) for name, bundle in bundles.items()
        }
        same = all(
            np.array_equal(array, opened["without"].run(subject.feeds)[name])
            for name, array in opened["with zeros"].run(subject.feeds).items()
        )
        variant = next(iter(bundles["without"].manifest.variants.values()))
        return {
            "pass_s": seconds,
            "quality": dict(subject.judge(bundles["without"], opened["without"])),
            "answers_are_the_same": same,
            "size_bytes": {name: bundle.size_bytes() for name, bundle in bundles.items()},
            "sparse_tensors": len(variant.sparse),
            "latency_s": _turns(opened, subject.feeds, rounds),
            **_opening(bundles, rounds),
        }


def _packed(subject: Subject, graph: Graph, root: Path, *, shrinks: bool) -> Bundle:
    network = describe(subject.model, subject.task)
    with stage_bundle(root) as staged:
        if shrinks:
            pack_network(subject.model, network, {"v": graph}, staged, provenance={})
        else:
            pack_network(
                subject.model, network, {"v": graph}, staged, provenance={}, shrink=lambda _: None
            )
    return read_bundle(root)


def _turns(
    opened: Mapping[str, NetworkLoaded], feeds: Mapping[str, Array], rounds: int
) -> dict[str, object]:
    """Time one run with one thread, turn by turn; the first of each turn finds cold caches."""
    taken: dict[str, list[float]] = {name: [] for name in opened}
    for _ in range(rounds):
        for name, loaded in opened.items():
            for number in range(6):
                begun = time.perf_counter()
                loaded.run(feeds)
                if number:
                    taken[name].append(time.perf_counter() - begun)
    return _quartiles(taken)


def _opening(bundles: Mapping[str, Bundle], rounds: int) -> dict[str, object]:
    """Open each bundle in processes of their own, hashes and all, turn by turn."""
    seconds: dict[str, list[float]] = {name: [] for name in bundles}
    peaks: dict[str, list[float]] = {name: [] for name in bundles}
    for _ in range(max(rounds // 3, 3)):
        for name, bundle in bundles.items():
            said = subprocess.run(
                [sys.executable, "-c", _OPENER, str(bundle.root)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()
            seconds[name].append(float(said[0]))
            peaks[name].append(float(said[1]))
    return {"opening_s": _quartiles(seconds), "opening_peak_bytes": _quartiles(peaks)}


def _quartiles(taken: Mapping[str, list[float]]) -> dict[str, object]:
    return {name: statistics.quantiles(values, n=4) for name, values in taken.items()}


if __name__ == "__main__":
    main()
