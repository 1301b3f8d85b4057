"""One thing that a user taught: what was asked, and what is right, accepted, or not good."""

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from onhand.core.errors import InputError
from onhand.core.outside import object_of, parse_json, shown, word
from onhand.device.learning.suspicion import Seen

__all__ = ["GOOD_FROM", "Feedback", "Verdict", "parse_feedback", "render_feedback", "seen_of"]

Verdict = Literal["accepted", "corrected", "rated"]
FORMAT: Final = 1
GOOD_FROM: Final = 0.5
"""Rating from which an answer counts as good."""
_VERDICTS: Final = ("accepted", "corrected", "rated")
_ROLES: Final = ("system", "developer", "user", "assistant", "tool")
_MOST_MESSAGES: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a user said of an answer, with all that it was an answer to.

    Attributes:
        tenant: who said it.
        at_s: when, seconds since 1970.
        verdict: what was said.
        messages: of a language model: (role, content) up to the question; else empty.
        text: of a classifier of texts: the input; of a language model a text that it was to go on
            with, or a conversation with tools as its template shows it; "" else.
        picture: of a classifier of pictures: the file; b"" else.
        answer: the right one: what was accepted or rated, or the correction; a class's name.
        wrong: the answer that was corrected; "" where nobody knows it, or it was not.
        rating: from 0, bad, to 1, good; 1 for what was accepted or corrected.
        is_continued: whether the text was given to a language model.
        is_rendered: whether it is a conversation that its template has shown.
    """

    tenant: str
    at_s: float
    verdict: Verdict
    messages: tuple[tuple[str, str], ...] = ()
    text: str = ""
    picture: bytes = b""
    answer: str
    wrong: str = ""
    rating: float = 1.0
    is_continued: bool = False
    is_rendered: bool = False

    def __post_init__(self) -> None:
        if sum(map(bool, (self.messages, self.text, self.picture))) != 1:
            raise InputError("feedback: give messages, a text or a picture, one of the three")
        if not self.answer:
            raise InputError("feedback: there is no answer to learn from")
        if self.verdict not in _VERDICTS:
            raise InputError(f"feedback: verdict is {self.verdict!r}, not {', '.join(_VERDICTS)}")
        if math.isfinite(self.rating) and not 0 <= self.rating <= 1:
            raise InputError(f"feedback: rating is {self.rating}, must be from 0 to 1")

    @property
    def is_good(self) -> bool:
        """Whether the answer is one to learn, and not one to avoid."""
        return self.rating >= GOOD_FROM

    @property
    def subject(self) -> str:
        """Hash of what was asked."""
        return _hash(self.messages, self.text, self.picture.hex())

    @property
    def id(self) -> str:
        """What it is called: the same for the same feedback of the same tenant."""
        return _hash(self.tenant, self.subject, self.answer, self.is_good)[:16]


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()


def seen_of(one: Feedback) -> Seen:
    """Return what suspicion needs of a feedback."""
    rated = (_hash(one.subject, one.answer), "good" if one.is_good else "bad")
    learned = ((one.subject, _hash(one.answer)),) if one.is_good else ()
    texts = [*(content for _, content in one.messages), one.text, one.answer, one.wrong]
    return Seen(
        tenant=one.tenant,
        claims=(*learned, rated),
        size=sum(len(text.encode(errors="replace")) for text in texts) + len(one.picture),
        numbers=(one.rating, one.at_s),
    )


def render_feedback(one: Feedback) -> bytes:
    """Return a feedback as one line of JSON, without the newline.

    Raises:
        InputError: if a number is not finite, or a text is no Unicode.
    """
    table: dict[str, object] = {
        "answer": one.answer,
        "at_s": one.at_s,
        "format": FORMAT,
        "rating": one.rating,
        "tenant": one.tenant,
        "verdict": one.verdict,
    }
    if one.messages:
        table["messages"] = [{"content": text, "role": role} for role, text in one.messages]
    if one.text:
        table["text"] = one.text
    if one.picture:
        table["picture"] = base64.b64encode(one.picture).decode()
    if one.wrong:
        table["wrong"] = one.wrong
    for key in ("is_continued", "is_rendered"):
        if getattr(one, key):
            table[key] = True
    try:
        return json.dumps(table, sort_keys=True, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:
        raise InputError(f"feedback: cannot be kept: {error}") from error


def parse_feedback(content: bytes) -> Feedback:
    """Read what `render_feedback` wrote.

    Args:
        content: the caller has bounded its length.

    Returns:
        The feedback.

    Raises:
        InputError: if it is anything else.
    """
    known = {"answer", "at_s", "format", "messages", "picture", "rating", "tenant", "text"}
    table = object_of(
        parse_json(content), "feedback", known | {"is_continued", "is_rendered", "verdict", "wrong"}
    )
    if table.get("format") != FORMAT:
        raise InputError(f"format {shown(table.get('format'))}, this reader knows {FORMAT}")
    verdict: Verdict = word(table, "verdict", "feedback", _VERDICTS)  # type: ignore[assignment] # one of these
    try:
        picture = base64.b64decode(_text(table, "picture"), validate=True)
    except (ValueError, binascii.Error) as error:
        raise InputError(f"feedback: picture is no base64: {error}") from error
    return Feedback(
        tenant=_text(table, "tenant"),
        at_s=_number(table, "at_s"),
        verdict=verdict,
        messages=_messages(table.get("messages", [])),
        text=_text(table, "text"),
        picture=picture,
        answer=_text(table, "answer"),
        wrong=_text(table, "wrong"),
        rating=_number(table, "rating"),
        is_continued=table.get("is_continued") is True,
        is_rendered=table.get("is_rendered") is True,
    )


def _messages(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > _MOST_MESSAGES:
        raise InputError(f"feedback: messages must be a list of up to {_MOST_MESSAGES}")
    found = []
    for one in value:
        table = object_of(one, "message", {"content", "role"})
        found.append((word(table, "role", "message", _ROLES), _text(table, "content")))
    return tuple(found)


def _text(table: Mapping[str, object], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise InputError(f"feedback: {key} is {shown(value)}, must be a text")
    return value


def _number(table: Mapping[str, object], key: str) -> float:
    value = table.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"feedback: {key} is {shown(value)}, must be a number")
    return float(value)
