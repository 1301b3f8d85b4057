"""How fast storage is: written until it is there, and read past the memory that keeps copies."""

import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.errors import ResourceError

__all__ = ["StorageSpeed", "measure_storage"]

_BLOCK_BYTES: Final = 4 * 2**20
_F_NOCACHE: Final = 48  # macOS: do not keep copies in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSpeed:
    """What was measured.

    Attributes:
        read: bytes per second; 0 where this system cannot be kept from reading memory.
        write: bytes per second, the wait until they are on the storage included.
        size_bytes: of the file that was used.
    """

    read: float
    write: float
    size_bytes: int


def measure_storage(folder: Path, *, size_bytes: int = 64 * 2**20, runs: int = 3) -> StorageSpeed:
    """Measure the storage that a folder lies on, with a file that is removed afterwards.

    Args:
        folder: where; made if it is missing.
        size_bytes: of the file; less where little room is left.
        runs: times; the median counts.

    Returns:
        The speeds.

    Raises:
        ResourceError: if the folder cannot be written, or has room for less than 1 MiB.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        size = min(size_bytes, shutil.disk_usage(folder).free // 20)
        if size < 2**20:
            raise ResourceError(f"{folder}: too little room is left to measure the storage")
        # Random, since some storages compress.
        content = np.random.default_rng(0).bytes(min(size, _BLOCK_BYTES))
        with tempfile.TemporaryDirectory(dir=folder, prefix="probe-") as place:
            path = Path(place) / "bytes"
            times = [_written_and_read(path, content, size) for _ in range(runs)]
    except OSError as error:
        raise ResourceError(
            f"{folder}: the storage cannot be measured: {error.strerror}"
        ) from error
    n_bytes = -(-size // len(content)) * len(content)
    reads = [read for _, read in times if read > 0]
    return StorageSpeed(
        write=n_bytes / statistics.median(write for write, _ in times),
        read=n_bytes / statistics.median(reads) if reads else 0.0,
        size_bytes=n_bytes,
    )


def _written_and_read(path: Path, content: bytes, size: int) -> tuple[float, float]:
    begun_s = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(0, size, len(content)):
            file.write(content)
        os.fsync(file.fileno())
    write_s = time.perf_counter() - begun_s
    with path.open("rb", buffering=0) as file:
        if not _forget(file.fileno()):
            return write_s, 0.0
        begun_s = time.perf_counter()
        while file.read(_BLOCK_BYTES):
            pass
        return write_s, time.perf_counter() - begun_s


def _forget(descriptor: int) -> bool:
    """Let the system drop what it keeps of a file in memory; say whether it can."""
    system: str = sys.platform  # a plain text, so that each way is checked on every system
    if system == "linux":
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return True
    if system == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, _F_NOCACHE, 1)
        return True
    return False
