"""Engines that can be told what to compute with."""

from typing import Protocol, runtime_checkable

from onhand.core.profile import DeviceProfile
from onhand.device.engines.base import Engine

__all__ = ["WaysEngine"]


@runtime_checkable
class WaysEngine(Engine, Protocol):
    """An `Engine` that can be told what to compute with: instructions, or an accelerator."""

    def ways(self, profile: DeviceProfile) -> tuple[str, ...]:
        """Return what may be quicker than what it takes untold, of what a device has.

        Args:
            profile: of the device, with its list of providers.

        Returns:
            What `using` takes; all of it is worth a trial.
        """
        ...

    def using(self, way: str) -> Engine:
        """Return the same engine, computing with one thing: a set of instructions, a device.

        Raises:
            InputError: if there is no such thing here, with those that there are.
        """
        ...
