"""What changed between two probes of a device, beyond what two probes differ by anyway."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from onhand.core.profile import DeviceProfile
from onhand.core.profile_parts import MatrixRate, Provider

__all__ = ["BUSY", "Change", "are_comparable", "profile_changes"]

# Repeated probes of a machine that others use differ by so much without any cause of its own.
_NOISE: Final = 1.5
# A tenth is little, even where the passes of a probe differ by less.
_LEAST: Final = 1.1
_WARMER_C: Final = 10.0
BUSY: Final = 0.1
"""Share of the processors from which on others disturb what is measured."""
_STATIC: Final = (
    "system",
    "machine",
    "processor",
    "physical_cores",
    "usable_threads",
    "instruction_sets",
    "memory_bytes",
    "affinity_cpus",
    "quota_cpus",
    "power_source",
    "energy_counter",
    "caches",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that is another than it was.

    Attributes:
        name: of the profile's field, with what tells apart several of a kind.
        before: what was found first.
        after: what is found now.
        factor: after over before, of figures; None for what is no figure.
    """

    name: str
    before: str
    after: str
    factor: float | None = None


def profile_changes(before: DeviceProfile, after: DeviceProfile) -> tuple[Change, ...]:
    """Return what changed between two profiles of one device.

    A bandwidth changed if the later median is below what nine of ten passes reached before, or the
    other way round, and by a tenth; where that is not known, and of every other speed, by half.
    Where others kept the processors busy, as `are_comparable` says, speeds are not compared: two
    such probes of one machine differ by any factor.

    Args:
        before: the earlier probe.
        after: the later one.

    Returns:
        Facts first, then speeds, then what may compute.
    """
    speeds: list[Change] = []
    if are_comparable(before, after):
        speeds += _bandwidths(before, after)
        speeds += _speeds(before, after)
        speeds += _rates(before.matrix_rates, after.matrix_rates)
    return (
        *_facts(before, after),
        *speeds,
        *_providers(before.providers, after.providers),
    )


def are_comparable(before: DeviceProfile, after: DeviceProfile) -> bool:
    """Say whether both were probed while others left the processors alone, as far as is known."""
    return max(before.others_busy or 0.0, after.others_busy or 0.0) < BUSY


def _facts(before: DeviceProfile, after: DeviceProfile) -> Iterator[Change]:
    for name in _STATIC:
        old, new = _value(before, name), _value(after, name)
        if old != new:
            yield Change(name=name, before=old, after=new)
    old_c, new_c = before.temperature_c, after.temperature_c
    if old_c is not None and new_c is not None and abs(new_c - old_c) >= _WARMER_C:
        yield Change(name="temperature_c", before=f"{old_c:.0f}", after=f"{new_c:.0f}")
    readable = [
        {one.name for one in profile.energy_counters if one.is_readable}
        for profile in (before, after)
    ]
    for name in sorted(readable[0] ^ readable[1]):
        old, new = ("readable" if name in some else "not readable" for some in readable)
        yield Change(name=f"energy_counters {name}", before=old, after=new)


def _value(profile: DeviceProfile, name: str) -> str:
    value = {field: getattr(profile, field) for field in _STATIC}[name]
    if name == "caches":
        return ", ".join(f"L{one.level} {one.size_bytes} bytes" for one in profile.caches)
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _bandwidths(before: DeviceProfile, after: DeviceProfile) -> Iterator[Change]:
    pairs = zip(before.read_bandwidth, after.read_bandwidth, strict=False)
    for place, (old, new) in enumerate(pairs):
        # Of the faster one, how slow its slow moments are; of the other, its median.
        fast, slow = (before, new) if old > new else (after, old)
        known = fast.slow_read_bandwidth
        noise = _LEAST if place < len(known) and slow < known[place] else _NOISE
        if max(old, new) >= noise * min(old, new):
            yield _figure(f"read_bandwidth, {place + 1} thread(s)", old, new)


def _speeds(before: DeviceProfile, after: DeviceProfile) -> Iterator[Change]:
    pairs = {
        "storage_read": (before.storage_read, after.storage_read),
        "storage_write": (before.storage_write, after.storage_write),
    }
    for name, (old, new) in pairs.items():
        if old and new and max(old, new) >= _NOISE * min(old, new):
            yield _figure(name, old, new)


def _rates(before: Sequence[MatrixRate], after: Sequence[MatrixRate]) -> Iterator[Change]:
    known = {_shape(one): one.rate for one in before}
    for one in after:
        old = known.get(_shape(one))
        if old is not None and max(old, one.rate) >= _NOISE * min(old, one.rate):
            yield _figure(f"matrix_rates, {_shape(one)}", old, one.rate)


def _shape(one: MatrixRate) -> str:
    shape = f"{one.rows} x {one.inputs} x {one.outputs}"
    return f"{one.kind} {shape}, {one.threads} thread(s), {one.engine}"


def _figure(name: str, before: float, after: float) -> Change:
    return Change(name=name, before=f"{before:.3g}", after=f"{after:.3g}", factor=after / before)


def _providers(before: Sequence[Provider], after: Sequence[Provider]) -> Iterator[Change]:
    old = {one.name: _use(one) for one in before}
    new = {one.name: _use(one) for one in after}
    for name in sorted({*old, *new}):
        was, now = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if was != now:
            yield Change(name=f"providers {name}", before=was, after=now)


_ABSENT: Final = "not installed"


def _use(one: Provider) -> str:
    if not one.is_present:
        return _ABSENT
    if not one.is_usable:
        return "not usable"
    return f"usable without {', '.join(one.falls_back)}" if one.falls_back else "usable"
