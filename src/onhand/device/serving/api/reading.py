"""Fields that requests for text have in common."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from onhand.core.errors import InputError
from onhand.device.guide import json_grammar
from onhand.device.sampling import Sampling
from onhand.device.serving.api.bodies import Body
from onhand.device.serving.api.bounds import MOST_BIASES
from onhand.device.serving.api.schemas import ANSWER_SCHEMA
from onhand.device.serving.asks import Ask
from onhand.device.template import ROLES, Message
from onhand.device.tools.kinds import ToolCall

__all__ = [
    "WITHOUT_EFFECT",
    "choices_of",
    "grammar_of",
    "read_call",
    "read_calls",
    "read_message",
    "read_sampling",
    "text_of",
]

WITHOUT_EFFECT: Final = (
    "metadata",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "user",
)
"""Fields that name the caller or choose a tariff."""


def choices_of(ask: Ask, n: int) -> tuple[Ask, ...]:
    """Return one request for each of several choices: with one seed all would be the same."""
    seed = ask.sampling.seed
    if seed is None:
        return (ask,) * n
    return tuple(_seeded(ask, seed + i) for i in range(n))


def _seeded(ask: Ask, seed: int) -> Ask:
    wire = ask.wire
    if wire is not None:
        wire = replace(wire, fields={**wire.fields, "seed": seed})
    return replace(ask, sampling=replace(ask.sampling, seed=seed), wire=wire)


def grammar_of(wanted: Body, body: Body, key: str, *, is_flat: bool) -> str | None:
    """Return the grammar that a request wants its answer to follow.

    Args:
        wanted: the format: a type, and a schema where that is "json_schema".
        body: the fields it stands among.
        key: its field's name.
        is_flat: whether the schema stands beside the type, not within "json_schema".

    Returns:
        For `Ask.grammar`; None for any text.

    Raises:
        RefusedRequest: if there is no such type, or it is no schema.
    """
    kind = wanted.text("type") or "text"
    schema: object = {"type": "object"}
    if kind == "json_schema":
        described = wanted if is_flat else wanted.table("json_schema")
        described.ignore(("name", "description", "strict"))
        schema = described.value("schema") or schema
        if reason := ANSWER_SCHEMA.why_not(schema):
            raise described.wrong("schema", reason)
        described.end()
    elif kind not in {"text", "json_object"}:
        raise wanted.wrong("type", "must be text, json_object or json_schema")
    wanted.end()
    if kind == "text":
        return None
    try:
        return json_grammar(schema)
    except InputError as error:
        raise body.wrong(key, str(error)) from error


def read_sampling(body: Body, usual: Sampling) -> Sampling:
    """Return how tokens are chosen.

    Args:
        body: the request's fields.
        usual: the model's own, where the request says nothing.

    Returns:
        It.

    Raises:
        RefusedRequest: if a field is out of range.
    """
    return Sampling(
        temperature=body.number("temperature", usual.temperature, least=0, most=2),
        # 0 is allowed there, and keeps the likeliest token as any tiny number does.
        top_p=max(body.number("top_p", usual.top_p, least=0, most=1), 1e-9),
        top_k=_or(body.whole("top_k", least=0, most=2**31 - 1), usual.top_k),
        min_p=body.number("min_p", usual.min_p, least=0, most=1),
        repetition_penalty=body.number(
            "repetition_penalty", usual.repetition_penalty, least=0.01, most=100
        ),
        frequency_penalty=body.number("frequency_penalty", 0.0, least=-2, most=2),
        presence_penalty=body.number("presence_penalty", 0.0, least=-2, most=2),
        logit_bias=_bias(body),
        seed=body.whole("seed", least=0, most=2**63 - 1),
    )


def _bias(body: Body) -> tuple[tuple[int, float], ...]:
    """Return biases by token; JSON's keys are texts."""
    given = body.value("logit_bias")
    if given is None:
        return ()
    if not isinstance(given, dict) or len(given) > MOST_BIASES:
        raise body.wrong("logit_bias", f"must be an object of at most {MOST_BIASES} tokens")
    fields = Body(given, where="logit_bias")
    biases: list[tuple[int, float]] = []
    for key in given:
        if not (key.isascii() and key.isdigit() and len(key) <= 9):
            raise fields.wrong(key[:20], "is no token's number")
        biases.append((int(key), fields.number(key, 0.0, least=-100, most=100)))
    return tuple(sorted(biases))


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def read_message(body: Body) -> Message:
    """Return one turn of a conversation.

    Args:
        body: its fields.

    Returns:
        It, the parts of its content joined.

    Raises:
        RefusedRequest: if a field is wrong, or a part is no text.
    """
    role = body.text("role")
    if role not in ROLES:
        raise body.wrong("role", f"is {role!r}, must be one of {', '.join(ROLES)}")
    content = body.value("content")
    calls = read_calls(body) if role == "assistant" else ()
    call_id = (body.text("tool_call_id") or "") if role == "tool" else ""
    name = body.text("name") or ""
    body.ignore(("refusal", "annotations"))
    body.only("audio")
    body.end()
    # Answers that are calls alone have no text, and some programs send no results.
    may_be_empty = bool(calls) or role == "tool"
    text = "" if content is None and may_be_empty else text_of(content, body, "content")
    try:
        return Message(
            role, text, calls=calls, call_id=call_id, name=name if role == "tool" else ""
        )
    except InputError as error:
        raise body.wrong("content", str(error)) from error


def read_calls(body: Body) -> tuple[ToolCall, ...]:
    """Return the calls of an earlier answer.

    What a program sends back may be damaged: arguments that were cut off, or none at all. They
    are taken as they are, for a conversation that is refused once is refused for ever.

    Args:
        body: the message's fields.

    Returns:
        Them, in order.

    Raises:
        RefusedRequest: if one has no name, or is no call of a function.
    """
    if body.peek_value("tool_calls") in (None, []):
        body.ignore(("tool_calls",))
        return ()
    calls: list[ToolCall] = []
    for one in body.objects("tool_calls"):
        kind = one.text("type") or "function"
        if kind != "function":
            raise one.wrong("type", f"is {kind!r}, must be function")
        function = one.table("function")
        calls.append(read_call(function, one.text("id") or ""))
        one.ignore(("index",))
        function.end()
        one.end()
    return tuple(calls)


def read_call(body: Body, call_id: str) -> ToolCall:
    """Return one call of an earlier answer.

    Args:
        body: its name and arguments.
        call_id: what its result is known by.

    Returns:
        It, whatever became of its arguments.

    Raises:
        RefusedRequest: if it has no name.
    """
    name, arguments = body.text("name"), body.value("arguments")
    if not name:
        raise body.wrong("name", "is missing; say which tool was called")
    if not isinstance(arguments, str):  # some programs send JSON as it is
        arguments = "" if arguments is None else json.dumps(arguments)
    return ToolCall(call_id, name, arguments)


def text_of(content: object, body: Body, key: str) -> str:
    """Return a content's text, its parts joined.

    Args:
        content: a text, or a list of parts.
        body: the fields that it stands among.
        key: its field's name.

    Returns:
        The text.

    Raises:
        RefusedRequest: if it is neither, or a part is no text.
    """
    if isinstance(content, list):
        content = "".join(_part(part, body, key) for part in content)
    if not isinstance(content, str):
        raise body.wrong(key, "must be a text, or a list of parts of type text")
    return content


def _part(part: object, body: Body, key: str) -> str:
    if (
        isinstance(part, Mapping)
        and part.get("type") in ("text", "input_text", "output_text")
        and isinstance(part.get("text"), str)
    ):
        return str(part["text"])
    raise body.wrong(key, "has a part that is no text, which this model does not take")
