"""How a model is told of its tools, and of calls that were made: by its template or in words."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from onhand.core.errors import InputError
from onhand.device.template import ChatTemplate, Message
from onhand.device.tools.formats import GENERIC, CallFormat, format_of
from onhand.device.tools.kinds import Tool, ToolCall, ToolUse, parsed_arguments

__all__ = ["Telling", "telling_of"]

_PROBE: Final = Tool(
    name="probe_7c1f", description="", parameters={"type": "object", "properties": {}}
)
_WORDS: Final = """You may call these functions:
{tools}

{must}To call one, write its name and its arguments in this form and nothing else:
{opening}
{{"name": "NAME", "arguments": {{"ARGUMENT": "VALUE"}}}}
{closing}
{several}Results come back between <tool_response> and </tool_response>. Where no function helps, \
answer without this form."""
_MUST: Final = "Answer with a call of {names}. "
_SEVERAL: Final = "Write the form once for each call. "
_ID_LETTERS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class Telling:
    """How one model is told of tools. Made by `telling_of`; safe to share between threads.

    Attributes:
        form: how the model writes calls.
        is_native: whether its template knows tools; if not, they are told in words.
    """

    def __init__(self, template: ChatTemplate | None, form: CallFormat, *, is_native: bool) -> None:
        """Use `telling_of`."""
        self._template = template
        self.form = form
        self.is_native = is_native

    def render(self, messages: Sequence[Message], use: ToolUse | None) -> str:
        """Return the text of a conversation in which tools are offered or were called.

        Args:
            messages: at least one.
            use: what is offered; None for nothing.

        Returns:
            The text, for `Tokenizer.encode_template`.

        Raises:
            InputError: if there is no template, or it refuses the messages.
        """
        if self._template is None:
            raise InputError("chat: this model has no chat template")
        messages = _named(messages)
        if not self.is_native:
            return self._told_in_words(self._template, messages, use)
        if self.form.has_short_ids:
            messages = [_with_short_ids(message) for message in messages]
        tools = () if use is None else use.tools
        try:
            return self._template.render(messages, tools=tools)
        except InputError:
            # Some templates refuse turns of several calls, which others' histories hold.
            single = _one_call_each(messages)
            if len(single) == len(messages):
                raise
            return self._template.render(single, tools=tools)

    def answer_text(self, content: str, calls: Sequence[ToolCall]) -> str:
        """Return an answer that called tools as the model itself wrote it.

        Args:
            content: its text, before the calls.
            calls: that it made, in order.

        Returns:
            The text; spaces between JSON's parts may be other ones than the model's.
        """
        if not calls:
            return content
        form = self.form
        values = [_call_value(call, form) for call in calls]
        if form.layout == "list":
            shown = [f"{form.opening}{json.dumps(values, ensure_ascii=False)}{form.closing}"]
        elif form.layout == "bare":
            shown = [json.dumps(value, ensure_ascii=False) for value in values]
        else:
            shown = [_call_text(call, form) for call in calls]
        return "\n".join(part for part in (content, *shown) if part)

    def _told_in_words(
        self, template: ChatTemplate, messages: Sequence[Message], use: ToolUse | None
    ) -> str:
        turns = _without_calls(messages, self.form)
        if use is None:
            return template.render(turns)
        words = _words(use, self.form)
        first = turns[0] if turns else None
        if first is not None and first.role in {"system", "developer"}:
            told = [replace(first, content=f"{first.content}\n\n{words}"), *turns[1:]]
        else:
            told = [Message("system", words), *turns]
        try:
            text = template.render(told)
        except InputError:
            text = ""
        if _PREFACE in text:
            return text
        # Some templates refuse what a system says, or leave it out: then it is said by the user.
        return template.render(_said_by_user(turns, words))


_PREFACE: Final = _WORDS.split("\n", 1)[0]


def telling_of(template: ChatTemplate | None) -> Telling:
    """Find out how a model is told of tools, by showing its template one.

    Args:
        template: the model's; None if it has none.

    Returns:
        How.
    """
    if template is None or not _shows_tools(template):
        return Telling(template, GENERIC, is_native=False)
    form = format_of(template.source)
    return Telling(template, form, is_native=form is not GENERIC)


def _shows_tools(template: ChatTemplate) -> bool:
    try:
        return _PROBE.name in template.render([Message("user", "x")], tools=[_PROBE])
    except InputError:
        return False


def _words(use: ToolUse, form: CallFormat) -> str:
    tools = "\n".join(json.dumps(tool.described(), ensure_ascii=False) for tool in use.tools)
    return _WORDS.format(
        tools=tools,
        must=_MUST.format(names=" or ".join(use.names)) if use.is_required else "",
        opening=form.opening,
        closing=form.closing,
        several=_SEVERAL if use.is_parallel else "",
    )


def _said_by_user(turns: Sequence[Message], words: str) -> list[Message]:
    instructed = [turn for turn in turns if turn.role not in {"system", "developer"}]
    said = [turn.content for turn in turns if turn.role in {"system", "developer"}]
    preface = "\n\n".join([*said, words])
    for place, turn in enumerate(instructed):
        if turn.role == "user":
            instructed[place] = replace(turn, content=f"{preface}\n\n{turn.content}")
            return instructed
    return [Message("user", preface), *instructed]


def _without_calls(messages: Sequence[Message], form: CallFormat) -> list[Message]:
    """Write calls and results as texts; turns of one side that follow each other become one."""
    turns: list[Message] = []
    was_result = False
    for message in messages:
        turn = message
        if message.calls:
            parts = [message.content, *(_call_text(call, form) for call in message.calls)]
            turn = Message("assistant", "\n".join(part for part in parts if part))
        if message.role == "tool":
            turn = Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
        if was_result and turn.role == "user":
            turns[-1] = replace(turns[-1], content=f"{turns[-1].content}\n{turn.content}")
        else:
            turns.append(turn)
        was_result = turn.role == "user" and (was_result or message.role == "tool")
    return turns


def _call_text(call: ToolCall, form: CallFormat) -> str:
    value = _call_value(call, form)
    return f"{form.opening}\n{json.dumps(value, ensure_ascii=False)}\n{form.closing}"


def _call_value(call: ToolCall, form: CallFormat) -> dict[str, object]:
    return {"name": call.name, form.arguments: parsed_arguments(call.arguments)}


def _named(messages: Sequence[Message]) -> list[Message]:
    """Give each result the name of the tool that was called, where the program left it out."""
    names: dict[str, str] = {}
    named: list[Message] = []
    for message in messages:
        names |= {call.id: call.name for call in message.calls}
        is_nameless = message.role == "tool" and not message.name
        name = names.get(message.call_id, "") if is_nameless else message.name
        named.append(replace(message, name=name))
    return named


def _one_call_each(messages: Sequence[Message]) -> list[Message]:
    """Split turns of several calls, each followed by its result."""
    results = {m.call_id: m for m in messages if m.role == "tool"}
    told: set[str] = set()
    turns: list[Message] = []
    for message in messages:
        if message.role == "tool" and message.call_id in told:
            continue
        if len(message.calls) < 2:
            turns.append(message)
            continue
        for place, call in enumerate(message.calls):
            content = message.content if place == 0 else ""
            turns.append(replace(message, content=content, calls=(call,)))
            if call.id in results:
                turns.append(results[call.id])
                told.add(call.id)
    return turns


def _with_short_ids(message: Message) -> Message:
    calls = tuple(replace(call, id=_short_id(call.id)) for call in message.calls)
    is_result = message.role == "tool"
    return replace(
        message, calls=calls, call_id=_short_id(message.call_id) if is_result else message.call_id
    )


def _short_id(call_id: str) -> str:
    """Return nine letters and digits that stand for an id: the same for the same."""
    if len(call_id) == 9 and call_id.isascii() and call_id.isalnum():
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode(errors="replace")).digest()[:8], "big")
    letters = ""
    for _ in range(9):
        number, rest = divmod(number, len(_ID_LETTERS))
        letters += _ID_LETTERS[rest]
    return letters
