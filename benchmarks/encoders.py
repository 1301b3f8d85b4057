"""A sentence encoder in float32 and int8, beside ONNX Runtime's own and NNCF's int8.

    python -m benchmarks.encoders --model all-MiniLM-L6-v2 --nncf-python .venv-nncf/bin/python

MODEL is a folder as sentence-transformers writes it; NNCF needs an environment of its own, without
it that peer is left out. Everything is made from the same graph and calibrated with the same
texts. Runs take turns in one process. Where others use the machine, compare processor time with
one thread: it is spent by nobody else. Quality: intents by the nearest mean of five examples of
each class, pairs of questions by their cosine, both beside float32 with paired 95 % intervals.
"""

import argparse
import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.encoder_figures import area, interval, quartiles, rows_of_pairs
from benchmarks.encoder_peers import OnnxPeer, OpenvinoPeer, make_dynamic, make_nncf
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, read_bundle, stage_bundle
from onhand.device.networks.base import Array, NetworkLoaded
from onhand.device.networks.embeddings import class_means, embed_texts
from onhand.device.networks.opening import named_engine
from onhand.device.networks.texts import TOKENIZER, TextReader, open_texts
from onhand.device.probe import current_profile
from onhand.device.threads import usable_threads
from onhand.host.networks.clean import clean
from onhand.host.networks.data import read_data
from onhand.host.networks.graph import Graph
from onhand.host.networks.pack import describe, pack_network
from onhand.host.networks.passes.base import NetworkPass, Workbench
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.passes.smooth import Smooth
from onhand.host.networks.sources.encoder import EncoderSource

__all__ = ["main"]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
SETS = ("BANKING77", "CLINC150")
ENGINES = ("onnx", "openvino")
VARIANTS: Mapping[str, tuple[NetworkPass, ...]] = {
    "fp32": (),
    "int8": (Smooth(), QuantizeNetwork()),
    "int8-signed": (Smooth(), QuantizeNetwork(activations="symmetric")),
}
BASE = "ours fp32, onnx"
# Signed activations are for OpenVINO: ONNX Runtime computes some of these layers in float.
LEFT_OUT = ("ours int8-signed, onnx",)
# The same numbers again.
NOT_JUDGED = ("ours fp32, openvino",)
LENGTHS = (128, 10)
SHOTS = 5
CALIBRATION = 50  # texts of each set
BLOCK = 4  # runs in a row; the first finds the caches cold and is not counted


def main() -> None:
    """Run the benchmark, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--nncf-python", type=Path)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--texts", type=int, default=1500, help="judged, of each set")
    parser.add_argument("--name", default="all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onhand-encoders-") as folder:
        bundle = build(given.model, Path(folder), given.threads)
        files = make_peers(bundle, Path(folder), given.nncf_python)
        loads = systems(bundle, files)
        result = {
            "command": f"python -m benchmarks.encoders --model {given.name} "
            f"--threads {given.threads} --rounds {given.rounds} --texts {given.texts}",
            "date": datetime.now(UTC).date().isoformat(),
            "processor": current_profile().processor,
            "versions": {name: version(name) for name in ("onnxruntime", "openvino", "numpy")},
            "load_average": os.getloadavg(),
            "bytes": sizes(bundle, files),
            "latency": {
                f"{threads} threads": latency(loads, threads, given.rounds)
                for threads in dict.fromkeys((1, given.threads))
            },
            "quality": quality(loads, open_texts(bundle), given.threads, given.texts),
        }
    if given.out:
        given.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(table(result))


def lines(name: str, part: str) -> tuple[list[str], list[str]]:
    """Return texts and labels of a set of intents."""
    folder = ASSETS / "intents" / name / part
    texts = (folder / "seq.in").read_text(encoding="utf-8").splitlines()
    return texts, (folder / "label").read_text(encoding="utf-8").splitlines()


def spread_out(n: int, wanted: int) -> list[int]:
    """Return up to `wanted` of `n` places, evenly."""
    return sorted({i * n // min(n, wanted) for i in range(min(n, wanted))})


def build(model: Path, folder: Path, threads: int) -> Bundle:
    """Build the bundle of our variants, calibrated with texts of the training parts."""
    texts: list[str] = []
    for name in SETS:
        train, _ = lines(name, "train")
        texts += [train[i] for i in spread_out(len(train), CALIBRATION)]
    data = folder / "calibration.txt"
    data.write_text("\n".join(texts) + "\n", encoding="utf-8")
    source = EncoderSource().load(str(model), task="text-embedding")
    network, original = describe(source, "text-embedding"), clean(source.graph)
    calibration = read_data(data, network, (), tokenizer=source.files[TOKENIZER])
    bench = Workbench(
        original=original, calibration=calibration, task="text-embedding", threads=threads
    )
    graphs: dict[str, Graph] = {}
    for variant, passes in VARIANTS.items():
        graphs[variant] = original
        for transform in passes:
            graphs[variant] = transform.apply(graphs[variant], bench).graph
    with stage_bundle(folder / "bundle") as staged:
        pack_network(source, network, graphs, staged, provenance={})
    return read_bundle(folder / "bundle")


def make_peers(bundle: Bundle, folder: Path, python: Path | None) -> dict[str, Path]:
    """Make what others make of the same graph."""
    source = bundle.path(bundle.manifest.variants["fp32"].graph)
    made = {"onnxruntime dynamic int8": make_dynamic(source, folder / "dynamic.onnx")}
    if python is None:
        sys.stderr.write("no --nncf-python: NNCF's int8 is left out\n")
        return made
    reader = open_texts(bundle)
    calibration = (folder / "calibration.txt").read_text(encoding="utf-8").splitlines()
    feeds = [reader.read(text).feeds for text in calibration]
    return made | {"nncf int8": make_nncf(source, folder / "nncf.xml", feeds, python)}


Open = Callable[[int], NetworkLoaded]


def systems(bundle: Bundle, files: Mapping[str, Path]) -> dict[str, Open]:
    """Return name -> what opens it with a number of threads."""

    def ours(variant: str, engine: str) -> Open:
        return lambda threads: named_engine(engine).open(bundle, variant=variant, threads=threads)

    found = {
        f"ours {variant}, {engine}": ours(variant, engine)
        for variant in VARIANTS
        for engine in ENGINES
        if f"ours {variant}, {engine}" not in LEFT_OUT
    }
    for name, path in files.items():
        if path.suffix == ".xml":
            found[f"{name}, openvino"] = lambda threads, path=path: OpenvinoPeer(path, threads)  # type: ignore[misc]  # bound now
        else:
            found[f"{name}, onnx"] = lambda threads, path=path: OnnxPeer(path, threads)  # type: ignore[misc]  # bound now
    return found


def sizes(bundle: Bundle, files: Mapping[str, Path]) -> dict[str, int]:
    """Return the bytes on disk of what each system alone needs."""
    found = {}
    for variant in VARIANTS:
        graph = bundle.path(bundle.manifest.variants[variant].graph)
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


def latency(loads: Mapping[str, Open], threads: int, rounds: int) -> dict[str, object]:
    """Time all systems in turn; seconds of the clock and of the processor."""
    opened = {name: load(threads) for name, load in loads.items()}
    found: dict[str, object] = {}
    for length in LENGTHS:
        feeds = tokens(length)
        clock: dict[str, list[float]] = {name: [] for name in opened}
        busy: dict[str, list[float]] = {name: [] for name in opened}
        for _ in range(rounds + 1):  # the first round warms up
            for name, loaded in opened.items():
                for _ in range(BLOCK):
                    begun, used = time.perf_counter(), time.process_time()
                    loaded.run(feeds)
                    clock[name].append(time.perf_counter() - begun)
                    busy[name].append(time.process_time() - used)
        keep = [i for i in range(BLOCK, BLOCK * (rounds + 1)) if i % BLOCK]
        found[f"{length} tokens"] = {
            name: {
                "seconds": quartiles([clock[name][i] for i in keep]),
                "processor_seconds": quartiles([busy[name][i] for i in keep]),
            }
            for name in opened
        }
    for loaded in opened.values():
        loaded.close()
    return found


@dataclass(frozen=True, slots=True)
class Judged:
    """What one system's vectors gave: right or wrong by text, cosines of pairs."""

    right: Mapping[str, FloatArray]
    cosines: np.ndarray
    vectors: FloatArray


def quality(
    loads: Mapping[str, Open], reader: TextReader, threads: int, n: int
) -> dict[str, object]:
    """Judge all systems on the same texts, one text in each run."""
    pairs = read_pairs(n)
    labels = np.array([label for _, _, label in pairs])
    found: dict[str, Judged] = {}
    for name, load in loads.items():
        if name in NOT_JUDGED:
            continue
        loaded = load(threads)
        found[name] = judge(loaded, reader, pairs, n)
        loaded.close()
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


def read_pairs(n: int) -> list[tuple[str, str, int]]:
    """Return some pairs of questions, 1 where they ask the same."""
    with tarfile.open(ASSETS / "gptcache-qqp" / "similiar_qqp_full.json.gz") as file:
        content = file.extractfile(file.getmembers()[0])
        rows = json.loads(content.read()) if content else []
    return [
        (rows[i]["text_a"], rows[i]["text_b"], int(rows[i]["label"]))
        for i in spread_out(len(rows), n)
    ]


def judge(
    loaded: NetworkLoaded, reader: TextReader, pairs: Sequence[tuple[str, str, int]], n: int
) -> Judged:
    """Return what a system's vectors are worth."""

    def embed(texts: Sequence[str]) -> FloatArray:
        return embed_texts(loaded, reader, texts, batch=1).vectors

    right: dict[str, FloatArray] = {}
    for name in SETS:
        texts, named = lines(name, "train")
        classes = sorted(set(named))
        shots = [i for c in classes for i in [j for j, k in enumerate(named) if k == c][:SHOTS]]
        means = class_means(
            embed([texts[i] for i in shots]), [classes.index(named[i]) for i in shots]
        )
        texts, named = lines(name, "test")
        chosen = spread_out(len(texts), n)
        nearest = means.nearest(embed([texts[i] for i in chosen]))
        wanted = np.array([classes.index(named[i]) for i in chosen])
        right[name] = (nearest == wanted).astype(np.float32)
    first, second = embed([a for a, _, _ in pairs]), embed([b for _, b, _ in pairs])
    return Judged(right, rows_of_pairs(first, second), np.concatenate([first, second]))


def table(result: Mapping[str, Any]) -> str:
    """Return the medians as a text: milliseconds of the clock and of the processor, and quality."""
    rows: list[str] = []
    for threads, by_length in result["latency"].items():
        for length, found in by_length.items():
            for name, one in found.items():
                figures = [1e3 * one[kind]["median"] for kind in ("seconds", "processor_seconds")]
                rows.append(
                    f"{threads:10} {length:11} {name:34} {figures[0]:7.2f} {figures[1]:7.2f}"
                )
    for name, one in result["quality"].items():
        shown = " ".join(
            f"{key} {value:.4f}" for key, value in one.items() if isinstance(value, float)
        )
        rows.append(f"{name:34} {shown}")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
