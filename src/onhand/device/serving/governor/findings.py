"""What readings mean: for each cause of trouble whether it presses, and in what words."""

from dataclasses import dataclass
from typing import Literal

from onhand.device.serving.governor.readings import Readings
from onhand.device.serving.governor.setting import Bounds, GovernorSettings, Setting

__all__ = ["CAUSES", "Cause", "Finding", "find", "processors_left"]

Cause = Literal["memory", "quota", "heat", "battery", "speed", "contention"]
CAUSES: tuple[Cause, ...] = ("memory", "quota", "heat", "battery", "speed", "contention")
"""What may be wrong, the most pressing first."""

# Processors that others may use of those that the threads need, before one thread is given up;
# and those that must be free before one more is used.
_SHARED, _FREE = 0.6, 0.3
_THROTTLED, _NOT_THROTTLED = 0.1, 0.01
_COOLER_C = 5.0
_FULLER = 0.05
_URGENT = 1.5  # times the target


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One cause.

    Attributes:
        cause: which.
        presses: whether something must be given up for it.
        is_calm: whether it lets something come back; between the two all stays as it is.
        is_urgent: whether it cannot wait.
        why: in words; "" where it does not press.
    """

    cause: Cause
    presses: bool
    is_calm: bool
    is_urgent: bool = False
    why: str = ""


def find(
    now: Readings,
    setting: Setting,
    *,
    others_cpus: float | None,
    aims: GovernorSettings,
    to: Bounds,
) -> tuple[Finding, ...]:
    """Judge a reading.

    Args:
        now: the reading.
        setting: what is set.
        others_cpus: processors that others keep busy, over the last seconds.
        aims: what is to be kept to.
        to: how far settings may go.

    Returns:
        One finding for each of `CAUSES`, in their order. What was not read neither presses nor
        keeps anything from coming back, but for speed: see `_speed`.
    """
    contention = _contention(now, setting, others_cpus, to)
    return (
        _memory(now, aims),
        _quota(now),
        _heat(now, aims, is_comparable=contention.is_calm and setting.threads == to.usual.threads),
        _battery(now, aims),
        _speed(now, aims, setting, is_quiet=contention.is_calm),
        contention,
    )


def processors_left(others_cpus: float, to: Bounds) -> float:
    """Return how many processors this process may count on.

    Those that others leave, or what a fair scheduler gives to as many threads as usual, if that
    is more.

    Args:
        others_cpus: processors that others keep busy.
        to: how far settings may go.
    """
    threads = to.usual.threads
    return max(to.processors - others_cpus, to.processors * threads / (threads + others_cpus))


def _memory(now: Readings, aims: GovernorSettings) -> Finding:
    waits, room = now.memory_pressure, now.memory_available_bytes
    if room is not None and room < aims.least_memory_bytes:
        why = f"{_mib(room)} of memory are available, {_mib(aims.least_memory_bytes)} are to be"
    elif waits is not None and waits > aims.most_memory_pressure:
        why = f"work waits for memory {waits:.0%} of the time"
    else:
        has_room = room is None or room > 1.5 * aims.least_memory_bytes
        is_calm = has_room and (waits is None or waits <= aims.most_memory_pressure / 4)
        return Finding(cause="memory", presses=False, is_calm=is_calm)
    return Finding(cause="memory", presses=True, is_calm=False, is_urgent=True, why=why)


def _quota(now: Readings) -> Finding:
    share = now.throttled
    if share is None or share <= _THROTTLED:
        is_calm = share is None or share <= _NOT_THROTTLED
        return Finding(cause="quota", presses=False, is_calm=is_calm)
    why = f"the control group's quota stops this process in {share:.0%} of its periods"
    return Finding(cause="quota", presses=True, is_calm=False, why=why)


def _contention(now: Readings, setting: Setting, others_cpus: float | None, to: Bounds) -> Finding:
    if others_cpus is None:
        # Where nobody says what others do: how many of our own threads find no processor.
        waiting = now.waiting_threads
        presses = waiting is not None and now.n_active > 0 and waiting > 0.5 * setting.threads
        is_calm = waiting is None or waiting < 0.1
        why = f"{waiting:.1f} threads of this process wait for a processor" if presses else ""
        return Finding(cause="contention", presses=presses, is_calm=is_calm, why=why)
    room = processors_left(others_cpus, to)
    presses = room < setting.threads - _SHARED
    is_calm = room > min(setting.threads + 1, to.usual.threads) - _FREE
    why = f"others keep {others_cpus:.1f} of {to.processors} processors busy" if presses else ""
    return Finding(cause="contention", presses=presses, is_calm=is_calm, why=why)


def _heat(now: Readings, aims: GovernorSettings, *, is_comparable: bool) -> Finding:
    if now.temperature_c is not None:
        presses = now.temperature_c > aims.hottest_c
        is_calm = now.temperature_c < aims.hottest_c - _COOLER_C
        why = f"it is {now.temperature_c:.0f} degrees hot" if presses else ""
        return Finding(cause="heat", presses=presses, is_calm=is_calm, why=why)
    drift = now.drift
    # Steps also take longer with fewer threads, and where others compute: that is no heat.
    presses = drift is not None and drift > aims.most_drift and is_comparable
    is_calm = drift is None or drift < (1 + aims.most_drift) / 2
    why = f"steps take {drift:.1f} times as long as at best" if presses else ""
    return Finding(cause="heat", presses=presses, is_calm=is_calm, why=why)


def _battery(now: Readings, aims: GovernorSettings) -> Finding:
    charge = now.battery
    if charge is None or now.is_plugged:
        return Finding(cause="battery", presses=False, is_calm=True)
    presses = charge < aims.lowest_battery
    why = f"the battery is at {charge:.0%}" if presses else ""
    is_calm = charge > min(aims.lowest_battery + _FULLER, 0.99)
    return Finding(cause="battery", presses=presses, is_calm=is_calm, why=why)


def _speed(now: Readings, aims: GovernorSettings, setting: Setting, *, is_quiet: bool) -> Finding:
    if aims.token_s == 0:
        return Finding(cause="speed", presses=False, is_calm=True)
    if now.n_active > setting.max_active:
        # Answers that had begun still run beside each other: what was changed shows later.
        return Finding(cause="speed", presses=False, is_calm=False)
    if now.token_s is None:
        # Nobody asks, or too little was measured: what was slow may come back once others leave.
        return Finding(cause="speed", presses=False, is_calm=is_quiet and now.n_active == 0)
    presses = now.token_s > aims.token_s
    near = now.deadline_s is not None and now.deadline_s < aims.dwell_s
    why = (
        f"95 of 100 tokens come within {_ms(now.token_s)}, the target is {_ms(aims.token_s)}"
        if presses
        else ""
    )
    return Finding(
        cause="speed",
        presses=presses,
        is_calm=now.token_s < aims.calm * aims.token_s,
        is_urgent=presses and (near or now.token_s > _URGENT * aims.token_s),
        why=why,
    )


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:.0f} MiB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
