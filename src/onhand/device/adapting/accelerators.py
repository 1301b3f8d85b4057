"""What else may compute on this device, tried once in a process; nothing where nothing is seen."""

import functools
from dataclasses import replace
from pathlib import Path

from onhand.core.profile import DeviceProfile
from onhand.core.profile_parts import Provider
from onhand.device.adapting.fingerprints import seen_accelerators
from onhand.device.hardware.providers import find_providers

__all__ = ["providers_here", "with_providers"]


@functools.cache
def providers_here(system: str, machine: str) -> tuple[Provider, ...]:
    """Return what else may compute here, each tried in a process of its own; asked once.

    Args:
        system: as `DeviceProfile.system`.
        machine: as `DeviceProfile.machine`.

    Returns:
        As `find_providers`.
    """
    return find_providers(Path("/"), system=system, machine=machine)


def with_providers(profile: DeviceProfile) -> DeviceProfile:
    """Return a profile of this device with its providers.

    Args:
        profile: of this device.

    Returns:
        The same where it lists providers, or where no accelerator is to be seen: trying takes
        seconds.
    """
    if profile.providers or not seen_accelerators():
        return profile
    return replace(profile, providers=providers_here(profile.system, profile.machine))
