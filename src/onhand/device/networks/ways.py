"""Accelerators that a network may run on: found, and tried in a process of their own first."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TextIO, runtime_checkable

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import EngineError, InputError
from onhand.core.profile import DeviceProfile
from onhand.device.adapting.accelerators import with_providers
from onhand.device.measured import print_event, run_measured, serve_job
from onhand.device.networks.base import NetworkEngine

__all__ = ["WaysNetworkEngine", "able_ways", "main", "told_engine", "try_apart"]

Try = Callable[[Bundle, str, str, int], None]
"""Opens and runs a variant in an engine; raises `EngineError` where that fails."""


@runtime_checkable
class WaysNetworkEngine(NetworkEngine, Protocol):
    """A `NetworkEngine` that can be told what to compute on."""

    def ways(self, profile: DeviceProfile) -> tuple[str, ...]:
        """Return what it may compute on beside the processor, of what a device has.

        Args:
            profile: of the device, with its list of providers.
        """
        ...

    def using(self, way: str) -> NetworkEngine:
        """Return the same engine on one accelerator.

        Raises:
            InputError: if it knows no such thing.
        """
        ...


def told_engine(engine: NetworkEngine, name: str, way: str) -> NetworkEngine:
    """Return an engine that computes on what stands behind the colon of its name.

    Args:
        engine: the plain one.
        name: all of it, for messages.
        way: what stands behind the colon.

    Returns:
        The engine.

    Raises:
        InputError: if it cannot be told, or knows no such thing.
    """
    if not isinstance(engine, WaysNetworkEngine):
        raise InputError(f"engine {name!r}: {engine.name} cannot be told what to compute on")
    return engine.using(way)


def able_ways(
    bundle: Bundle,
    profile: DeviceProfile,
    able: Mapping[str, NetworkEngine],
    *,
    variant: str,
    threads: int,
    attempt: Try | None = None,
) -> tuple[dict[str, NetworkEngine], dict[str, str]]:
    """Return the accelerators that run a variant.

    Args:
        bundle: a verified bundle of a network.
        profile: what this device has; without a list of providers, they are looked for where
            there may be some.
        able: name -> engine that can run it on the processor.
        variant: one of the bundle's variants.
        threads: threads of one run, for what is left to the processor.
        attempt: tries one; None for a process of its own, since a driver may crash.

    Returns:
        Name, with the accelerator behind a colon, -> engine; and why each other one cannot.
    """
    tried = attempt or try_apart
    found: dict[str, NetworkEngine] = {}
    reasons: dict[str, str] = {}
    whole = with_providers(profile)
    for plain, engine in able.items():
        if not isinstance(engine, WaysNetworkEngine):
            continue
        for way in engine.ways(whole):
            name = f"{plain}:{way}"
            try:
                tried(bundle, variant, name, threads)
            except EngineError as error:
                reasons[name] = str(error)
            else:
                found[name] = engine.using(way)
    return found, reasons


def try_apart(bundle: Bundle, variant: str, name: str, threads: int) -> None:
    """Open and run a variant once, in a process that may crash.

    Args:
        bundle: a verified bundle of a network.
        variant: one of its variants.
        name: of an engine.
        threads: of the run.

    Raises:
        EngineError: if it fails, or the process does.
    """
    job = {"engine": name, "root": str(bundle.root.absolute()), "threads": threads}
    run_measured(
        "onhand.device.networks.ways",
        json.dumps({**job, "variant": variant}),
        what=f"{name}: a process that tried it",
        first="ran",
    )


def _run(text: str, out: TextIO) -> None:
    from onhand.device.networks.choosing import open_and_run
    from onhand.device.networks.opening import named_engine
    from onhand.device.networks.timing import random_feeds

    job = json.loads(text)
    bundle = read_bundle(Path(job["root"]))
    feeds = random_feeds(bundle.manifest.network)
    engine = named_engine(job["engine"])
    open_and_run(engine, bundle, job["variant"], feeds, threads=job["threads"]).close()
    print_event(out, {"event": "ran"})


def main() -> int:
    """Read a job from the standard input and do it; returns the exit code."""
    return serve_job(_run)


if __name__ == "__main__":
    sys.exit(main())
