"""A device's calibration, measured once and kept in the state folder."""

import hashlib
import json
from pathlib import Path
from typing import Final

from onhand import __version__
from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress
from onhand.device.probe import current_profile
from onhand.device.state import recall, remember
from onhand.host.costs.calibration import Calibration, calibration_from_json
from onhand.host.costs.measuring import measure_calibration
from onhand.host.transfer import is_same_device

__all__ = ["calibrate", "calibrate_anew", "calibration_for", "kept_calibration"]

_NAME: Final = "calibration"


def calibrate(
    home: Path, profile: DeviceProfile, *, progress: Progress | None = None
) -> Calibration:
    """Return this device's calibration: the one that is kept, or one that is measured now.

    Args:
        home: the state folder.
        profile: this device's.
        progress: told of the measuring, which takes about 20 seconds.

    Returns:
        The calibration.

    Raises:
        EngineUnavailable: if there is no native part.
        EngineError: if a measuring process fails.
        ResourceError: if the state folder cannot be written.
    """
    kept = kept_calibration(home, profile)
    return calibrate_anew(home, profile, progress=progress) if kept is None else kept


def calibrate_anew(
    home: Path, profile: DeviceProfile, *, progress: Progress | None = None
) -> Calibration:
    """Measure this device's calibration and keep it in place of an earlier one.

    Args:
        home: the state folder.
        profile: this device's.
        progress: told of the measuring.

    Returns:
        The calibration.

    Raises:
        EngineUnavailable: if there is no native part.
        EngineError: if a measuring process fails.
        ResourceError: if the state folder cannot be written.
    """
    made = measure_calibration(profile, progress=progress)
    remember(home, _key(profile), _NAME, made.to_json())
    return made


def kept_calibration(home: Path, profile: DeviceProfile) -> Calibration | None:
    """Return the calibration that was measured for a processor and this version, or None.

    Args:
        home: the state folder; it may be missing.
        profile: of the device.
    """
    try:
        found = recall(home, _key(profile), _NAME)
        return None if found is None else calibration_from_json(found)
    except InputError:
        return None  # damaged, or of a later version: it is measured again


def calibration_for(
    device: DeviceProfile, home: Path | None
) -> tuple[Calibration | None, tuple[str, ...]]:
    """Return what is known of a device that is built for, and what a user should know of that.

    Args:
        device: its profile.
        home: the state folder; None for none.

    Returns:
        The calibration, None where its times must be estimated, and a note then.
    """
    if device.estimated or not is_same_device(device, current_profile()):
        return None, (f"times on {device.name} are estimated from its profile, within a half",)
    kept = None if home is None else kept_calibration(home, device)
    if kept is None:
        return None, (
            "times are estimated from what this device has, within a half; `onhand probe --costs` "
            "measures what parts of a step cost here, once, in about 20 seconds",
        )
    return kept, ()


def _key(profile: DeviceProfile) -> str:
    named = {
        "cores": profile.physical_cores,
        "instruction_sets": list(profile.instruction_sets),
        "machine": profile.machine,
        "processor": profile.processor,
        "threads": profile.usable_threads,
        "version": __version__,
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
