r"""Decoding and prefill beside other runtimes: the same shape, taking turns in one run.

    python -m benchmarks.decode [--shape qwen2.5-0.5b] [--bits 4] [--rounds 5] [--threads 2]
        [--llama-python .venv-llama/bin/python] [--openvino-python .venv-openvino/bin/python]
        [--models DIR] [--json] [--out FILE.json]

Makes a random-weight checkpoint, builds it with `onhand build --method rtn --group 32`, exports
that bundle to GGUF (the same codes and scales, so equal bytes), and gives the checkpoint to the
builders of onnxruntime-genai (block 32, accuracy level 4, pruned head) and of OpenVINO (int4,
symmetric, groups of 64, all layers). Then the engines answer the same prompt of 512 tokens,
another in each round, with 128 more, greedily, one after the other, each in a process of its own;
memory's read bandwidth is measured between rounds. Ours goes the way of `onhand run`: tokens
chosen, text put together.

onnxruntime-genai comes with onhand[bench]. The others have environments of their own:

    python3 -m venv .venv-llama && .venv-llama/bin/pip install numpy llama-cpp-python==0.3.36
    (with CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON
    -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON" where its kernels for AMX end the process)
    python3 -m venv .venv-openvino && .venv-openvino/bin/pip install torch==2.13.0 \
        openvino-genai==2026.4.1.0 optimum-intel==2.2.0 nncf

What is not installed is left out, and a sentence says so. llama.cpp's kernels for AMX end the
process where a system keeps these instructions from it; it then runs without them, and the result
says so.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.beside_genai import build_peer
from benchmarks.processes import Worker
from benchmarks.shapes import SHAPES, make_checkpoint
from onhand.core.bundle import read_bundle
from onhand.core.quantized import QuantTensor
from onhand.core.weights import open_weights
from onhand.device.probe import default_buffer_bytes, sample_read_bandwidth
from onhand.device.threads import usable_threads

__all__ = ["main"]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
PROMPT_TOKENS, ANSWER_TOKENS, VERIFY_RUNS = 512, 128, 9
OURS, LLAMA = "onhand:native", "llama"
FIGURES = ("decode_tokens_per_s", "prefill_tokens_per_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One engine's copy of the model, and the interpreter that has the engine."""

    engine: str
    place: Path
    python: Path


def main() -> None:
    """Run the benchmark and print what it found."""
    given = _options()
    tokenizer = ASSETS / "tokenizers" / "smollm2" / "tokenizer.json"
    if not tokenizer.is_file():
        sys.exit(f"{tokenizer} is absent: set ONHAND_ASSETS to the folder of models and data")
    with tempfile.TemporaryDirectory() as scratch:
        models = make_models(given, given.models or Path(scratch), tokenizer)
        if given.rounds < 1:
            return
        found = measure(models, given)
    results = {
        "command": " ".join(["python -m benchmarks.decode", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "shape": given.shape,
        "threads": given.threads,
        **summary(found),
        **found,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    plain = {key: value for key, value in results.items() if key not in ("samples", "verify")}
    print(json.dumps(plain) if given.json else table(results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--bits", type=int, choices=(4,), default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--llama-python", type=Path, default=Path(".venv-llama/bin/python"))
    parser.add_argument("--openvino-python", type=Path, default=Path(".venv-openvino/bin/python"))
    parser.add_argument("--models", type=Path, help="keep the models here, and use what is here")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/decode.json"))
    return parser.parse_args()


def make_models(given: argparse.Namespace, scratch: Path, tokenizer: Path) -> list[Model]:
    """Build the model for every engine that is installed."""
    source, bundle = scratch / "source", scratch / "bundle"
    scratch.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        make_checkpoint(given.shape, source, tokenizer=tokenizer)
    here = Path(sys.executable)
    models = [Model(engine=name, place=bundle, python=here) for name in (OURS, "onhand:onnx")]
    build = [here, "-m", "onhand", "build", source, "-o", bundle, "--bits", str(given.bits)]
    environment = os.environ | {"ONHAND_HOME": str(scratch / "home")}
    if not bundle.exists():
        _say("building with onhand")
        _run([*build, "--method", "rtn", "--group", "32", "--no-original"], environment)
    if given.llama_python.is_file():
        file = scratch / "model.gguf"
        if not file.exists():
            _say("exporting to GGUF")
            _run([here, "-m", "onhand", "export", bundle, "--to", "gguf", "-o", file], environment)
        models.append(Model(engine=LLAMA, place=file, python=given.llama_python))
    else:
        _say(f"{given.llama_python} is absent: llama.cpp is left out")
    if importlib.util.find_spec("onnxruntime_genai") is not None:
        if not (scratch / "genai").exists():
            _say("building with onnxruntime-genai")
            build_peer(source, scratch / "genai", scratch / "cache")
        models.append(Model(engine="genai", place=scratch / "genai", python=here))
    else:
        _say("onnxruntime-genai is not installed and left out")
    if given.openvino_python.is_file():
        place = scratch / "openvino"
        if not place.exists():
            _say("building with OpenVINO")
            tool = given.openvino_python.with_name("optimum-cli")
            task = ["--task", "text-generation-with-past", "--weight-format", "int4", "--sym"]
            sizes = ["--group-size", "64", "--ratio", "1.0", "--all-layers"]
            _run([tool, "export", "openvino", "-m", source, *task, *sizes, place], environment)
        models.append(Model(engine="openvino", place=place, python=given.openvino_python))
    else:
        _say(f"{given.openvino_python} is absent: OpenVINO is left out")
    return models


def measure(models: Sequence[Model], given: argparse.Namespace) -> dict[str, Any]:
    """Let the engines take turns; return every sample."""
    samples: dict[str, dict[str, list[float]]] = {}
    bandwidth: list[float] = []
    notes: list[str] = []
    with ExitStack() as stack:
        workers = {}
        for model in models:
            _say(f"opening {model.engine}")
            workers[model.engine] = stack.enter_context(_open(model, given.threads, notes))
        for number in range(given.rounds + 1):
            bandwidth += _bandwidth(given.threads)
            for name, worker in workers.items():
                found = worker.ask(answer=[PROMPT_TOKENS, ANSWER_TOKENS, number])
                if number == 0:  # warms up
                    continue
                _say(f"round {number} of {given.rounds}: {name} {found}")
                for figure in FIGURES:
                    samples.setdefault(name, {}).setdefault(figure, []).append(found[figure])
        rows = {
            name: {
                n: worker.ask(verify=[PROMPT_TOKENS, n, VERIFY_RUNS])["samples"]
                for n in (1, 2, 4, 8, 12, 16)
            }
            for name, worker in workers.items()
            if name in (OURS, LLAMA)
        }
        ends = {name: worker.close() for name, worker in workers.items()}
    return {
        "versions": {"onnxruntime": version("onnxruntime")},
        "notes": notes,
        "bytes_per_token": bytes_per_token(models[0].place),
        "read_bandwidth": bandwidth,
        "samples": samples,
        "verify": rows,
        "peak_memory_bytes": {name: end["peak_memory_bytes"] for name, end in ends.items()},
        "open_s": {name: end["open_s"] for name, end in ends.items()},
    }


def summary(found: Mapping[str, Any]) -> dict[str, object]:
    """Return the plain numbers: medians, ratios of pairs of one round, and their quartiles."""
    samples = found["samples"]
    peers = [name for name in samples if not name.startswith("onhand:")]
    made: dict[str, object] = {}
    for figure in FIGURES:
        short = figure.removesuffix("_tokens_per_s")
        medians = {name: statistics.median(one[figure]) for name, one in samples.items()}
        made[figure] = medians
        names = {f"{short}_ratio_vs_{_plain(name)}": name for name in (*peers, "onhand:onnx")}
        if peers:
            names[f"{short}_ratio_vs_best"] = max(peers, key=lambda name: medians[name])
        for key, name in names.items():
            pairs = zip(samples[OURS][figure], samples[name][figure], strict=True)
            ratios = [ours / theirs for ours, theirs in pairs]
            made[key] = statistics.median(ratios)
            made[f"{key}_quartiles"] = _quartiles(ratios)
    read = [one * found["bytes_per_token"] for one in samples[OURS]["decode_tokens_per_s"]]
    bandwidth = statistics.median(found["read_bandwidth"])
    made["bandwidth_fraction"] = statistics.median(read) / bandwidth
    made["bandwidth_fraction_quartiles"] = _quartiles([one / bandwidth for one in read])
    for name, rows in found["verify"].items():
        one = statistics.median(rows[1])
        made[f"cost_of_rows_{_plain(name)}"] = {
            n: statistics.median(seconds) / one for n, seconds in rows.items()
        }
    return made


def bytes_per_token(bundle_folder: Path) -> int:
    """Return the bytes of weights that a decoding step reads: every matrix once."""
    bundle = read_bundle(bundle_folder)
    weights = open_weights(bundle, bundle.variant(None)[0])
    total = 0
    for name in weights.decoder.matrices():
        stored = weights.stored(name)
        if name == "positions" or (name == "embed" and weights.decoder.head != "embed"):
            continue
        if isinstance(stored, QuantTensor):
            total += stored.codes.nbytes + stored.scales.nbytes
            total += 0 if stored.zeros is None else stored.zeros.nbytes
        else:
            total += stored.nbytes
    return total


def table(results: Mapping[str, Any]) -> str:
    """Lay the figures out for people."""
    lines = [f"{results['shape']}, {results['threads']} threads"]
    for name in results["samples"]:
        decode, prefill = (results[figure][name] for figure in FIGURES)
        memory = results["peak_memory_bytes"][name] / 1e6
        lines.append(
            f"  {name:14} decode {decode:7.1f}, prefill {prefill:7.1f} tokens/s, "
            f"peak memory {memory:.0f} MB"
        )
    for key, value in results.items():
        if isinstance(value, float):
            low, high = results[f"{key}_quartiles"]
            lines.append(f"  {key}: {value:.2f} (quartiles {low:.2f} to {high:.2f})")
        elif key.startswith("cost_of_rows"):
            lines.append(f"  {key}: {', '.join(f'{n}: {cost:.2f}' for n, cost in value.items())}")
    return "\n".join([*lines, *results["notes"]])


def _open(model: Model, threads: int, notes: list[str]) -> Worker:
    worker = Worker(model.engine, model.place, threads, python=model.python)
    if model.engine != LLAMA:
        return worker
    try:
        worker.ask(answer=[8, 2])
    except RuntimeError as error:
        notes.append(f"llama.cpp without its AMX kernels: with them {error}")
        return Worker("llama:plain", model.place, threads, python=model.python)
    return worker


def _bandwidth(threads: int) -> list[float]:
    return sample_read_bandwidth(threads, buffer_bytes=default_buffer_bytes(), runs=2)


def _plain(name: str) -> str:
    return {LLAMA: "llama_cpp"}.get(name, name.removeprefix("onhand:"))


def _quartiles(values: Sequence[float]) -> list[float]:
    if len(values) < 2:
        return [values[0], values[0]]
    low, _, high = statistics.quantiles(values, n=4)
    return [low, high]


def _run(command: Sequence[object], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        env=dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{command[0]} failed with status {done.returncode}:\n{done.stderr[-2000:]}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
