"""What a governor looks at: one snapshot of the device and of the models' work."""

from dataclasses import dataclass

__all__ = ["Readings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """One second's figures; None for what this device, or this second, does not have.

    Attributes:
        at_s: when, on a clock that only grows.
        cpu_pressure: share of the last ten seconds in which some work waited for a processor.
        memory_pressure: share of them in which some work waited for memory.
        others_cpus: processors that other processes kept busy, on average since the last reading.
        waiting_threads: threads of this process that could have run but had no processor, likewise.
        stolen: share of the processors' time that the machine around this one took, likewise.
        throttled: share of the time in which a control group's quota stopped this process.
        n_runnable: threads on the whole machine that run or could.
        memory_available_bytes: what can still be had, control groups' limits included.
        temperature_c: of the hottest sensor, in degrees Celsius.
        battery: its charge from 0 to 1.
        is_plugged: whether the device is on mains.
        n_active: answers that are computed.
        n_waiting: requests that wait for their turn.
        tokens_per_s: tokens of all answers together.
        token_s: 95th percentile of the seconds from a token of an answer to its next.
        drift: how many times as long steps take as they did at best with as many answers; what
            heat does to a device shows here, wherever it keeps its sensors.
        deadline_s: seconds that the answer with the nearest deadline has left.
    """

    at_s: float
    cpu_pressure: float | None = None
    memory_pressure: float | None = None
    others_cpus: float | None = None
    waiting_threads: float | None = None
    stolen: float | None = None
    throttled: float | None = None
    n_runnable: int | None = None
    memory_available_bytes: int | None = None
    temperature_c: float | None = None
    battery: float | None = None
    is_plugged: bool | None = None
    n_active: int = 0
    n_waiting: int = 0
    tokens_per_s: float | None = None
    token_s: float | None = None
    drift: float | None = None
    deadline_s: float | None = None
