"""How fast memory is read: by each number of threads, and at several moments."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError, ResourceError
from onhand.core.measurement import Measurement, summarize
from onhand.core.progress import Progress, Quiet
from onhand.device.processor import last_cache_bytes
from onhand.device.threads import memory_limit_bytes

__all__ = [
    "BandwidthRounds",
    "default_buffer_bytes",
    "measure_read_bandwidth",
    "sample_read_bandwidth",
]

HERE = Path("/")
BUFFER_BYTES = 256 * 2**20
TIMES_CACHE = 4
RUNS = 9
_ROUND_RUNS: Final = 5
_SLOW: Final = 0.1


class BandwidthRounds:
    """Passes over memory at several moments of a probe: shared machines change by the minute."""

    def __init__(
        self,
        threads: int,
        *,
        buffer_bytes: int,
        sample: Callable[..., list[float]] | None = None,
    ) -> None:
        """Begin without a pass.

        Args:
            threads: the most that read at once.
            buffer_bytes: bytes read in one pass.
            sample: measures passes; None for `sample_read_bandwidth`.
        """
        self._passes: list[list[float]] = [[] for _ in range(threads)]
        self._buffer_bytes = buffer_bytes
        self._sample = sample or sample_read_bandwidth

    def run(self, progress: Progress | None = None) -> None:
        """Make some passes with each number of threads.

        Args:
            progress: told of them.
        """
        shown = progress or Quiet()
        shown.start("measuring memory bandwidth", len(self._passes))
        for threads, passes in enumerate(self._passes, start=1):
            passes.extend(self._sample(threads, buffer_bytes=self._buffer_bytes, runs=_ROUND_RUNS))
            shown.advance(1)

    def medians(self) -> tuple[float, ...]:
        """Return the median of all passes for 1, 2, ... threads, in bytes per second."""
        return tuple(statistics.median(passes) for passes in self._passes)

    def slow(self) -> tuple[float, ...]:
        """Return what nine of ten passes reached, likewise."""
        return tuple(sorted(passes)[int(_SLOW * len(passes))] for passes in self._passes)


def measure_read_bandwidth(
    threads: int, *, buffer_bytes: int | None = None, runs: int = RUNS
) -> Measurement:
    """Measure how fast memory is read: the median pass over a buffer no cache can hold.

    Args:
        threads: threads that read at once, each its own part; at least 1.
        buffer_bytes: bytes read in one pass; None for 256 MiB or four times the last cache,
            whichever is more, but at most an eighth of the memory.
        runs: passes, after one that is not counted.

    Returns:
        Bytes per second, named "read_bandwidth".

    Raises:
        InputError: if a number is below 1.
        ResourceError: if there is no memory for the buffer.
    """
    size = default_buffer_bytes() if buffer_bytes is None else buffer_bytes
    samples = sample_read_bandwidth(threads, buffer_bytes=size, runs=runs)
    how = f"onhand probe  # {threads} thread(s) read {size} bytes, median of {runs} passes"
    return summarize("read_bandwidth", samples, unit="byte/s", how=how)


def sample_read_bandwidth(threads: int, *, buffer_bytes: int, runs: int = RUNS) -> list[float]:
    """Return the bytes per second of each pass; see `measure_read_bandwidth`.

    Args:
        threads: threads that read at once; at least 1.
        buffer_bytes: bytes read in one pass, at least one number for each thread.
        runs: passes, after one that is not counted.

    Returns:
        One figure for each pass.

    Raises:
        InputError: if a number is too small.
        ResourceError: if there is no memory for the buffer.
    """
    if threads < 1 or runs < 1 or buffer_bytes < 4 * threads:
        raise InputError(
            f"read bandwidth: {threads} threads, {runs} runs and {buffer_bytes} bytes: each must "
            f"be at least 1, with 4 bytes for each thread"
        )
    try:
        # Ones, not zeros: untouched zero pages are all the same page of memory.
        buffer = np.ones(buffer_bytes // 4, dtype=np.int32)
    except MemoryError as error:
        raise ResourceError(f"read bandwidth: no memory for {buffer_bytes} bytes") from error
    parts = np.array_split(buffer, threads)
    samples: list[float] = []
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for _ in range(runs + 1):
            begun = time.perf_counter()
            list(pool.map(_read_once, parts))
            samples.append(buffer.nbytes / (time.perf_counter() - begun))
    return samples[1:]


def default_buffer_bytes(root: Path = HERE) -> int:
    """Return a buffer size that caches cannot hold and that memory has room for."""
    wanted = max(BUFFER_BYTES, TIMES_CACHE * last_cache_bytes(root))
    return max(2**20, min(wanted, memory_limit_bytes(root) // 8))


def _read_once(part: NDArray[np.int32]) -> int:
    # The maximum of whole numbers: vectorised on every processor, faster than memory, and numpy
    # lets other threads run meanwhile. A sum of floats waits for its own additions.
    return int(part.max())
