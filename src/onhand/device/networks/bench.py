"""Size, speed, memory and energy of a network on this device, each measured in its own process.

Fresh processes give `cold_start_s` (start of the process to its first answer) and `load_s`
(checking the files and opening the engine); the files are in the system's cache. One more process
gives the rest: after a warm-up it runs the network on the same random inputs in blocks of a fifth
of a second. Each block gives a median latency, a rate and the energy; the values are medians over
the blocks, the spreads interquartile ranges.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError
from onhand.core.measurement import Measurement, Unit, summarize
from onhand.core.profile import DeviceProfile, render_profile
from onhand.core.progress import Progress, Quiet
from onhand.device.learning.network_in_use import network_in_use
from onhand.device.measured import Event, Events, run_measured
from onhand.device.networks.bench_child import NetworkJob, job_text
from onhand.device.networks.opening import able_engines, open_adapted
from onhand.device.probe import current_profile

__all__ = ["NAMES", "RUNS", "bench_network"]

RUNS: Final = 7
MIN_STARTS: Final = 3
NAMES: Final = (
    "size_bytes",
    "load_s",
    "cold_start_s",
    "latency_s",
    "runs_per_s",
    "peak_memory_bytes",
    "energy_j_per_run",
)


def bench_network(
    root: Path,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    batch: int = 1,
    runs: int = RUNS,
    profile: DeviceProfile | None = None,
    home: Path | None = None,
    version: int = 0,
    progress: Progress | None = None,
) -> tuple[dict[str, Measurement], str]:
    """Measure a bundle of a network on this device; the module says how.

    Args:
        root: the bundle's folder.
        variant: which of its variants; None for its default.
        engine: name of a registered engine; None for the one that `open_network` would choose.
        threads: threads of one run; None for the number that `open_network` would choose.
        batch: rows of one run; more than 1 where the network takes any number of them.
        runs: how many blocks of runs are measured, and how many starts there are (at least 3).
        profile: this device's, for its watts; None looks anew.
        home: the state folder: engines that keep what they compile start with it; None for none.
        version: learned on this device, in the state folder; 0 for the bundle as it was built.
        progress: told how far it is.

    Returns:
        The measurements named in `NAMES`, where a run is one call, of `batch` rows; and the
        engine's name.

    Raises:
        InputError: if there is no such bundle, variant or engine, or a number does not fit.
        BundleCorrupt: if a file is missing or changed.
        BundleTooNew: if the bundle's format is a later one.
        EngineUnavailable: if no engine can run it here.
        EngineError: if a measuring process fails; the message is its last line.
    """
    _check_counts(runs, batch, threads)
    bundle, _ = network_in_use(read_bundle(root), home, version)
    chosen, _ = bundle.variant(variant)
    _check_batch(bundle, batch)
    profile = profile or current_profile()
    shown = progress or Quiet()
    place, n_threads = _engine(bundle, chosen, engine, profile, threads, home, shown)
    job = NetworkJob(
        work="speed",
        root=str(root.absolute()),
        variant=chosen,
        engine=place,
        threads=n_threads,
        batch=batch,
        blocks=runs,
        profile=render_profile(profile),
        home="" if home is None else str(home.absolute()),
        version=version,
    )
    return _measure(bundle, job, shown), job.engine


def _measure(bundle: Bundle, job: NetworkJob, shown: Progress) -> dict[str, Measurement]:
    starts: list[Events] = []
    shown.start("starting", max(MIN_STARTS, job.blocks))
    for _ in range(max(MIN_STARTS, job.blocks)):
        starts.append(_run_child(replace(job, work="start"), bundle, Quiet()))
        shown.advance(1)
    shown.start("running", job.blocks + 1)
    return _measurements(bundle, job, starts, _run_child(job, bundle, shown))


def _check_counts(runs: int, batch: int, threads: int | None) -> None:
    if runs < 1 or batch < 1 or (threads is not None and threads < 1):
        raise InputError(
            f"bench: runs {runs}, batch {batch} and threads {threads} must be at least 1"
        )


def _check_batch(bundle: Bundle, batch: int) -> None:
    for info in bundle.manifest.network.inputs:
        if batch > 1 and (not info.shape or info.shape[0] is not None):
            raise InputError(
                f"bench: batch is {batch}, but input {info.name!r} of {bundle.manifest.name} takes "
                f"{info.shape[0] if info.shape else 'one value'} only"
            )


def _engine(
    bundle: Bundle,
    variant: str,
    wanted: str | None,
    profile: DeviceProfile,
    threads: int | None,
    home: Path | None,
    shown: Progress,
) -> tuple[str, int]:
    able, _ = able_engines(bundle, profile, variant=variant, wanted=wanted)
    if wanted is not None or home is None:
        return next(iter(able)), threads or profile.usable_threads
    opened = open_adapted(bundle, variant=variant, threads=threads, home=home, progress=shown)
    opened.loaded.close()
    return opened.engine, opened.threads


def _run_child(job: NetworkJob, bundle: Bundle, shown: Progress) -> Events:
    def advance(event: Event) -> None:
        shown.advance(1)

    return run_measured(
        "onhand.device.networks.bench_child",
        job_text(job),
        what=f"bench {bundle.manifest.name}: the measuring process ({job.work})",
        first="first-answer",
        on_event=advance,
    )


def _measurements(
    bundle: Bundle, job: NetworkJob, starts: Sequence[Events], speed: Events
) -> dict[str, Measurement]:
    end = speed.last("speed")
    loads = [load for events in starts for load in events.figures("start", "load_s")]
    found: dict[str, tuple[Unit, Sequence[float]]] = {
        "size_bytes": ("byte", [float(bundle.size_bytes(job.variant))]),
        "load_s": ("s", loads),
        "cold_start_s": ("s", [events.first_s for events in starts]),
        "latency_s": ("s", speed.figures("run", "latency_s")),
        "runs_per_s": ("1/s", speed.figures("run", "runs_per_s")),
        "peak_memory_bytes": ("byte", [float(cast(int, end["peak_memory_bytes"]))]),
        "energy_j_per_run": ("joule", speed.figures("run", "energy_j_per_run")),
    }
    how = (
        f"onhand bench {bundle.manifest.name} --variant {job.variant} --engine {job.engine} "
        f"--threads {job.threads} --runs {job.blocks}"
        f"{'' if job.batch == 1 else f' --batch {job.batch}'}"
        f"{'' if job.version == 0 else f' --version {job.version}'}"
    )
    made = {
        name: summarize(name, samples, unit=unit, how=how)
        for name, (unit, samples) in found.items()
    }
    made["energy_j_per_run"] = replace(
        made["energy_j_per_run"],
        how=f"{how}  # {end['energy_how']}",
        estimated=end["energy_estimated"] is True,
    )
    return made
