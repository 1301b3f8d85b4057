"""From feedback that was taken to a version: what waits is left out, what is extreme is set aside.

HOME/state/MANIFEST-SHA256/learned/taken/new.jsonl, known.jsonl, pictures/   as `learn` reads it
HOME/state/MANIFEST-SHA256/learned/taught.json       how far the journal was learned, and how
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError, ResourceError
from onhand.core.outside import count, object_of, parse_json
from onhand.device.learning.added import added_classes
from onhand.device.learning.ceilings import GO, Permit
from onhand.device.learning.feedback import Feedback
from onhand.device.learning.graph import open_lesson
from onhand.device.learning.in_use import versions_of, whole_values
from onhand.device.learning.judging import judge
from onhand.device.learning.learn import learn
from onhand.device.learning.learned import Learned
from onhand.device.learning.material import Given, make_material, read_given
from onhand.device.learning.quarantine import Intake, read_feedback
from onhand.device.learning.settings import LearnSettings
from onhand.device.learning.suspicion import Limits, extreme_losses
from onhand.device.learning.versions import Versions, learned_folder
from onhand.device.state import write_text_atomically

__all__ = ["Progressed", "learn_from_feedback", "note_failure", "progressed"]

FORMAT: Final = 1
_MAX_BYTES: Final = 2**20
_LEAST_KNOWN: Final = 5
_SUFFIXES: Final = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8", ".jpg"),
    (b"RIFF", ".wav"),
    (b"PK", ".npz"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """How far a bundle has learned from its feedback.

    Attributes:
        n_seen: records of the journal at the end of the last training, whatever came of it.
        n_learned: those at the last one whose version was accepted: later ones are taught again.
        n_screened: those whose loss was looked at.
        outcome: of the last training: "accepted", "refused", "failed"; "" before the first.
        reason: why not accepted.
    """

    n_seen: int = 0
    n_learned: int = 0
    n_screened: int = 0
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
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES)
        table = object_of(parse_json(content), "taught", {"format", *Progressed.__slots__})
        numbers = {
            key: count(table, key, "taught", least=0, most=2**53)
            for key in ("n_seen", "n_learned", "n_screened")
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
    write_text_atomically(folder / "taught.json", json.dumps(table, sort_keys=True) + "\n")


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
    if len(taken) <= before.n_learned:
        return None
    intake = Intake(folder, limits)
    if before.n_screened < len(taken):
        _screen(bundle, home, taken, before, intake=intake, limits=limits, threads=threads)
        before = replace(before, n_screened=len(taken))
        _keep(folder, before)
    new, known = _to_learn(taken, before, held={one.feedback.id for one in intake.held()})
    after = replace(before, n_seen=len(taken))
    if not new:
        _keep(folder, after)
        return None
    if settings.remember is None and len(known) >= _LEAST_KNOWN:
        settings = replace(settings, remember=_write(folder / "taken", "known.jsonl", known))
    learned = learn(
        root,
        _write(folder / "taken", "new.jsonl", new),
        settings=settings,
        home=home,
        threads=threads,
        permit=permit,
        is_interrupted=is_interrupted,
    )
    if learned.ended != "interrupted":
        _keep(folder, _judged(after, learned))
    return learned


def _to_learn(
    taken: Sequence[Feedback], before: Progressed, *, held: Set[str]
) -> tuple[list[Feedback], list[Feedback]]:
    """Return what is new, and what was learned before; nothing that is held."""
    new = _latest(one for one in taken[before.n_learned :] if one.id not in held)
    known = _latest(one for one in taken[: before.n_learned] if one.id not in held)
    subjects = {one.subject for one in new}
    return new, [one for one in known if one.subject not in subjects]


def _judged(now: Progressed, learned: Learned) -> Progressed:
    return replace(
        now,
        n_learned=now.n_seen if learned.is_accepted else now.n_learned,
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


def _latest(feedback: Iterable[Feedback]) -> list[Feedback]:
    """Return what is to be learned, the last of each input: it was released over the others."""
    found: dict[str, Feedback] = {}
    for one in feedback:
        if one.is_good:
            found[one.subject] = one
    return list(found.values())


def _screen(
    bundle: Bundle,
    home: Path,
    taken: Sequence[Feedback],
    before: Progressed,
    *,
    intake: Intake,
    limits: Limits,
    threads: int | None,
) -> None:
    """Set aside what was taken since and has an extreme loss."""
    good = [(number, one) for number, one in enumerate(taken) if one.is_good]
    losses = _losses(bundle, versions_of(bundle, home), [one for _, one in good], threads=threads)
    rows = [(number, one, losses[i]) for i, (number, one) in enumerate(good) if i in losses]
    for is_correction in (False, True):
        # The model said itself what was accepted, so its loss is low; a correction's never is.
        alike = [row for row in rows if (row[1].verdict == "corrected") == is_correction]
        new = [(one, loss) for number, one, loss in alike if number >= before.n_screened]
        past = [loss for number, _, loss in alike if number < before.n_screened]
        suspects = extreme_losses(
            np.array([loss for _, loss in new], dtype=np.float32),
            np.array(past, dtype=np.float32),
            limits,
        )
        for index, reason in suspects.items():
            intake.hold(new[index][0], reason)


def _losses(
    bundle: Bundle, versions: Versions, feedback: Sequence[Feedback], *, threads: int | None
) -> dict[int, float]:
    """Return index -> loss by the version in use; without those of a class that is new to it.

    Raises:
        InputError: if an example does not fit the lesson.
    """
    if not feedback:
        return {}
    data = _write(versions.folder / "taken", "screened.jsonl", feedback)
    examples = read_given(data, LearnSettings(heldout=0.0)).new
    if len(examples) != len(feedback):
        raise InputError(f"{data}: {len(examples)} examples of {len(feedback)} were read")
    losses: dict[int, float] = {}
    with closing(open_lesson(bundle, threads=threads or 1)) as teachable:
        values = dict(whole_values(bundle, versions, versions.current().version))
        added = added_classes(versions.folder)
        for i, example in enumerate(examples):
            given = Given(new=(example,), heldout=(), past=(), past_heldout=(), notes=())
            material = make_material(bundle, teachable, given, added=added)
            if material.known is not None and material.width > material.known:
                continue
            marks = judge(teachable, values, material.new, batch=1)
            losses[i] = float(marks.losses.mean())
    return losses


def _write(folder: Path, name: str, feedback: Sequence[Feedback]) -> Path:
    """Write examples as `read_examples` takes them; the same ones give the same bytes.

    Raises:
        ResourceError: if they cannot be written.
    """
    lines = [json.dumps(_line(folder, one), sort_keys=True, ensure_ascii=False) for one in feedback]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / name
        text = "\n".join(lines) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text_atomically(path, text)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return path


def _line(folder: Path, one: Feedback) -> Mapping[str, object]:
    if one.messages:
        messages = [{"role": role, "content": content} for role, content in one.messages]
        return {"prompt": messages, "completion": one.answer}
    if one.picture:
        return {"path": _picture(folder, one.picture), "label": one.answer}
    return {"text": one.text, "label": one.answer}


def _picture(folder: Path, content: bytes) -> str:
    suffix = next((end for start, end in _SUFFIXES if content.startswith(start)), ".png")
    name = f"pictures/{hashlib.sha256(content).hexdigest()[:32]}{suffix}"
    path = folder / name
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(content)
    return name
