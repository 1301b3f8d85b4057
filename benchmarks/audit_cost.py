"""What the audit log costs: the same requests with it and without, in turn.

    python -m benchmarks.audit_cost [--bundle DIR] [--rounds 9] [--requests 400] [--at-once 8]
        [--tokens 24] [--json] [--out FILE.json]

Two servers of one bundle (the house assistant in int4, built here, or --bundle), one with the audit
log and one without, each in a process of its own and with the caches off. In a round each is asked
the same questions by `at-once` clients over loopback, half of them as streams; which one goes first
changes from round to round. Throughput is requests per second; `throughput_ratio` is the median of
the rounds' ratios, with the log over without, and at least 0.97 is wanted. Processor time is the
server's own, for a request. At the end the log is verified, and must hold every request.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import psutil

from benchmarks.restart import build_house
from benchmarks.served import Server, counter
from benchmarks.telling import tell

__all__ = ["main"]

WANTED = 0.97
CACHE = {"exact_bytes": 0, "blocks_bytes": 0, "warm_bytes": 0}
_PATH = "/v1/completions"


def main() -> None:
    """Run the benchmark; print a table, or with --json the figures alone."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        results = {
            "command": " ".join(["python -m benchmarks.audit_cost", *sys.argv[1:]]),
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "requests": given.requests,
            "at_once": given.at_once,
            "tokens": given.tokens,
            **measure(given, Path(scratch)),
        }
    tell(results, as_json=given.json, out=given.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, help="instead of the house assistant")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=400, help="of each server in a round")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24, help="of an answer, at most")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/audit_cost.json"))
    return parser.parse_args()


def measure(given: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """Ask both servers in turn; return the figures."""
    bundle = given.bundle or build_house(scratch)
    rates: dict[str, list[float]] = {"with": [], "without": []}
    processor: dict[str, list[float]] = {"with": [], "without": []}
    with (
        started(bundle, scratch / "with", enabled=True) as audited,
        started(bundle, scratch / "without", enabled=False) as plain,
    ):
        servers = {"with": audited, "without": plain}
        for server in servers.values():
            asked(server, given)  # what the first requests take is not what others do
        for number in range(given.rounds):
            for name in sorted(servers, reverse=number % 2 == 1):
                rate, processor_s = asked(servers[name], given)
                rates[name].append(rate)
                processor[name].append(processor_s)
        n_records = counter(audited.client, "onhand_audit_records")
        n_writes = counter(audited.client, "onhand_audit_writes")
        n_lost = counter(audited.client, "onhand_audit_lost")
        audited.process.terminate()
        audited.process.wait(60)
    ratios = [one / other for one, other in zip(rates["with"], rates["without"], strict=True)]
    ratio = statistics.median(ratios)
    return {
        "throughput_ratio": ratio,
        "is_wanted": ratio >= WANTED,
        "requests_per_s_with": statistics.median(rates["with"]),
        "requests_per_s_without": statistics.median(rates["without"]),
        "processor_s_with": statistics.median(processor["with"]),
        "processor_s_without": statistics.median(processor["without"]),
        "records": n_records,
        "lost": n_lost,
        "records_per_write": n_records / max(n_writes, 1),
        "has_every_request": n_records >= given.requests * (given.rounds + 1) and n_lost == 0,
        "is_verified": verified(scratch / "with"),
        "samples": {"ratio": ratios, "requests_per_s": rates, "processor_s": processor},
    }


def started(bundle: Path, home: Path, *, enabled: bool) -> Server:
    """Start a server with the audit log or without."""
    audit: Mapping[str, int | str] = {"enabled": enabled}
    return Server(bundle, home, cache=CACHE, model={"name": "model"}, audit=audit)


def asked(server: Server, given: argparse.Namespace) -> tuple[float, float]:
    """Ask a server; return requests a second, and its seconds of processor for one."""
    process = psutil.Process(server.process.pid)
    bodies = [body_of(number, given.tokens) for number in range(given.requests)]
    before, begun_s = process.cpu_times(), time.perf_counter()
    with (
        httpx2.Client(base_url=server.url, timeout=120) as client,
        ThreadPoolExecutor(given.at_once) as clients,
    ):
        statuses = list(clients.map(lambda body: client.post(_PATH, json=body).status_code, bodies))
    seconds, after = time.perf_counter() - begun_s, process.cpu_times()
    if wrong := [status for status in statuses if status != 200]:
        raise RuntimeError(f"{len(wrong)} requests were answered with {wrong[0]}")
    used_s = after.user + after.system - before.user - before.system
    return given.requests / seconds, used_s / given.requests


def body_of(number: int, tokens: int) -> dict[str, object]:
    """Return a request; every other one is a stream."""
    prompt = f"Turn on lamp {number} in the kitchen."
    return {"prompt": prompt, "max_tokens": tokens, "stream": number % 2 == 0, "temperature": 0}


def verified(home: Path) -> bool:
    """Say whether `onhand audit verify` finds nothing wrong."""
    words: Sequence[str] = [sys.executable, "-m", "onhand", "audit", "verify"]
    done = subprocess.run(
        words, env=os.environ | {"ONHAND_HOME": str(home)}, check=False, stdout=subprocess.DEVNULL
    )
    return done.returncode == 0


if __name__ == "__main__":
    main()
