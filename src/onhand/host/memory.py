"""The build's memory ceiling: predicted before, watched while it works."""

import threading
from types import TracebackType
from typing import Self

import psutil

from onhand.core.errors import ResourceError
from onhand.core.units import format_bytes

__all__ = ["MemoryGuard"]

_SECONDS = 0.05


class MemoryGuard:
    """Watches this process's resident memory while a build runs; use it in a `with` block.

    It samples, because the system's own high-water mark is that of the whole process, which may
    have done other work before.
    """

    def __init__(self, max_ram: int | None) -> None:
        self.max_ram = max_ram
        self.peak_bytes = 0
        self._process = psutil.Process()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory guard", daemon=True)

    def check(self, stage: str, *, child_bytes: int = 0) -> None:
        """Stop where the ceiling was passed.

        Args:
            stage: what was just done, for people.
            child_bytes: peak memory of a process that ran beside this one, which waited.

        Raises:
            ResourceError: if more memory was taken than allowed.
        """
        now = self.resident_bytes()
        self.peak_bytes = max(self.peak_bytes, now + child_bytes)
        if self.max_ram is not None and self.peak_bytes > self.max_ram:
            raise ResourceError(
                f"{stage} took {format_bytes(self.peak_bytes)} of memory, --max-ram allows "
                f"{format_bytes(self.max_ram)}; give more"
            )

    def resident_bytes(self) -> int:
        """Return what this process takes now."""
        resident = int(self._process.memory_info().rss)
        self.peak_bytes = max(self.peak_bytes, resident)
        return resident

    def _watch(self) -> None:
        while not self._done.wait(_SECONDS):
            self.resident_bytes()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
