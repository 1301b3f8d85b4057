"""What runs a network quickest here, engines or variants: timed once, then remembered."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Final

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, InputError, ResourceError
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress
from onhand.device.networks.base import Array, NetworkEngine, NetworkLoaded
from onhand.device.networks.timing import random_feeds, time_interleaved
from onhand.device.state import recall, remember

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

TIE: Final = 1.05
"""How many times as long is still as quick: less is noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What engines took for one variant, or variants of one bundle in their quickest engines.

    Attributes:
        latency_s: name -> median seconds of a run, preferred ones first.
        failed: name -> why it could not be timed.
    """

    latency_s: Mapping[str, float]
    failed: Mapping[str, str]

    def winner(self) -> str:
        """Return the first one within 5 % of the quickest: less is noise."""
        best = min(self.latency_s.values())
        return next(name for name, took in self.latency_s.items() if took <= best * TIE)

    def reasons(self) -> dict[str, str]:
        """Return why each one but the winner was not taken."""
        winner = self.winner()
        said = dict(self.failed)
        for name, took in self.latency_s.items():
            if name != winner:
                said[name] = (
                    f"takes {took * 1e3:.3g} ms here, {winner} {self.latency_s[winner] * 1e3:.3g}"
                )
        return said


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
    return f"network-engine-{_digest(facts, profile, threads)}"


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
    return f"network-variant-{_digest(facts, profile, threads)}"


def keep_race(
    home: Path, bundle: Bundle, name: str, done: Race, *, what: str, progress: Progress
) -> None:
    """Keep a race in the state folder, or say that it cannot be kept.

    Args:
        home: the folder.
        bundle: what was run.
        name: from `race_name` or `final_name`.
        done: the race.
        what: was chosen by it, in words.
        progress: told where it cannot be kept.
    """
    try:
        remember_race(home, bundle, name, done)
    except ResourceError as error:
        progress.note(f"{what} is not kept: {error}")


def remember_race(home: Path, bundle: Bundle, name: str, done: Race) -> None:
    """Keep a race in the state folder.

    Args:
        home: the folder.
        bundle: what was run.
        name: from `race_name` or `final_name`.
        done: the race.

    Raises:
        ResourceError: if the folder cannot be written.
    """
    kept = {"failed": dict(done.failed), "latency_s": dict(done.latency_s)}
    remember(home, bundle.manifest_sha256, name, kept)


def recall_race(home: Path, bundle: Bundle, name: str, names: Iterable[str]) -> Race | None:
    """Return what `remember_race` kept.

    Args:
        home: the state folder.
        bundle: what was run.
        name: from `race_name` or `final_name`.
        names: of those that took part, preferred ones first.

    Returns:
        The race; None where there is none, or what was kept is damaged, so that it is run anew.
    """
    try:
        kept = recall(home, bundle.manifest_sha256, name)
    except InputError:
        return None
    if not isinstance(kept, dict):
        return None
    took, failed = kept.get("latency_s"), kept.get("failed")
    if not isinstance(took, dict) or not isinstance(failed, dict):
        return None
    latency_s = {n: took[n] for n in names if isinstance(took.get(n), float) and took[n] > 0}
    reasons = {n: failed[n] for n in names if isinstance(failed.get(n), str)}
    whole = set(latency_s) | set(reasons) == set(names) and latency_s
    return Race(latency_s=latency_s, failed=reasons) if whole else None


def _packages(engines: Mapping[str, NetworkEngine]) -> dict[str, list[str]]:
    return {name: [engine.package, _version(engine)] for name, engine in engines.items()}


def _digest(facts: Mapping[str, object], profile: DeviceProfile, threads: int) -> str:
    processor = [profile.processor, profile.machine, *profile.instruction_sets]
    whole = {**facts, "processor": processor, "threads": threads}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def _version(engine: NetworkEngine) -> str:
    try:
        return version(engine.package)
    except PackageNotFoundError:
        return ""
