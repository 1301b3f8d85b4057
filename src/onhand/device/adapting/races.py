"""Figures of several ways to do one thing, kept in the state folder: one store for all choices."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from onhand.core.bundle import Bundle
from onhand.core.errors import InputError, ResourceError
from onhand.core.progress import Progress
from onhand.device.state import recall, remember

__all__ = ["TIE", "Race", "keep_race", "recall_race", "remember_race"]

TIE: Final = 1.05
"""How many times as long is still as quick: less is noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What several ways took for the same work: engines, numbers of threads, variants.

    Attributes:
        latency_s: name -> median seconds of the work, preferred ones first.
        failed: name -> why it could not be timed.
        figures: name -> what else was measured of it, name -> value in SI units.
    """

    latency_s: Mapping[str, float]
    failed: Mapping[str, str]
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

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


def keep_race(
    home: Path, bundle: Bundle, name: str, done: Race, *, what: str, progress: Progress
) -> None:
    """Keep a race in the state folder, or say that it cannot be kept.

    Args:
        home: the folder.
        bundle: what was run.
        name: what it is found by, see `onhand.device.adapting.fingerprints`.
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
        name: as in `keep_race`.
        done: the race.

    Raises:
        ResourceError: if the folder cannot be written.
    """
    kept = {
        "failed": dict(done.failed),
        "figures": {way: dict(found) for way, found in done.figures.items()},
        "latency_s": dict(done.latency_s),
        "order": list(done.latency_s),
    }
    remember(home, bundle.manifest_sha256, name, kept)


def recall_race(
    home: Path,
    bundle: Bundle,
    name: str,
    names: Iterable[str] | None = None,
    *,
    progress: Progress | None = None,
) -> Race | None:
    """Return what `remember_race` kept.

    Args:
        home: the state folder.
        bundle: what was run.
        name: as in `keep_race`.
        names: of those that took part, preferred ones first; None for whoever did.
        progress: told where what was kept is damaged.

    Returns:
        The race; None where there is none, or what was kept is damaged, so that it is run anew.
    """
    try:
        kept = recall(home, bundle.manifest_sha256, name)
        if kept is None:
            return None
        found = _parsed(kept, names)
    except InputError as error:
        if progress is not None:
            progress.note(f"what was timed before is not used, it is timed anew: {error}")
        return None
    if found is None and names is None and progress is not None:
        progress.note("what was timed before is not used, it is timed anew: it is damaged")
    return found


def _parsed(kept: object, names: Iterable[str] | None) -> Race | None:
    if not isinstance(kept, dict):
        return None
    took, failed, figures = kept.get("latency_s"), kept.get("failed"), kept.get("figures", {})
    if not (isinstance(took, dict) and isinstance(failed, dict) and isinstance(figures, dict)):
        return None
    order = kept.get("order") if names is None else list(names)
    order = order if isinstance(order, list) else []
    latency_s = {n: took[n] for n in order if isinstance(took.get(n), float) and took[n] > 0}
    reasons = {
        n: reason
        for n, reason in failed.items()
        if isinstance(reason, str) and (names is None or n in order)
    }
    wanted = set(order) if names is not None else set(took) | set(reasons)
    # Without a time of any there must at least be a reason for each.
    whole = set(latency_s) | set(reasons) == wanted and (latency_s or (names is None and reasons))
    if not whole:
        return None
    return Race(latency_s=latency_s, failed=reasons, figures=_figures(figures, latency_s))


def _figures(kept: Mapping[str, object], names: Iterable[str]) -> dict[str, dict[str, float]]:
    return {
        name: {key: value for key, value in found.items() if isinstance(value, float)}
        for name in names
        if isinstance(found := kept.get(name), dict)
    }
