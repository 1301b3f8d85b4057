"""The build's memory ceiling: predicted before, and checked after every stage."""

import sys

import psutil

from onhand.core.errors import ResourceError
from onhand.core.units import format_bytes

__all__ = ["MemoryGuard"]


class MemoryGuard:
    """Compares the process's memory with a ceiling; one thread at a time."""

    def __init__(self, max_ram: int | None) -> None:
        self.max_ram = max_ram
        self._process = psutil.Process()

    def peak_bytes(self) -> int:
        """Return the most memory that this process has had, as the system counts it."""
        now = self._process.memory_info()
        if sys.platform == "win32":
            return int(now.peak_wset)
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Bytes on macOS, kilobytes elsewhere.
        return max(int(now.rss), peak if sys.platform == "darwin" else 1024 * peak)

    def check(self, stage: str) -> None:
        """Stop where the ceiling was passed.

        Args:
            stage: what was just done, for people.

        Raises:
            ResourceError: if this process has had more memory than allowed.
        """
        if self.max_ram is not None and (peak := self.peak_bytes()) > self.max_ram:
            raise ResourceError(
                f"{stage} took {format_bytes(peak)} of memory, --max-ram allows "
                f"{format_bytes(self.max_ram)}; give more"
            )
