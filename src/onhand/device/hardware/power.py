"""What a device runs on: mains or its battery, as Linux shows it or psutil knows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onhand.device.control_groups import read_text, whole_number

__all__ = ["Battery", "battery_of", "power_source", "psutil_battery"]

_HERE = Path("/")
_SUPPLIES = "sys/class/power_supply"
# As Linux names them: what brings power from outside, what keeps it, and how that is fed.
_MAINS: Final = frozenset({"mains", "usb", "wireless"})
_STORES: Final = frozenset({"battery", "ups"})
_FED: Final = frozenset({"charging", "full", "not charging"})


@dataclass(frozen=True, slots=True)
class Battery:
    """What the device runs on.

    Attributes:
        charge: from 0 to 1.
        is_plugged: whether it is on mains; None where nobody knows.
    """

    charge: float
    is_plugged: bool | None


def battery_of(root: Path = _HERE) -> Battery | None:
    """Return the battery of this device; None where there is none, or none is known.

    Args:
        root: folder that holds `sys`; psutil is asked as well where it is "/".
    """
    for supply in _supplies(root):
        charge = whole_number(read_text(supply / "capacity"))
        if _word(supply / "type") == "battery" and charge is not None and 0 <= charge <= 100:
            return Battery(charge=charge / 100, is_plugged=_is_plugged(root))
    return psutil_battery() if root == _HERE else None


def psutil_battery() -> Battery | None:
    """Return what psutil knows of a battery; None where there is none."""
    import psutil

    # Some systems have no way to ask, and some drivers fail.
    try:
        found = psutil.sensors_battery()
    except (AttributeError, OSError, RuntimeError, ValueError):
        return None
    if found is None or not 0 <= found.percent <= 100:
        return None
    return Battery(charge=found.percent / 100, is_plugged=found.power_plugged)


def power_source(
    root: Path = _HERE, *, battery: Callable[[], Battery | None] = psutil_battery
) -> str:
    """Return what the device runs on now, one of `core.profile_parts.POWER_SOURCES`.

    A machine without a battery that shows a plugged supply is on mains; one that shows nothing,
    as virtual machines and most boards do, is not known.

    Args:
        root: folder that holds `sys`.
        battery: asked where the files say nothing and `root` is "/".

    Returns:
        "mains", "battery" or "unknown".
    """
    is_plugged = _is_plugged(root)
    if is_plugged is None and root == _HERE and (found := battery()) is not None:
        is_plugged = found.is_plugged
    return {True: "mains", False: "battery", None: "unknown"}[is_plugged]


def _is_plugged(root: Path) -> bool | None:
    statuses = []
    for supply in _supplies(root):
        kind = _word(supply / "type")
        if kind in _MAINS and read_text(supply / "online").strip() == "1":
            return True
        if kind in _STORES:
            statuses.append(_word(supply / "status"))
    if "discharging" in statuses:
        return False
    # Something feeds it, though no supply is shown.
    return True if _FED.intersection(statuses) else None


def _supplies(root: Path) -> list[Path]:
    # A mouse or a headset has a battery as well, and says that it is a device's.
    return [one for one in _listed(root / _SUPPLIES) if _word(one / "scope") != "device"]


def _word(path: Path) -> str:
    return read_text(path).strip().lower()


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
