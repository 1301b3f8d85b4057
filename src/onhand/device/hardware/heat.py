"""How hot a device is: the hottest sensor that can be right."""

from pathlib import Path
from typing import Final

from onhand.device.control_groups import read_text, whole_number

__all__ = ["hottest_c", "psutil_hottest_c", "temperature_c"]

_HERE = Path("/")
# What a sensor may say about a device that works; others are broken, or count from elsewhere.
_COLDEST_C, _HOTTEST_C = -40.0, 200.0
# Drivers of processors and whole chips that no thermal zone shows everywhere.
_PROCESSORS: Final = frozenset({
    "amdgpu",
    "apple_soc",
    "coretemp",
    "cpu_thermal",
    "k10temp",
    "k8temp",
    "scpi_sensors",
    "soc_thermal",
    "zenpower",
})


def temperature_c(root: Path = _HERE) -> float | None:
    """Return the temperature of the hottest sensor; None where none can be read.

    Args:
        root: folder that holds `sys`; psutil is asked as well where it is "/".

    Returns:
        Degrees Celsius.
    """
    found = hottest_c(root)
    return psutil_hottest_c() if found is None and root == _HERE else found


def hottest_c(root: Path) -> float | None:
    """Return the highest temperature that a thermal zone or a processor's sensor has.

    Args:
        root: folder that holds `sys`.

    Returns:
        Degrees Celsius; None where no file tells one.
    """
    places = [zone / "temp" for zone in _listed(root / "sys/class/thermal", "thermal_zone*")]
    for sensor in _listed(root / "sys/class/hwmon", "hwmon*"):
        if read_text(sensor / "name").strip() in _PROCESSORS:
            places += _listed(sensor, "temp*_input")
    found = [
        number / 1000 for path in places if (number := whole_number(read_text(path))) is not None
    ]
    return max((one for one in found if _COLDEST_C < one < _HOTTEST_C), default=None)


def psutil_hottest_c() -> float | None:
    """Return the highest temperature that psutil knows; None where it knows none."""
    import psutil

    try:
        sensors = psutil.sensors_temperatures()
    except (AttributeError, OSError, RuntimeError, ValueError):
        return None
    found = [one.current for sensor in sensors.values() for one in sensor if one.current]
    return max(found, default=None)


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
