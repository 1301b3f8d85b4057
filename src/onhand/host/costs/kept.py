"""A device's calibration, measured once and kept in the state folder."""

import hashlib
import json
from pathlib import Path
from typing import Final

from onhand import __version__
from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress
from onhand.device.state import recall, remember
from onhand.host.costs.calibration import Calibration, calibration_from_json
from onhand.host.costs.measuring import measure_calibration

__all__ = ["calibrate", "kept_calibration"]

_NAME: Final = "calibration"


def calibrate(
    home: Path, profile: DeviceProfile, *, threads: int, progress: Progress | None = None
) -> Calibration:
    """Return this device's calibration: the one that is kept, or one that is measured now.

    Args:
        home: the state folder.
        profile: this device's.
        threads: the most that a step is to use.
        progress: told of the measuring, which takes about 20 seconds.

    Returns:
        The calibration.

    Raises:
        EngineUnavailable: if there is no native part.
        EngineError: if a measuring process fails.
        ResourceError: if the state folder cannot be written.
    """
    kept = kept_calibration(home, profile, threads=threads)
    if kept is not None:
        return kept
    made = measure_calibration(profile, threads=threads, progress=progress)
    remember(home, _key(profile, threads), _NAME, made.to_json())
    return made


def kept_calibration(home: Path, profile: DeviceProfile, *, threads: int) -> Calibration | None:
    """Return the calibration that was measured for a processor and this version, or None.

    Args:
        home: the state folder; it may be missing.
        profile: of the device.
        threads: the most that a step is to use.
    """
    try:
        found = recall(home, _key(profile, threads), _NAME)
        return None if found is None else calibration_from_json(found)
    except InputError:
        return None  # damaged, or of a later version: it is measured again


def _key(profile: DeviceProfile, threads: int) -> str:
    named = {
        "cores": profile.physical_cores,
        "instruction_sets": list(profile.instruction_sets),
        "machine": profile.machine,
        "processor": profile.processor,
        "threads": threads,
        "version": __version__,
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
