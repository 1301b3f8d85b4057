"""`POST /v1/feedback`: what it may say, about an answer by its id or about an example whole."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from onhand.core.errors import InputError
from onhand.device.learning.feedback import GOOD_FROM, Feedback, Verdict
from onhand.device.serving.api.bodies import Body
from onhand.device.serving.feedback.recent import RecentAnswer, RecentAnswers
from onhand.device.serving.refusals import Refusal, RefusedRequest

__all__ = ["Said", "Shown", "read_feedback_request"]

Shown = Callable[[RecentAnswer], tuple[str, str]]
"""Gives a conversation with tools as its model got it, and the answer as the model wrote it."""

_VERDICTS: Final[tuple[Verdict, ...]] = ("accepted", "corrected", "rated")
_ROLES: Final = ("system", "developer", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Said:
    """Feedback that was understood.

    Attributes:
        model: of which model; None for the first of its kind.
        feedback: it.
        from_answer: whether it is about an answer of a language model, by its id.
    """

    model: str | None
    feedback: Feedback
    from_answer: bool


def read_feedback_request(
    body: Body, recent: RecentAnswers, *, tenant: str, now_s: float, shown: Shown
) -> Said:
    """Understand a request to `/v1/feedback`.

    Either `id`, of an answer of this server to the same tenant, with `verdict` (accepted,
    corrected with `correction`, rated with `rating` from 0, bad, to 1, good), and `index` where it
    had several choices; or an example whole: `messages` with the right `answer`, or `input` (a
    text) or `image` (base64) with the right `label`.

    Args:
        body: its fields.
        recent: answers that may be rated by id.
        tenant: who asks.
        now_s: seconds since 1970.
        shown: shows an answer for which tools were offered.

    Returns:
        It.

    Raises:
        RefusedRequest: if a field is wrong, missing or unknown, or the tenant has no such answer.
    """
    name = body.text("id")
    found = _whole(body) if name is None else _by_id(body, name, recent, tenant=tenant, shown=shown)
    verdict = _verdict(body, "accepted" if name is None else None)
    rating = body.number("rating", 1.0, least=0.0, most=1.0)
    correction = body.text("correction")
    body.ignore(("user",))
    body.end()
    if (verdict == "corrected") != (correction is not None):
        raise body.wrong("correction", "must be given where verdict is corrected, and only there")
    if rating != 1.0 and verdict != "rated":
        raise body.wrong("rating", "is given only where verdict is rated")
    if found.is_continued and rating < GOOD_FROM:
        raise body.wrong(
            "rating",
            "below 0.5 is learned of conversations without tools; give a correction instead",
            code="unsupported",
        )
    is_other = correction is not None and correction != found.answer
    try:
        feedback = Feedback(
            tenant=tenant,
            at_s=now_s,
            verdict=verdict,
            messages=found.messages,
            text=found.text,
            picture=found.picture,
            answer=found.answer if correction is None else correction,
            wrong=found.answer if is_other else "",
            rating=rating,
            is_continued=found.is_continued,
            is_rendered=found.is_rendered,
        )
    except InputError as error:
        raise RefusedRequest(Refusal(status=400, message=str(error))) from error
    return Said(found.model, feedback, name is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the feedback is about."""

    model: str | None
    messages: tuple[tuple[str, str], ...] = ()
    text: str = ""
    picture: bytes = b""
    answer: str
    is_continued: bool = False
    is_rendered: bool = False


def _verdict(body: Body, otherwise: str | None) -> Verdict:
    given = body.text("verdict") or otherwise
    for known in _VERDICTS:
        if given == known:
            return known
    raise body.wrong("verdict", f"must be one of {', '.join(_VERDICTS)}")


def _by_id(body: Body, name: str, recent: RecentAnswers, *, tenant: str, shown: Shown) -> _Found:
    index = body.whole("index", least=0, most=10_000) or 0
    choices = recent.find(tenant, name)
    if not choices:
        message = (
            f"id: there is no answer {name[:60]!r} of yours any more; give messages and answer"
        )
        raise RefusedRequest(Refusal(status=404, message=message, code="no_answer", param="id"))
    if index >= len(choices):
        raise body.wrong("index", f"is {index}, the answer has {len(choices)} choices")
    return _of_answer(body, choices[index], shown)


def _of_answer(body: Body, given: RecentAnswer, shown: Shown) -> _Found:
    prompt = given.ask.prompt
    if given.is_cut:
        raise body.wrong("id", "a call of this answer was cut off", code="unsupported")
    if isinstance(prompt, str):
        return _Found(model=given.model, text=prompt, answer=given.text, is_continued=True)
    if given.ask.tools is not None or any(one.calls or one.role == "tool" for one in prompt):
        text, answer = shown(given)
        return _Found(
            model=given.model, text=text, answer=answer, is_continued=True, is_rendered=True
        )
    messages = tuple((one.role, one.content) for one in prompt)
    return _Found(model=given.model, messages=messages, answer=given.text)


def _whole(body: Body) -> _Found:
    model = body.text("model")
    text, image, label = body.text("input"), body.text("image"), body.text("label")
    if text is None and image is None:
        messages = _messages(body.objects("messages"))
        answer = body.text("answer")
        if not answer:
            raise body.wrong("answer", "must be the right answer, a text that is not empty")
        if label is not None:
            raise body.wrong("label", "goes with input or image")
        return _Found(model=model, messages=messages, answer=answer)
    if text is not None and image is not None:
        raise body.wrong("input", "give input, a text, or image, a picture; one of the two")
    if not label:
        raise body.wrong("label", "must be the name of the right class")
    picture = b"" if image is None else _picture(image, body)
    return _Found(model=model, text=text or "", picture=picture, answer=label)


def _messages(given: Sequence[Body]) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for one in given:
        role, content = one.text("role"), one.text("content")
        if role not in _ROLES:
            raise one.wrong("role", f"must be one of {', '.join(_ROLES)}")
        if content is None:
            raise one.wrong("content", "must be a text")
        one.end()
        found.append((role, content))
    if found[-1][0] == "assistant":
        raise given[-1].wrong("role", "of the last message is assistant: give that as answer")
    return tuple(found)


def _picture(given: str, body: Body) -> bytes:
    head, comma, tail = given.partition(",")
    if comma and not (head.startswith("data:image/") and head.endswith(";base64")):
        raise body.wrong("image", "must be 'data:image/...;base64,...', or base64 alone")
    try:
        found = base64.b64decode(tail if comma else given, validate=True)
    except (ValueError, binascii.Error) as error:
        raise body.wrong("image", f"is no base64: {error}") from error
    if not found:
        raise body.wrong("image", "is empty")
    return found
