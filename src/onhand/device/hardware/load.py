"""How busy others keep the processors: what is measured meanwhile is lower than it could be."""

import time
from collections.abc import Callable
from typing import Final

__all__ = ["OthersLoad"]

_WATCHED_S: Final = 0.3
_Read = Callable[[], tuple[float, float]]


class OthersLoad:
    """Watches the processors in moments in which this process does nothing."""

    def __init__(
        self, *, read: _Read | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Begin without a look.

        Args:
            read: seconds that all processors were busy, and that they passed; None for psutil's.
            sleep: waits so many seconds.
        """
        self._read = read or _psutil_times
        self._sleep = sleep
        self._busy_s = self._passed_s = 0.0

    def watch(self) -> None:
        """Look for a moment."""
        busy_s, passed_s = self._read()
        self._sleep(_WATCHED_S)
        later_busy_s, later_passed_s = self._read()
        self._busy_s += max(later_busy_s - busy_s, 0.0)
        self._passed_s += max(later_passed_s - passed_s, 0.0)

    def share(self) -> float | None:
        """Return the share of the processors that others kept busy, 0 to 1; None if unknown."""
        return min(self._busy_s / self._passed_s, 1.0) if self._passed_s > 0 else None


def _psutil_times() -> tuple[float, float]:
    import psutil

    # Some systems refuse to say.
    try:
        times = psutil.cpu_times()
    except (AttributeError, OSError, RuntimeError, ValueError):
        return 0.0, 0.0
    # What a virtual machine's host took is not there for this one either; waiting for a disk is
    # no work. Linux counts guests' time twice: as theirs, and as its user's.
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    twice_s = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    passed_s = sum(times) - twice_s
    return float(passed_s - idle_s), float(passed_s)
