"""Reads what the system says about its load, and turns counts into rates between two readings."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from onhand.device.control_groups import read_text
from onhand.device.free_memory import free_memory
from onhand.device.hardware.heat import temperature_c
from onhand.device.hardware.power import Battery, battery_of
from onhand.device.serving.governor.readings import Readings
from onhand.device.serving.governor.signals import (
    CpuTimes,
    Throttling,
    parse_cpu_times,
    parse_runnable,
    pressure_of,
    process_cpu_s,
    throttling_of,
    waited_s,
)

__all__ = ["Sensors"]

_HERE = Path("/")
# A shorter time between two readings says little: counts have steps of a hundredth of a second.
_LEAST_INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """What only grows, at one time."""

    at_s: float
    cpu: CpuTimes | None
    own_cpu_s: float | None
    helpers_cpu_s: Mapping[int, float]
    waited_s: float | None
    throttling: Throttling | None


class Sensors:
    """Reads a device. One thread at a time; a reading takes some milliseconds."""

    def __init__(
        self,
        root: Path = _HERE,
        *,
        battery: Callable[[], Battery | None] | None = None,
        helpers: Callable[[], Collection[int]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read once, so that the next reading has rates.

        Args:
            root: folder that holds `proc` and `sys`.
            battery: what the device runs on; None for `battery_of` the root.
            helpers: processes that work for this one and yield to it: they are no others.
            clock: seconds that only grow.
        """
        self._root = root
        self._clock = clock
        self._helpers = helpers
        self._battery = battery or (lambda: battery_of(root))
        self._is_here = root == _HERE
        self._before = self._counts()

    def read(self) -> Readings:
        """Return what the device says now; the work of models is not in it."""
        now, before = self._counts(), self._before
        elapsed_s = now.at_s - before.at_s
        rates = now, before, elapsed_s
        if elapsed_s >= _LEAST_INTERVAL_S:
            self._before = now
        battery = self._battery()
        return Readings(
            at_s=now.at_s,
            cpu_pressure=pressure_of("cpu", self._root),
            memory_pressure=pressure_of("memory", self._root),
            others_cpus=_others_cpus(*rates),
            waiting_threads=_grown(now.waited_s, before.waited_s, elapsed_s),
            stolen=_stolen(now.cpu, before.cpu),
            throttled=_throttled(now.throttling, before.throttling, elapsed_s),
            n_runnable=parse_runnable(read_text(self._root / "proc/loadavg")),
            memory_available_bytes=free_memory(self._root).n_bytes,
            temperature_c=temperature_c(self._root),
            battery=None if battery is None else battery.charge,
            is_plugged=None if battery is None else battery.is_plugged,
        )

    def _counts(self) -> _Counts:
        cpu = parse_cpu_times(read_text(self._root / "proc/stat"))
        own_s = process_cpu_s(self._root)
        if self._is_here and (cpu is None or own_s is None):
            cpu, own_s = _psutil_times()
        return _Counts(
            at_s=self._clock(),
            cpu=cpu,
            own_cpu_s=own_s,
            helpers_cpu_s=self._helpers_cpu_s(),
            waited_s=waited_s(self._root),
            throttling=throttling_of(self._root),
        )

    def _helpers_cpu_s(self) -> dict[int, float]:
        found: dict[int, float] = {}
        for process in self._helpers():
            took_s = process_cpu_s(self._root, process)
            if took_s is None and self._is_here:
                took_s = _psutil_process_s(process)
            if took_s is not None:  # else it has ended just now
                found[process] = took_s
        return found


def _psutil_process_s(process: int) -> float | None:
    import psutil

    try:
        times = psutil.Process(process).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def _psutil_times() -> tuple[CpuTimes, float]:
    import psutil

    all_cpus, own = psutil.cpu_times(), psutil.Process().cpu_times()
    idle_s = float(all_cpus.idle)
    busy = CpuTimes(busy_s=float(sum(all_cpus)) - idle_s, idle_s=idle_s, stolen_s=0.0)
    return busy, float(own.user + own.system)


def _others_cpus(now: _Counts, before: _Counts, elapsed_s: float) -> float | None:
    if now.cpu is None or before.cpu is None:
        return None
    all_cpus = _grown(now.cpu.busy_s, before.cpu.busy_s, elapsed_s)
    own = _grown(now.own_cpu_s, before.own_cpu_s, elapsed_s)
    if all_cpus is None or own is None:
        return None
    # One that began since counts from its start; one that ended cannot be asked any more.
    helpers_s = sum(
        took_s - before.helpers_cpu_s.get(process, 0.0)
        for process, took_s in now.helpers_cpu_s.items()
    )
    return max(all_cpus - own - helpers_s / elapsed_s, 0.0)


def _grown(now: float | None, before: float | None, elapsed_s: float) -> float | None:
    """Return how fast a count grew; one that fell, as with threads that ended, did not grow."""
    if now is None or before is None or elapsed_s < _LEAST_INTERVAL_S:
        return None
    return max(now - before, 0.0) / elapsed_s


def _stolen(now: CpuTimes | None, before: CpuTimes | None) -> float | None:
    if now is None or before is None:
        return None
    stolen_s = now.stolen_s - before.stolen_s
    all_s = stolen_s + now.busy_s - before.busy_s + now.idle_s - before.idle_s
    return min(max(stolen_s / all_s, 0.0), 1.0) if all_s > 0 else None


def _throttled(now: Throttling | None, before: Throttling | None, elapsed_s: float) -> float | None:
    """Return the share of periods that were cut short, or of time where none are counted."""
    if now is None or before is None:
        return None
    periods = now.n_periods - before.n_periods
    if periods > 0:
        return min(max((now.n_throttled - before.n_throttled) / periods, 0.0), 1.0)
    grown = _grown(now.throttled_s, before.throttled_s, elapsed_s)
    return None if grown is None else min(grown, 1.0)
