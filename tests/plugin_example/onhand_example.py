"""An engine, a pass and a source of a third party; its entry points are in the dist-info."""

from dataclasses import dataclass
from typing import ClassVar

from onhand.core.adapter import Adapter
from onhand.core.bundle import Bundle
from onhand.core.errors import EngineUnavailable
from onhand.core.profile import DeviceProfile
from onhand.device.engines.base import Loaded

__all__ = ["EchoEngine", "Negate", "read_echo"]


class EchoEngine:
    """See `Engine`: runs nowhere, and says why."""

    name: ClassVar[str] = "echo"

    def why_not(self, bundle: Bundle, profile: DeviceProfile, *, variant: str) -> str | None:
        """See `Engine`."""
        return f"{bundle.manifest.name}: echo is an example and runs nothing"

    def open(
        self, bundle: Bundle, *, variant: str, threads: int, adapter: Adapter | None = None
    ) -> Loaded:
        """See `Engine`."""
        raise EngineUnavailable(f"{bundle.manifest.name}: echo is an example and runs nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Negate:
    """A pass with one option."""

    name: ClassVar[str] = "negate"
    share: float = 1.0


def read_echo(place: str) -> str:
    """A source: here the place itself."""
    return place
