"""What access control and the audit log cost: the same requests with them and without, in turn.

    python -m benchmarks.audit_cost [--bundle DIR] [--starts 4] [--rounds 20] [--requests 120]
        [--at-once 8] [--tokens 24] [--json] [--out FILE.json]

Three servers of one bundle (the house assistant in int4, built here, or --bundle), each in a
process of its own and with the caches off: "neither" asks for no key and writes no audit log,
"access" has keys with scopes and quotas of requests, tokens and answers at once, "both" has the
audit log as well. In a round each is asked the same questions by `at-once` clients over loopback,
half of them as streams; which one goes first changes from round to round. After so many rounds all
begin anew, `starts` times, as a process may be quicker than another of its kind for as long as it
lives; all have the same engine and threads, without trials. Throughput is requests per second. A
ratio is the median of the rounds' ratios over "neither", with its interquartile range; at least
0.97 is wanted for "both". Processor time is the server's own, for a request. At the end the log is
verified, and must hold every request.
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
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import psutil

from benchmarks.restart import build_house
from benchmarks.served import Server, counter
from benchmarks.telling import tell
from onhand.device.access.quotas import Quota
from onhand.device.access.scopes import Grant
from onhand.device.access.store import KeyStore

__all__ = ["main"]

WANTED = 0.97
LEGS = ("neither", "access", "both")
COUNTS = ("records", "writes", "handed_over", "lost")
CACHE = {"exact_bytes": 0, "blocks_bytes": 0, "warm_bytes": 0}
_PATH = "/v1/completions"


def main() -> None:
    """Run the benchmark; print a table, or with --json the figures alone."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        results = {
            "command": " ".join(["python -m benchmarks.audit_cost", *sys.argv[1:]]),
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "starts": given.starts,
            "rounds": given.rounds,
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
    parser.add_argument("--starts", type=int, default=4, help="how often all servers begin anew")
    parser.add_argument("--rounds", type=int, default=20, help="after each start")
    parser.add_argument("--requests", type=int, default=120, help="of each server in a round")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24, help="of an answer, at most")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/audit_cost.json"))
    return parser.parse_args()


def measure(given: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """Ask the servers in turn; return the figures."""
    bundle = given.bundle or build_house(scratch)
    rates: dict[str, list[float]] = {name: [] for name in LEGS}
    processor: dict[str, list[float]] = {name: [] for name in LEGS}
    counts = dict.fromkeys(COUNTS, 0.0)
    for _ in range(given.starts):
        with ExitStack() as stack:
            servers = {
                name: stack.enter_context(started(bundle, scratch / name, name)) for name in LEGS
            }
            for server in servers.values():
                asked(server, given)  # what the first requests take is not what others do
            for number in range(given.rounds):
                turn = number % len(LEGS)
                for name in (*LEGS[turn:], *LEGS[:turn]):
                    rate, processor_s = asked(servers[name], given)
                    rates[name].append(rate)
                    processor[name].append(processor_s)
            both = servers["both"]
            for name in COUNTS:
                counts[name] += counter(both.client, f"onhand_audit_{name}")
            for server in servers.values():
                server.process.terminate()
                server.process.wait(60)
    wanted = given.starts * given.requests * (given.rounds + 1)
    ratios = {
        name: [one / other for one, other in zip(rates[name], rates["neither"], strict=True)]
        for name in LEGS[1:]
    }
    ratio = statistics.median(ratios["both"])
    return {
        "throughput_ratio": ratio,
        "throughput_ratio_spread": spread(ratios["both"]),
        "is_wanted": ratio >= WANTED,
        "access_ratio": statistics.median(ratios["access"]),
        "access_ratio_spread": spread(ratios["access"]),
        "requests_per_s": {name: statistics.median(rates[name]) for name in LEGS},
        "processor_s": {name: statistics.median(processor[name]) for name in LEGS},
        **counts,
        "has_every_request": counts["records"] >= wanted and not counts["lost"],
        "is_verified": verified(scratch / "both"),
        "samples": {"ratio": ratios, "requests_per_s": rates, "processor_s": processor},
    }


def spread(values: Sequence[float]) -> float:
    """Return the interquartile range of some values; 0.0 of one."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4)
    return high - low


def started(bundle: Path, home: Path, leg: str) -> Server:
    """Start a server with what a leg has."""
    token = "" if leg == "neither" else key_in(home)
    model: Mapping[str, int | str] = {"name": "model", "trials": False}
    audit: Mapping[str, int | str] = {"enabled": leg == "both"}
    return Server(bundle, home, cache=CACHE, model=model, audit=audit, token=token)


def key_in(home: Path) -> str:
    """Make a key with ceilings that are counted and never met; return its token."""
    store = KeyStore(home)
    for one in store.listed():
        if one.state(time.time()) == "valid":
            store.revoke(one.id, now_s=time.time())
    actions = frozenset({"infer", "metrics", "health"})
    grant = Grant(actions=actions, models=("model",), routes=("/v1/*", "/*"))
    quota = Quota(requests_per_minute=10**9, tokens_per_minute=10**12, at_once=10**6)
    _, token = store.add("benchmark", grant, quota=quota, now_s=time.time())
    return token.text()


def asked(server: Server, given: argparse.Namespace) -> tuple[float, float]:
    """Ask a server; return requests a second, and its seconds of processor for one."""
    process = psutil.Process(server.process.pid)
    bodies = [body_of(number, given.tokens) for number in range(given.requests)]
    before, begun_s = process.cpu_times(), time.perf_counter()
    with (
        httpx2.Client(base_url=server.url, headers=server.headers, timeout=120) as client,
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
