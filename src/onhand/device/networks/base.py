"""What an engine for networks must offer. Adapters match these shapes; nobody subclasses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, ShapeError
from onhand.core.network import ArrayInfo
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress

__all__ = [
    "Array",
    "CachingNetworkEngine",
    "NetworkEngine",
    "NetworkLoaded",
    "check_feeds",
    "still_open",
]

# Any: operators take arrays of every dtype.
Array = NDArray[Any]
Inner = TypeVar("Inner")


class NetworkLoaded(Protocol):
    """A network in memory; threads may share it."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs.

        Args:
            feeds: name -> array for every input, of the dtype and the sizes that the bundle's
                description gives.

        Returns:
            Name -> array for every output; the caller's own.

        Raises:
            ShapeError: if an input is missing, unknown, or of another dtype or shape.
            EngineError: if the engine fails, or this is closed.
        """
        ...

    def close(self) -> None:
        """Release the memory; safe to call twice."""
        ...


class NetworkEngine(Protocol):
    """Opens bundles of networks; has no state.

    Attributes:
        name: as registered.
        package: the distribution that computes: another version of it may be faster or slower.
    """

    name: ClassVar[str]
    package: ClassVar[str]

    def why_not(
        self, bundle: Bundle, profile: DeviceProfile, *, variant: str | None = None
    ) -> str | None:
        """Return None if `open` should work here, else a reason a person can act on."""
        ...

    def open(self, bundle: Bundle, *, variant: str | None = None, threads: int) -> NetworkLoaded:
        """Load a variant.

        Args:
            bundle: a verified bundle of a network.
            variant: one of its variants; None for its default.
            threads: threads of one run.

        Returns:
            The network in memory.

        Raises:
            EngineUnavailable: if it cannot run here.
            EngineError: if the engine fails.
        """
        ...


@runtime_checkable
class CachingNetworkEngine(Protocol):
    """An engine that opens a bundle faster when it finds what it kept of it. Engines may be one."""

    def caching(self, home: Path, progress: Progress) -> NetworkEngine:
        """Return this engine with a state folder, where it keeps what it compiles.

        Args:
            home: the state folder; made if it is missing.
            progress: told when something cannot be kept, which is no error.

        Returns:
            The engine.
        """
        ...


def check_feeds(feeds: Mapping[str, Array], inputs: tuple[ArrayInfo, ...]) -> None:
    """Check arrays against a network's description.

    Args:
        feeds: name -> array.
        inputs: what is expected.

    Raises:
        ShapeError: if an input is missing, unknown, or of another dtype or shape.
    """
    names = {info.name for info in inputs}
    if odd := sorted(set(feeds) ^ names):
        found = (
            "is missing" if odd[0] in names else f"is unknown; known: {', '.join(sorted(names))}"
        )
        raise ShapeError(f"input {odd[0]!r} {found}")
    for info in inputs:
        array = feeds[info.name]
        if not isinstance(array, np.ndarray):
            raise ShapeError(f"input {info.name!r} is a {type(array).__name__}, must be an array")
        if array.dtype != np.dtype(info.dtype):
            raise ShapeError(f"input {info.name!r} is {array.dtype}, must be {info.dtype}")
        fits = len(array.shape) == len(info.shape) and all(
            size > 0 and wanted in {None, size}
            for size, wanted in zip(array.shape, info.shape, strict=True)
        )
        if not fits:
            wanted_shape = ", ".join("any" if size is None else str(size) for size in info.shape)
            raise ShapeError(
                f"input {info.name!r} is of shape {array.shape}, must be ({wanted_shape})"
            )


def still_open(inner: Inner | None) -> Inner:
    """Return what a `NetworkLoaded` holds; take it once a run: another thread may close it.

    Args:
        inner: None once it is closed.

    Returns:
        The same.

    Raises:
        EngineError: if it is closed.
    """
    if inner is None:
        raise EngineError("the network is closed; open the bundle again")
    return inner
