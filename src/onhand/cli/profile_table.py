"""A device's profile for people: each thing that it has, and how much."""

from onhand.core.profile import DeviceProfile
from onhand.core.profile_parts import EnergyCounter, Provider
from onhand.core.units import format_bytes

__all__ = ["profile_rows"]


def profile_rows(profile: DeviceProfile) -> list[tuple[str, str]]:
    """Return what a device has, as lines of two cells.

    Args:
        profile: probed, or from public sources.
    """
    rows = [
        ("name", profile.name),
        ("system", f"{profile.system} on {profile.machine}"),
        ("processor", profile.processor),
        ("cores", _cores(profile)),
        ("usable threads", str(profile.usable_threads)),
        ("instruction sets", " ".join(profile.instruction_sets) or "none known"),
        ("caches", _caches(profile)),
        ("memory", _memory(profile)),
        ("memory bandwidth", _bandwidth(profile)),
        ("power when busy", f"{profile.watts:g} W ({profile.watts_source})"),
        ("kept busy by others", _busy(profile)),
        ("power source", profile.power_source),
        ("temperature", _temperature(profile)),
        ("energy counter", profile.energy_counter or "none readable: energy is estimated"),
        *((f"- {one.name}", _counter(one)) for one in profile.energy_counters),
        ("storage", _storage(profile)),
    ]
    for one in profile.matrix_rates:
        shape = f"{one.kind}, {one.rows} x {one.inputs} x {one.outputs}"
        rows.append((shape, f"{one.rate / 1e9:.1f} G operations/s, {one.engine}"))
    rows += [(one.name, _provider(one)) for one in profile.providers if one.is_present]
    absent = [f"{one.name}: {one.note}" for one in profile.providers if not one.is_present]
    return [*rows, *([("not here", "\n".join(absent))] if absent else [])]


def _bandwidth(profile: DeviceProfile) -> str:
    slow = profile.slow_read_bandwidth
    shown = [
        f"{rate / 1e9:.1f} GB/s with {n}"
        + (f" (at slow moments {slow[n - 1] / 1e9:.1f})" if n <= len(slow) else "")
        for n, rate in enumerate(profile.read_bandwidth, start=1)
    ]
    return f"{', '.join(shown)} thread(s)" if shown else "not measured"


def _busy(profile: DeviceProfile) -> str:
    return "not known" if profile.others_busy is None else f"{profile.others_busy:.0%}"


def _temperature(profile: DeviceProfile) -> str:
    celsius = profile.temperature_c
    return "not known" if celsius is None else f"{celsius:.0f} °C"


def _counter(one: EnergyCounter) -> str:
    if not one.is_readable:
        return f"not readable: {one.note} ({one.path})"
    return f"{one.path} in {one.unit}s" + (f": {one.note}" if one.note else "")


def _cores(profile: DeviceProfile) -> str:
    limits = [f"{profile.affinity_cpus} threads allowed"] if profile.affinity_cpus else []
    if profile.quota_cpus:
        limits.append(f"time of {profile.quota_cpus:g} granted")
    return f"{profile.physical_cores} physical" + "".join(f", {one}" for one in limits)


def _caches(profile: DeviceProfile) -> str:
    shown = [f"L{one.level} {format_bytes(one.size_bytes)}" for one in profile.caches]
    return ", ".join(shown) or "not known"


def _memory(profile: DeviceProfile) -> str:
    free = f", {format_bytes(profile.free_bytes)} free" if profile.free_bytes else ""
    return f"{format_bytes(profile.memory_bytes)}{free}"


def _storage(profile: DeviceProfile) -> str:
    speeds = (("read", profile.storage_read), ("written", profile.storage_write))
    shown = [f"{rate / 1e6:.0f} MB/s {what}" for what, rate in speeds if rate]
    return ", ".join(shown) or "not measured"


def _provider(one: Provider) -> str:
    if not one.is_usable:
        return f"not used: {one.note}"
    rest = f"; leaves to the processor: {', '.join(one.falls_back)}" if one.falls_back else ""
    return f"{one.note or 'usable'} ({one.package}){rest}"
