"""Our `onnx` engine beside onnxruntime-genai: int4, the same shapes, in one run, taking turns.

    python -m benchmarks.beside_genai [--shape qwen2.5-0.5b] [--rounds 7] [--out FILE.json]

Makes a random-weight checkpoint, builds it with `onhand build` under a memory ceiling (time and
peak memory of the process tree are kept), builds it with genai's own builder at its best settings
(int4, block 32, accuracy level 4, pruned head, threads set), then lets the two answer the same
prompt in turns, each in a process of its own. Raw samples go to the JSON file.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import Worker
from benchmarks.shapes import make_checkpoint
from onhand.device.threads import usable_threads

__all__ = ["main"]

PROMPT_TOKENS, ANSWER_TOKENS = 512, 128
ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
MAX_RAM = "4GiB"
SMALL = ["qwen2.5-0.5b", "smollm2-135m"]


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", choices=SMALL, action="append")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("out/beside_genai.json"))
    given = parser.parse_args()
    tokenizer = ASSETS / "tokenizers" / "smollm2" / "tokenizer.json"
    if not tokenizer.is_file():
        sys.exit(f"{tokenizer} is absent: set ONHAND_ASSETS to the folder of models and data")
    shapes: dict[str, object] = {}
    results = {
        "command": " ".join(["python -m benchmarks.beside_genai", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": usable_threads(),
        "versions": {name: version(name) for name in ("onnxruntime", "onnxruntime-genai")},
        "shapes": shapes,
    }
    for shape in given.shape or SMALL:
        with tempfile.TemporaryDirectory() as scratch:
            found = measure_shape(shape, Path(scratch), tokenizer, rounds=given.rounds)
        shapes[shape] = found
        print(table(shape, found), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")


def measure_shape(shape: str, scratch: Path, tokenizer: Path, *, rounds: int) -> dict[str, object]:
    """Build one shape twice and let the engines take turns."""
    source, bundle, peer = scratch / "source", scratch / "bundle", scratch / "genai"
    make_checkpoint(shape, source, tokenizer=tokenizer)
    print(f"{shape}: building with onhand, at most {MAX_RAM} of memory", flush=True)
    build = [sys.executable, "-m", "onhand", "build", str(source), "-o", str(bundle)]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*build, "--bits", "4", "--max-ram", MAX_RAM, "--json"],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"ONHAND_HOME": str(scratch / "home")},
    )
    # The largest process of the build, those that it measures included.
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{shape}: the build failed with status {status}")
    seconds, peak = time.perf_counter() - started, usage.ru_maxrss * 1024
    print(f"{shape}: building with onnxruntime-genai", flush=True)
    build_peer(source, peer, scratch / "cache")
    samples: dict[str, list[dict[str, float]]] = {"onhand": [], "genai": []}
    workers = {
        "onhand": Worker("onhand:onnx", bundle, usable_threads()),
        "genai": Worker("genai", peer, usable_threads()),
    }
    for number in range(rounds + 1):
        for name, worker in workers.items():
            figures = worker.ask(answer=[PROMPT_TOKENS, ANSWER_TOKENS])
            if number:  # the first round warms up
                samples[name].append(figures)
    memory = {name: worker.close()["peak_memory_bytes"] for name, worker in workers.items()}
    return {
        "build": {
            "seconds": seconds,
            "peak_memory_bytes": peak,
            "max_ram": MAX_RAM,
        },
        "samples": samples,
        "peak_memory_bytes": memory,
    }


def build_peer(source: Path, out: Path, cache: Path) -> None:
    """Export with genai's own builder and set the threads in its configuration."""
    subprocess.run(
        [
            *(sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source)),
            *("-o", str(out), "-p", "int4", "-e", "cpu", "-c", str(cache), "--extra_options"),
            *("int4_block_size=32", "int4_accuracy_level=4", "prune_lm_head=true"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    path = out / "genai_config.json"
    config = json.loads(path.read_text())
    options = config["model"]["decoder"]["session_options"]
    options |= {"intra_op_num_threads": usable_threads(), "inter_op_num_threads": 1}
    path.write_text(json.dumps(config))


def table(shape: str, found: dict[str, object]) -> str:
    """Lay medians and pairwise ratios out for people."""
    samples, build = found["samples"], found["build"]
    if not isinstance(samples, dict) or not isinstance(build, dict):
        raise TypeError("not a result")
    lines = [
        f"{shape}: built in {build['seconds']:.0f} s, peak {build['peak_memory_bytes'] / 2**30:.2f}"
        f" GiB ({build['max_ram']} allowed)"
    ]
    for figure in ("prefill_tokens_per_s", "decode_tokens_per_s"):
        ours, theirs = ([one[figure] for one in samples[name]] for name in ("onhand", "genai"))
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        lines.append(
            f"  {figure}: onhand {statistics.median(ours):.1f}, genai "
            f"{statistics.median(theirs):.1f}, ratio {middle:.3f} (quartiles {low:.3f} to "
            f"{high:.3f}, {len(ratios)} pairs)"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
