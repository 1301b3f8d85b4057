"""Several answers at once from one set of weights, beside llama.cpp with as many sequences.

    python -m benchmarks.sessions [--shape qwen2.5-0.5b] [--bundle DIR] [--counts 1,2,4,8]
        [--prompt 256] [--tokens 64] [--rounds 7] [--disturb] [--json] [--out FILE.json]
        [--llama-python .venv-llama/bin/python]

Each count of sessions is continued from prompts that are in memory already: by ours through
`Batcher`, each answer read by a thread of its own and made text; by llama.cpp with one batch of a
token of each sequence, as a server with so many slots does, read by nobody. Both choose greedily,
from the same int4 weights (`onhand export --to gguf`), each in a process of its own; they take
turns, count by count. With --disturb every round is done twice, the second time while other
processes keep half of the cores busy. The environment of llama.cpp: see `benchmarks.exports`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.processes import Worker, half_busy
from benchmarks.shapes import SHAPES, make_checkpoint
from onhand.core.bundle import read_bundle
from onhand.core.progress import Quiet
from onhand.device.threads import usable_threads
from onhand.host.export.gguf import export_gguf

__all__ = ["main"]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
OURS, LLAMA = "onhand", "llama.cpp"
Samples = dict[str, list[dict[str, float]]]  # engine -> what each round found


def main() -> None:
    """Run the benchmark; print a table, or with --json the figures alone."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = given.bundle or build(given.shape, Path(scratch))
        found = measure(bundle, Path(scratch), given)
    results = {
        "command": " ".join(["python -m benchmarks.sessions", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "prompt_tokens": given.prompt,
        "answer_tokens": given.tokens,
        "threads": usable_threads(),
        **found,
    }
    print(json.dumps(results, indent=1) if given.json else table(results))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--bundle", type=Path, help="an int4 bundle, instead of a shape")
    parser.add_argument(
        "--counts", type=lambda text: [int(word) for word in text.split(",")], default=[1, 2, 4, 8]
    )
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--disturb", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--llama-python", type=Path, default=Path(".venv-llama/bin/python"))
    parser.add_argument("--out", type=Path, default=Path("out/sessions.json"))
    return parser.parse_args()


def build(shape: str, scratch: Path, *, bits: int = 4) -> Path:
    """Make a bundle with random weights of so many bits."""
    tokenizer = ASSETS / "tokenizers" / "smollm2" / "tokenizer.json"
    if not tokenizer.is_file():
        sys.exit(f"{tokenizer} is absent: set ONHAND_ASSETS to the folder of models and data")
    source, bundle = scratch / "source", scratch / "bundle"
    make_checkpoint(shape, source, tokenizer=tokenizer)
    words = [
        "build",
        str(source),
        "-o",
        str(bundle),
        "--bits",
        str(bits),
        "--method",
        "rtn",
        "--json",
    ]
    subprocess.run(
        [sys.executable, "-m", "onhand", *words],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"ONHAND_HOME": str(scratch / "home")},
    )
    return bundle


def measure(folder: Path, scratch: Path, given: argparse.Namespace) -> dict[str, object]:
    """Let the two take turns; return the figures of every count, and what was left out."""
    skipped: list[str] = []
    quiet: dict[int, Samples] = {n: {} for n in given.counts}
    disturbed: dict[int, Samples] = {n: {} for n in given.counts}
    with ExitStack() as stack:
        workers = {OURS: stack.enter_context(Worker("onhand:native", folder, usable_threads()))}
        if given.llama_python.is_file():
            bundle = read_bundle(folder)
            file = scratch / "model.gguf"
            export_gguf(bundle, bundle.variant(None)[0], file, progress=Quiet())
            llama = _llama(file, given.llama_python, skipped)
            workers[LLAMA] = stack.enter_context(llama)
        else:
            skipped.append(f"llama.cpp is left out: {given.llama_python} is absent; see --help")
        for number in range(given.rounds + 1):
            for n in given.counts:
                job = [n, given.prompt, given.tokens]
                _round(workers, job, quiet[n] if number else {})  # the first round warms up
                if given.disturb and number:
                    with half_busy():
                        _round(workers, job, disturbed[n])
        memory = {name: worker.close()["peak_memory_bytes"] for name, worker in workers.items()}
    found: dict[str, object] = {"skipped": skipped, "peak_memory_bytes": memory}
    found |= _summary(quiet, "")
    return found | (_summary(disturbed, "disturbed_") if given.disturb else {})


def _llama(file: Path, python: Path, skipped: list[str]) -> Worker:
    """Start llama.cpp as it comes, or, where that ends at its first step, with plain kernels."""
    worker = Worker("llama", file, usable_threads(), python=python)
    try:
        worker.ask(sessions=[1, 8, 2])
    except RuntimeError as error:
        skipped.append(f"repacked weights of llama.cpp are left out: {error}")
        return Worker("llama:plain", file, usable_threads(), python=python)
    return worker


def _round(workers: Mapping[str, Worker], job: Sequence[int], samples: Samples) -> None:
    for name, worker in workers.items():
        samples.setdefault(name, []).append(worker.ask(sessions=job))


def _summary(samples: Mapping[int, Samples], prefix: str) -> dict[str, object]:
    """Return for each count and engine what was found, and ours over llama.cpp, round by round."""
    counts: dict[str, object] = {}
    ratios: dict[int, float] = {}
    for n, by_engine in samples.items():
        row: dict[str, object] = {
            name: {key: quartiles([one[key] for one in rounds]) for key in rounds[0]}
            for name, rounds in by_engine.items()
        }
        if LLAMA in by_engine:
            pairs = zip(by_engine[OURS], by_engine[LLAMA], strict=True)
            ratio = quartiles([a["tokens_per_s"] / b["tokens_per_s"] for a, b in pairs])
            row["ratio_vs_llama_cpp"], ratios[n] = ratio, ratio["median"]
        counts[str(n)] = row
    summary: dict[str, object] = {f"{prefix}sessions": counts}
    if ratios:
        summary[f"{prefix}ratio_vs_llama_cpp"] = ratios[max(ratios)]
    return summary


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Return the median and what lies a quarter of the way from either end."""
    if len(values) == 1:
        return {"q1": values[0], "median": values[0], "q3": values[0]}
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"q1": q1, "median": median, "q3": q3}


def table(results: Mapping[str, object]) -> str:
    """Lay the figures out for people."""
    lines = [str(sentence) for sentence in _as_list(results["skipped"])]
    for prefix in ("", "disturbed_"):
        for n, row in _as_dict(results.get(f"{prefix}sessions", {})).items():
            parts = [
                f"{name} {_spread(_as_dict(found)['tokens_per_s'])} tokens/s"
                for name, found in _as_dict(row).items()
                if name in {OURS, LLAMA}
            ]
            if "ratio_vs_llama_cpp" in _as_dict(row):
                parts.append(f"ratio {_spread(_as_dict(row)['ratio_vs_llama_cpp'])}")
            lines.append(f"{prefix.replace('_', ', ')}{n} at once: " + ", ".join(parts))
    return "\n".join(lines)


def _spread(found: object) -> str:
    values = _as_dict(found)
    return f"{values['median']:.2f} ({values['q1']:.2f} to {values['q3']:.2f})"


def _as_dict(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} is not a mapping")
    return value


def _as_list(value: object) -> Sequence[object]:
    if not isinstance(value, Sequence):
        raise TypeError(f"{value!r} is not a sequence")
    return value


if __name__ == "__main__":
    main()
