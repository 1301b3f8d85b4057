"""A sentence encoder in float32, int8 and slimmed, beside ONNX Runtime's own and NNCF's int8.

    python -m benchmarks.encoders --model DIR --bundles out --nncf-python .venv-nncf/bin/python

DIR is a folder as sentence-transformers writes it; NNCF needs an environment of its own, without
it that peer is left out. Bundles that `--bundles` does not hold are built into it, the slim one
with half an hour of training. Integers are calibrated with the same texts, ours and theirs. Runs
take turns in one process, so ratios are of neighbours in time. Where others use the machine,
compare processor time with one thread: it is spent by nobody else. Quality: intents by the nearest
mean of five examples of each class, pairs of questions by their cosine, both beside float32 with
paired 95 % intervals; what we built answers in a fresh process that holds the device's code alone,
on texts that no step saw.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.encoder_bundles import VARIANTS, calibration_texts, layer_parameters, open_bundles
from benchmarks.encoder_figures import area, interval, quartiles, rows_of_pairs
from benchmarks.encoder_peers import OnnxPeer, OpenvinoPeer, make_dynamic, make_nncf
from benchmarks.encoder_texts import (
    SETS,
    Pair,
    judging_pairs,
    read_intents,
    read_pairs,
    spread_out,
)
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.progress import Quiet
from onhand.device.networks.base import Array, NetworkLoaded
from onhand.device.networks.embeddings import class_means, embed_texts
from onhand.device.networks.opening import named_engine
from onhand.device.networks.texts import TextReader, open_texts
from onhand.device.probe import current_profile
from onhand.device.threads import usable_threads
from onhand.host.networks.judge import answer_bundle
from onhand.host.networks.samples import Samples

__all__ = ["main"]

ENGINES = ("onnx", "openvino")
BASE = "ours fp32, onnx"
# What the slim one must be faster than: the fastest of ours that is not pruned.
UNPRUNED = "ours int8, openvino"
# As right as the slim one in the other engine, but for rounding.
LEFT_OUT = ("ours cut, onnx",)
# The same numbers again.
NOT_JUDGED = ("ours fp32, openvino",)
# As fast as the slim one, whose graph has the same sizes.
NOT_TIMED = ("ours cut, openvino",)
LENGTHS = (128, 32, 10)
SHOTS = 5
BLOCK = 4  # runs in a row; the first finds the caches cold and is not counted


def main() -> None:
    """Run the benchmark, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--bundles", type=Path, required=True, help="taken from here, built here")
    parser.add_argument("--nncf-python", type=Path)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--texts", type=int, default=1500, help="judged, of each set")
    parser.add_argument("--name", default="all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    bundles = open_bundles(given.model, given.bundles, threads=given.threads)
    with tempfile.TemporaryDirectory(prefix="onhand-encoders-") as folder:
        files = make_peers(bundles["plain"], Path(folder), given.nncf_python)
        found = systems(bundles, files)
        result = {
            "command": f"python -m benchmarks.encoders --model {given.name} --bundles "
            f"{given.bundles.name} --threads {given.threads} --rounds {given.rounds} "
            f"--texts {given.texts}",
            "date": datetime.now(UTC).date().isoformat(),
            "processor": current_profile().processor,
            "versions": {name: version(name) for name in ("onnxruntime", "openvino", "numpy")},
            "load_average": os.getloadavg(),
            "bytes": sizes(bundles, files),
            "parameters": {
                variant: layer_parameters(bundles[name], variant)
                for name, variants in VARIANTS.items()
                for variant in variants
            },
            "latency": {
                f"{threads} threads": latency(found, threads, given.rounds)
                for threads in dict.fromkeys((1, given.threads))
            },
            "quality": quality(found, open_texts(bundles["plain"]), given.threads, given.texts),
        }
    if given.out:
        given.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(table(result))


def make_peers(bundle: Bundle, folder: Path, python: Path | None) -> dict[str, Path]:
    """Make what others make of the same graph."""
    source = bundle.path(bundle.manifest.variants["fp32"].graph)
    made = {"onnxruntime dynamic int8": make_dynamic(source, folder / "dynamic.onnx")}
    if python is None:
        sys.stderr.write("no --nncf-python: NNCF's int8 is left out\n")
        return made
    reader = open_texts(bundle)
    feeds = [reader.read(text).feeds for text in calibration_texts()]
    return made | {"nncf int8": make_nncf(source, folder / "nncf.xml", feeds, python)}


@dataclass(frozen=True, slots=True)
class System:
    """Something that gives vectors: a variant of a bundle in an engine, or a peer's file."""

    open: Callable[[int], NetworkLoaded]
    bundle: Bundle | None = None
    variant: str = ""
    engine: str = ""


def systems(bundles: Mapping[str, Bundle], files: Mapping[str, Path]) -> dict[str, System]:
    """Return name -> how it is opened."""
    found: dict[str, System] = {}
    for name, variants in VARIANTS.items():
        for variant in variants:
            for engine in ENGINES:
                if (shown := f"ours {variant}, {engine}") not in LEFT_OUT:
                    found[shown] = _ours(bundles[name], variant, engine)
    for name, path in files.items():
        engine = "openvino" if path.suffix == ".xml" else "onnx"
        found[f"{name}, {engine}"] = _peer(path)
    return found


def _ours(bundle: Bundle, variant: str, engine: str) -> System:
    def opened(threads: int) -> NetworkLoaded:
        return named_engine(engine).open(bundle, variant=variant, threads=threads)

    return System(opened, bundle, variant, engine)


def _peer(path: Path) -> System:
    kind = OpenvinoPeer if path.suffix == ".xml" else OnnxPeer
    return System(lambda threads: kind(path, threads))


def sizes(bundles: Mapping[str, Bundle], files: Mapping[str, Path]) -> dict[str, int]:
    """Return the bytes on disk of what each system alone needs."""
    found = {}
    for name, variants in VARIANTS.items():
        for variant in variants:
            graph = bundles[name].path(bundles[name].manifest.variants[variant].graph)
            found[f"ours {variant}"] = graph.stat().st_size + _outside_bytes(graph)
    for name, path in files.items():
        parts = [path, path.with_suffix(".bin")]
        found[name] = sum(part.stat().st_size for part in parts if part.is_file())
    return found


def _outside_bytes(graph: Path) -> int:
    import onnx

    model = onnx.load(graph, load_external_data=False)
    return sum(
        int(entry.value)
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "length"
    )


def tokens(length: int) -> dict[str, Array]:
    """Return one text of so many random tokens."""
    ids = np.random.default_rng(0).integers(1000, 20000, (1, length))
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


def latency(found: Mapping[str, System], threads: int, rounds: int) -> dict[str, object]:
    """Time systems in turn; seconds of the clock and of the processor, and ratios to `UNPRUNED`."""
    opened = {n: system.open(threads) for n, system in found.items() if n not in NOT_TIMED}
    made: dict[str, object] = {}
    for length in LENGTHS:
        feeds = tokens(length)
        clock: dict[str, list[list[float]]] = {name: [] for name in opened}
        busy: dict[str, list[list[float]]] = {name: [] for name in opened}
        for _ in range(rounds + 1):  # the first round warms up
            for name, loaded in opened.items():
                times = [_timed(loaded, feeds) for _ in range(BLOCK)][1:]
                clock[name].append([taken for taken, _ in times])
                busy[name].append([used for _, used in times])
        made[f"{length} tokens"] = {
            name: {
                "seconds": quartiles([taken for block in clock[name][1:] for taken in block]),
                "processor_seconds": quartiles([
                    used for block in busy[name][1:] for used in block
                ]),
                "times_as_fast": quartiles(_ratios(clock[UNPRUNED][1:], clock[name][1:])),
                "times_less_processor": quartiles(_ratios(busy[UNPRUNED][1:], busy[name][1:])),
            }
            for name in opened
        }
    for loaded in opened.values():
        loaded.close()
    return made


def _timed(loaded: NetworkLoaded, feeds: Mapping[str, Array]) -> tuple[float, float]:
    begun, used = time.perf_counter(), time.process_time()
    loaded.run(feeds)
    return time.perf_counter() - begun, time.process_time() - used


def _ratios(first: Sequence[list[float]], second: Sequence[list[float]]) -> list[float]:
    """Return the ratio of the medians of each round."""
    medians = [[statistics.median(block) for block in blocks] for blocks in (first, second)]
    return [a / b for a, b in zip(*medians, strict=True)]


@dataclass(frozen=True, slots=True)
class Judged:
    """What one system's vectors gave: right or wrong by text, cosines of pairs."""

    right: Mapping[str, FloatArray]
    cosines: np.ndarray
    vectors: FloatArray


def quality(
    systems: Mapping[str, System], reader: TextReader, threads: int, n: int
) -> dict[str, object]:
    """Judge all systems on the same texts, one text in each run."""
    pairs = judging_pairs(read_pairs(), n)
    labels = np.array([label for _, _, label in pairs])
    found = {
        name: judge(lambda texts, one=system: embed(one, reader, texts, threads), pairs, n)  # type: ignore[misc]  # bound now
        for name, system in systems.items()
        if name not in NOT_JUDGED
    }
    base = found[BASE]
    result: dict[str, object] = {}
    for name, one in found.items():
        figures: dict[str, object] = {
            "cosine_to_fp32": float(rows_of_pairs(base.vectors, one.vectors).mean())
        }
        for intents, right in one.right.items():
            lost = base.right[intents] - right
            figures[f"accuracy {intents}"] = float(right.mean())
            figures[f"accuracy_loss {intents}"] = [
                float(lost.mean()),
                *interval(len(lost), lambda chosen, lost=lost: float(lost[chosen].mean())),  # type: ignore[misc]  # bound now
            ]

        def worse(chosen: np.ndarray, one: Judged = one) -> float:
            given = labels[chosen]
            return area(base.cosines[chosen], given) - area(one.cosines[chosen], given)

        figures["pair_auc"] = area(one.cosines, labels)
        whole = worse(np.arange(len(labels)))
        figures["pair_auc_loss"] = [whole, *interval(len(labels), worse)]
        result[name] = figures
    return result


def embed(system: System, reader: TextReader, texts: Sequence[str], threads: int) -> FloatArray:
    """Return a system's vectors of texts, (N, D): of ours from a process without torch."""
    if system.bundle is None:
        loaded = system.open(threads)
        vectors = embed_texts(loaded, reader, texts, batch=1).vectors
        loaded.close()
        return vectors
    feeds = [reader.read(text).feeds for text in texts]
    # Texts of a length in a row go to the process together.
    order = np.argsort([one["input_ids"].shape[1] for one in feeds], kind="stable").tolist()
    answers = answer_bundle(
        system.bundle.root,
        Samples(feeds=[feeds[i] for i in order]),
        variant=system.variant,
        engine=system.engine,
        threads=threads,
        progress=Quiet(),
    )
    rows = np.concatenate(answers.first()).astype(np.float32)  # (N, D), in that order
    return rows[np.argsort(order, kind="stable")]


def judge(embed: Callable[[Sequence[str]], FloatArray], pairs: Sequence[Pair], n: int) -> Judged:
    """Return what a system's vectors are worth.

    Args:
        embed: gives the vectors of texts.
        pairs: of questions.
        n: texts that are judged, of each set of intents.

    Returns:
        Right or wrong, cosines, and the vectors of all questions.
    """
    parts: list[list[str]] = []
    named: list[tuple[list[int], list[int]]] = []
    for name in SETS:
        train, test = read_intents(name, "train"), read_intents(name, "test")
        classes = sorted(set(train.names))
        places = {c: [i for i, k in enumerate(train.names) if k == c][:SHOTS] for c in classes}
        shots = [i for c in classes for i in places[c]]
        chosen = spread_out(len(test.texts), n)
        parts += [[train.texts[i] for i in shots], [test.texts[i] for i in chosen]]
        named.append((
            [classes.index(train.names[i]) for i in shots],
            [classes.index(test.names[i]) for i in chosen],
        ))
    parts += [[a for a, _, _ in pairs], [b for _, b, _ in pairs]]
    ends = np.cumsum([len(part) for part in parts])[:-1]
    vectors = np.split(embed([text for part in parts for text in part]), ends)
    right: dict[str, FloatArray] = {}
    for i, (name, (shown, wanted)) in enumerate(zip(SETS, named, strict=True)):
        nearest = class_means(vectors[2 * i], shown).nearest(vectors[2 * i + 1])
        right[name] = (nearest == np.array(wanted)).astype(np.float32)
    first, second = vectors[-2:]
    return Judged(right, rows_of_pairs(first, second), np.concatenate([first, second]))


def table(result: Mapping[str, Any]) -> str:
    """Return the medians as a text: milliseconds of the clock and of the processor, and quality."""
    rows: list[str] = []
    for threads, by_length in result["latency"].items():
        for length, found in by_length.items():
            for name, one in found.items():
                figures = [1e3 * one[kind]["median"] for kind in ("seconds", "processor_seconds")]
                low, middle, high = (one["times_as_fast"][k] for k in ("q1", "median", "q3"))
                rows.append(
                    f"{threads:10} {length:11} {name:34} {figures[0]:7.2f} {figures[1]:7.2f} "
                    f"{middle:5.2f} ({low:.2f} to {high:.2f})"
                )
    for name, one in result["quality"].items():
        shown = " ".join(
            f"{key} {value:.4f}" for key, value in one.items() if isinstance(value, float)
        )
        rows.append(f"{name:34} {shown}")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
