"""Many requests of mixed kinds with clients that leave: does the server leak, or get stuck?

    python -m benchmarks.soak [--requests 10000] [--at-once 16] [--leaving 0.3] [--bundle DIR]
        [--seed 0] [--json] [--out FILE.json]

A server process of its own serves the house assistant (built here from `examples/` in int4, or
--bundle) and two toy networks; clients over loopback ask for chats, whole and streamed,
completions, several choices, scores, JSON that follows a schema, vectors and classes, some of them
again and again, and a share of them leaves at a random moment. Memory, threads and open files of
the server are sampled a hundred times. The first three tenths of the requests warm it up: caches
fill, and thread pools grow to what the load needs. "Growth" is that of a straight line through the
samples after that, from its first to its last point, over its first.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import psutil
from examples.house_assistant.evaluate import HELD_OUT
from examples.house_assistant.generate import read_examples

from benchmarks.soak_requests import KINDS, Requests, Tally, make_networks

__all__ = ["main"]

MODEL = Path("examples/house_assistant/model")
SAMPLES = 100
WARM = 0.3
FLAT = 0.02
SETTINGS = """
[server]
port = 0
drain_s = 10
[cache]
exact_bytes = 262144
blocks_bytes = 4194304
warm_bytes = 0
[[model]]
bundle = "{house}"
name = "house"
prefix_cache_bytes = 4194304
[[model]]
bundle = "{words}"
name = "words"
engine = "onnx"
[[model]]
bundle = "{pictures}"
name = "pictures"
engine = "onnx"
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """The server at a moment.

    Attributes:
        n_requests: that have ended.
        resident_bytes: memory in use.
        n_threads: threads.
        n_files: open files and sockets.
    """

    n_requests: int
    resident_bytes: int
    n_threads: int
    n_files: int


def main() -> None:
    """Run the benchmark; print a table, or with --json the figures alone."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        results = {
            "command": " ".join(["python -m benchmarks.soak", *sys.argv[1:]]),
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": given.seed,
            "at_once": given.at_once,
            "leaving": given.leaving,
            "kinds": given.kinds,
            **measure(Path(scratch), given),
        }
    print(json.dumps(results, indent=1) if given.json else table(results))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    if not results["is_sound"]:
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--leaving", type=float, default=0.3)
    parser.add_argument("--bundle", type=Path, help="the house assistant, built already")
    parser.add_argument(
        "--kinds",
        type=lambda text: text.split(","),
        default=list(KINDS),
        help="only these, to see which of them leaves something",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/soak.json"))
    return parser.parse_args()


def measure(scratch: Path, given: argparse.Namespace) -> dict[str, object]:
    """Send all requests; return what became of them and of the server."""
    house = given.bundle or build(scratch)
    places = {"house": house.absolute(), **make_networks(scratch)}
    commands = [example.command for example in read_examples(HELD_OUT)]
    samples: list[Sample] = []
    with serving(scratch, SETTINGS.format(**places)) as (process, url):
        watched = psutil.Process(process.pid)
        every = max(1, given.requests // SAMPLES)

        def between(n_ended: int) -> None:
            if n_ended % every == 0:
                samples.append(sample(watched, n_ended))

        begun_s = time.perf_counter()
        tally = asyncio.run(_asked(url, commands, given, between))
        seconds = time.perf_counter() - begun_s
        stuck = _still_there(url)
        samples.append(sample(watched, given.requests))
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    found = summary(samples, tally)
    ends: dict[str, object] = {
        "requests": given.requests,
        "seconds": seconds,
        "requests_per_s": given.requests / seconds,
        "active_at_end": stuck["onhand_active_requests"],
        "session_bytes_at_end": stuck['onhand_memory_taken_bytes{kind="sessions"}'],
        "exit_status": status,
    }
    is_sound = (
        bool(found["is_flat"]) and not tally.wrong and not any(stuck.values()) and status == 0
    )
    return {"is_sound": is_sound, **ends, **found}


async def _asked(
    url: str, commands: Sequence[str], given: argparse.Namespace, between: "object"
) -> Tally:
    requests = Requests(
        url, commands, seed=given.seed, leaving=given.leaving, n_at_once=given.at_once
    )
    await requests.run(given.requests, kinds=given.kinds, between=between)  # type: ignore[arg-type] # a function
    return requests.tally


def build(scratch: Path) -> Path:
    """Build the house assistant in int4."""
    bundle = scratch / "house"
    words = ["build", str(MODEL), "-o", str(bundle), "--bits", "4", "--method", "rtn", "--json"]
    subprocess.run(
        [sys.executable, "-m", "onhand", *words],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"ONHAND_HOME": str(scratch / "home")},
    )
    return bundle


@contextmanager
def serving(scratch: Path, settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server as long as the block; give its process and its address."""
    file = scratch / "serve.toml"
    file.write_text(settings)
    with (scratch / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "onhand", "serve", "--open", "--config", str(file)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"ONHAND_HOME": str(scratch / "home")},
        )
        try:
            address = "" if process.stdout is None else process.stdout.readline().strip()
            if not address:
                sys.exit((scratch / "serve.log").read_text())
            yield process, address.removesuffix("/v1")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def sample(process: psutil.Process, n_requests: int) -> Sample:
    """Look at the server."""
    with process.oneshot():
        resident = process.memory_info().rss
        return Sample(n_requests, resident, process.num_threads(), process.num_fds())


def _still_there(url: str) -> dict[str, float]:
    """Return what should be 0 when all clients have gone, after ten seconds at most."""
    wanted = ("onhand_active_requests", 'onhand_memory_taken_bytes{kind="sessions"}')
    found: dict[str, float] = {}
    for _ in range(100):
        text = httpx2.get(f"{url}/metrics").text
        found = {
            name: float(value)
            for name, value in re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE)
            if name in wanted
        }
        if not any(found.values()):
            break
        time.sleep(0.1)
    return found


def summary(samples: Sequence[Sample], tally: Tally) -> dict[str, object]:
    """Return the figures of a run."""
    last = samples[-1].n_requests
    warm = [one for one in samples if one.n_requests >= WARM * last]
    memory, slope = growth([(one.n_requests, one.resident_bytes) for one in warm])
    threads, _ = growth([(one.n_requests, one.n_threads) for one in warm])
    files = [one.n_files for one in warm]
    return {
        "is_flat": abs(memory) <= FLAT and max(files) - min(files) <= max(files) // 2 + 64,
        "memory_growth": memory,
        "memory_slope_bytes_per_1000_requests": 1000 * slope,
        "memory_first_bytes": warm[0].resident_bytes,
        "memory_last_bytes": warm[-1].resident_bytes,
        "threads_growth": threads,
        "threads_last": warm[-1].n_threads,
        "files_first": warm[0].n_files,
        "files_last": warm[-1].n_files,
        "n_whole": tally.n_whole,
        "n_left": tally.n_left,
        "whole": tally.whole,
        "left": tally.left,
        "refused": tally.refused,
        "wrong": tally.wrong[:20],
        "samples": [asdict(one) for one in samples],
    }


def growth(points: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Return how much a line through points grows over its first value, and its slope."""
    if len({x for x, _ in points}) < 2:
        return 0.0, 0.0
    line = statistics.linear_regression([x for x, _ in points], [y for _, y in points])
    first, last = (line.intercept + line.slope * points[i][0] for i in (0, -1))
    return (last - first) / first, line.slope


def table(results: Mapping[str, object]) -> str:
    """Lay the figures out for people."""
    shown = {name: value for name, value in results.items() if name not in {"samples"}}
    width = max(len(name) for name in shown)
    return "\n".join(f"{name:{width}} {value}" for name, value in shown.items())


if __name__ == "__main__":
    main()
