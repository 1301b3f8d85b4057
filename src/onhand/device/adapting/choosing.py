"""Which engine runs a language model here, on what and with how many threads: by trial, once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, Unpack

from onhand.core.bundle import Bundle
from onhand.core.plugins import ENGINES, plugin_names
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress, Quiet
from onhand.core.units import format_seconds
from onhand.device.adapting.fingerprints import fingerprint
from onhand.device.adapting.races import Race, keep_race, recall_race
from onhand.device.adapting.trial import (
    ANSWER_TOKENS,
    PROMPT_TOKENS,
    Start,
    parse_way,
    run_trial,
    way_name,
)
from onhand.device.adapting.trial_child import Job
from onhand.device.engines.choosing import EngineWays
from onhand.device.free_memory import free_memory

__all__ = ["LAST_RESORT", "WayChoice", "choose_way", "recall_way", "thread_counts"]

LAST_RESORT: Final = "reference"
"""It defines what the others compute and is slower than all of them: never worth the timing."""
_KIND: Final = "decoder-way"
_COPIES: Final = 3  # of the weights: as stored, packed by one engine, and by another

Source = Literal["asked", "only", "timed", "remembered", "preferred"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WayChoice:
    """How a language model is run here, and why so.

    Attributes:
        engine: name of the engine, with what it computes on behind a colon.
        threads: of one step.
        source: "asked" for, the "only" one, "timed" just now, "remembered" from then, or
            "preferred" without a trial.
        slower: engine or engine and threads -> what it took, of those that were timed.
        failed: engine -> why it could not be timed.
        figures: what was measured of the one that is taken: `decode_s` and
            `prefill_s_per_token`; empty where nothing was timed.
        fallbacks: engines to take where it cannot be opened, the quickest first.
    """

    engine: str
    threads: int
    source: Source
    slower: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Say in one line what is taken, and how fast it was."""
        chosen = way_name(self.engine, self.threads)
        if self.source in {"timed", "remembered"} and self.figures:
            return f"{chosen}: {_speed(self.figures)}, {self.source} here"
        return f"{chosen}, {'as asked' if self.source == 'asked' else f'the {self.source} one'}"

    def others(self) -> dict[str, str]:
        """Return why each other engine was not taken; of one with threads, the quickest."""
        said = dict(self.failed)
        for name, reason in self.slower.items():
            engine, _ = parse_way(name)
            if engine != self.engine:
                said.setdefault(engine, reason)
        return said


def thread_counts(most: int) -> tuple[int, ...]:
    """Return the numbers of threads worth a trial, the most first: all, and halves of them.

    Args:
        most: what a step may use.
    """
    found = [most]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return tuple(found)


def choose_way(
    bundle: Bundle,
    variant: str,
    able: tuple[str, ...] | Callable[[], tuple[str, ...]],
    profile: DeviceProfile,
    *,
    home: Path,
    threads: int | None = None,
    progress: Progress | None = None,
    start: Start | None = None,
    **ways: Unpack[EngineWays],
) -> WayChoice:
    """Choose by a trial, or by what a trial once found.

    Args:
        bundle: a verified bundle of a language model.
        variant: one of its variants.
        able: engines that can run it, preferred ones first, or what finds them: it is asked only
            where nothing is remembered.
        profile: what this device has.
        home: the state folder.
        threads: of one step; None to choose.
        progress: told of a trial, and of what cannot be kept.
        start: runs a trial's job; None for a process of its own.
        **ways: `head`, `kv` and `prefill`, as in `onhand.device.opening.open`.

    Returns:
        The choice.
    """
    shown = progress or Quiet()
    counts = thread_counts(profile.usable_threads) if threads is None else (threads,)
    name = _name(variant, profile, counts, ways)
    done = recall_race(home, bundle, name, progress=shown)
    if done is not None:
        return _chosen(done, "remembered")
    names = able() if callable(able) else able
    worth = tuple(one for one in names if one != LAST_RESORT)
    if not worth or (len(worth) == 1 and len(counts) == 1):
        return replace(_preferred(names, counts), source="only")
    size, free = bundle.size_bytes(variant), free_memory().n_bytes
    if 2 * size > free:
        shown.note(f"ways to run it are not timed: {free} bytes are free, too few for {size} twice")
        return _preferred(names, counts)
    job = Job(
        root=str(bundle.root.absolute()),
        variant=variant,
        ways=worth,
        threads=counts,
        together=_COPIES * len(worth) * size < free,
        **ways,
    )
    shown.start("timing what runs it quickest here, once", 1)
    done = run_trial(job, start)
    shown.advance(1)
    if done.latency_s:
        keep_race(home, bundle, name, done, what="what is quickest", progress=shown)
        return _chosen(done, "timed")
    # Opening says why again; a failure of all of them is nothing to go by next time.
    return replace(_preferred(names, counts), failed=done.failed)


def _preferred(names: tuple[str, ...], counts: tuple[int, ...]) -> WayChoice:
    return WayChoice(engine=names[0], threads=counts[0], source="preferred", fallbacks=names[1:])


def recall_way(
    bundle: Bundle,
    variant: str,
    profile: DeviceProfile,
    *,
    home: Path,
    threads: int | None = None,
    **ways: Unpack[EngineWays],
) -> WayChoice | None:
    """Return what a trial once found, or None; nothing is opened. Arguments are `choose_way`'s."""
    counts = thread_counts(profile.usable_threads) if threads is None else (threads,)
    done = recall_race(home, bundle, _name(variant, profile, counts, ways))
    return None if done is None else _chosen(done, "remembered")


def _name(variant: str, profile: DeviceProfile, counts: tuple[int, ...], ways: EngineWays) -> str:
    engines = plugin_names(ENGINES)
    whole = {"head": "full", "kv": None, "prefill": "exact", **ways}
    facts = {"counts": counts, "engines": engines, "variant": variant, "ways": whole}
    return fingerprint(_KIND, facts, profile, threads=counts[0])


def _chosen(done: Race, source: Source) -> WayChoice:
    winner = done.winner()
    engine, threads = parse_way(winner)
    slower: dict[str, str] = {}
    quickest: dict[str, float] = {}
    own = done.figures.get(winner, {})
    for name, took_s in sorted(done.latency_s.items(), key=lambda one: one[1]):
        other, _ = parse_way(name)
        if name != winner:
            slower[name] = f"{_speed(done.figures.get(name, {}))} here, {winner} {_speed(own)}"
        quickest[other] = min(took_s, quickest.get(other, took_s))
    order = sorted(quickest, key=lambda one: quickest[one])
    return WayChoice(
        engine=engine,
        threads=threads,
        source=source,
        slower=slower,
        failed=dict(done.failed),
        figures=dict(own),
        fallbacks=tuple(one for one in order if one != engine),
    )


def _speed(figures: Mapping[str, float]) -> str:
    """Say how fast something was: tokens a second, and the time of a usual answer."""
    decode_s, prefill_s = figures.get("decode_s", 0.0), figures.get("prefill_s_per_token", 0.0)
    if not (decode_s > 0 and prefill_s > 0):
        return "not timed"
    whole_s = PROMPT_TOKENS * prefill_s + ANSWER_TOKENS * decode_s
    return (
        f"{_rate(decode_s)} tokens/s and {_rate(prefill_s)} of a prompt "
        f"({format_seconds(whole_s)} for {PROMPT_TOKENS} and {ANSWER_TOKENS})"
    )


def _rate(seconds: float) -> str:
    return f"{1 / seconds:,.0f}" if seconds < 0.01 else f"{1 / seconds:.3g}"
