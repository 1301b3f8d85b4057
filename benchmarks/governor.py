"""Time per token under a load from outside: a governed server beside a fixed one.

    python -m benchmarks.governor [--shape smollm2-135m] [--bundle DIR] [--clients 6] [--times 2]
        [--quiet 20] [--load 80] [--settle 30] [--rounds 2] [--dwell 10] [--json]
        [--out FILE.json] [--plot FILE.svg]

A real `onhand serve` answers as many streaming clients as it is told, over loopback, first in
quiet, then while as many processes as there are cores do nothing but compute, then in quiet again.
Every client asks again as soon as it was answered: 64 tokens of prompt, 48 of answer. The two
configurations take turns: `[governor] enabled = false`, and a governor with a target; all else is
the same. The time per token is what a client sees, from one piece of text to the next.

The target is --times the 95th percentile that the fixed server has in quiet, measured first. With
as many busy processes as cores a fair scheduler leaves half of the processor time, so that a step
that carries as much as before takes twice as long, if nothing else is lost. The governor's dwell
is shorter than its default (--dwell, and a fifth of it where it cannot wait), as the phases are;
the first --settle seconds of a phase, in which it adapts, are in the figures of the whole phase,
and left out of the others. What it costs is shown as well: tokens per second, and the time to the
first text.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from benchmarks.governor_plot import plot
from benchmarks.processes import busy
from benchmarks.sessions import build
from benchmarks.shapes import SHAPES
from onhand.device.threads import usable_threads

__all__ = ["main"]

FIXED, GOVERNED = "fixed", "governed"
PHASES = ("quiet", "load", "quiet again")
_WORDS = ("the", "house", "light", "door", "river", "green", "seven", "lamp", "under", "paper")


@dataclass(slots=True)
class Seen:
    """What clients saw; shared between them.

    Attributes:
        tokens: (when, seconds since the last piece of the same answer).
        first: (when, seconds from the request to the first text).
        failed: what went wrong.
    """

    tokens: list[tuple[float, float]] = field(default_factory=list)
    first: list[tuple[float, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def main() -> None:
    """Run the benchmark; print a table, or with --json the figures alone."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = given.bundle or build(given.shape, Path(scratch))
        found = measure(bundle.resolve(), Path(scratch), given)
    results = {
        "command": " ".join(["python -m benchmarks.governor", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": usable_threads(),
        "clients": given.clients,
        "dwell_s": given.dwell,
        "settle_s": given.settle,
        "target_times_quiet": given.times,
        **found,
    }
    print(json.dumps(results, indent=1) if given.json else table(results))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    if given.plot:
        given.plot.write_text(plot(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--bundle", type=Path, help="a bundle of a language model, for a shape")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--times", type=float, default=2)
    parser.add_argument("--quiet", type=float, default=20)
    parser.add_argument("--load", type=float, default=80)
    parser.add_argument("--settle", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dwell", type=float, default=10)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/governor.json"))
    parser.add_argument("--plot", type=Path)
    return parser.parse_args()


def measure(bundle: Path, scratch: Path, given: argparse.Namespace) -> dict[str, object]:
    """Find the target, then let the two take turns; return the figures of every phase."""
    quiet = Seen()
    with serving(bundle, scratch, "") as url, asking(url, given.clients, quiet):
        time.sleep(given.quiet + 5)
    begun = min(at for at, _ in quiet.tokens) + 5  # what comes first finds cold caches
    target_s = given.times * high([one for at, one in quiet.tokens if at > begun])
    governor = f"token_s = {target_s}\ndwell_s = {given.dwell}\nurgent_s = {given.dwell / 5}\n"
    runs: dict[str, list[dict[str, Any]]] = {FIXED: [], GOVERNED: []}
    for _ in range(given.rounds):
        for name, settings in ((FIXED, ""), (GOVERNED, governor)):
            with serving(bundle, scratch, settings) as url:
                runs[name].append(_run(url, given))
    worst = {
        name: max(run["phases"]["load"]["settled"]["p95_s"] for run in found)
        for name, found in runs.items()
    }
    return {
        "target_s": target_s,
        "runs": runs,
        "fixed_load_p95_s": worst[FIXED],
        "governed_load_p95_s": worst[GOVERNED],
        "fixed_within_target": worst[FIXED] <= target_s,
        "governed_within_target": worst[GOVERNED] <= target_s,
    }


@contextmanager
def serving(bundle: Path, scratch: Path, governor: str) -> Iterator[str]:
    """Serve a bundle in a process of its own; yield its address."""
    settings = scratch / "serve.toml"
    enabled = "true" if governor else "false"
    settings.write_text(
        f"[server]\nport = 0\n[cache]\nexact_bytes = 0\n[log]\nrequests = false\n"
        f"[[model]]\nbundle = {json.dumps(str(bundle))}\nname = 'model'\n"
        f"prefix_cache_bytes = 0\n[governor]\nenabled = {enabled}\n{governor}"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "onhand", "serve", "--open", "--config", str(settings)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"ONHAND_HOME": str(scratch / "home")},
    )
    try:
        if process.stdout is None:
            raise RuntimeError("a server has pipes")
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"the server ended with status {process.wait()}")
        yield url
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def asking(url: str, n_clients: int, seen: Seen) -> Iterator[None]:
    """Let clients ask, each again as soon as it was answered, as long as the block runs."""
    is_over = threading.Event()
    clients = [
        threading.Thread(target=_client, args=(url, i, seen, is_over)) for i in range(n_clients)
    ]
    for one in clients:
        one.start()
    try:
        yield
    finally:
        is_over.set()
        for one in clients:
            one.join()
        if seen.failed:
            raise RuntimeError(f"{len(seen.failed)} requests failed: {seen.failed[0]}")


def _client(url: str, number: int, seen: Seen, is_over: threading.Event) -> None:
    random = np.random.default_rng(number)
    with httpx2.Client(timeout=120) as client:
        while not is_over.is_set():
            prompt = " ".join(random.choice(_WORDS, 64).tolist())
            body = {"model": "model", "prompt": prompt, "max_tokens": 48, "stream": True}
            try:
                _ask(client, url, body, seen, is_over)
            except (httpx2.HTTPError, ValueError) as error:
                seen.failed.append(f"{type(error).__name__}: {error}")
                return


def _ask(
    client: httpx2.Client, url: str, body: object, seen: Seen, is_over: threading.Event
) -> None:
    begun = time.monotonic()
    last: float | None = None
    with client.stream("POST", f"{url}/completions", json=body) as reply:
        reply.raise_for_status()
        for line in reply.iter_lines():
            if is_over.is_set():
                return
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise ValueError(event["error"])
            if not any(choice["text"] for choice in event["choices"]):
                continue
            now = time.monotonic()
            if last is None:
                seen.first.append((now, now - begun))
            else:
                seen.tokens.append((now, now - last))
            last = now


def _run(url: str, given: argparse.Namespace) -> dict[str, Any]:
    """Go through the phases with one server."""
    seen = Seen()
    edges: list[float] = []
    with asking(url, given.clients, seen):
        time.sleep(5)  # what comes first finds cold caches
        for phase in PHASES:
            edges.append(time.monotonic())
            with ExitStack() as stack:
                if phase == "load":
                    stack.enter_context(busy(usable_threads()))
                time.sleep(given.load if phase == "load" else given.quiet)
        edges.append(time.monotonic())
        described: dict[str, Any] = httpx2.get(f"{url}/governor").json()
    spans = zip(PHASES, pairwise(edges), strict=True)
    return {
        "phases": {
            phase: {
                "whole": summary(seen, begin, end),
                "settled": summary(seen, min(begin + given.settle, (begin + end) / 2), end),
            }
            for phase, (begin, end) in spans
        },
        "edges_s": [edge - edges[0] for edge in edges],
        "p95_by_second": by_second(seen, edges[0], edges[-1]),
        "settings": _settings(described, edges[0]),
        "changes": [
            {"at_s": one["at_s"] - edges[0], "reason": one["reason"]}
            for one in described.get("changes", ())
        ],
    }


def _settings(described: Mapping[str, Any], begun: float) -> list[dict[str, Any]]:
    """Return what was set, wherever it changed; the server's clock is this process's."""
    found: list[dict[str, Any]] = []
    for one in described.get("history", ()):
        if not found or one["setting"] != {key: found[-1][key] for key in one["setting"]}:
            found.append({"at_s": one["at_s"] - begun, **one["setting"]})
    return found


def summary(seen: Seen, begin: float, end: float) -> dict[str, float]:
    """Return what clients saw in a span of time."""
    times = sorted(one for at, one in seen.tokens if begin <= at < end)
    first = sorted(one for at, one in seen.first if begin <= at < end)
    return {
        "p50_s": statistics.median(times),
        "p95_s": high(times),
        "p99_s": high(times, 0.99),
        "samples": len(times),
        "tokens_per_s": len(times) / (end - begin),
        "first_text_p50_s": statistics.median(first) if first else float("nan"),
        "first_text_p95_s": high(first) if first else float("nan"),
    }


def by_second(seen: Seen, begin: float, end: float) -> list[float | None]:
    """Return the 95th percentile of each second; None where fewer than 20 tokens came."""
    seconds: list[list[float]] = [[] for _ in range(int(end - begin) + 1)]
    for at, one in seen.tokens:
        if begin <= at < end:
            seconds[int(at - begin)].append(one)
    return [high(times) if len(times) >= 20 else None for times in seconds]


def high(times: Sequence[float], share: float = 0.95) -> float:
    """Return what a share of some times stays within."""
    ordered = sorted(times)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def table(results: Mapping[str, Any]) -> str:
    """Lay the figures out for people."""
    lines = [f"target: {results['target_s'] * 1000:.0f} ms, by {results['clients']} clients"]
    for name, runs in results["runs"].items():
        for number, run in enumerate(runs, start=1):
            for phase in PHASES:
                one = run["phases"][phase]
                lines.append(
                    f"{name} {number}, {phase}: p95 {one['settled']['p95_s'] * 1000:.0f} ms "
                    f"({one['whole']['p95_s'] * 1000:.0f} with the first seconds), median "
                    f"{one['settled']['p50_s'] * 1000:.0f} ms, "
                    f"{one['settled']['tokens_per_s']:.0f} tokens/s, first text "
                    f"{one['settled']['first_text_p50_s']:.2f} s"
                )
            lines += [f"  {one['at_s']:.0f} s: {one['reason']}" for one in run["changes"]]
    for name in (FIXED, GOVERNED):
        within = "within" if results[f"{name}_within_target"] else "beyond"
        worst_ms = results[f"{name}_load_p95_s"] * 1000
        lines.append(f"{name}: {worst_ms:.0f} ms under load, {within} the target")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
