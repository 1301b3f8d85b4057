"""What runs a network quickest here, engines or variants: timed once, then remembered."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from statistics import median

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError
from onhand.core.profile import DeviceProfile
from onhand.device.adapting.fingerprints import fingerprint
from onhand.device.adapting.races import TIE, Race, keep_race, recall_race, remember_race
from onhand.device.networks.base import Array, NetworkEngine, NetworkLoaded
from onhand.device.networks.timing import random_feeds, time_interleaved

__all__ = [
    "TIE",
    "Race",
    "final_name",
    "keep_race",
    "open_and_run",
    "race",
    "race_name",
    "recall_race",
    "remember_race",
]


def race(
    bundle: Bundle, variant: str, engines: Mapping[str, NetworkEngine], *, threads: int
) -> tuple[NetworkLoaded, Race]:
    """Open a variant in several engines, time them in turn, and close all but the quickest.

    Args:
        bundle: a verified bundle of a network.
        variant: one of its variants.
        engines: name -> engine, preferred ones first; at least one.
        threads: threads of one run.

    Returns:
        The network in the winner's hands, and what all took.

    Raises:
        BundleCorrupt: if graph, weights and manifest do not match.
        EngineError: if every engine fails.
    """
    feeds = random_feeds(bundle.manifest.network)
    failed: dict[str, str] = {}
    runs: dict[str, Callable[[], object]] = {}
    opened: dict[str, NetworkLoaded] = {}
    with ExitStack() as closing:
        for name, engine in engines.items():
            try:
                loaded = open_and_run(engine, bundle, variant, feeds, threads=threads)
            except EngineError as error:
                failed[name] = str(error)
            else:
                closing.callback(loaded.close)
                opened[name], runs[name] = loaded, partial(loaded.run, feeds)
        if not opened:
            listed = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
            raise EngineError(f"{bundle.root}: every engine failed with {variant!r}: {listed}")
        times = time_interleaved(runs)
        done = Race(latency_s={n: median(taken) for n, taken in times.items()}, failed=failed)
        closing.pop_all()
    best = opened.pop(done.winner())
    for loaded in opened.values():
        loaded.close()
    return best, done


def open_and_run(
    engine: NetworkEngine,
    bundle: Bundle,
    variant: str,
    feeds: Mapping[str, Array],
    *,
    threads: int,
) -> NetworkLoaded:
    """Open a variant and run it once; it is closed again if that fails.

    Args:
        engine: what opens it.
        bundle: a verified bundle of a network.
        variant: one of its variants.
        feeds: its inputs.
        threads: threads of one run.

    Returns:
        The network, warm.

    Raises:
        BundleCorrupt: if graph, weights and manifest do not match.
        EngineError: if the engine fails.
    """
    loaded = engine.open(bundle, variant=variant, threads=threads)
    try:
        loaded.run(feeds)
    except BaseException:
        loaded.close()
        raise
    return loaded


def race_name(
    variant: str, engines: Mapping[str, NetworkEngine], profile: DeviceProfile, *, threads: int
) -> str:
    """Return the name that a race is remembered by: it changes with all that may change its end.

    Args:
        variant: one of the bundle's variants.
        engines: name -> engine; their packages' versions count.
        profile: whose processor counts.
        threads: threads of one run.

    Returns:
        A name for `onhand.device.state`.
    """
    facts = {"engines": _packages(engines), "variant": variant}
    return fingerprint("network-engine", facts, profile, threads=threads)


def final_name(
    variants: Mapping[str, Mapping[str, NetworkEngine]], profile: DeviceProfile, *, threads: int
) -> str:
    """Return the name that a race between variants is remembered by: see `race_name`.

    Args:
        variants: those that may be taken -> the engines that can run each.
        profile: whose processor counts.
        threads: threads of one run.

    Returns:
        A name for `onhand.device.state`.
    """
    facts = {"variants": {name: _packages(engines) for name, engines in variants.items()}}
    return fingerprint("network-variant", facts, profile, threads=threads)


def _packages(engines: Mapping[str, NetworkEngine]) -> dict[str, list[str]]:
    return {name: [engine.package, _version(engine)] for name, engine in engines.items()}


def _version(engine: NetworkEngine) -> str:
    try:
        return version(engine.package)
    except PackageNotFoundError:
        return ""
