"""Profiles of well-known devices that come with onhand: estimates from public sources."""

import difflib
from importlib.resources import files
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile, parse_profile, read_profile

__all__ = ["known_device", "known_devices", "near_devices", "read_device"]

_FOLDER: Final = "devices"
_SUFFIX: Final = ".toml"
_MOST_NEAR: Final = 3


def known_devices() -> tuple[str, ...]:
    """Return the names of the devices whose profiles come with onhand, in order."""
    folder = files("onhand.device").joinpath(_FOLDER)
    names = [one.name for one in folder.iterdir() if one.name.endswith(_SUFFIX)]
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names))


def known_device(name: str) -> DeviceProfile:
    """Return the profile of a device that comes with onhand.

    Args:
        name: one of `known_devices`.

    Returns:
        The profile; `estimated` is True, and `sources` say where each figure is from.

    Raises:
        InputError: if the name is not known.
    """
    if name not in known_devices():
        raise InputError(f"unknown device {name!r}: {_hint(name)}")
    path = files("onhand.device").joinpath(_FOLDER, f"{name}{_SUFFIX}")
    return parse_profile(path.read_text(encoding="utf-8"))


def read_device(text: str) -> DeviceProfile:
    """Return a device's profile by its name, or from a file.

    Args:
        text: one of `known_devices`, or the path of a profile as `onhand probe -o` saves it; a
            file of such a name is read as "./NAME".

    Returns:
        The profile.

    Raises:
        InputError: if it is neither, or the file is no profile.
    """
    if text in known_devices():
        return known_device(text)
    path = Path(text)
    if path.suffix or len(path.parts) > 1 or text.startswith(".") or path.is_file():
        return read_profile(path)
    raise InputError(f"device {text!r} is neither a file nor a device that is known: {_hint(text)}")


def near_devices(name: str) -> tuple[str, ...]:
    """Return the known devices whose names are most like another, the nearest first."""
    known, wanted = known_devices(), name.lower().replace("_", "-").replace(" ", "-")
    holding = [one for one in known if wanted and wanted in one]
    alike = difflib.get_close_matches(wanted, known, n=_MOST_NEAR, cutoff=0.5)
    return tuple(dict.fromkeys([*holding, *alike]))[:_MOST_NEAR]


def _hint(name: str) -> str:
    near = near_devices(name)
    if near:
        return f"did you mean {' or '.join(near)}? `onhand devices` lists all"
    return "`onhand devices` lists those that are"
