"""How much of a device learning may take, asked before each step."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from onhand.core.errors import InputError
from onhand.core.units import format_bytes

__all__ = ["GO", "Ceilings", "Gauges", "Permission", "Permit", "Spent", "Watch", "all_of"]

_LONGEST_WAIT_S: Final = 1.0  # so that an interrupt is seen soon
_BATTERY_WAIT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Permission:
    """Whether the next step may begin.

    Attributes:
        kind: "go"; "wait" a little and ask again; or "end" here, with all that was learned kept.
        why: of the other two, for people.
        wait_s: seconds until it is worth asking again.
    """

    kind: Literal["go", "wait", "end"]
    why: str = ""
    wait_s: float = 0.0


GO: Final = Permission("go")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a training has taken so far, all its runs together.

    Attributes:
        seconds: that steps took.
        energy_j: joules of its steps; None where nobody measures.
        last_step_s: of the step just before; 0 before the first.
    """

    seconds: float = 0.0
    energy_j: float | None = None
    last_step_s: float = 0.0


class Permit(Protocol):
    """Asked before each step; a governor is one."""

    def __call__(self, spent: Spent) -> Permission:
        """Say whether the next step may begin."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Limits of a training; None for none.

    Attributes:
        seconds: of its steps; it ends there.
        memory_bytes: of the process; it ends above.
        energy_j: joules of its steps; it ends there.
        battery_percent: charge below which it waits, unless the device is on mains.
        cpu_share: share of the time in which it may compute, above 0 to 1; it rests in between.
    """

    seconds: float | None = None
    memory_bytes: int | None = None
    energy_j: float | None = None
    battery_percent: float | None = None
    cpu_share: float | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_bytes", "energy_j"):
            bound = {
                "seconds": self.seconds,
                "memory_bytes": self.memory_bytes,
                "energy_j": self.energy_j,
            }[name]
            if bound is not None and not 0 < bound < math.inf:
                raise InputError(f"ceilings: {name} is {bound}, must be above 0")
        if self.battery_percent is not None and not 0 <= self.battery_percent <= 100:
            raise InputError(
                f"ceilings: battery_percent is {self.battery_percent}, must be from 0 to 100"
            )
        if self.cpu_share is not None and not 0 < self.cpu_share <= 1:
            raise InputError(
                f"ceilings: cpu_share is {self.cpu_share}, must be above 0 and at most 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """What a watch reads.

    Attributes:
        memory_bytes: memory that the process holds.
        battery: charge from 0 to 1 and whether the device is on mains; None where there is none.
    """

    memory_bytes: Callable[[], int]
    battery: Callable[[], tuple[float, bool | None] | None]


class Watch:
    """Holds a training to its ceilings. See `Permit`."""

    def __init__(self, ceilings: Ceilings, gauges: Gauges | None = None) -> None:
        """Watch.

        Args:
            ceilings: the limits.
            gauges: what is read; None for this device's own.
        """
        self._ceilings = ceilings
        self._gauges = gauges or _own_gauges()
        self._rest_s = 0.0
        self._rested_for = 0.0

    def __call__(self, spent: Spent) -> Permission:
        """See `Permit`."""
        limits = self._ceilings
        if limits.seconds is not None and spent.seconds >= limits.seconds:
            return Permission("end", f"it took its {limits.seconds:g} s")
        if limits.energy_j is not None and (spent.energy_j or 0.0) >= limits.energy_j:
            return Permission("end", f"it took its {limits.energy_j:g} J")
        if limits.memory_bytes is not None:
            held = self._gauges.memory_bytes()
            if held > limits.memory_bytes:
                most = format_bytes(limits.memory_bytes)
                return Permission(
                    "end", f"the process holds {format_bytes(held)}, its ceiling is {most}"
                )
        if (low := self._battery_is_low()) is not None:
            return low
        return self._rest(spent)

    def _battery_is_low(self) -> Permission | None:
        least = self._ceilings.battery_percent
        found = None if least is None else self._gauges.battery()
        if least is None or found is None:
            return None
        charge, is_plugged = found
        if is_plugged or charge * 100 >= least:
            return None
        return Permission(
            "wait", f"the battery is below {least:g} %, on mains it goes on", _BATTERY_WAIT_S
        )

    def _rest(self, spent: Spent) -> Permission:
        """Let it rest after a step, in pieces, until the step was its share of the time."""
        share = self._ceilings.cpu_share
        if share is None or share == 1:
            return GO
        if spent.seconds != self._rested_for:
            self._rested_for = spent.seconds
            self._rest_s = spent.last_step_s * (1 / share - 1)
        if self._rest_s <= 0:
            return GO
        wait_s = min(self._rest_s, _LONGEST_WAIT_S)
        self._rest_s -= wait_s
        return Permission("wait", "", wait_s)


def all_of(permits: Sequence[Permit]) -> Permit:
    """Return a permit that is given where all give it; else what the first other one says."""

    def ask(spent: Spent) -> Permission:
        found = (permit(spent) for permit in permits)
        return next((one for one in found if one.kind != "go"), GO)

    return ask


def _own_gauges() -> Gauges:
    from onhand.device.hardware.power import battery_of
    from onhand.device.resident import resident_bytes

    def battery() -> tuple[float, bool | None] | None:
        found = battery_of()
        return None if found is None else (found.charge, found.is_plugged)

    return Gauges(memory_bytes=resident_bytes, battery=battery)
