"""What the device runs on, read now and then."""

import time
from collections.abc import Callable
from typing import Final

from onhand.device.serving.routing.situation import Power

__all__ = ["PowerReader"]

_EACH_S: Final = 10.0


class PowerReader:
    """Reads the battery, at most every ten seconds. One thread."""

    def __init__(
        self,
        *,
        read: Callable[[], Power] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read nothing yet.

        Args:
            read: reads it; None for the system's figures.
            clock: seconds that only grow.
        """
        self._read = read or _system_power
        self._clock = clock
        self._read_s = -float("inf")
        self._power = Power()

    def __call__(self) -> Power:
        """Return what the device ran on, ten seconds ago at most."""
        now_s = self._clock()
        if now_s - self._read_s >= _EACH_S:
            self._read_s = now_s
            self._power = self._read()
        return self._power


def _system_power() -> Power:
    import psutil

    # Not every system has the function, and not every device a battery.
    read = getattr(psutil, "sensors_battery", None)
    found = None if read is None else read()
    if found is None:
        return Power()
    return Power(battery=found.percent / 100, is_plugged=bool(found.power_plugged))
