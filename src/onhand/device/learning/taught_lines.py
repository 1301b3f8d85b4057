"""Feedback as files that are learned from: right answers, pairs of answers, single opinions."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError, ResourceError
from onhand.device.learning.feedback import Feedback
from onhand.device.vault.above import PlacedKeys, content_of, keys_above, write_placed

__all__ = ["Opinions", "good_answers", "opinions_of", "write_answers", "write_lines"]

_SUFFIXES: Final = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8", ".jpg"),
    (b"RIFF", ".wav"),
    (b"PK", ".npz"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinions:
    """What was said of answers of a language model that were not good.

    Attributes:
        pairs: a good answer, and a bad one to the same question.
        singles: bad answers whose question has no good one, and good answers beside them.
    """

    pairs: tuple[tuple[Feedback, Feedback], ...]
    singles: tuple[Feedback, ...]

    def lines(self) -> Mapping[str, list[Mapping[str, object]]]:
        """Return each kind that there is as lines of a file of its own."""
        pairs: list[Mapping[str, object]] = [
            {**_prompt(good), "chosen": good.answer, "rejected": bad.answer}
            for good, bad in self.pairs
        ]
        singles: list[Mapping[str, object]] = [
            {**_prompt(one), "completion": one.answer, "label": one.is_good} for one in self.singles
        ]
        return {
            name: lines for name, lines in (("pairs", pairs), ("opinions", singles)) if len(lines)
        }


def good_answers(feedback: Iterable[Feedback]) -> list[Feedback]:
    """Return what is to be learned, the last of each input: it was released over the others.

    Args:
        feedback: the oldest first.
    """
    found: dict[str, Feedback] = {}
    for one in feedback:
        if one.is_good:
            found[one.subject] = one
        elif one.subject in found and found[one.subject].answer == one.answer:
            del found[one.subject]
    return list(found.values())


def opinions_of(
    taken: Sequence[Feedback], *, n_learned: int, held: Set[str], n_paired: int | None = None
) -> Opinions:
    """Find what bad ratings teach: what was said last of an answer counts.

    Args:
        taken: all that was taken, the oldest first.
        n_learned: of them, whose opinions were learned before.
        held: ids of what waits in quarantine.
        n_paired: of them, whose pairs were learned before; None for `n_learned`.

    Returns:
        Pairs and single opinions of which at least one is new.
    """
    paired_before = n_learned if n_paired is None else n_paired
    said: dict[tuple[str, str], tuple[int, Feedback]] = {}
    for number, one in enumerate(taken):
        if one.messages and one.id not in held:
            said[one.subject, one.answer] = (number, one)
    good = {one.subject: (number, one) for number, one in said.values() if one.is_good}
    pairs, singles = [], []
    for number, one in said.values():
        if one.is_good:
            continue
        better = good.get(one.subject)
        if better is not None:
            if max(number, better[0]) >= n_learned:
                pairs.append((max(number, better[0]), better[1], one))
        elif number >= n_learned:
            singles.append(one)
    if singles:
        paired = {one.subject for _, one, _ in pairs}
        # Beside what was liked, so that not everything becomes less likely.
        singles += [one for _, one in good.values() if one.subject not in paired]
    new = tuple((good, bad) for number, good, bad in pairs if number >= paired_before)
    return Opinions(pairs=new, singles=tuple(singles))


def write_answers(folder: Path, name: str, feedback: Sequence[Feedback], before: str = "") -> Path:
    """Write right answers as `read_examples` takes them; see `write_lines`.

    Args:
        folder: where; pictures are put into a folder in it.
        name: of the file.
        feedback: good answers alone.
        before: lines that stand before them.

    Returns:
        The file.

    Raises:
        ResourceError: if they cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = [_answer(folder, one) for one in feedback]
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return write_lines(folder, name, lines, before)


def write_lines(
    folder: Path, name: str, lines: Iterable[Mapping[str, object]], before: str = ""
) -> Path:
    """Write lines of JSON; the same ones give the same bytes, and leave a file as it is.

    Args:
        folder: where.
        name: of the file.
        lines: an object each.
        before: text that stands before them.

    Returns:
        The file.

    Raises:
        ResourceError: if they cannot be written.
    """
    made = [json.dumps(line, sort_keys=True, ensure_ascii=False) for line in lines]
    text = before + "\n".join(made) + "\n"
    path, placed = folder / name, keys_above(folder, "memory")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_there(path, text.encode(), placed):
            write_placed(path, text.encode(), placed)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return path


def _prompt(one: Feedback) -> dict[str, object]:
    return {"prompt": [{"role": role, "content": content} for role, content in one.messages]}


def _answer(folder: Path, one: Feedback) -> Mapping[str, object]:
    if one.messages:
        return {**_prompt(one), "completion": one.answer}
    if one.picture:
        return {"path": _picture(folder, one.picture), "label": one.answer}
    if one.is_continued:
        return {"text": one.text, "completion": one.answer, "rendered": one.is_rendered}
    return {"text": one.text, "label": one.answer}


def _is_there(path: Path, content: bytes, placed: PlacedKeys | None) -> bool:
    try:
        return content_of(path, placed) == content
    except (FileNotFoundError, InputError):
        # What was put there by somebody else is written over.
        return False


def _picture(folder: Path, content: bytes) -> str:
    suffix = next((end for start, end in _SUFFIXES if content.startswith(start)), ".png")
    name = f"pictures/{hashlib.sha256(content).hexdigest()[:32]}{suffix}"
    path = folder / name
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_placed(path, content, keys_above(path.parent, "memory"))
    return name
