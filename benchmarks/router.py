"""What a server of ours adds to a stream that another one answers.

    python -m benchmarks.router [--seconds 20] [--rounds 3] [--out FILE.json] [--json]

`benchmarks.echo` answers each request with 20 texts in 0.4 s; 20 requests are begun in a second, so
8 streams run at a time. They are asked directly, through `onhand serve`, and of a server of ours
that has the echo in its own process (`benchmarks.echo_within`), in turn; client, echo and both
servers are processes of their own. Added is what a stream took beyond the median of those asked
directly: to its first text, to its end, and from when a text was sent to when it came. The targets
are about the echo within ("within_"); "added_" has the connection to another server as well.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.streams import Stream, ask_steadily, echo, echo_within, onhand_serve, quantile
from onhand.device.threads import usable_threads

__all__ = ["main"]

PER_S = 20.0
TARGETS = {"within_first_p50_s": 0.0015, "within_first_p99_s": 0.008}
ECHO = ("--pieces", "20", "--first-s", "0.02", "--pause-s", "0.02")
SETTINGS = """
[server]
port = 0

[log]
requests = false

[cache]
exact_bytes = 0

[[backend]]
name = "echo"
url = "{url}"
kind = "peer"
max_active = 64
"""


def main() -> None:
    """Run the benchmark, print what it found, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/router.json"))
    parser.add_argument("--json", action="store_true", help="print the plain numbers only")
    given = parser.parse_args()
    direct, through, within = measured(given.seconds, given.rounds)
    numbers = plain_numbers(direct, through, within)
    results = {
        "command": " ".join(["python -m benchmarks.router", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": usable_threads(),
        "requests_per_s": PER_S,
        **numbers,
        "direct_first_s": [one.first_s for one in direct],
        "through_first_s": [one.first_s for one in through],
        "within_first_s": [one.first_s for one in within],
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    if given.json:
        print(json.dumps(numbers, indent=1))
        return
    for name, value in numbers.items():
        print(f"{name}: {value * 1e3:.2f} ms" if name.endswith("_s") else f"{name}: {value}")


def measured(seconds: float, n_rounds: int) -> tuple[list[Stream], list[Stream], list[Stream]]:
    """Return the streams asked directly, through a server, and of the echo within one."""
    direct: list[Stream] = []
    through: list[Stream] = []
    within: list[Stream] = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        echo(*ECHO) as one,
        echo_within(*ECHO) as inner,
    ):
        settings = Path(scratch) / "serve.toml"
        settings.write_text(SETTINGS.format(url=one.url))
        with onhand_serve(settings) as server:
            ways = ((one.url, direct), (server.url, through), (inner.url, within))
            for url, _ in ways:
                asyncio.run(ask_steadily(url, per_s=PER_S, seconds=1, model="echo"))
            for _ in range(n_rounds):
                for url, found in ways:
                    asked = ask_steadily(url, per_s=PER_S, seconds=seconds, model="echo")
                    found.extend(asyncio.run(asked))
    return direct, through, within


def plain_numbers(
    direct: list[Stream], through: list[Stream], within: list[Stream]
) -> dict[str, float]:
    """Return the figures that the targets are about, and those beside them."""
    failed = [one.error for one in (*direct, *through, *within) if one.error]
    if failed:
        raise RuntimeError(f"{len(failed)} requests failed, the first with {failed[0]!r}")
    numbers: dict[str, float] = {
        "n_direct": len(direct),
        "n_through": len(through),
        "n_within": len(within),
    }
    for what, taken in (
        ("first", _firsts),
        ("whole", lambda streams: [one.whole_s for one in streams]),
        ("text", _lates),
    ):
        before = taken(direct)
        usual_s = statistics.median(before)
        numbers[f"direct_{what}_p50_s"] = usual_s
        numbers[f"direct_{what}_p99_s"] = quantile(before, 0.99)
        for way, streams in (("added", through), ("within", within)):
            added = [value - usual_s for value in taken(streams)]
            for share in (50, 95, 99):
                numbers[f"{way}_{what}_p{share}_s"] = quantile(added, share / 100)
    for name, target in TARGETS.items():
        numbers[name.removesuffix("_s") + "_reached"] = numbers[name] < target
    return numbers


def _firsts(streams: list[Stream]) -> list[float]:
    return [one.first_s for one in streams if one.first_s is not None]


def _lates(streams: list[Stream]) -> list[float]:
    return [late_s for one in streams for late_s in one.late_s]


if __name__ == "__main__":
    main()
