"""Layers as thinner ones, and thin products beside 4-bit codes: what each way keeps and takes.

    python -m benchmarks.factorize --assets DIR [--encoder DIR --texts FILE.csv] [--out FILE.json]

The folder has `mlperf-tiny` (ResNet-8) and `cifar10`. ResNet-8 loses shares of its operations by
each kind of decomposition alone and by the best of them layer by layer, before and after `--epochs`
of distillation on `--pictures` pictures; it is judged on `--judged` others. With a folder of a
sentence encoder and a table of texts (the first column, behind a row of titles), the encoder is
stored in 4 bits with corrections of several ranks, and judged by the cosine of its vectors with
the original's. Times are of the processor, one thread, in turns.
"""

import argparse
import csv
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from examples.small_pictures.data import Pictures, read_zip
from numpy.typing import NDArray

from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.loading import load_network
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.passes.distil import Distil
from onhand.host.networks.passes.factorize import Factorize
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.samples import Samples

__all__ = ["main"]

NETWORK = Path("mlperf-tiny/image_classification/trained_models/pretrainedResnet.tflite")
PICTURES = Path("cifar10/cifar10_jpg_subset.zip")
WAYS: Mapping[str, tuple[str, ...]] = {
    "svd": ("svd",),
    "spatial": ("spatial",),
    "tucker": ("tucker",),
    "cp": ("cp",),
    "depthwise": ("depthwise",),
    "the best for each layer": ("svd", "spatial", "tucker", "depthwise"),
}
RATIOS = (0.3, 0.5)
RANKS = (0, 8, 16, 32)
N_CALIBRATION, N_TEXTS = 64, 200
Row = dict[str, float | str]
Key = tuple[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A network and what judges it.

    Attributes:
        graph: the original.
        feeds: of what it is judged by.
        labels: of those; None where nobody knows.
        bench: with examples to calibrate by.
    """

    graph: Graph
    feeds: list[dict[str, Array]]
    labels: NDArray[np.int64] | None
    bench: Workbench


def main() -> None:
    """Run both parts, print tables and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--judged", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if (given.encoder is None) != (given.texts is None):
        parser.error("--encoder and --texts are given together")
    said: dict[str, object] = {
        "command": f"python -m benchmarks.factorize --epochs {given.epochs} --pictures "
        f"{given.pictures} --judged {given.judged} --rounds {given.rounds}",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "network": decomposed(given),
    }
    if given.encoder is not None:
        said["encoder"] = corrected(given.encoder, given.texts, given.rounds)
    if given.out is not None:
        given.out.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")


def decomposed(given: argparse.Namespace) -> list[Row]:
    """Return a row for each way and share, and one for the original."""
    archive = given.assets / PICTURES
    ground = pictures_ground(
        given.assets / NETWORK,
        drawn(read_zip(archive, "train"), given.pictures),
        drawn(read_zip(archive, "test"), given.judged),
    )
    first = classes(ground.graph, ground)
    few = ground.bench.calibration.part(range(N_CALIBRATION))
    graphs: dict[Key, tuple[Graph, float]] = {("original", 0.0): (ground.graph, 0.0)}
    for ratio in RATIOS:
        for way, kinds in WAYS.items():
            begun = time.process_time()
            step = Factorize(ratio=ratio, kinds=kinds, most_lost=1.0, multiple=4)
            made = step.apply(ground.graph, replace(ground.bench, calibration=few)).graph
            graphs[way, ratio] = made, time.process_time() - begun
    times = take_turns(
        {key: one_run(graph, ground.feeds[0]) for key, (graph, _) in graphs.items()}, given.rounds
    )
    rows: list[Row] = []
    for (way, ratio), (graph, seconds) in graphs.items():
        row: Row = {"way": way, "removed": ratio, "seconds": seconds, **times[way, ratio]}
        row |= judged(graph, ground, first, "")
        if ratio and given.epochs:
            lessons = Distil(epochs=given.epochs, batch=32, learning_rate=3e-4)
            row |= judged(lessons.apply(graph, ground.bench).graph, ground, first, " distilled")
        rows.append(row)
        show(row)
    return rows


def pictures_ground(network: Path, learned: Pictures, judging: Pictures) -> Ground:
    """Return ResNet-8, what it learns from and what judges it."""
    graph = load_network(str(network), task="image-classification").graph
    (value,) = graph.inputs

    def feeds(pictures: Pictures) -> list[dict[str, Array]]:
        pixels = pictures.pixels.astype(np.float32)  # as it was trained: 0 to 255
        return [{value.name: picture[None]} for picture in pixels]

    bench = Workbench(
        original=graph,
        calibration=Samples(feeds=feeds(learned)),
        task="image-classification",
        threads=1,
    )
    return Ground(graph=graph, feeds=feeds(judging), labels=judging.labels, bench=bench)


def drawn(pictures: Pictures, n: int) -> Pictures:
    """Return some pictures, drawn with a fixed seed."""
    chosen = np.random.default_rng(0).permutation(len(pictures))[:n]
    return replace(pictures, pixels=pictures.pixels[chosen], labels=pictures.labels[chosen])


def classes(graph: Graph, ground: Ground) -> NDArray[np.int64]:
    """Return the likeliest class of each picture."""
    runner, (name,) = GraphRunner(graph, threads=1), graph.output_names()
    return np.array([int(np.argmax(runner.run(feed)[name])) for feed in ground.feeds])


def judged(graph: Graph, ground: Ground, first: NDArray[np.int64], what: str) -> Row:
    """Return agreement with the original, and accuracy."""
    found = classes(graph, ground)
    row: Row = {f"agreement{what}": float((found == first).mean())}
    if ground.labels is not None:
        row[f"accuracy{what}"] = float((found == ground.labels).mean())
    return row


def one_run(graph: Graph, feed: dict[str, Array]) -> Callable[[], object]:
    """Return a run of a graph."""
    runner = GraphRunner(graph, threads=1)
    return lambda: runner.run(feed)


def take_turns(runs: Mapping[Key, Callable[[], object]], rounds: int) -> dict[Key, Row]:
    """Return the processor's time of each run: the median, and the quartiles' distance."""
    taken: dict[Key, list[float]] = {key: [] for key in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for key, run in runs.items():
            begun = time.process_time()
            run()
            taken[key].append(time.process_time() - begun)
    found: dict[Key, Row] = {}
    for key, times in taken.items():
        low, middle, high = statistics.quantiles(times, n=4)
        found[key] = {"run_s": middle, "run_spread_s": high - low}
    return found


def corrected(encoder: Path, texts: Path, rounds: int) -> list[Row]:
    """Return a row for each rank, with inputs known and not."""
    ground = texts_ground(encoder, texts)
    wanted = vectors(ground.graph, ground)
    graphs: dict[Key, Graph] = {}
    for rank in RANKS:
        for known in ("known", "not known") if rank else ("known",):
            few = ground.bench.calibration if known == "known" else Samples(feeds=[])
            step = QuantizeNetwork(scheme="weights", bits=4, correction_rank=rank)
            bench = replace(ground.bench, calibration=few)
            graphs[known, rank] = step.apply(ground.graph, bench).graph
    times = take_turns(
        {key: one_run(graph, ground.feeds[0]) for key, graph in graphs.items()}, rounds
    )
    rows: list[Row] = []
    for (known, n), graph in graphs.items():
        cosines = (vectors(graph, ground) * wanted).sum(axis=1)
        row: Row = {
            "rank": float(n),
            "inputs": known,
            "size_bytes": float(graph.size_bytes()),
            "cosine": float(cosines.mean()),
            "cosine of the worst twentieth": float(np.quantile(cosines, 0.05)),
            **times[known, n],
        }
        rows.append(row)
        show(row)
    return rows


def texts_ground(encoder: Path, texts: Path) -> Ground:
    """Return an encoder, 100 texts to calibrate by and others that judge."""
    from tokenizers import Tokenizer

    graph = load_network(str(encoder), task="text-embedding").graph
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    tokenizer.no_padding()
    names = {value.name for value in graph.inputs}
    with texts.open(encoding="utf-8", newline="") as file:
        rows = [row[0] for row in csv.reader(file)][1:]
    order = np.random.default_rng(0).permutation(len(rows))[: 100 + N_TEXTS]

    def feed(text: str) -> dict[str, Array]:
        ids = np.array([tokenizer.encode(text).ids], np.int64)  # (1, T)
        every = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        every["token_type_ids"] = np.zeros_like(ids)
        return {name: array for name, array in every.items() if name in names}

    feeds = [feed(rows[i]) for i in order]
    bench = Workbench(
        original=graph, calibration=Samples(feeds=feeds[:100]), task="text-embedding", threads=1
    )
    return Ground(graph=graph, feeds=feeds[100:], labels=None, bench=bench)


def vectors(graph: Graph, ground: Ground) -> NDArray[np.float64]:
    """Return the vector of each text, of length 1."""
    runner, (name,) = GraphRunner(graph, threads=1), graph.output_names()
    found = [np.asarray(runner.run(feed)[name][0], np.float64) for feed in ground.feeds]
    return np.array([vector / np.linalg.norm(vector) for vector in found])


def show(row: Row) -> None:
    """Print a row."""
    told = (f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items())
    print(", ".join(told), flush=True)


if __name__ == "__main__":
    main()
