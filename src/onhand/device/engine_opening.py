"""From a bundle to its weights in an engine: which can run it here, which is taken, which opens."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Unpack

from onhand.core.adapter import Adapter
from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, EngineUnavailable, InputError
from onhand.core.plugins import ENGINES, plugin_names
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress
from onhand.device.adapting.accelerators import with_providers
from onhand.device.adapting.choosing import WayChoice, choose_way
from onhand.device.engines.base import Engine, KvKind, Loaded
from onhand.device.engines.choosing import EngineWays, opener_of, use_head, use_prefill
from onhand.device.engines.named import named_engine
from onhand.device.engines.ways_engine import WaysEngine
from onhand.device.probe import current_profile
from onhand.device.threads import usable_threads

__all__ = [
    "PREFERRED_ENGINES",
    "OpenedEngine",
    "able_engines",
    "able_ways",
    "choose_engine",
    "open_chosen",
    "open_engine",
]

PREFERRED_ENGINES: Final = ("native", "onnx", "reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedEngine:
    """Weights in an engine, and how it was chosen.

    Attributes:
        loaded: the weights.
        choice: the engine and its threads.
        passed_over: engines preferred to it, or timed and slower, and why they were not taken.
    """

    loaded: Loaded
    choice: WayChoice
    passed_over: Mapping[str, str] = field(default_factory=dict)


def open_engine(
    bundle: Bundle,
    *,
    variant: str,
    engine: str | None,
    threads: int | None,
    adapter: Adapter | None = None,
    **ways: Unpack[EngineWays],
) -> tuple[Loaded, str, dict[str, str]]:
    """Load a verified bundle in an engine, without a trial.

    Args:
        bundle: the bundle.
        variant: a key of its manifest's variants.
        engine: name of a registered engine; None for the first of `PREFERRED_ENGINES` that works.
        threads: threads of one step; None for what this process may use.
        adapter: what is added to its matrices; None for nothing.
        **ways: `head`, `kv` and `prefill`, as in `onhand.device.opening.open`.

    Returns:
        The loaded weights, the engine's name, and why each one before it was passed over.

    Raises:
        InputError: if there is no such engine, use of a head or other way, or `threads` is below 1.
        EngineUnavailable: if no engine can run it here, with every engine's reason.
        EngineError: if the engine should run it, and fails.
    """
    opened = open_chosen(
        bundle, variant=variant, engine=engine, threads=threads, adapter=adapter, **ways
    )
    return opened.loaded, opened.choice.engine, dict(opened.passed_over)


def open_chosen(
    bundle: Bundle,
    *,
    variant: str,
    engine: str | None,
    threads: int | None,
    home: Path | None = None,
    progress: Progress | None = None,
    adapter: Adapter | None = None,
    **ways: Unpack[EngineWays],
) -> OpenedEngine:
    """Load a verified bundle in the engine that is quickest here.

    Args:
        bundle: as in `open_engine`.
        variant: as there.
        engine: as there; one that is named is not timed.
        threads: as there.
        home: the state folder, for the choice; None for no trial.
        progress: told of a trial.
        adapter: as there.
        **ways: as there.

    Returns:
        The weights, and how their engine was chosen.

    Raises:
        InputError: as there.
        EngineUnavailable: as there.
        EngineError: as there.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}, must be 1 or more")
    if engine is None and home is not None:
        choice = choose_engine(
            bundle, variant, home=home, threads=threads, progress=progress, **ways
        )
        # What was quickest may be gone or broken today; those after it are as able as they were.
        tried = (choice.engine, *choice.fallbacks)
        reasons: dict[str, str] = {}
        if opened := _first_open(bundle, variant, tried, choice, reasons, adapter, ways):
            return opened
    kv = ways.get("kv")
    able, reasons = able_engines(bundle, current_profile(), variant=variant, wanted=engine, kv=kv)
    plain = WayChoice(
        engine=next(iter(able)),
        threads=threads or usable_threads(),
        source="preferred" if engine is None else "asked",
    )
    if opened := _first_open(bundle, variant, tuple(able), plain, reasons, adapter, ways):
        before = _order() if engine is None else []
        before = before[: before.index(opened.choice.engine)] if before else []
        return replace(opened, passed_over={other: reasons[other] for other in before})
    raise EngineUnavailable(_none_able(bundle, variant, reasons))


def _first_open(
    bundle: Bundle,
    variant: str,
    names: tuple[str, ...],
    choice: WayChoice,
    reasons: dict[str, str],
    adapter: Adapter | None,
    ways: EngineWays,
) -> OpenedEngine | None:
    """Open the first that can be; add to the reasons why those before could not.

    Raises:
        EngineError: if the one that is asked for fails, or the processor's engine does.
        EngineUnavailable: if it is the one that is asked for, and cannot be.
    """
    profile = current_profile()
    for name in names:
        try:
            loaded = _opened(name, bundle, variant, profile, choice.threads, adapter, ways)
        except EngineUnavailable as error:
            reasons[name] = str(error)
        except EngineError as error:
            # An accelerator's fault is no reason not to answer; one of the processor's is told.
            if name in PREFERRED_ENGINES or choice.source == "asked":
                raise
            reasons[name] = str(error)
        else:
            taken = replace(choice, engine=name)
            if name != choice.engine:
                taken = replace(taken, source="preferred", figures={})
            return OpenedEngine(loaded=loaded, choice=taken, passed_over=choice.others() | reasons)
    return None


def _opened(
    name: str,
    bundle: Bundle,
    variant: str,
    profile: DeviceProfile,
    threads: int,
    adapter: Adapter | None,
    ways: EngineWays,
) -> Loaded:
    """Open one engine.

    Raises:
        EngineUnavailable: if it cannot run the bundle here, or not so.
    """
    engine = named_engine(name)
    if reason := engine.why_not(bundle, profile, variant=variant):
        raise EngineUnavailable(reason)
    opener = opener_of(engine, ways.get("kv"))
    loaded = opener(bundle, variant=variant, threads=threads, adapter=adapter)
    use_head(loaded, ways.get("head", "full"), engine_name=name)
    use_prefill(loaded, ways.get("prefill", "exact"), engine_name=name)
    return loaded


def choose_engine(
    bundle: Bundle,
    variant: str,
    *,
    home: Path,
    threads: int | None = None,
    progress: Progress | None = None,
    **ways: Unpack[EngineWays],
) -> WayChoice:
    """Choose what runs a variant here, by a trial at first; see `choose_way`.

    Args:
        bundle: a verified bundle of a language model.
        variant: one of its variants.
        home: the state folder.
        threads: of one step; None to choose.
        progress: told of a trial.
        **ways: as in `open_engine`.

    Returns:
        The choice.

    Raises:
        EngineUnavailable: if no engine can run it here, with every engine's reason.
    """
    profile = current_profile()

    def able() -> tuple[str, ...]:
        found, _ = able_ways(bundle, profile, variant=variant, kv=ways.get("kv"))
        return found

    return choose_way(
        bundle,
        variant,
        able,
        profile,
        home=home,
        threads=threads,
        progress=progress,
        **ways,
    )


def able_ways(
    bundle: Bundle,
    profile: DeviceProfile,
    *,
    variant: str,
    kv: KvKind | None = None,
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Ask the registered engines whether they can run a variant here, on whatever there is.

    Args:
        bundle: as in `able_engines`.
        profile: as there; without a list of providers, those of this device are tried where
            there may be some.
        variant: as there.
        kv: as there.

    Returns:
        Engines that can, and those with something to compute on behind a colon, those of the
        processor first; and why each other one cannot.

    Raises:
        EngineUnavailable: if none can, with every engine's reason.
    """
    able, reasons = able_engines(bundle, profile, variant=variant, wanted=None, kv=kv)
    found = list(able)
    for name, reason in _ways_of(bundle, with_providers(profile), able, variant):
        if reason is None:
            found.append(name)
        else:
            reasons[name] = reason
    return tuple(found), reasons


def _ways_of(
    bundle: Bundle, profile: DeviceProfile, able: Mapping[str, Engine], variant: str
) -> Iterator[tuple[str, str | None]]:
    for name, engine in able.items():
        if isinstance(engine, WaysEngine):
            for way in engine.ways(profile):
                chosen = engine.using(way)
                yield f"{name}:{way}", chosen.why_not(bundle, profile, variant=variant)


def able_engines(
    bundle: Bundle,
    profile: DeviceProfile,
    *,
    variant: str,
    wanted: str | None,
    kv: KvKind | None = None,
) -> tuple[dict[str, Engine], dict[str, str]]:
    """Ask the registered engines whether they can run a variant here.

    Args:
        bundle: a verified bundle.
        profile: what this device has.
        variant: a key of its manifest's variants.
        wanted: name of the only engine to ask; None for all, `PREFERRED_ENGINES` first.
        kv: what keys and values are to be kept as; None for each engine's own way.

    Returns:
        Those that can, in order of preference, at least one; and why each other one cannot.

    Raises:
        InputError: if there is no engine of the wanted name, or no such way.
        EngineUnavailable: if none can, with every engine's reason.
    """
    able: dict[str, Engine] = {}
    reasons: dict[str, str] = {}
    for name in _order() if wanted is None else [wanted]:
        try:
            engine = named_engine(name)
        except InputError as error:
            if wanted is not None:
                raise
            reasons[name] = str(error)
            continue
        reason = engine.why_not(bundle, profile, variant=variant) or _why_not_keep(engine, kv)
        if reason is None:
            able[name] = engine
        else:
            reasons[name] = reason
    if not able:
        raise EngineUnavailable(_none_able(bundle, variant, reasons))
    return able, reasons


def _why_not_keep(engine: Engine, kv: KvKind | None) -> str | None:
    try:
        opener_of(engine, kv)
    except EngineUnavailable as error:
        return str(error)
    return None


def _order() -> list[str]:
    known = plugin_names(ENGINES)
    preferred = [name for name in PREFERRED_ENGINES if name in known]
    return [*preferred, *(name for name in known if name not in PREFERRED_ENGINES)]


def _none_able(bundle: Bundle, variant: str, reasons: dict[str, str]) -> str:
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return (
        f"{bundle.root}: no engine can run variant {variant!r} here: {listed or 'none installed'}"
    )
