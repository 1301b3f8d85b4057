"""By whose keys a command opens sealed bundles."""

from contextlib import AbstractContextManager

from onhand.cli.settings import Settings
from onhand.core.unsealing import unsealing
from onhand.device.vault.recipients import DeviceUnsealer

__all__ = ["unsealing_of"]


def unsealing_of(settings: Settings) -> AbstractContextManager[None]:
    """Return what gives this device's keys as long as a command runs.

    Args:
        settings: of the environment: the state folder.

    Returns:
        What to enter.
    """
    return unsealing(DeviceUnsealer(settings.home))
