"""A short trial of one way in which a device can run a network: an engine and its threads."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from onhand.core.bundle import read_bundle
from onhand.core.measurement import Measurement, summarize
from onhand.core.profile import DeviceProfile, render_profile
from onhand.device.measured import Events, job_text, run_measured
from onhand.device.memory_series import MemorySeries, MemoryWatch, thin
from onhand.device.networks.bench_child import NetworkJob

__all__ = ["NetworkTrial", "try_network_way"]

_BLOCKS: Final = 3
_PHASES = {"first-answer": "first answers", "warm": "answering"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTrial:
    """What one way of running a network gave.

    Attributes:
        figures: `latency_s` and `energy_j_per_run`.
        memory: of the process over time.
    """

    figures: Mapping[str, Measurement]
    memory: MemorySeries


def try_network_way(
    root: Path,
    *,
    variant: str,
    engine: str,
    threads: int,
    profile: DeviceProfile,
    home: Path | None = None,
) -> NetworkTrial:
    """Try one way of running a network.

    Args:
        root: the bundle's folder.
        variant: a key of its variants.
        engine: name of a registered engine that can run it.
        threads: threads of one run.
        profile: this device's, for its watts.
        home: the state folder, for engines that keep what they compile; None for none.

    Returns:
        The trial.

    Raises:
        InputError: if there is no such bundle or variant.
        BundleCorrupt: if a file is missing or changed.
        EngineError: if the process fails; the message is its last line.
    """
    name = read_bundle(root).manifest.name
    job = NetworkJob(
        work="speed",
        root=str(root.absolute()),
        variant=variant,
        engine=engine,
        threads=threads,
        batch=1,
        blocks=_BLOCKS,
        profile=render_profile(profile),
        home="" if home is None else str(home.absolute()),
    )
    watch = MemoryWatch()
    events = run_measured(
        "onhand.device.networks.bench_child",
        job_text(job),
        what=f"trying {name} in {engine}",
        first="first-answer",
        watching=watch.watching,
    )
    return _trial(job, name, events, watch)


def _trial(job: NetworkJob, name: str, events: Events, watch: MemoryWatch) -> NetworkTrial:
    how = (
        f"onhand bench {name} --variant {job.variant} --engine {job.engine} "
        f"--threads {job.threads} --runs {_BLOCKS}"
    )
    end = events.last("speed")
    latency = summarize("latency_s", events.figures("run", "latency_s"), unit="s", how=how)
    energy = summarize(
        "energy_j_per_run",
        events.figures("run", "energy_j_per_run"),
        unit="joule",
        how=f"{how}  # {end['energy_how']}",
    )
    estimated = replace(energy, estimated=end["energy_estimated"] is True)
    return NetworkTrial(
        figures={"latency_s": latency, "energy_j_per_run": estimated},
        memory=MemorySeries(
            points=thin(watch.points), phases=_phases(events), how=f"{how}  # resident memory"
        ),
    )


def _phases(events: Events) -> tuple[tuple[str, float], ...]:
    began = {"starting Python and opening": 0.0}
    for event, at in zip(events.all, events.times_s, strict=True):
        if phase := _PHASES.get(str(event["event"])):
            began.setdefault(phase, at)
    return tuple(began.items())
