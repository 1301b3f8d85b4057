"""One example from one JSON object, as a line of a file or a request gives it."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from onhand.core.errors import InputError
from onhand.core.outside import shown
from onhand.device.learning.examples import (
    Continued,
    Dialogue,
    Example,
    Labelled,
    Opinion,
    PlainText,
    Preference,
)
from onhand.device.template import Message

__all__ = ["KEYS", "example_from_table"]

_MOST_MESSAGES: Final = 1000
_MOST_LETTERS: Final = 2**20
# Keys that say what an example is -> all that it is made of; the first that fits decides.
KEYS: Final = (
    ("messages",),
    ("prompt", "chosen", "rejected"),
    ("prompt", "completion", "label"),
    ("prompt", "completion"),
    ("text", "completion"),
    ("text", "label"),
    ("path", "label"),
    ("text",),
)
"""Forms of an example, by their keys."""


def example_from_table(
    table: Mapping[str, object], *, where: str, folder: Path | None = None
) -> tuple[Example, frozenset[str]]:
    """Read an example.

    Args:
        table: a JSON object that may come from outside:
            {"messages": [{"role", "content"}, ...]}: a conversation; all answers are learned;
            {"prompt", "completion"}: a prompt, a text or messages, and the answer to it;
            {"prompt", "chosen", "rejected"}: two answers; {"prompt", "completion", "label": true
            or false}: an answer and whether it was liked;
            {"text", "completion"}, and "rendered": true where a chat template wrote the text: a
            text as the model is given it, and how it goes on;
            {"text", "label"} and {"path", "label"}: a text or a file, and its class;
            {"text"}: a text.
        where: file and line, for messages.
        folder: that paths are relative to and must stay in; None where there are no paths.

    Returns:
        example: it.
        unused: keys that say nothing here.

    Raises:
        InputError: if it is none of these; without `where`.
    """
    form = next((keys for keys in KEYS if set(keys) <= table.keys()), None)
    if form is None:
        known = "; ".join(", ".join(keys) for keys in KEYS)
        raise InputError(f"keys {shown(sorted(table))} are no example; give one of: {known}")
    if form == ("messages",):
        example: Example = _dialogue(table["messages"], where)
    elif form[0] == "prompt":
        example = _answer(form, table, where)
    elif form == ("text", "completion"):
        form = (*form, "rendered")
        example = _continued(table, where)
    elif form == ("text",):
        example = PlainText(text=_text(table, "text"), where=where)
    else:
        given = _text(table, "text") if form[0] == "text" else _path(table["path"], folder)
        example = Labelled(given=given, label=_label(table["label"]), where=where)
    return example, frozenset(table.keys() - set(form))


def _continued(table: Mapping[str, object], where: str) -> Continued:
    is_rendered = table.get("rendered", False)
    if not isinstance(is_rendered, bool):
        raise InputError(f"rendered is {shown(is_rendered)}, must be true or false")
    text, answer = _text(table, "text"), _text(table, "completion")
    return Continued(text=text, answer=answer, is_rendered=is_rendered, where=where)


def _dialogue(value: object, where: str) -> Dialogue:
    messages = _messages(value)
    learned = tuple(i for i, one in enumerate(messages) if one.role == "assistant")
    if not learned:
        raise InputError("messages hold no answer of the assistant's to learn")
    if learned[0] == 0:
        raise InputError("messages begin with an answer of the assistant's; say what came before")
    return Dialogue(messages=messages[: learned[-1] + 1], learned=learned, where=where)


def _answer(form: tuple[str, ...], table: Mapping[str, object], where: str) -> Example:
    prompt = _prompt(table["prompt"])
    if "chosen" in form:
        chosen, rejected = _text(table, "chosen"), _text(table, "rejected")
        if chosen == rejected:
            raise InputError("chosen and rejected are the same answer")
        return Preference(prompt=prompt, chosen=chosen, rejected=rejected, where=where)
    answer = _text(table, "completion")
    if "label" in form:
        is_liked = table["label"]
        if not isinstance(is_liked, bool):
            raise InputError(f"label is {shown(is_liked)}, must be true or false for an answer")
        return Opinion(prompt=prompt, answer=answer, is_liked=is_liked, where=where)
    messages = (*prompt, Message("assistant", answer))
    return Dialogue(messages=messages, learned=(len(prompt),), where=where)


def _prompt(value: object) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message("user", _text({"prompt": value}, "prompt")),)
    if not isinstance(value, list):
        raise InputError(f"prompt is {shown(value)}, must be a text or a list of messages")
    return _messages(value)


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_MESSAGES:
        raise InputError(f"messages must be a list of 1 to {_MOST_MESSAGES}")
    found: list[Message] = []
    for i, entry in enumerate(value):
        if not isinstance(entry, Mapping) or not {"role", "content"} <= entry.keys():
            raise InputError(f"message {i} must be an object with role and content")
        if extra := sorted(entry.keys() - {"role", "content"}):
            raise InputError(f"message {i} has {shown(extra[0])}, which cannot be learned from")
        if not isinstance(entry["role"], str):
            raise InputError(f"message {i}: role is {shown(entry['role'])}, must be a text")
        found.append(Message(entry["role"], _text(entry, "content", empty=True)))
    return tuple(found)


def _text(table: Mapping[str, object], key: str, *, empty: bool = False) -> str:
    value = table[key]
    if not isinstance(value, str):
        raise InputError(f"{key} is {shown(value)}, must be a text")
    if not empty and not value.strip():
        raise InputError(f"{key} is empty")
    if len(value) > _MOST_LETTERS:
        raise InputError(f"{key} has {len(value)} letters, at most {_MOST_LETTERS} are read")
    return value


def _label(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    if not isinstance(value, str) or not 1 <= len(value.strip()) <= 200 or "\n" in value:
        raise InputError(f"label is {shown(value)}, must be a name of up to 200 letters")
    return value.strip()


def _path(value: object, folder: Path | None) -> Path:
    if folder is None:
        raise InputError("a path is given where no file can be: give a text")
    text = value if isinstance(value, str) else ""
    path = folder / text
    # A list of examples comes from outside: "../x" must not reach another folder.
    if (
        not text
        or PurePosixPath(text).is_absolute()
        or not path.resolve().is_relative_to(folder.resolve())
    ):
        raise InputError(f"path {shown(value)} must be that of a file inside of {folder}")
    if not path.is_file():
        raise InputError(f"path {shown(value)} is no file in {folder}")
    return path
