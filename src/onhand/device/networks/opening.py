"""From a bundle to a network in memory: which engines can run it here, and which is quickest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, EngineUnavailable, InputError
from onhand.core.plugins import NETWORK_ENGINES, load_plugin, plugin_names
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress, Quiet
from onhand.device.adapting.fingerprints import seen_accelerators
from onhand.device.networks.base import CachingNetworkEngine, NetworkEngine, NetworkLoaded
from onhand.device.networks.choosing import (
    Race,
    keep_race,
    race,
    race_name,
    recall_race,
)
from onhand.device.networks.thread_races import ThreadRaces
from onhand.device.networks.ways import able_ways, told_engine
from onhand.device.probe import current_profile

__all__ = [
    "PREFERRED_ENGINES",
    "OpenedNetwork",
    "able_engines",
    "named_engine",
    "open_adapted",
    "open_network",
    "recall_network",
    "threads_of_run",
]

PREFERRED_ENGINES: Final = ("onnx", "openvino", "reference")
# It defines what the others compute and is slower than all of them: never worth the timing.
LAST_RESORT: Final = "reference"
_SLOW: Final = "not asked: it is slow, for networks that no other engine can run"


def named_engine(
    name: str, *, home: Path | None = None, progress: Progress | None = None
) -> NetworkEngine:
    """Return an engine.

    Args:
        name: of a registered engine for networks; with ":" and an accelerator behind it, as in
            "onnx:cuda" or "openvino:GPU", it computes there.
        home: the state folder, for one that keeps what it compiles; None for nowhere.
        progress: told of what cannot be kept.

    Returns:
        The engine.

    Raises:
        InputError: if there is no such engine or accelerator.
    """
    plain, colon, way = name.partition(":")
    engine = cast(type[NetworkEngine], load_plugin(NETWORK_ENGINES, plain))()
    if colon:
        engine = told_engine(engine, name, way)
    if home is not None and isinstance(engine, CachingNetworkEngine):
        return engine.caching(home, progress or Quiet())
    return engine


def able_engines(
    bundle: Bundle,
    profile: DeviceProfile,
    *,
    variant: str | None = None,
    wanted: str | None = None,
) -> tuple[dict[str, NetworkEngine], dict[str, str]]:
    """Ask the registered engines whether they can run a variant here.

    Args:
        bundle: a verified bundle of a network.
        profile: what this device has.
        variant: one of its variants; None for its default.
        wanted: name of the only engine to ask; None for all, `PREFERRED_ENGINES` first, and
            "reference" only where none of the others can.

    Returns:
        Those that can, in order of preference, at least one; and why each other one cannot.

    Raises:
        InputError: if there is no such variant or engine, or the bundle holds a language model.
        EngineUnavailable: if none can, with every engine's reason.
    """
    chosen, _ = bundle.variant(variant)
    _ = bundle.manifest.network
    able: dict[str, NetworkEngine] = {}
    reasons: dict[str, str] = {}
    for name in _order() if wanted is None else [wanted]:
        if able and name == LAST_RESORT:
            reasons[name] = _SLOW
            continue
        try:
            engine = named_engine(name)
        except InputError as error:
            if wanted is not None:
                raise
            reasons[name] = str(error)
            continue
        reason = engine.why_not(bundle, profile, variant=chosen)
        if reason is None:
            able[name] = engine
        else:
            reasons[name] = reason
    if not able:
        raise EngineUnavailable(_none_able(bundle, chosen, reasons))
    return able, reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedNetwork:
    """A network in memory, and what runs it.

    Attributes:
        loaded: the network.
        engine: its engine's name, with an accelerator behind a colon.
        threads: of one run.
        reasons: why each other engine was not taken.
    """

    loaded: NetworkLoaded
    engine: str
    threads: int
    reasons: Mapping[str, str]


def open_network(
    bundle: Bundle,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    home: Path | None = None,
    progress: Progress | None = None,
) -> tuple[NetworkLoaded, str, dict[str, str]]:
    """Open one variant of a network as it is quickest here; see `open_adapted`.

    Args:
        bundle: as there.
        variant: as there.
        engine: as there.
        threads: as there.
        home: as there.
        progress: as there.

    Returns:
        The network, its engine's name, and why each other engine was not taken.

    Raises:
        InputError: as there.
        BundleCorrupt: as there.
        EngineUnavailable: as there.
        EngineError: as there.
    """
    opened = open_adapted(
        bundle, variant=variant, engine=engine, threads=threads, home=home, progress=progress
    )
    return opened.loaded, opened.engine, dict(opened.reasons)


def open_adapted(
    bundle: Bundle,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    home: Path | None = None,
    progress: Progress | None = None,
) -> OpenedNetwork:
    """Open one variant of a network in the engine that is quickest here; see `open_quickest`.

    All that can run it, on the processor and on accelerators, are opened and timed once, for about
    a second, and then the quickest with fewer threads; what they took is kept in the state folder,
    for this bundle, variant, number of threads, processor and these versions of the engines.
    Without a state folder nothing is timed: the first preferred one is taken.

    Args:
        bundle: a verified bundle of a network.
        variant: one of its variants; None for its default.
        engine: name of a registered engine; None to choose.
        threads: threads of one run; None to choose, or, without a state folder or for an engine
            that was asked for, what this process may use.
        home: the state folder; None for none.
        progress: told of what could not be kept there.

    Returns:
        The network, and what runs it.

    Raises:
        InputError: if there is no such variant or engine, `threads` is below 1, or the bundle
            holds a language model.
        BundleCorrupt: if graph, weights and manifest do not match.
        EngineUnavailable: if no engine can run it here, with every engine's reason.
        EngineError: if the engine should run it, and fails.
    """
    profile = current_profile()
    most = threads_of_run(threads, profile)
    chosen, _ = bundle.variant(variant)
    able, reasons = able_engines(bundle, profile, variant=chosen, wanted=engine)
    races = ThreadRaces(
        bundle=bundle,
        variant=chosen,
        profile=profile,
        most=most,
        home=home if threads is None and engine is None else None,
        progress=progress,
    )
    try:
        if home is None or engine is not None or (len(able) < 2 and not seen_accelerators()):
            keeping = {name: named_engine(name, home=home, progress=progress) for name in able}
            loaded, name, said = _open_first(bundle, chosen, keeping, reasons, races.known)
        else:
            loaded, name, said = _open_raced(bundle, chosen, able, reasons, races, home, progress)
    except EngineError as error:
        if engine is not None or LAST_RESORT in able:
            raise
        said = dict.fromkeys(able, str(error)) | reasons
        loaded, name, said = _open_last(bundle, chosen, said, profile, most, error)
    loaded, n_threads = _settled(races, name, loaded)
    return OpenedNetwork(loaded=loaded, engine=name, threads=n_threads, reasons=said)


def _settled(races: ThreadRaces, name: str, loaded: NetworkLoaded) -> tuple[NetworkLoaded, int]:
    return races.settle(name, named_engine(name, home=races.home, progress=races.progress), loaded)


def recall_network(
    bundle: Bundle, variant: str, profile: DeviceProfile, *, home: Path
) -> tuple[Race, int] | None:
    """Return the race that `open_adapted` ran for a variant, and the threads that it found.

    Args:
        bundle: of a network; its files need not be verified.
        variant: one of its variants.
        profile: of this device.
        home: the state folder.

    Returns:
        Both; None where nothing was timed yet, or nothing could be.

    Raises:
        EngineUnavailable: if no engine can run it here.
    """
    able, _ = able_engines(bundle, profile, variant=variant)
    most = profile.usable_threads
    races = ThreadRaces(bundle=bundle, variant=variant, profile=profile, most=most, home=home)
    done = recall_race(home, bundle, race_name(variant, able, profile, threads=most))
    if done is not None and done.latency_s:
        return done, races.known(done.winner())
    # An engine that is alone was timed with several numbers of threads only.
    only = next(iter(able))
    counts = races.recalled(only) if len(able) == 1 else None
    if counts is None:
        return None
    best = counts.winner()
    return Race(latency_s={only: counts.latency_s[best]}, failed={}), int(best)


def _open_raced(
    bundle: Bundle,
    variant: str,
    able: Mapping[str, NetworkEngine],
    reasons: Mapping[str, str],
    races: ThreadRaces,
    home: Path,
    progress: Progress | None,
) -> tuple[NetworkLoaded, str, dict[str, str]]:
    """Open what a race found quickest, and run the race where none is remembered.

    Raises:
        EngineError: if it cannot be opened; of an accelerator, if nothing else can.
    """
    said = dict(reasons)
    place = race_name(variant, able, races.profile, threads=races.most)
    done = recall_race(home, bundle, place, progress=progress)
    if done is None or not done.latency_s:
        ways, unable = able_ways(bundle, races.profile, able, variant=variant, threads=races.most)
        loaded, done = race(bundle, variant, {**able, **ways}, threads=races.most)
        done = replace(done, failed={**done.failed, **unable})
        what = "the choice of an engine"
        keep_race(home, bundle, place, done, what=what, progress=progress or Quiet())
        if (known := races.known(done.winner())) != races.most:
            loaded.close()
            keeper = named_engine(done.winner(), home=home, progress=progress)
            loaded = keeper.open(bundle, variant=variant, threads=known)
        return loaded, done.winner(), said | done.reasons()
    failed: dict[str, str] = {}
    winner = done.winner()
    for name in sorted(done.latency_s, key=lambda one: (one != winner, done.latency_s[one])):
        try:
            keeper = named_engine(name, home=home, progress=progress)
            loaded = keeper.open(bundle, variant=variant, threads=races.known(name))
        except EngineError as error:
            if ":" not in name:
                raise
            failed[name] = str(error)  # an accelerator may be busy or gone
        else:
            return loaded, name, said | done.reasons() | failed
    raise EngineError(_none_able(bundle, variant, failed))


def _open_last(
    bundle: Bundle,
    variant: str,
    reasons: Mapping[str, str],
    profile: DeviceProfile,
    threads: int,
    error: EngineError,
) -> tuple[NetworkLoaded, str, dict[str, str]]:
    """Open the engine that nobody asked, after all others have failed.

    Raises:
        EngineUnavailable: if it cannot run the bundle, with every engine's reason.
    """
    said, last = dict(reasons), named_engine(LAST_RESORT)
    # What it lacks is said beside what went wrong, not for it.
    if reason := last.why_not(bundle, profile, variant=variant):
        said[LAST_RESORT] = reason
        raise EngineUnavailable(_none_able(bundle, variant, said)) from error
    said.pop(LAST_RESORT, None)
    return _open_first(bundle, variant, {LAST_RESORT: last}, said, lambda _: threads)


def threads_of_run(wanted: int | None, profile: DeviceProfile) -> int:
    """Return how many threads a run has.

    Args:
        wanted: what was asked for; None for what this process may use.
        profile: what this device has.

    Returns:
        The number.

    Raises:
        InputError: if it is below 1.
    """
    if wanted is not None and wanted < 1:
        raise InputError(f"threads is {wanted}, must be 1 or more")
    return wanted or profile.usable_threads


def _open_first(
    bundle: Bundle,
    variant: str,
    able: Mapping[str, NetworkEngine],
    reasons: Mapping[str, str],
    threads_of: Callable[[str], int],
) -> tuple[NetworkLoaded, str, dict[str, str]]:
    said = dict(reasons)
    failures: list[EngineError] = []
    for name, engine in able.items():
        try:
            loaded = engine.open(bundle, variant=variant, threads=threads_of(name))
        except EngineError as error:
            failures.append(error)
            said[name] = str(error)
        else:
            after = list(able)[list(able).index(name) + 1 :]
            return loaded, name, said | dict.fromkeys(after, f"{name} is preferred to it")
    if len(failures) == 1:
        raise failures[0]
    raise EngineUnavailable(_none_able(bundle, variant, said)) from failures[0]


def _order() -> list[str]:
    known = plugin_names(NETWORK_ENGINES)
    first = [name for name in PREFERRED_ENGINES if name in known and name != LAST_RESORT]
    others = [name for name in known if name not in PREFERRED_ENGINES]
    return [*first, *others, *(name for name in known if name == LAST_RESORT)]


def _none_able(bundle: Bundle, variant: str, reasons: Mapping[str, str]) -> str:
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return (
        f"{bundle.root}: no engine can run variant {variant!r} here: {listed or 'none installed'}"
    )
