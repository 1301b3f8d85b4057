"""What the system says about its load: pure functions of texts and folders.

Everything is read under a `root` that holds `proc` and `sys`, so that a test can show any machine.
What is absent or cannot be understood is None, never guessed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onhand.device.control_groups import groups, read_text, whole_number

__all__ = [
    "CpuTimes",
    "Throttling",
    "parse_cpu_times",
    "parse_pressure",
    "parse_runnable",
    "parse_throttling",
    "pressure_of",
    "process_cpu_s",
    "throttling_of",
    "waited_s",
]

_AVERAGE = re.compile(r"^some .*\bavg10=([0-9]{1,3}(?:\.[0-9]{1,4})?)\b", re.MULTILINE)
_MOST_THREADS: Final = 4096
_TICKS: Final = 100  # of a second, in /proc/stat and /proc/self/stat, on every Linux of today
_NANO: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTimes:
    """Processor time since the machine started, of all processors together.

    Attributes:
        busy_s: in which they worked.
        idle_s: in which they did not.
        stolen_s: that the machine around this virtual one gave to others.
    """

    busy_s: float
    idle_s: float
    stolen_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttling:
    """How often a control group was stopped by its CPU quota.

    Attributes:
        throttled_s: how long, all of its processors together.
        n_periods: periods that its quota was counted in; 0 where there is no quota.
        n_throttled: those in which it was stopped.
    """

    throttled_s: float
    n_periods: int
    n_throttled: int


def parse_pressure(text: str) -> float | None:
    """Return the share of the last ten seconds in which something waited, 0 to 1.

    Args:
        text: of a file such as `/proc/pressure/cpu`.
    """
    found = _AVERAGE.search(text)
    return None if found is None else min(float(found[1]) / 100, 1.0)


def parse_cpu_times(text: str) -> CpuTimes | None:
    """Return what the first line of `/proc/stat` says."""
    name, *values = text.partition("\n")[0].split()[:9] or [""]
    counts = [whole_number(value) for value in values]
    if name != "cpu" or len(counts) < 4 or any(count is None or count < 0 for count in counts):
        return None
    # user nice system idle iowait irq softirq steal; guests are in user already.
    ticks = [count or 0 for count in counts] + [0] * (8 - len(counts))
    return CpuTimes(
        busy_s=(ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / _TICKS,
        idle_s=(ticks[3] + ticks[4]) / _TICKS,
        stolen_s=ticks[7] / _TICKS,
    )


def parse_runnable(text: str) -> int | None:
    """Return how many threads run or could, as `/proc/loadavg` says; this one is among them."""
    words = text.split()
    return whole_number(words[3].partition("/")[0]) if len(words) == 5 else None


def parse_throttling(text: str) -> Throttling | None:
    """Return what a control group's `cpu.stat` says, v1 or v2; None if it has no such counts."""
    values: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if (number := whole_number(value)) is not None and number >= 0:
            values[name] = number
    if "throttled_usec" in values:
        throttled_s = values["throttled_usec"] * 1e-6
    elif "throttled_time" in values:  # v1 counts nanoseconds
        throttled_s = values["throttled_time"] * _NANO
    else:
        return None
    return Throttling(
        throttled_s=throttled_s,
        n_periods=values.get("nr_periods", 0),
        n_throttled=values.get("nr_throttled", 0),
    )


def pressure_of(kind: str, root: Path) -> float | None:
    """Return how much this process's work waited of late, 0 to 1.

    The innermost control group that says so, which leaves out what others wait for; else the
    whole machine.

    Args:
        kind: "cpu" or "memory".
        root: folder that holds `proc` and `sys`.
    """
    # Where all processes are in the top group, the machine's own figure is the same.
    places = [group / f"{kind}.pressure" for group in groups(kind, root)]
    for place in [*places, root / "proc/pressure" / kind]:
        if (found := parse_pressure(read_text(place))) is not None:
            return found
    return None


def throttling_of(root: Path) -> Throttling | None:
    """Return the counts of the control group around this process that was stopped most."""
    found = [
        counts
        for group in groups("cpu", root)
        if (counts := parse_throttling(read_text(group / "cpu.stat"))) is not None
    ]
    return max(found, key=lambda counts: counts.throttled_s, default=None)


def waited_s(root: Path) -> float | None:
    """Return how long this process's threads could have run but had no processor, in sum.

    Args:
        root: folder that holds `proc`.
    """
    waits = [
        nanoseconds
        for task in _threads(root)
        if (nanoseconds := _second_number(read_text(task / "schedstat"))) is not None
    ]
    return sum(waits) * _NANO if waits else None


def process_cpu_s(root: Path, process: int | None = None) -> float | None:
    """Return the processor time of a process, as `/proc/PID/stat` says; None for this one."""
    # The name, in brackets, may hold anything.
    words = (
        read_text(root / f"proc/{'self' if process is None else process}/stat")
        .rpartition(")")[2]
        .split()
    )
    if len(words) < 13:
        return None
    user, system = whole_number(words[11]), whole_number(words[12])
    return None if user is None or system is None else (user + system) / _TICKS


def _threads(root: Path) -> Sequence[Path]:
    return _listed(root / "proc/self/task", "[0-9]*")[:_MOST_THREADS]


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _second_number(text: str) -> int | None:
    words = text.split()
    return whole_number(words[1]) if len(words) == 3 else None
