"""From feedback that was taken to versions: what waits is left out, what is extreme is set aside.

Right answers are taught first; then what was not good, as pairs or single opinions.

HOME/state/MANIFEST-SHA256/learned/taken/new.jsonl, known.jsonl, pictures/   as `learn` reads it
HOME/state/MANIFEST-SHA256/learned/taken/pairs.jsonl, opinions.jsonl         likewise
HOME/state/MANIFEST-SHA256/learned/taught.json       how far the journal was learned, and how
"""

import json
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import BundleCorrupt, InputError, ResourceError
from onhand.core.lesson import REMEMBERED
from onhand.core.manifest import LANGUAGE_MODEL
from onhand.core.outside import count, object_of, parse_json
from onhand.device.learning.ceilings import GO, Permit
from onhand.device.learning.feedback import Feedback
from onhand.device.learning.learn import learn
from onhand.device.learning.learned import Learned, not_begun
from onhand.device.learning.quarantine import Intake, read_feedback
from onhand.device.learning.screening import Screening
from onhand.device.learning.settings import LearnSettings
from onhand.device.learning.suspicion import Limits
from onhand.device.learning.taught_lines import (
    good_answers,
    opinions_of,
    write_answers,
    write_lines,
)
from onhand.device.learning.versions import learned_folder
from onhand.device.vault.above import content_of, keys_above, write_placed

__all__ = ["Progressed", "learn_from_feedback", "note_failure", "progressed"]

FORMAT: Final = 1
_MAX_BYTES: Final = 2**20
_LEAST_KNOWN: Final = 5
_ANSWERS, _PAIRS = "new.jsonl", "pairs.jsonl"
_ADDED: Final = {"n_preferred": 0, "n_tried": 0, "n_paired": 0}  # earlier files lack them


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """How far a bundle has learned from its feedback.

    Attributes:
        n_seen: records of the journal at the end of the last training, whatever came of it.
        n_learned: those at the last one whose version was accepted: later ones are taught again.
        n_screened: those whose loss was looked at.
        n_preferred: those whose bad ratings were learned, or judged not to be learned.
        n_tried: those whose right answers were taught in the training that goes on now, whatever
            came of it: what is broken off after them does not teach them again.
        n_paired: the same of pairs of a right answer and a bad one.
        outcome: of the last training: "accepted", "refused", "failed"; "" before the first.
        reason: why not accepted.
    """

    n_seen: int = 0
    n_learned: int = 0
    n_screened: int = 0
    n_preferred: int = 0
    n_tried: int = 0
    n_paired: int = 0
    outcome: str = ""
    reason: str = ""


def progressed(folder: Path) -> Progressed:
    """Read how far a bundle has learned.

    Args:
        folder: as `learned_folder` gives it.

    Returns:
        It; of a damaged file the beginning: what was learned once is learned again.

    Raises:
        ResourceError: if it cannot be read.
    """
    path = folder / "taught.json"
    try:
        content = bytes(content_of(path, keys_above(folder, "memory"))[:_MAX_BYTES])
        table = object_of(parse_json(content), "taught", {"format", *Progressed.__slots__})
        numbers = {
            key: count({**_ADDED, **table}, key, "taught", least=0, most=2**53)
            for key in ("n_seen", "n_learned", "n_screened", *_ADDED)
        }
        return Progressed(
            **numbers, outcome=str(table.get("outcome")), reason=str(table.get("reason"))
        )
    except FileNotFoundError:
        return Progressed()
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror}") from error
    except InputError:
        return Progressed()


def _keep(folder: Path, now: Progressed) -> None:
    table = {"format": FORMAT, **{key: getattr(now, key) for key in Progressed.__slots__}}
    text = json.dumps(table, sort_keys=True) + "\n"
    write_placed(folder / "taught.json", text.encode(), keys_above(folder, "memory"))


def learn_from_feedback(
    root: Path,
    *,
    home: Path,
    settings: LearnSettings,
    limits: Limits,
    threads: int | None = None,
    permit: Permit = lambda _: GO,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> Learned | None:
    """Learn what was taken since the last version, and propose one.

    The same call again goes on where an earlier one was broken off. Examples whose loss is far
    above the others' are set aside first.

    Args:
        root: the bundle's folder.
        home: the state folder.
        settings: how; without `remember`, feedback that was learned before is remembered.
        limits: when a loss is extreme.
        threads: of one step; None for what this process may use.
        permit: asked before each step.
        is_interrupted: likewise.

    Returns:
        What came of it; None where there is nothing to learn.

    Raises:
        OnhandError: as in `learn`; that it failed is kept.
    """
    bundle = read_bundle(root)
    folder = learned_folder(home, bundle.manifest_sha256)
    before, taken = progressed(folder), read_feedback(folder)
    if len(taken) <= min(before.n_learned, before.n_preferred):
        return None
    intake = Intake(folder, limits)
    if before.n_screened < len(taken):
        screening = Screening(
            bundle=bundle, home=home, intake=intake, limits=limits, threads=threads or 1
        )
        if not screening.run(taken, before.n_screened, is_interrupted=is_interrupted):
            return not_begun(bundle.manifest.name, settings.method)
        before = replace(before, n_screened=len(taken))
        _keep(folder, before)
    held = {one.feedback.id for one in intake.held()}

    def taught(data: Path, how: LearnSettings) -> Learned:
        return learn(
            root,
            data,
            settings=how,
            home=home,
            threads=threads,
            permit=permit,
            is_interrupted=is_interrupted,
        )

    lessons = list(_lessons(bundle, folder, taken, before, settings, held=held))
    return _each(lessons, taught, before, folder=folder, n_taken=len(taken))


def _each(
    lessons: Sequence[tuple[Path, LearnSettings]],
    taught: Callable[[Path, LearnSettings], Learned],
    before: Progressed,
    *,
    folder: Path,
    n_taken: int,
) -> Learned | None:
    """Learn one file after the other, and keep how far that has gone."""
    made: Learned | None = None
    for number, (data, how) in enumerate(lessons):
        learned = taught(data, how)
        made = _after(made, learned)
        if learned.ended == "interrupted":
            return made
        before = _judged(before, learned, n_taken, name=data.name)
        if number + 1 < len(lessons):
            # What is left of a session that is broken off goes on in the next quiet time.
            _keep(folder, before)
    _keep(folder, replace(before, n_seen=n_taken, n_preferred=n_taken, n_tried=0, n_paired=0))
    return made


def _lessons(
    bundle: Bundle,
    folder: Path,
    taken: Sequence[Feedback],
    before: Progressed,
    settings: LearnSettings,
    *,
    held: Set[str],
) -> Iterator[tuple[Path, LearnSettings]]:
    """Yield each file to be learned now, and how."""
    room = folder / "taken"
    new, known = _to_learn(taken, before, held=held)
    carried = _carried(bundle)
    # More that came while it was broken off is taught together with what was refused.
    if new and before.n_tried < len(taken):
        how = settings
        if settings.remember is None and len(known) >= _LEAST_KNOWN:
            how = replace(settings, remember=write_answers(room, "known.jsonl", known, carried))
        yield write_answers(room, _ANSWERS, new), how
    if before.n_preferred >= len(taken):
        return
    opinions = opinions_of(
        taken,
        n_learned=before.n_preferred,
        n_paired=max(before.n_paired, before.n_preferred),
        held=held,
    )
    # Of opinions none is held back: that good answers are not lost is what judges.
    how = replace(settings, heldout=0.0, vary=0)
    good = good_answers(one for one in taken if one.id not in held)
    if settings.remember is None and len(good) >= _LEAST_KNOWN:
        how = replace(how, remember=write_answers(room, "liked.jsonl", good, carried))
    for name, lines in opinions.lines().items():
        yield write_lines(room, f"{name}.jsonl", lines), how


def _carried(bundle: Bundle) -> str:
    """Return the examples that a language model's bundle carries, as lines; "" for none.

    Raises:
        BundleCorrupt: if they cannot be read.
    """
    if REMEMBERED not in bundle.manifest.files or bundle.manifest.kind != LANGUAGE_MODEL:
        return ""
    try:
        text = bundle.path(REMEMBERED).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleCorrupt(f"{bundle.root}: {REMEMBERED} cannot be read: {error}") from error
    return text.rstrip("\n") + "\n"


def _after(first: Learned | None, last: Learned) -> Learned:
    """Return the last of several trainings, in use where any of them is."""
    if first is None:
        return last
    return replace(
        last,
        is_used=first.is_used or last.is_used,
        seconds=first.seconds + last.seconds,
        version=last.version if last.is_used or not first.is_used else first.version,
        reasons=(*first.reasons, *last.reasons),
    )


def _to_learn(
    taken: Sequence[Feedback], before: Progressed, *, held: Set[str]
) -> tuple[list[Feedback], list[Feedback]]:
    """Return what is new, and what was learned before; nothing that is held."""
    new = good_answers(one for one in taken[before.n_learned :] if one.id not in held)
    known = good_answers(one for one in taken[: before.n_learned] if one.id not in held)
    subjects = {one.subject for one in new}
    return new, [one for one in known if one.subject not in subjects]


def _judged(now: Progressed, learned: Learned, n_taken: int, *, name: str) -> Progressed:
    # Opinions that failed are not tried again: the same ones would fail again.
    is_learned = name == _ANSWERS and learned.is_accepted
    return replace(
        now,
        n_learned=n_taken if is_learned else now.n_learned,
        n_tried=n_taken if name == _ANSWERS else now.n_tried,
        n_paired=n_taken if name == _PAIRS else now.n_paired,
        outcome="accepted" if learned.is_accepted else "refused",
        reason="; ".join(learned.reasons),
    )


def note_failure(folder: Path, reason: str) -> None:
    """Note that a training failed, so that it is not begun again before there is more to learn.

    Args:
        folder: as `learned_folder` gives it.
        reason: why.

    Raises:
        ResourceError: if it cannot be written.
    """
    before = progressed(folder)
    n_seen = len(read_feedback(folder))
    _keep(folder, replace(before, n_seen=n_seen, outcome="failed", reason=reason[:2000]))
