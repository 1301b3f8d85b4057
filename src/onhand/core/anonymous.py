"""Files that are in memory alone, and have a place that everything can open."""

# Python has `typing.override` from 3.12 on.
# mypy: disable-error-code="explicit-override"

import fcntl
import mmap
import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path, PosixPath

from onhand.core.errors import ResourceError

__all__ = ["MemoryPath", "memory_file"]


class MemoryPath(PosixPath):
    """The place of a file that is in memory alone; it is gone when nothing refers to this object.

    As text it is what the file is called, for messages; what opens it reads the memory.
    """

    _opened = ""

    def opening(self, fd: int) -> None:
        """Belong to an open file, which is closed with this object."""
        self._opened = f"/proc/self/fd/{fd}"
        weakref.finalize(self, os.close, fd)

    def __fspath__(self) -> str:
        return self._opened or super().__fspath__()


def memory_file(called: Path, size: int, fill: Callable[[memoryview], object]) -> MemoryPath:
    """Make a file in memory that nobody can change any more.

    Args:
        called: what it is called in messages.
        size: bytes.
        fill: writes all of them.

    Returns:
        Its place, within this process.

    Raises:
        ResourceError: if this system has no such files, or has no memory for it.
    """
    if sys.platform != "linux":
        raise ResourceError(
            f"{called}: opens in memory alone, which needs Linux's anonymous files: this is "
            f"{sys.platform}"
        )
    try:
        fd = os.memfd_create("onhand", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        raise ResourceError(f"{called}: no anonymous file: {error.strerror or error}") from error
    path = MemoryPath(called)
    path.opening(fd)
    try:
        os.ftruncate(fd, size)
        if size:
            with mmap.mmap(fd, size) as room, memoryview(room) as view:
                fill(view)
        else:
            fill(memoryview(bytearray()))
    except OSError as error:
        raise ResourceError(
            f"{called}: no memory for {size} bytes: {error.strerror or error}"
        ) from error
    fcntl.fcntl(
        fd,
        fcntl.F_ADD_SEALS,
        fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL,
    )
    return path
