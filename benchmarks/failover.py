"""Three backends, one frozen for a while, one that fails: what those notice who ask.

    python -m benchmarks.failover [--seconds 25] [--out FILE.json] [--plot FILE.svg] [--json]

Three processes of `benchmarks.echo` answer behind `onhand serve`, 20 requests begin in a second.
After 5 s one is stopped (SIGSTOP) for 5 s, and another one answers with status 500 for 10 s. The
same load then goes to the three in turn without a server between, as it would be without health
checks, breaker and second attempts.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.streams import Backend, Stream, ask_steadily, echo, onhand_serve, quantile

__all__ = ["main"]

PER_S = 20.0
FIRST_S = 0.1
NAMES = ("frozen", "failing", "well")
BEGIN_S, FROZEN_S, FAILING_S = 5.0, 5.0, 10.0
SETTINGS = """
[server]
port = 0

[log]
requests = false

[cache]
exact_bytes = 0

[balance]
affinity = false
"""
BACKEND = """
[[backend]]
name = "{name}"
url = "{url}"
kind = "peer"
serves = ["echo"]
first_s = {first_s}
max_active = 64
probe_s = 1
"""


def main() -> None:
    """Run the benchmark, print what it found, write it and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--first-s", type=float, default=1.0, help="as in serve.toml")
    parser.add_argument("--out", type=Path, default=Path("out/failover.json"))
    parser.add_argument("--plot", type=Path, default=Path("out/failover.svg"))
    parser.add_argument("--json", action="store_true", help="print the plain numbers only")
    given = parser.parse_args()
    pooled, in_turn = measured(given.seconds, given.first_s)
    numbers = plain_numbers("pool", pooled) | plain_numbers("in_turn", in_turn)
    results = {
        "command": " ".join(["python -m benchmarks.failover", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "requests_per_s": PER_S,
        "first_s": given.first_s,
        **numbers,
        "pool": [_row(one) for one in pooled],
        "in_turn": [_row(one) for one in in_turn],
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results) + "\n")
    draw(pooled, in_turn, given.plot)
    if given.json:
        print(json.dumps(numbers, indent=1))
        return
    for name, value in numbers.items():
        print(f"{name}: {value:.3f}")


def measured(seconds: float, first_s: float) -> tuple[list[Stream], list[Stream]]:
    """Return the streams through the server, and those that went to each backend in turn."""
    with ExitStack() as held:
        scratch = Path(held.enter_context(tempfile.TemporaryDirectory()))
        backends = [held.enter_context(echo("--first-s", str(FIRST_S))) for _ in NAMES]
        settings = scratch / "serve.toml"
        parts = [
            BACKEND.format(name=name, url=one.url, first_s=first_s)
            for name, one in zip(NAMES, backends, strict=True)
        ]
        settings.write_text(SETTINGS + "".join(parts))
        server = held.enter_context(onhand_serve(settings))
        pooled = asyncio.run(_disturbed([server.url], backends, seconds))
        in_turn = asyncio.run(_disturbed([one.url for one in backends], backends, seconds))
    return pooled, in_turn


async def _disturbed(urls: list[str], backends: list[Backend], seconds: float) -> list[Stream]:
    asked = [
        ask_steadily(url, per_s=PER_S / len(urls), seconds=seconds, model="echo") for url in urls
    ]
    disturbing = asyncio.create_task(_disturb(backends))
    found = await asyncio.gather(*asked)
    await disturbing
    return sorted((one for streams in found for one in streams), key=lambda one: one.begun_s)


async def _disturb(backends: list[Backend]) -> None:
    frozen, failing, _ = backends
    await asyncio.sleep(BEGIN_S)
    frozen.signal(signal.SIGSTOP)
    failing.signal(signal.SIGUSR1)
    await asyncio.sleep(FROZEN_S)
    frozen.signal(signal.SIGCONT)
    await asyncio.sleep(FAILING_S - FROZEN_S)
    failing.signal(signal.SIGUSR1)


def plain_numbers(name: str, streams: list[Stream]) -> dict[str, float]:
    """Return how many failed, and the times to the first text of the others."""
    firsts = [one.first_s for one in streams if one.first_s is not None and not one.error]
    return {
        f"{name}_requests": len(streams),
        f"{name}_failed": sum(bool(one.error) for one in streams),
        f"{name}_first_p50_s": quantile(firsts, 0.5),
        f"{name}_first_p99_s": quantile(firsts, 0.99),
        f"{name}_first_most_s": max(firsts),
        f"{name}_whole_p99_s": quantile([one.whole_s for one in streams if not one.error], 0.99),
    }


def draw(pooled: list[Stream], in_turn: list[Stream], place: Path) -> None:
    """Draw each request's time to the first text by when it was begun."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 6), sharex=True, sharey=True)
    for axes, streams, title in (
        (above, pooled, "through onhand serve"),
        (below, in_turn, "each backend in turn"),
    ):
        axes.axvspan(BEGIN_S, BEGIN_S + FROZEN_S, color="tab:blue", alpha=0.12, lw=0)
        axes.axvspan(BEGIN_S, BEGIN_S + FAILING_S, color="tab:red", alpha=0.08, lw=0)
        well = [one for one in streams if not one.error and one.first_s is not None]
        failed = [one for one in streams if one.error]
        axes.scatter([one.begun_s for one in well], [one.first_s or 0 for one in well], s=6)
        axes.scatter(
            [one.begun_s for one in failed],
            [0.03] * len(failed),
            s=14,
            marker="x",
            color="tab:red",
            label=f"{len(failed)} failed",
        )
        axes.set_yscale("log")
        axes.set_ylabel("seconds to the first text")
        axes.set_title(f"{title}: {len(failed)} of {len(streams)} failed", fontsize=10)
    below.set_xlabel("seconds; blue: one is frozen; red: one answers with status 500")
    figure.tight_layout()
    place.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(place, metadata={"Date": None})
    plt.close(figure)


def _row(one: Stream) -> dict[str, object]:
    row = asdict(one)
    row.pop("late_s")
    return {name: round(v, 5) if isinstance(v, float) else v for name, v in row.items()}


if __name__ == "__main__":
    main()
