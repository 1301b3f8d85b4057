"""Energy: a counter of the processor where it can be read, else an estimate that says so."""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from onhand.core.errors import ResourceError
from onhand.core.profile import DeviceProfile

__all__ = [
    "CounterMeter",
    "EnergyMeter",
    "EstimateMeter",
    "choose_meter",
    "estimate_j",
    "find_counter",
]

POWERCAP = Path("sys/class/powercap")
# "intel-rapl:0" is a whole package (AMD's as well); "intel-rapl:0:1" is a part of it, and
# "intel-rapl-mmio:0" the same package read another way.
_PACKAGE = re.compile(r"intel-rapl:[0-9]+")


class EnergyMeter(Protocol):
    """Counts joules since it was made. One thread at a time."""

    @property
    def estimated(self) -> bool:
        """Whether a formula gives the figure, not a counter."""
        ...

    @property
    def how(self) -> str:
        """What is counted, with formula, watts and their source where it is estimated."""
        ...

    def read_j(self) -> float:
        """Return the joules since the meter was made; never less than before.

        Raises:
            ResourceError: if the counter can no longer be read.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Domain:
    """One package: its counter in microjoules, which starts again at 0 after `range_uj`."""

    counter: Path
    range_uj: int


class CounterMeter:
    """See `EnergyMeter`. Counts whole packages: every process, idle power too, memory not.

    The counter wraps round about every quarter of an hour at full power, so it must be read more
    often than that.
    """

    estimated = False

    def __init__(self, domains: tuple[_Domain, ...]) -> None:
        self._domains = domains
        self._last = [_read_uj(domain.counter) for domain in domains]
        self._total_uj = 0

    @property
    def how(self) -> str:
        """See `EnergyMeter`."""
        return (
            f"energy counters of {len(self._domains)} processor package(s), "
            f"{self._domains[0].counter}: every process and idle power included, memory not"
        )

    def read_j(self) -> float:
        """See `EnergyMeter`.

        Raises:
            ResourceError: if the counter can no longer be read.
        """
        for number, domain in enumerate(self._domains):
            now = _read_uj(domain.counter)
            gone = now - self._last[number]
            self._total_uj += gone if gone >= 0 else gone + domain.range_uj
            self._last[number] = now
        return self._total_uj / 1e6


class EstimateMeter:
    """See `EnergyMeter`. joules = watts x CPU seconds of this process / physical cores.

    CPU seconds, not the clock: a core that waits draws little, and what other processes do on a
    shared machine is not this one's.
    """

    estimated = True

    def __init__(self, profile: DeviceProfile) -> None:
        self._profile = profile
        self._start = time.process_time()

    @property
    def how(self) -> str:
        """See `EnergyMeter`."""
        profile = self._profile
        return (
            f"joules = {profile.watts:g} W x CPU seconds of the process / "
            f"{profile.physical_cores} cores; the watts: {profile.watts_source}"
        )

    def read_j(self) -> float:
        """See `EnergyMeter`."""
        return estimate_j(self._profile, cpu_s=time.process_time() - self._start)


def estimate_j(profile: DeviceProfile, *, cpu_s: float) -> float:
    """Return the joules that a process draws beyond idle; see `EstimateMeter`.

    Args:
        profile: what this device has.
        cpu_s: CPU seconds of all its threads together.

    Returns:
        Joules.
    """
    return profile.watts * cpu_s / profile.physical_cores


def find_counter(root: Path = Path("/")) -> str:
    """Return the path of the first package's energy counter, or "" unless all can be read.

    Args:
        root: folder that holds `sys`.

    Returns:
        The path, for `DeviceProfile.energy_counter`.
    """
    try:
        domains = _domains(root / POWERCAP)
        for domain in domains:
            _read_uj(domain.counter)
    except ResourceError:
        return ""
    return str(domains[0].counter) if domains else ""


def choose_meter(profile: DeviceProfile) -> EnergyMeter:
    """Return a meter on the profile's counter and its sister packages, else an estimate.

    Args:
        profile: what this device has.

    Returns:
        The meter, counting from now.
    """
    if profile.energy_counter:
        try:
            domains = _domains(Path(profile.energy_counter).parent.parent)
            if domains:
                return CounterMeter(domains)
        except ResourceError:
            # Readable when the profile was made, not now: the estimate says that it is one.
            return EstimateMeter(profile)
    return EstimateMeter(profile)


def _domains(powercap: Path) -> tuple[_Domain, ...]:
    try:
        folders = sorted(path for path in powercap.iterdir() if _PACKAGE.fullmatch(path.name))
    except OSError:
        return ()
    found = []
    for folder in folders:
        # A laptop's "psys" counts the packages again, with the rest of the board.
        if _read_text(folder / "name").startswith("package"):
            range_uj = _read_uj(folder / "max_energy_range_uj")
            found.append(_Domain(counter=folder / "energy_uj", range_uj=range_uj))
    return tuple(found)


def _read_uj(path: Path) -> int:
    text = _read_text(path).strip()
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise ResourceError(f"{path}: found {text[:40]!r}, expected microjoules")
    return int(text)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror}") from error
