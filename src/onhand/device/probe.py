"""What this device has: read in an instant, or measured with its memory bandwidth."""

import platform
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError, ResourceError
from onhand.core.measurement import Measurement, summarize
from onhand.core.profile import DeviceProfile, render_profile
from onhand.core.progress import Progress, Quiet
from onhand.device.energy import find_counter
from onhand.device.free_memory import free_memory
from onhand.device.hardware.caches import data_caches
from onhand.device.hardware.providers import find_providers
from onhand.device.hardware.rates import measure_rates
from onhand.device.hardware.storage import measure_storage
from onhand.device.processor import last_cache_bytes, processor, watts_of
from onhand.device.state import write_text_atomically
from onhand.device.threads import (
    affinity_cpus,
    memory_limit_bytes,
    physical_cores,
    quota_cpus,
    usable_threads,
)

__all__ = [
    "current_profile",
    "default_buffer_bytes",
    "measure_read_bandwidth",
    "probe",
    "sample_read_bandwidth",
    "save_profile",
]

HERE = Path("/")
BUFFER_BYTES = 256 * 2**20
TIMES_CACHE = 4
RUNS = 9


def current_profile(root: Path = HERE) -> DeviceProfile:
    """Return what this device has, without measuring: `read_bandwidth` is empty.

    Args:
        root: folder that holds `proc` and `sys`.

    Returns:
        The profile, in milliseconds.
    """
    system = {"win32": "windows"}.get(sys.platform, sys.platform)
    machine = platform.machine()
    name, instruction_sets = processor(root, machine=machine)
    cores = physical_cores(root)
    watts, watts_source = watts_of(name, machine=machine, cores=cores)
    return DeviceProfile(
        name=re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "device",
        system=system,
        machine=machine,
        processor=name,
        physical_cores=cores,
        usable_threads=usable_threads(root),
        instruction_sets=instruction_sets,
        memory_bytes=memory_limit_bytes(root),
        read_bandwidth=(),
        watts=watts,
        watts_source=watts_source,
        energy_counter=find_counter(root),
        affinity_cpus=affinity_cpus(root),
        quota_cpus=quota_cpus(root),
        caches=data_caches(root),
    )


def probe(home: Path, *, root: Path = HERE, progress: Progress | None = None) -> DeviceProfile:
    """Return what this device has: memory, storage and products timed, providers tried.

    Args:
        home: the state folder, on whose storage bundles and caches will lie.
        root: folder that holds `proc` and `sys`.
        progress: told of the measuring.

    Returns:
        The profile.

    Raises:
        ResourceError: if there is no memory to measure with, or the storage cannot be written.
    """
    shown = progress or Quiet()
    profile = current_profile(root)
    shown.start("measuring memory bandwidth", profile.usable_threads)
    found: list[float] = []
    for threads in range(1, profile.usable_threads + 1):
        found.append(measure_read_bandwidth(threads).value)
        shown.advance(1)
    shown.start("measuring storage", 1)
    storage = measure_storage(home)
    shown.advance(1)
    rates = measure_rates(profile.usable_threads, progress=shown)
    shown.start("trying what else may compute", 1)
    providers = find_providers(root)
    shown.advance(1)
    return replace(
        profile,
        read_bandwidth=tuple(found),
        storage_read=storage.read,
        storage_write=storage.write,
        matrix_rates=rates,
        providers=providers,
        free_bytes=free_memory(root).n_bytes,
    )


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


def save_profile(profile: DeviceProfile, path: Path) -> None:
    """Write a profile as TOML, whole or not at all; `core.profile.read_profile` reads it.

    Args:
        profile: what to write.
        path: the file; its folder exists.

    Raises:
        ResourceError: if it cannot be written.
    """
    write_text_atomically(path, render_profile(profile))


def _read_once(part: NDArray[np.int32]) -> int:
    # The maximum of whole numbers: vectorised on every processor, faster than memory, and numpy
    # lets other threads run meanwhile. A sum of floats waits for its own additions.
    return int(part.max())
