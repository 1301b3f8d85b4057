"""The process that `bench` measures: it opens a network, runs it, and prints what it saw.

A process of its own, so that its peak memory is that of one network, and its start a start. It
reads one `NetworkJob` as JSON and prints events: see `onhand.device.measured`.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final, TextIO

from onhand.core.bundle import verifying_bundle
from onhand.core.profile import parse_profile
from onhand.device.energy import choose_meter
from onhand.device.learning.network_in_use import network_in_use
from onhand.device.measured import peak_memory_bytes, print_event, serve_job
from onhand.device.networks.base import Array, NetworkLoaded
from onhand.device.networks.opening import named_engine
from onhand.device.networks.timing import random_feeds

__all__ = ["NetworkJob", "job_text", "main", "run_job"]

WARM_UP_RUNS: Final = 2
# Long enough for counters of energy, which count in milliseconds, and for a median.
BLOCK_S: Final = 0.2
MOST_RUNS: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkJob:
    """What one process is to do.

    Attributes:
        work: "start" (open, first answer, end) or "speed" (`blocks` blocks of runs).
        root: the bundle's folder.
        variant: a key of its variants.
        engine: name of a registered engine.
        threads: threads of one run.
        batch: rows of one run, where the network takes any number of them.
        blocks: how many times to measure.
        profile: of the device, as TOML.
        home: the state folder, for engines that keep what they compile; "" for none.
        version: learned on this device, in the state folder; 0 for the bundle as it was built.
    """

    work: str
    root: str
    variant: str
    engine: str
    threads: int
    batch: int
    blocks: int
    profile: str
    home: str = ""
    version: int = 0


def job_text(job: NetworkJob) -> str:
    """Write a job as JSON."""
    return json.dumps(asdict(job))


def run_job(job: NetworkJob, out: TextIO) -> None:
    """Do a job and print its events.

    Args:
        job: what to do.
        out: where the events go, one JSON object in a line.

    Raises:
        InputError: if there is no such bundle, variant or engine.
        BundleError: if the bundle is not valid.
        EngineError: if the engine fails.
        ResourceError: if there is no memory, or an energy counter cannot be read.
    """
    begun = time.perf_counter()
    engine = named_engine(job.engine, home=Path(job.home) if job.home else None)
    with verifying_bundle(Path(job.root)) as bundle:
        used, _ = network_in_use(bundle, Path(job.home) if job.version else None, job.version)
        loaded = engine.open(used, variant=job.variant, threads=job.threads)
    load_s = time.perf_counter() - begun
    feeds = random_feeds(used.manifest.network, batch=job.batch)
    loaded.run(feeds)
    print_event(out, {"event": "first-answer"})
    if job.work == "start":
        print_event(out, {"event": "start", "load_s": load_s})
    else:
        _speed(job, loaded, feeds, out)


def _speed(job: NetworkJob, loaded: NetworkLoaded, feeds: dict[str, Array], out: TextIO) -> None:
    meter = choose_meter(parse_profile(job.profile))
    for _ in range(WARM_UP_RUNS):
        loaded.run(feeds)
    print_event(out, {"event": "warm"})
    for _ in range(job.blocks):
        joules, begun = meter.read_j(), time.perf_counter()
        taken: list[float] = []
        last = begun
        while last - begun < BLOCK_S and len(taken) < MOST_RUNS:
            loaded.run(feeds)
            now = time.perf_counter()
            taken.append(now - last)
            last = now
        figures = {
            "latency_s": median(taken),
            "runs_per_s": len(taken) / (last - begun),
            "energy_j_per_run": (meter.read_j() - joules) / len(taken),
        }
        print_event(out, {"event": "run", **figures})
    print_event(
        out,
        {
            "event": "speed",
            "peak_memory_bytes": peak_memory_bytes(),
            "energy_estimated": meter.estimated,
            "energy_how": meter.how,
        },
    )


def main() -> int:
    """Read a job from the standard input and do it.

    Returns:
        The exit code: 0, or 1 with the reason as the last line of the standard error.
    """
    return serve_job(lambda text, out: run_job(NetworkJob(**json.loads(text)), out))


if __name__ == "__main__":
    sys.exit(main())
