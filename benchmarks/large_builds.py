"""How long `good` takes for models of real shapes, and how much memory: the plan beside the truth.

    python -m benchmarks.large_builds [--shape smollm2-135m] [--preset good] [--out FILE.json]

Makes a random-weight checkpoint, asks `onhand build --plan` for minutes and memory, then builds it
in a process of its own, the proof included, and keeps the time, the builder's peak memory, and that
of the largest process it started. The proof measures the bandwidth of memory with a buffer of four
times the last cache, at most an eighth of the memory. Random weights take as long as
trained ones; their quality says nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.shapes import make_checkpoint
from onhand.device.threads import usable_threads

__all__ = ["main"]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
MAX_RAM = {"smollm2-135m": "3GiB", "qwen2.5-0.5b": "5GiB"}


def main() -> None:
    """Run the benchmark and print a line for each shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", choices=MAX_RAM, action="append")
    parser.add_argument("--preset", default="good")
    parser.add_argument("--out", type=Path, default=Path("out/large_builds.json"))
    given = parser.parse_args()
    tokenizer = ASSETS / "tokenizers" / "smollm2" / "tokenizer.json"
    text = ASSETS / "tinystories-text" / "tinystories_sample.txt"
    if not tokenizer.is_file() or not text.is_file():
        sys.exit(f"{ASSETS} lacks the tokenizer or the text: set ONHAND_ASSETS")
    found: dict[str, object] = {}
    for shape in given.shape or ["smollm2-135m", "qwen2.5-0.5b"]:
        with tempfile.TemporaryDirectory() as scratch:
            row = measure(shape, Path(scratch), tokenizer, text, preset=given.preset)
        found[shape] = row
        print(json.dumps({shape: row}), flush=True)
    results = {
        "command": " ".join(["python -m benchmarks.large_builds", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": usable_threads(),
        "preset": given.preset,
        "shapes": found,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")


def measure(
    shape: str, scratch: Path, tokenizer: Path, text: Path, *, preset: str
) -> dict[str, object]:
    """Plan and build one shape."""
    source = scratch / "source"
    make_checkpoint(shape, source, tokenizer=tokenizer)
    build = [sys.executable, "-m", "onhand", "build", str(source), "--preset", preset, "--json"]
    build += ["--calibrate", str(text), "--max-ram", MAX_RAM[shape]]
    environment = os.environ | {"ONHAND_HOME": str(scratch / "home")}
    planned = subprocess.run([*build, "--plan"], check=True, capture_output=True, env=environment)
    plan = json.loads(planned.stdout)
    started = time.perf_counter()
    process = subprocess.Popen(
        [*build, "-o", str(scratch / "bundle")], stdout=subprocess.DEVNULL, env=environment
    )
    peak = watch(process)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{shape}: the build failed with status {status}")
    minutes = (time.perf_counter() - started) / 60
    return {
        "minutes": minutes,
        "planned_minutes": plan["minutes"],
        "ratio": minutes / plan["minutes"],
        "max_ram": MAX_RAM[shape],
        "builder_peak_bytes": peak,
        "largest_process_bytes": usage.ru_maxrss * 1024,
        "planned_memory_bytes": plan["build_memory_bytes"],
        "planned_disk_bytes": plan["build_disk_bytes"],
        "tokens": plan["n_tokens"],
    }


def watch(process: "subprocess.Popen[bytes]") -> int:
    """Return the highest resident memory of a process until it ends, sampled every 50 ms."""
    watched, peak = psutil.Process(process.pid), 0
    while watched.status() != psutil.STATUS_ZOMBIE:
        peak = max(peak, watched.memory_info().rss)
        time.sleep(0.05)
    return peak


if __name__ == "__main__":
    main()
