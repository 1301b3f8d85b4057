"""What this device has: read in an instant, or measured with its memory bandwidth."""

import platform
import re
import sys
from dataclasses import replace
from pathlib import Path

from onhand.core.profile import DeviceProfile, render_profile
from onhand.core.progress import Progress, Quiet
from onhand.device.energy import find_counter
from onhand.device.free_memory import free_memory
from onhand.device.hardware.bandwidth import (
    BandwidthRounds,
    default_buffer_bytes,
    measure_read_bandwidth,
    sample_read_bandwidth,
)
from onhand.device.hardware.caches import data_caches
from onhand.device.hardware.counters import energy_counters
from onhand.device.hardware.heat import temperature_c
from onhand.device.hardware.load import OthersLoad
from onhand.device.hardware.power import power_source
from onhand.device.hardware.providers import find_providers
from onhand.device.hardware.rates import measure_rates
from onhand.device.hardware.storage import measure_storage
from onhand.device.processor import processor, watts_of
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

    Memory is read in three rounds, first, between and last, so that a slow moment shows; before
    each it is looked how busy others keep the processors.

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
    # Before anything is computed, which heats the processor and takes memory.
    celsius, free = temperature_c(root), free_memory(root).n_bytes
    rounds = BandwidthRounds(profile.usable_threads, buffer_bytes=default_buffer_bytes(root))
    load = OthersLoad()
    load.watch()
    rounds.run(shown)
    shown.start("measuring storage", 1)
    storage = measure_storage(home)
    shown.advance(1)
    load.watch()
    rounds.run(shown)
    rates = measure_rates(profile.usable_threads, progress=shown)
    shown.start("trying what else may compute", 1)
    providers = find_providers(root, system=profile.system, machine=profile.machine)
    shown.advance(1)
    load.watch()
    rounds.run(shown)
    return replace(
        profile,
        read_bandwidth=rounds.medians(),
        slow_read_bandwidth=rounds.slow(),
        storage_read=storage.read,
        storage_write=storage.write,
        matrix_rates=rates,
        providers=providers,
        others_busy=load.share(),
        free_bytes=free,
        power_source=power_source(root),
        temperature_c=celsius,
        energy_counters=energy_counters(root),
    )


def save_profile(profile: DeviceProfile, path: Path) -> None:
    """Write a profile as TOML, whole or not at all; `core.profile.read_profile` reads it.

    Args:
        profile: what to write.
        path: the file; its folder exists.

    Raises:
        ResourceError: if it cannot be written.
    """
    write_text_atomically(path, render_profile(profile))
