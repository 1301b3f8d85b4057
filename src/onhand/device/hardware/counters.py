"""What tells energy or power on this device: each counter's path, its unit, and if it can be read.

Source:
    powercap, hwmon and power_supply as the Linux kernel documents them
    (https://docs.kernel.org/power/powercap/powercap.html,
    https://docs.kernel.org/hwmon/sysfs-interface.html,
    https://docs.kernel.org/power/power_supply_class.html).
"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from onhand.core.profile_parts import EnergyCounter
from onhand.device.control_groups import read_text, whole_number

__all__ = ["TIMES", "energy_counters", "nvidia_counters"]

TIMES: Final = " x "
"""Between two paths whose numbers are multiplied."""

_HERE = Path("/")
_ROOT_ONLY = "only root may read it: chmod a+r it, or run as root"
_NVIDIA = ("nvidia-smi", "--query-gpu=index,name,power.draw", "--format=csv,noheader,nounits")
_ASK_S = 10.0


def energy_counters(root: Path = _HERE, *, system: str = sys.platform) -> tuple[EnergyCounter, ...]:
    """Return every counter and rail that is there, readable or not.

    Args:
        root: folder that holds `sys`; programs are asked as well where it is "/".
        system: as `sys.platform`.

    Returns:
        Processors' counters first, then sensors and rails, batteries, graphics processors.
    """
    found = [*_powercap(root), *_hwmon(root), *_iio(root), *_supplies(root)]
    if root == _HERE:
        found += nvidia_counters()
    if system == "darwin":
        note = "asks the system for the power of processor, GPU and ANE; only root may run it"
        path = "/usr/bin/powermetrics --samplers cpu_power"
        found.append(EnergyCounter(name="powermetrics", path=path, unit="milliwatt", note=note))
    return tuple(found)


def nvidia_counters(ask: Callable[[Sequence[str]], str] | None = None) -> list[EnergyCounter]:
    """Return the power of each NVIDIA GPU, as its driver's own program tells it.

    Args:
        ask: runs a command and returns what it writes, "" where it cannot; None for a process.

    Returns:
        One for each GPU; none where the program is not there.
    """
    found = []
    for line in (ask or _asked)(_NVIDIA).splitlines():
        number, _, rest = line.partition(",")
        name, _, watts = (part.strip() for part in rest.rpartition(","))
        if not number.strip().isdecimal() or not name:
            continue
        is_number = watts.replace(".", "", 1).isdecimal()
        found.append(
            EnergyCounter(
                name=f"{name}, GPU {number.strip()}",
                path=f"nvidia-smi -i {number.strip()} --query-gpu=power.draw",
                unit="watt",
                is_readable=is_number,
                note="the whole card" if is_number else f"the driver says {watts!r}",
            )
        )
    return found


def _powercap(root: Path) -> Iterator[EnergyCounter]:
    """Yield RAPL's domains: packages, cores, memory, and a laptop's whole board."""
    for zone in _listed(root / "sys/class/powercap", "*:*"):
        path = zone / "energy_uj"
        if not _exists(path):
            continue
        name = read_text(zone / "name").strip() or zone.name
        yield _counter(name, path, "microjoule", note=_DOMAINS.get(name.split("-")[0], ""))


# As Intel names them, and AMD after it.
_DOMAINS: Final = {
    "package": "one processor package, every process and idle power included",
    "core": "its cores alone",
    "uncore": "its graphics",
    "dram": "memory",
    "psys": "the whole board, packages included",
}


def _hwmon(root: Path) -> Iterator[EnergyCounter]:
    """Yield sensors of energy and power, and rails of which voltage and current are known."""
    for sensor in _listed(root / "sys/class/hwmon", "hwmon*"):
        driver = read_text(sensor / "name").strip() or sensor.name
        powers: set[str] = set()
        for path in _listed(sensor, "energy*_input"):
            yield _counter(_label(path, driver), path, "microjoule")
        for kind in ("input", "average"):
            for path in _listed(sensor, f"power*_{kind}"):
                number = path.name.removeprefix("power").removesuffix(f"_{kind}")
                if number not in powers:
                    powers.add(number)
                    yield _counter(_label(path, driver), path, "microwatt")
        for current in _listed(sensor, "curr*_input"):
            number = current.name.removeprefix("curr").removesuffix("_input")
            voltage = sensor / f"in{number}_input"
            # Jetson's rails: milliamperes and millivolts, and the rail's name is the voltage's.
            if number not in powers and _exists(voltage):
                yield _product(_label(voltage, driver), current, voltage, "microwatt")


def _iio(root: Path) -> Iterator[EnergyCounter]:
    """Yield the rails of an older Jetson, whose driver tells milliwatts."""
    for device in _listed(root / "sys/bus/iio/devices", "iio:device*"):
        for path in _listed(device, "in_power*_input"):
            number = path.name.removeprefix("in_power").removesuffix("_input")
            name = read_text(device / f"rail_name_{number}").strip() or path.name
            yield _counter(name, path, "milliwatt")


def _supplies(root: Path) -> Iterator[EnergyCounter]:
    """Yield a battery's power, or its current times its voltage, and the energy that it holds."""
    for supply in _listed(root / "sys/class/power_supply", "*"):
        kind = read_text(supply / "type").strip().lower()
        if kind != "battery" or read_text(supply / "scope").strip().lower() == "device":
            continue
        note = "the whole device, while it is not on mains"
        power, current = supply / "power_now", supply / "current_now"
        if _exists(power):
            yield _counter(supply.name, power, "microwatt", note=note)
        elif _exists(current):
            yield _product(supply.name, current, supply / "voltage_now", "picowatt", note=note)
        if _exists(supply / "energy_now"):
            what = "what the battery still holds; it falls as the device works"
            path = supply / "energy_now"
            yield _counter(f"{supply.name} charge", path, "microwatt-hour", note=what)


def _label(path: Path, driver: str) -> str:
    """Return the sensor's own name, which lies beside its number."""
    stem = path.name.rpartition("_")[0]
    return read_text(path.with_name(f"{stem}_label")).strip() or f"{driver} {stem}"


def _counter(name: str, path: Path, unit: str, *, note: str = "") -> EnergyCounter:
    why = _why_not(path)
    return EnergyCounter(
        name=name, path=str(path), unit=unit, is_readable=not why, note=why or note
    )


def _product(name: str, one: Path, other: Path, unit: str, *, note: str = "") -> EnergyCounter:
    why = _why_not(one) or _why_not(other)
    return EnergyCounter(
        name=name,
        path=f"{one}{TIMES}{other}",
        unit=unit,
        is_readable=not why,
        note=why or note or "one rail: current times voltage",
    )


def _why_not(path: Path) -> str:
    """Return why no number can be read; "" where one can."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except PermissionError:
        return _ROOT_ONLY
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return "" if whole_number(text) is not None else f"it holds {text[:40]!r}, no number"


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _asked(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command, nothing from outside
            command, capture_output=True, text=True, timeout=_ASK_S, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
