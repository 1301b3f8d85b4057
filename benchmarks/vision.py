"""Picture networks in int8: ours beside ONNX Runtime's tool, NNCF and LiteRT, taking turns.

    python -m benchmarks.vision [--network mobilenet-v2] [--nncf PYTHON] [--out FILE.json]

Calibrates each quantiser with the same 100 pictures, judges each result in its engine on all
others (accuracy, agreement with float, squared error of the scores), and times all of them in
turns: wall time of one picture with all threads, and processor time of one thread, which a busy
machine disturbs less. `efficientnet-b0` and `mobilenet-v3` have random weights, so that only their
times say something. NNCF runs in an environment of its own, whose interpreter is given. LiteRT runs
the int8 file that the float32 weights of `mobilenet-v2` come from: the same network, quantised by
its authors. Its picture is in integers before the clock starts.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.vision_engines import Floats, Run, opened
from benchmarks.vision_shapes import efficientnet_b0, mobilenet_v3
from onhand.core.feed import PictureFeed
from onhand.core.network import ArrayInfo
from onhand.device.networks.pictures import feed_picture, read_picture
from onhand.device.probe import current_profile
from onhand.device.threads import usable_threads
from onhand.host.networks.clean import clean
from onhand.host.networks.graph import Graph
from onhand.host.networks.onnx_files import model_bytes, read_onnx
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.samples import Samples

__all__ = ["main"]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
MOBILENET = (
    ASSETS / "vision-imagenet-onnx-derived" / "tf2_mobilenet_v2_1.0_224_ptq_dequant_fp32.onnx"
)
LITERT = ASSETS / "vision-imagenet-tflite" / "tf2_mobilenet_v2_1.0_224_ptq.tflite"
PICTURES = ASSETS / "imagenet-500"
NETWORKS = ("mobilenet-v2", "efficientnet-b0", "mobilenet-v3")
FEED = PictureFeed(
    height=224, width=224, short_side=256, mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)
)
N_CALIBRATION, SEED = 100, 0
PEERS = ("onnxruntime", "nncf", "litert")

OURS: Mapping[str, QuantizeNetwork] = {
    "onhand": QuantizeNetwork(),
    "onhand float gates": QuantizeNetwork(gates="float"),
    "onhand min-max": QuantizeNetwork(range="min-max", bias_correction="none"),
    "onhand mse": QuantizeNetwork(bias_correction="none"),
    "onhand percentile": QuantizeNetwork(range="percentile", bias_correction="none"),
    "onhand entropy": QuantizeNetwork(range="entropy", bias_correction="none"),
    "onhand mse, fast bias": QuantizeNetwork(bias_correction="fast"),
    "onhand mse, full bias": QuantizeNetwork(bias_correction="full"),
    "onhand mse, equalized": QuantizeNetwork(bias_correction="none", equalize=True),
    "onhand 4-bit weights": QuantizeNetwork(bits=4),
    "onhand 4-bit weights, adaround": QuantizeNetwork(bits=4, adaround=300),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Pictures as arrays, and what they show.

    Attributes:
        arrays: (B, 3, 224, 224) float32.
        labels: (B,) number of the class among the network's scores.
    """

    arrays: Floats
    labels: NDArray[np.int64]

    def part(self, indices: NDArray[np.int64]) -> "Examples":
        """Return some of them."""
        return Examples(arrays=self.arrays[indices], labels=self.labels[indices])


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network in a file.

    Attributes:
        path: what is opened.
        engines: that open it.
        seconds: that its making took.
        notes: of the pass.
    """

    path: Path
    engines: tuple[str, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    def size_bytes(self) -> int:
        """Return the bytes of the file, and of the weights beside it."""
        beside = self.path.with_suffix(".bin")
        return self.path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--network", choices=NETWORKS, default="mobilenet-v2")
    parser.add_argument("--all", action="store_true", help="our other settings as well")
    parser.add_argument("--nncf", help="interpreter of an environment with nncf and openvino")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if not MOBILENET.is_file() or not PICTURES.is_dir():
        sys.exit(f"{MOBILENET} or {PICTURES} is absent: set ONHAND_ASSETS to their folder")
    known = given.network == "mobilenet-v2"
    drawn = mobilenet_v3 if given.network == "mobilenet-v3" else efficientnet_b0
    graph = clean(read_onnx(MOBILENET)) if known else drawn()
    order = np.random.default_rng(SEED).permutation(500)
    examples = read_examples()
    calibration = examples.part(order[:N_CALIBRATION])
    held_out = examples.part(order[N_CALIBRATION:])
    with tempfile.TemporaryDirectory() as scratch:
        # MobileNetV2 has no gates.
        ours = OURS if given.all else {"onhand": OURS["onhand"]}
        ours = dict(ours) | ({} if known else {"onhand float gates": OURS["onhand float gates"]})
        candidates = make(graph, calibration, Path(scratch), ours, given.nncf)
        if known and LITERT.is_file():
            candidates["litert"] = Candidate(path=LITERT, engines=("litert",), seconds=0.0)
        quality = judge(candidates, held_out) if known else {}
        times = take_turns(candidates, held_out.arrays[:1], rounds=given.rounds)
        results = {
            "command": " ".join(["python -m benchmarks.vision", *sys.argv[1:]]),
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "network": given.network,
            "processor": current_profile().processor,
            "threads": usable_threads(),
            "versions": {
                name: version(name) for name in ("ai-edge-litert", "onnxruntime", "openvino")
            },
            "examples": {"calibration": N_CALIBRATION, "judged": len(held_out.labels)},
            "candidates": {
                name: {"size_bytes": one.size_bytes(), "seconds": one.seconds, "notes": one.notes}
                for name, one in candidates.items()
            },
            "quality": quality,
            "samples": times,
            "beside_peers": beside_peers(times),
        }
    print(table(results))
    out = given.out or Path(f"out/vision-{given.network}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")


def read_examples() -> Examples:
    """Read the photographs; class 0 of the network's scores is the background."""
    info = ArrayInfo(name="input", dtype="float32", shape=(None, 3, 224, 224))
    with (PICTURES / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    arrays = [
        feed_picture(read_picture(PICTURES / "images256" / row["file"]), FEED, info) for row in rows
    ]
    return Examples(
        arrays=np.concatenate(arrays).astype(np.float32),
        labels=np.array([int(row["class_index"]) + 1 for row in rows]),
    )


def make(
    graph: Graph,
    calibration: Examples,
    scratch: Path,
    ours: Mapping[str, QuantizeNetwork],
    nncf: str | None,
) -> dict[str, Candidate]:
    """Quantise a network in every way asked for."""
    both = ("onnx", "openvino")
    made: dict[str, Candidate] = {}

    def write(name: str, content: bytes, seconds: float, notes: tuple[str, ...]) -> None:
        path = scratch / f"{len(made)}.onnx"
        path.write_bytes(content)
        engines = (*both, "torch") if name == "float32" else both
        made[name] = Candidate(path=path, engines=engines, seconds=seconds, notes=notes)

    write("float32", model_bytes(graph), 0.0, ())
    fed = graph.inputs[0].name
    bench = Workbench(
        original=graph,
        calibration=Samples(feeds=[{fed: array[None]} for array in calibration.arrays]),
        task="image-classification",
        threads=usable_threads(),
        profile=current_profile(),
    )
    for name, transform in ours.items():
        started = time.perf_counter()
        result = transform.apply(graph, bench)
        write(name, model_bytes(result.graph), time.perf_counter() - started, result.notes)
        print(f"{name}: {made[name].seconds:.1f} s", flush=True)
    examples = scratch / "examples.npy"
    np.save(examples, calibration.arrays)
    peers = {"onnxruntime": (sys.executable, "onnx")} | ({"nncf": (nncf, "xml")} if nncf else {})
    for way, (python, suffix) in peers.items():
        out = scratch / f"{way}.{suffix}"
        script = Path(__file__).with_name("vision_peers.py")
        said = subprocess.run(
            [python, str(script), way, str(made["float32"].path), str(examples), str(out)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        engines = both if suffix == "onnx" else ("openvino",)
        made[way] = Candidate(path=out, engines=engines, seconds=float(said.split()[-1]))
        print(f"{way}: {made[way].seconds:.1f} s", flush=True)
    return made


def judge(candidates: Mapping[str, Candidate], held_out: Examples) -> dict[str, dict[str, float]]:
    """Compare the answers of each candidate, in each engine, with those of float32 in the first.

    LiteRT's file gives shares in 256 steps in place of scores: no error of these is told.
    """
    found: dict[str, dict[str, float]] = {}
    original: Floats | None = None
    for name, one in candidates.items():
        for engine in one.engines:
            run = opened(engine, one.path, usable_threads())
            scores = np.concatenate([run(array[None]) for array in held_out.arrays])
            if original is None:
                original = scores
            lost = float(np.square(scores - original).sum() / np.square(original).sum())
            first, theirs = scores.argmax(axis=1), original.argmax(axis=1)
            found[f"{name} / {engine}"] = {
                "accuracy": float((first == held_out.labels).mean()),
                "agreement": float((first == theirs).mean()),
            }
            if engine != "litert":
                noise = float(-10 * np.log10(max(lost, 1e-12)))
                found[f"{name} / {engine}"]["signal_to_noise_db"] = noise
    return found


def take_turns(
    candidates: Mapping[str, Candidate], picture: Floats, *, rounds: int, runs: int = 20
) -> dict[str, dict[str, list[float]]]:
    """Time one picture: medians of `runs` in a row, one after the other in each round."""
    opened_all = {
        (f"{name} / {engine}", threads): opened(engine, one.path, threads)
        for name, one in candidates.items()
        if name in {"float32", "onhand", "onhand float gates", *PEERS}
        for engine in one.engines
        for threads in sorted({1, usable_threads()})
    }
    samples: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds + 1):
        for (name, threads), run in opened_all.items():
            wall, busy = timed(run, picture, runs)
            if number:  # the first round warms up
                kinds = samples.setdefault(name, {})
                kinds.setdefault(f"wall_s_{threads}_threads", []).append(wall)
                if threads == 1:
                    kinds.setdefault("processor_s_1_threads", []).append(busy)
    return samples


def beside_peers(samples: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, object]:
    """Compare our fastest int8 with the fastest peer's, by number of threads.

    Returns:
        Kind of time -> both names, and the median and the quartiles of ours / theirs over rounds.
    """
    kinds = next(iter(samples.values()))
    found: dict[str, object] = {}
    for kind in kinds:
        fastest = sorted(samples, key=lambda name: statistics.median(samples[name][kind]))
        ours = next(name for name in fastest if name.startswith("onhand"))
        theirs = next(name for name in fastest if name.split(" / ")[0] in PEERS)
        ratios = [a / b for a, b in zip(samples[ours][kind], samples[theirs][kind], strict=True)]
        found[kind] = {
            "ours": ours,
            "peer": theirs,
            "ratio": statistics.quantiles(ratios, n=4, method="inclusive"),
        }
    return found


def timed(run: Run, picture: Floats, runs: int) -> tuple[float, float]:
    """Return the median wall time of a run, and the mean processor time."""
    run(picture)
    walls: list[float] = []
    busy = time.process_time()
    for _ in range(runs):
        started = time.perf_counter()
        run(picture)
        walls.append(time.perf_counter() - started)
    return statistics.median(walls), (time.process_time() - busy) / runs


def table(results: Mapping[str, object]) -> str:
    """Lay medians and quartiles out for people."""
    candidates, quality, samples = (results[k] for k in ("candidates", "quality", "samples"))
    if not (isinstance(candidates, dict) and isinstance(quality, dict)):
        raise TypeError("not a result")
    if not isinstance(samples, dict):
        raise TypeError("not a result")
    whole = candidates["float32"]["size_bytes"]
    lines = [f"{results['network']} on {results['processor']}"]
    for name, one in candidates.items():
        lines.append(f"{name}: {one['size_bytes'] / whole:.1%} of float32, {one['seconds']:.0f} s")
    for name, row in quality.items():
        lines.append(
            f"{name}: accuracy {row['accuracy']:.4f}, agreement {row['agreement']:.4f}"
            + (f", {row['signal_to_noise_db']:.1f} dB" if "signal_to_noise_db" in row else "")
        )
    for name, kinds in samples.items():
        lines += [f"{name}: {kind} {_quartiles(times)}" for kind, times in kinds.items()]
    beside = results["beside_peers"]
    if not isinstance(beside, dict):
        raise TypeError("not a result")
    for kind, one in beside.items():
        low, middle, high = one["ratio"]
        lines.append(
            f"{kind}: {one['ours']} takes {middle:.3f} x what {one['peer']} takes "
            f"(quartiles {low:.3f} to {high:.3f})"
        )
    return "\n".join(lines)


def _quartiles(times: Sequence[float]) -> str:
    low, middle, high = (1000 * q for q in statistics.quantiles(times, n=4))
    return f"{middle:.2f} ms (quartiles {low:.2f} to {high:.2f}, {len(times)} rounds)"


if __name__ == "__main__":
    main()
