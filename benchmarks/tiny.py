"""MLPerf Tiny's networks: imported, put on integers, and held beside its own int8 files.

    python -m benchmarks.tiny [--network NAME ...] [--pictures 10000] [--rounds 15] [--out FILE]

The folder of `ONHAND_ASSETS` has `mlperf-tiny`, `cifar10`, `imagenet-500` and `fsdd`. Each network
is read from all of its float files, and the answers are compared with LiteRT's; one of them is
built to int8 with the defaults, calibrated on examples that judge nothing. Then our int8 and
the reference's own are compared with float, and all are timed in turns on one thread, as these
networks are meant for. Needs `ai_edge_litert`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tiny_data import ASSETS, Examples, cifar, noise, photographs, wakewords, words
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import EngineError
from onhand.device.networks.opening import open_network
from onhand.device.probe import current_profile
from onhand.host.networks.build import build_network
from onhand.host.networks.clean import clean
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.loading import load_network
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.options import NetworkOptions
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.steps import Step

__all__ = ["main"]

TINY = ASSETS / "mlperf-tiny"
ENGINES = ("onnx", "openvino")
Run = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One network.

    Attributes:
        task: as `onhand build --task` takes it.
        floats: files in float, below the assets; the first is built from.
        reference: the int8 file.
        read: gives its examples; told how many pictures judge at most.
    """

    task: str
    floats: tuple[str, ...]
    reference: str
    read: Callable[[int], Examples]


CASES: Mapping[str, Case] = {
    "ResNet-8": Case(
        task="image-classification",
        floats=(
            "image_classification/trained_models/pretrainedResnet.h5",
            "image_classification/trained_models/pretrainedResnet.tflite",
        ),
        reference="image_classification/trained_models/pretrainedResnet_quant.tflite",
        read=cifar,
    ),
    "ResNet-8, large": Case(
        task="image-classification",
        floats=("image_classification/trained_models/pretrainedResnet_large_float.tflite",),
        reference="image_classification/trained_models/pretrainedResnet_large_int8.tflite",
        read=cifar,
    ),
    "MobileNetV1 0.25": Case(
        task="image-classification",
        floats=(
            "visual_wake_words/trained_models/vww_96.h5",
            "visual_wake_words/trained_models/vww_96_float.tflite",
        ),
        reference="visual_wake_words/trained_models/vww_96_int8.tflite",
        read=lambda _: photographs(),
    ),
    "DS-CNN": Case(
        task="audio-classification",
        floats=("keyword_spotting/trained_models/kws_ref_model_float32.tflite",),
        reference="keyword_spotting/trained_models/kws_ref_model.tflite",
        read=lambda _: words(),
    ),
    "autoencoder": Case(
        task="features",
        floats=("anomaly_detection/trained_models/ad01_fp32.tflite",),
        reference="anomaly_detection/trained_models/ad01_int8.tflite",
        read=lambda _: noise(),
    ),
    "streaming wake word": Case(
        task="audio-classification",
        floats=("streaming_wakeword/trained_models/str_ww_ref_model.h5",),
        reference="streaming_wakeword/trained_models/str_ww_ref_model.tflite",
        read=lambda _: wakewords(),
    ),
}


def main() -> None:
    """Run the benchmark, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", action="append", choices=list(CASES))
    parser.add_argument("--pictures", type=int, default=10_000, help="test pictures of CIFAR-10")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("out/tiny.json"))
    given = parser.parse_args()
    if not TINY.is_dir():
        sys.exit(f"{TINY} is absent: set ONHAND_ASSETS to its folder")
    results: dict[str, object] = {}
    for name in given.network or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            results[name] = compared(
                CASES[name], Path(scratch), pictures=given.pictures, rounds=given.rounds
            )
        print(f"{name}\n{json.dumps(results[name], indent=1)}", flush=True)
    record = {
        "command": " ".join(["python -m benchmarks.tiny", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "networks": results,
        "processor": current_profile().processor,
        "threads": 1,
        "versions": {
            name: version(name) for name in ("ai-edge-litert", "numpy", "onnxruntime", "openvino")
        },
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def compared(case: Case, scratch: Path, *, pictures: int, rounds: int) -> dict[str, object]:
    """Return all figures of one network."""
    examples = case.read(pictures)
    bundle, report = built(case, examples, scratch)
    judge = examples.judging
    reference = LiteRT(case.reference)
    answers = {
        "float": imported(case.floats[0], case.task, judge),
        "reference int8": each(reference, judge),
    }
    ours = opened(bundle)
    answers |= {f"onhand int8, {engine}": each(run, judge) for engine, run in ours.items()}
    timed = {f"onhand int8, {engine}": run for engine, run in ours.items()}
    whole = opened(unchanged(case, scratch))
    timed |= {f"onhand float32, {engine}": run for engine, run in whole.items()}
    stored = reference.stored(judge[:1])
    timed["LiteRT int8"] = lambda _: reference.bare(stored)
    lite = [name for name in case.floats if name.endswith(".tflite")]
    if lite:
        timed["LiteRT float32"] = LiteRT(lite[0]).bare
    return {
        "examples": {
            "calibration": len(examples.calibrating),
            "judged": len(judge),
            "what": examples.what,
        },
        "imports": imports(case, judge, answers),
        "quality": {
            name: judged(found, answers, examples.labels, task=case.task)
            for name, found in answers.items()
        },
        "report": report,
        "size_bytes": {
            "float32": (TINY / (lite or case.floats)[0]).stat().st_size,
            "onhand int8": bundle.size_bytes(),
            "reference int8": (TINY / case.reference).stat().st_size,
        },
        "latency_s": take_turns(timed, judge[:1], rounds=rounds),
    }


def imports(
    case: Case, judge: FloatArray, answers: Mapping[str, FloatArray]
) -> dict[str, dict[str, float]]:
    """Compare what we read of each file with what LiteRT, or Keras's file, makes of it."""
    found: dict[str, dict[str, float]] = {}
    few = judge[:500]
    for name in case.floats:
        answered = imported(name, case.task, few)
        place = Path(name).name
        if name != case.floats[0]:
            found[f"{place}, beside {Path(case.floats[0]).name}"] = far(
                answered, answers["float"][: len(few)]
            )
        if name.endswith(".tflite"):
            found[f"{place}, beside LiteRT"] = far(answered, each(LiteRT(name), few))
    found[f"{Path(case.reference).name} in float, beside LiteRT's integers"] = far(
        imported(case.reference, case.task, few), answers["reference int8"][: len(few)]
    )
    return found


def built(case: Case, examples: Examples, scratch: Path) -> tuple[Bundle, dict[str, object]]:
    """Build int8 from the first float file; return the bundle and what its report says."""
    name = loaded(case.floats[0], case.task).inputs[0].name
    seen, judging = scratch / "seen.npz", scratch / "judging.npz"
    np.savez(seen, **{name: examples.calibrating})  # type: ignore[arg-type]  # any names
    few = slice(0, 1000)  # for the report; all of them are judged here
    arrays: dict[str, Any] = {name: examples.judging[few]}
    if examples.labels is not None:
        arrays["labels"] = examples.labels[few]
    np.savez(judging, **arrays)
    options = NetworkOptions(
        task=case.task,
        variants={"int8": (Step(QuantizeNetwork()),)},
        data=seen,
        heldout=judging,
        n_calibration=len(examples.calibrating),
        threads=1,
        measure_original=False,
    )
    source = str(TINY / case.floats[0])
    made = build_network(source, scratch / "int8", options, home=scratch / "home")
    variants = made.report["variants"]
    if not isinstance(variants, dict):
        raise TypeError("not a report")
    found = variants["int8"]
    loss = found["figures"]["quality_loss"]["value"]
    return read_bundle(made.root), {"kept_in_float": found["kept"], "quality_loss": loss}


def unchanged(case: Case, scratch: Path) -> Bundle:
    """Build the first float file as it is."""
    options = NetworkOptions(
        task=case.task, variants={"fp32": ()}, threads=1, measure_original=False
    )
    source = str(TINY / case.floats[0])
    made = build_network(source, scratch / "fp32", options, home=scratch / "home")
    return read_bundle(made.root)


@cache
def loaded(name: str, task: str) -> Graph:
    """Read a file below the assets."""
    return clean(load_network(str(TINY / name), task=task).graph)


def imported(name: str, task: str, examples: FloatArray) -> FloatArray:
    """Answer examples by a file as we read it, in ONNX Runtime."""
    graph = loaded(name, task)
    runner = GraphRunner(graph, threads=1)
    fed, made = graph.inputs[0].name, graph.outputs[0].name
    parts = [runner.run({fed: examples[i : i + 500]})[made] for i in range(0, len(examples), 500)]
    answers: FloatArray = np.concatenate(parts).astype(np.float32)
    return answers


def each(run: Run, examples: FloatArray) -> FloatArray:
    """Answer examples one by one."""
    return np.concatenate([run(example[None]) for example in examples])


def opened(bundle: Bundle) -> dict[str, Run]:
    """Open a bundle in each engine that can run it; one thread."""
    network = bundle.manifest.network
    fed, made = network.inputs[0].name, network.outputs[0].name
    runs: dict[str, Run] = {}
    for engine in ENGINES:
        try:
            here, _, _ = open_network(bundle, engine=engine, threads=1)
        except EngineError as error:
            print(f"{engine}: {error}")
            continue
        runs[engine] = lambda x, here=here: here.run({fed: x})[made]  # type: ignore[misc]
    return runs


class LiteRT:
    """A file in LiteRT's interpreter, with the kernels that it takes by itself; one thread."""

    def __init__(self, name: str) -> None:
        """Open a file below the assets."""
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter: Any = Interpreter(str(TINY / name), num_threads=1)
        self._interpreter.allocate_tensors()
        (self._into,) = self._interpreter.get_input_details()
        (self._out,) = self._interpreter.get_output_details()

    def __call__(self, x: FloatArray) -> FloatArray:
        """Answer one example; numbers go in and out as float."""
        found = self.bare(self.stored(x))
        step, origin = self._out["quantization"]
        answer: FloatArray = found.astype(np.float32)
        real: FloatArray = (answer - origin) * step if step else answer
        return real

    def stored(self, x: FloatArray) -> Array:
        """Return an example as the file takes it."""
        scale, zero = self._into["quantization"]
        if not scale:
            return x
        codes: Array = np.clip(np.rint(x / np.float32(scale)) + zero, -128, 127).astype(np.int8)
        return codes

    def bare(self, stored: Array) -> Array:
        """Answer one example in the file's own numbers."""
        self._interpreter.set_tensor(self._into["index"], stored)
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._out["index"]))


def far(found: FloatArray, wanted: FloatArray) -> dict[str, float]:
    """Say how far answers are from others."""
    apart = float(np.abs(found - wanted).max())
    same = float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean())
    lost = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    return {"largest_difference": apart, "relative_error": lost, "same_class": same}


def judged(
    found: FloatArray,
    answers: Mapping[str, FloatArray],
    labels: np.ndarray[Any, np.dtype[np.int64]] | None,
    *,
    task: str,
) -> dict[str, dict[str, float]]:
    """Compare answers with float's and, where labels are known, with the reference's accuracy."""
    wanted, reference = answers["float"], answers["reference int8"]
    if task == "features":
        norms = np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
        return {"relative_error": _mean(norms)}
    first = found.argmax(axis=1)
    said: dict[str, dict[str, float]] = {
        "agreement": _mean((first == wanted.argmax(axis=1)).astype(np.float64)),
    }
    if labels is not None:
        right = (first == labels).astype(np.float64)
        said["accuracy"] = _mean(right)
        for name, other in (("float", wanted), ("reference int8", reference)):
            theirs = (other.argmax(axis=1) == labels).astype(np.float64)
            said[f"accuracy_over_{name.replace(' ', '_')}"] = _mean(right - theirs)
    return said


def _mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    """Return a mean and its 95 % interval, by a bootstrap over examples."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(2000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def take_turns(
    ways: Mapping[str, Run], example: FloatArray, *, rounds: int, budget_s: float = 0.05
) -> dict[str, dict[str, float]]:
    """Time one example: medians of runs in a row, one way after the other in each round."""
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            middle = _median(run, example, budget_s)
            if number:  # the first round warms up
                samples[name].append(middle)
    return {
        name: {"median": q[1], "low": q[0], "high": q[2], "rounds": len(times)}
        for name, times in samples.items()
        for q in (statistics.quantiles(times, n=4),)
    }


def _median(run: Run, example: FloatArray, budget_s: float) -> float:
    run(example)
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while not times or time.perf_counter() < end:
        started = time.perf_counter()
        run(example)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
