"""The four evaluations of a bundle, from trials of the ways in which this machine can run it.

The chosen way is the engine and the threads that the bundle is measured with. The plain way is
what any device has: ONNX Runtime, or the reference engine where that cannot run it, with one
thread. Leaving out one thing at a time says what each brings.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from onhand.core.errors import InputError, OnhandError
from onhand.core.evaluation import (
    Evaluation,
    EvaluationName,
    Part,
    Waterfall,
    evaluate,
    not_evaluated,
    quotient,
)
from onhand.core.measurement import Measurement
from onhand.core.progress import Progress

__all__ = [
    "PLAIN_ENGINES",
    "Figured",
    "Originals",
    "Tried",
    "Way",
    "WayNames",
    "attempt",
    "hardware",
    "optimisation",
    "plan_ways",
    "time_waterfall",
    "try_all",
    "try_originals",
    "ways_to_json",
    "without_paths",
]

_PATH = re.compile(r"(?<![\w/])(?:/[^\s/:;,'\"]+){2,}")
PLAIN_ENGINES: Final = ("onnx", "reference")


class Figured(Protocol):
    """A trial of one way."""

    @property
    def figures(self) -> Mapping[str, Measurement]:
        """Name -> what was measured."""
        ...


AnyTrial = TypeVar("AnyTrial", bound=Figured)


@dataclass(frozen=True, slots=True)
class Way:
    """An engine by its name, and threads of one step."""

    engine: str
    threads: int

    def words(self) -> str:
        """Say it in words."""
        return f"{self.engine}, {self.threads} {'thread' if self.threads == 1 else 'threads'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WayNames:
    """The ways to try.

    Attributes:
        chosen: that the bundle is measured with.
        plain: that any device has; equal to `chosen` where nothing else can run it.
        without_engine: the plain engine with the chosen threads; None where that is `chosen`.
        without_threads: the chosen engine with one thread; None where that is `chosen`.
    """

    chosen: Way
    plain: Way
    without_engine: Way | None
    without_threads: Way | None

    def all(self) -> tuple[Way, ...]:
        """Return each way once."""
        ways = (self.chosen, self.without_engine, self.without_threads, self.plain)
        return tuple(dict.fromkeys(way for way in ways if way is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What one way gave.

    Attributes:
        way: which.
        figures: its measurements by name; empty where it failed.
        missing: why it failed; "" where it did not.
    """

    way: Way
    figures: Mapping[str, Measurement] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Originals:
    """What the original gave beside the compressed model.

    Attributes:
        same: on the way that both can be run, the chosen one where it can; None where there is
            none.
        plain: on the plain way; likewise.
        why_not: why the chosen engine cannot run the original; "" where it can.
    """

    same: Tried | None = None
    plain: Tried | None = None
    why_not: str = ""

    def all(self) -> tuple[Tried, ...]:
        """Return each trial once."""
        given = [one for one in (self.same, self.plain) if one is not None]
        return tuple({one.way: one for one in given}.values())


def try_originals(
    names: WayNames,
    why_not: Callable[[str], str | None],
    run: Callable[[Way], Mapping[str, Measurement]],
) -> Originals:
    """Try the original on the plain way, and on one that the compressed model was tried on too.

    Args:
        names: the ways of the compressed model.
        why_not: name of an engine -> why it cannot run the original, None where it can.
        run: tries a way.

    Returns:
        What it gave.
    """
    reason = why_not(names.chosen.engine) or ""
    same = names.chosen if not reason else names.without_engine
    tried: dict[Way, Tried] = {}
    for way in (same, names.plain):
        if way is not None and why_not(way.engine) is None and way not in tried:
            tried[way] = attempt(way, run)
    return Originals(
        same=None if same is None else tried.get(same),
        plain=tried.get(names.plain),
        why_not=reason,
    )


def plan_ways(able: Collection[str], *, engine: str, threads: int) -> WayNames:
    """Say which ways are worth a trial.

    Args:
        able: engines that can run the bundle here.
        engine: the chosen one.
        threads: the chosen number.

    Returns:
        The ways.
    """
    plain = next((name for name in PLAIN_ENGINES if name in able), engine)
    return WayNames(
        chosen=Way(engine, threads),
        plain=Way(plain, 1),
        without_engine=None if plain == engine else Way(plain, threads),
        without_threads=None if threads == 1 else Way(engine, 1),
    )


def try_all(
    names: WayNames, trial: Callable[[Way], AnyTrial], *, progress: Progress
) -> tuple[dict[Way, Tried], AnyTrial | None]:
    """Try every way once.

    Args:
        names: the ways.
        trial: tries one; an `OnhandError` says why it cannot.
        progress: told of every way.

    Returns:
        What each gave, and the whole trial of the chosen one; None where it failed.
    """
    chosen: list[AnyTrial] = []

    def run(way: Way) -> Mapping[str, Measurement]:
        found = trial(way)
        if way == names.chosen:
            chosen.append(found)
        return found.figures

    tried: dict[Way, Tried] = {}
    progress.start("trying ways to run it", len(names.all()))
    for way in names.all():
        tried[way] = attempt(way, run)
        progress.advance(1)
    return tried, chosen[0] if chosen else None


def attempt(way: Way, run: Callable[[Way], Mapping[str, Measurement]]) -> Tried:
    """Try a way; that it fails is a finding, not an error.

    Args:
        way: which.
        run: tries it; an `OnhandError` says why it cannot.

    Returns:
        What it gave.
    """
    try:
        return Tried(way=way, figures=run(way))
    except OnhandError as error:
        return Tried(way=way, missing=f"{way.words()}: {without_paths(str(error))}")


def without_paths(text: str) -> str:
    """Return a message without the folders of this machine: a report travels.

    Args:
        text: the message.
    """
    return _PATH.sub(lambda found: found[0].rpartition("/")[2], text)


def ways_to_json(model: str, tried: Sequence[Tried]) -> list[dict[str, object]]:
    """Return what a report says of the trials of one model, "compressed" or "original"."""
    return [
        {
            "model": model,
            "engine": one.way.engine,
            "threads": one.way.threads,
            "figures": {name: figure.to_json() for name, figure in one.figures.items()},
            "missing": one.missing,
        }
        for one in tried
    ]


def optimisation(
    originals: Originals | None, tried: Mapping[Way, Tried], *, time: str, missing: str
) -> Evaluation:
    """Judge the change of the model: one way of running, the original against the compressed.

    Args:
        originals: what the original gave; None where it was not measured.
        tried: what the compressed model gave.
        time: the measurement that is compared.
        missing: why the original was not measured.

    Returns:
        The evaluation; its outcome is "efficiency", answers in a second against before. Where the
        chosen engine cannot run the original, both are compared in the plain one, and `missing`
        says so.
    """
    if originals is None or originals.same is None:
        return not_evaluated("optimisation", missing if originals is None else originals.why_not)
    before = originals.same
    found = _judged("optimisation", before, tried[before.way], time=time, outcome="efficiency")
    if not originals.why_not or found.missing:
        return found
    both = f"both in {before.way.words()}, because of the original: {originals.why_not}"
    return replace(found, missing=both)


def hardware(ways: WayNames, tried: Mapping[Way, Tried], *, time: str, energy: str) -> Evaluation:
    """Judge the way of running: one model, the plain way against the chosen one.

    Args:
        ways: the ways.
        tried: what each gave.
        time: the measurement that is compared.
        energy: the one of the energy that the same run took.

    Returns:
        The evaluation; its outcome is "energy_used", a share of the plain way's.
    """
    if ways.plain == ways.chosen:
        why = f"the chosen way is the plain one here: {ways.chosen.words()}"
        return not_evaluated("hardware", why)
    plain, chosen = tried[ways.plain], tried[ways.chosen]
    return _judged("hardware", plain, chosen, time=time, outcome="energy_used", energy=energy)


def _judged(
    name: EvaluationName,
    before: Tried,
    after: Tried,
    *,
    time: str,
    outcome: str,
    energy: str | None = None,
) -> Evaluation:
    if missing := before.missing or after.missing:
        return not_evaluated(name, missing)
    first, second = before.figures[time], after.figures[time]
    try:
        if energy is None:
            return evaluate(name, first, second, outcome=quotient(outcome, first, second))
        used = (after.figures[energy], before.figures[energy])
        if used[1].value <= 0:
            why = f"the energy of a run on the plain way is below what {used[1].how} can count"
            return evaluate(name, first, second, outcome=None, missing=why)
        return evaluate(name, first, second, outcome=quotient(outcome, *used))
    except InputError as error:
        return not_evaluated(name, str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaving:
    label: str
    tried: Tried | None
    figure: str


def time_waterfall(
    ways: WayNames,
    tried: Mapping[Way, Tried],
    originals: Originals | None,
    *,
    measurement: str,
    cold: str,
    warm: str,
    labels: Mapping[str, str],
) -> Waterfall | None:
    """Say what compression, engine, threads and memory of prompts each bring to a time.

    Args:
        ways: the ways.
        tried: what each gave for the compressed model.
        originals: what the original gave; None where it was not measured.
        measurement: what the time is called.
        cold: the measurement without anything remembered.
        warm: the one with it; the same as `cold` where nothing is remembered.
        labels: "compression", "engine", "threads" and "memory" -> what they are called; also
            "both" for compression and engine together, where the engine runs nothing else.

    Returns:
        The waterfall; None where there is no beginning or no end.
    """
    end = tried[ways.chosen]
    start = None if originals is None else originals.plain
    if originals is None or start is None or start.missing or end.missing:
        return None
    label = labels["both" if originals.why_not else "compression"]
    leaving = [
        _Leaving(label=label, tried=originals.same, figure=warm),
        _Leaving(
            label=labels["engine"],
            tried=None if ways.without_engine is None else tried[ways.without_engine],
            figure=warm,
        ),
        _Leaving(
            label=labels["threads"],
            tried=None if ways.without_threads is None else tried[ways.without_threads],
            figure=warm,
        ),
    ]
    if warm != cold:
        leaving.append(_Leaving(label=labels["memory"], tried=end, figure=cold))
    given = [(one, one.tried) for one in leaving if one.tried is not None]
    return Waterfall(
        measurement=measurement,
        before=start.figures[cold],
        after=end.figures[warm],
        parts=tuple(
            Part(label=one.label, without=found.figures[one.figure])
            for one, found in given
            if not found.missing
        ),
        missing={one.label: found.missing for one, found in given if found.missing},
    )
