"""A request as another server takes it, with placeholders for what is personal in it.

Every field is known here by name; what is not understood does not leave.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from onhand.core.errors import InputError
from onhand.device.privacy.placeholders import Placeholders
from onhand.device.privacy.spans import Found
from onhand.device.privacy.views import viewed

__all__ = ["Find", "veiled"]

Find = Callable[[str], Sequence[Found]]
"""Finds what is personal in a text, in order and without overlaps."""

# Numbers, switches and words of the API; nobody writes a sentence into them.
_PLAIN: Final = frozenset({
    *("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty"),
    *("repetition_penalty", "seed", "max_tokens", "max_completion_tokens", "logprobs"),
    *("top_logprobs", "parallel_tool_calls", "reasoning_effort", "verbosity", "modalities"),
})
_WORDS: Final = frozenset({"high", "low", "medium", "minimal", "none", "xhigh", "text"})
_DEEP: Final = frozenset({"tools", "tool_choice", "response_format", "stop"})
_NAMES: Final = frozenset({"role", "type", "id", "name", "tool_call_id", "index", "refusal"})
_OF_MESSAGES: Final = _NAMES | {"content", "tool_calls", "annotations", "audio"}
_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})
_LEAST_NUMBER: Final = 10**8  # a smaller one is no number of anybody
_MOST_DEPTH: Final = 64


def veiled(fields: Mapping[str, object], find: Find) -> tuple[dict[str, object], Placeholders]:
    """Return a request without what is personal, and what stands for it.

    Args:
        fields: of the body; they stay as they are.
        find: finds it.

    Returns:
        fields: of the body that may leave.
        placeholders: what was replaced.

    Raises:
        InputError: if a field is not understood, or something personal stands where the API wants
            a name; the message holds nothing of it.
    """
    placeholders = Placeholders(viewed(text).text for text in _texts(fields, 0))
    veil = _Veil(find, placeholders)
    return {name: veil.field(name, value) for name, value in fields.items()}, placeholders


class _Veil:
    """One request on its way out."""

    def __init__(self, find: Find, placeholders: Placeholders) -> None:
        self._find = find
        self._placeholders = placeholders

    def field(self, name: str, value: object) -> object:
        if name in _PLAIN:
            return _plain(name, value)
        if name == "messages" and isinstance(value, Sequence) and not isinstance(value, str):
            return [self._message(one) for one in value]
        if name == "prompt":
            return self._prompt(value)
        if (
            name == "logit_bias"
            and isinstance(value, Mapping)
            and all(_is_token(one) for one in value)
        ):
            return value
        if name in _DEEP:
            return self._deep(value, 0)
        raise _not_understood(name)

    def _prompt(self, value: object) -> object:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return [self._text(one) for one in value]
        raise _not_understood("prompt")

    def _message(self, message: object) -> dict[str, object]:
        if not isinstance(message, Mapping):
            raise _not_understood("messages")
        if odd := sorted(set(message) - _OF_MESSAGES):
            raise _not_understood(f"messages: {odd[0][:40]}")
        veiled_message: dict[str, object] = {}
        for name, value in message.items():
            if name == "content":
                veiled_message[name] = self._content(value, is_result=message.get("role") == "tool")
            elif name == "tool_calls" and value is not None:
                veiled_message[name] = self._calls(value)
            elif name in {"annotations", "audio"}:
                if value:
                    raise _not_understood(f"messages: {name}")
                veiled_message[name] = value
            elif name == "refusal" and isinstance(value, str):
                veiled_message[name] = self._text(value)
            else:
                veiled_message[name] = self._name(f"messages: {name}", value)
        return veiled_message

    def _content(self, content: object, *, is_result: bool) -> object:
        if content is None:
            return None
        if isinstance(content, list):
            # Joined, as whoever reads it joins them: half a number in each part is a number.
            content = "".join(_part(part) for part in content)
        if not isinstance(content, str):
            raise _not_understood("messages: content")
        return self._json_text(content) if is_result else self._text(content)

    def _calls(self, calls: object) -> list[object]:
        if not isinstance(calls, list):
            raise _not_understood("tool_calls")
        veiled_calls: list[object] = []
        for call in calls:
            function = call.get("function") if isinstance(call, Mapping) else None
            if not isinstance(function, Mapping) or set(function) - {"name", "arguments"}:
                raise _not_understood("tool_calls")
            if set(call) - {"id", "type", "index", "function"}:
                raise _not_understood("tool_calls")
            arguments = function.get("arguments")
            if not isinstance(arguments, str):
                arguments = "{}" if arguments is None else json.dumps(arguments, ensure_ascii=False)
            named = {
                name: self._name("tool_calls", call[name]) for name in call if name != "function"
            }
            veiled_calls.append(
                named
                | {
                    "function": {
                        "name": self._name("tool_calls", function.get("name")),
                        "arguments": self._arguments(arguments),
                    }
                }
            )
        return veiled_calls

    def _arguments(self, text: str) -> str:
        if not text.strip():
            return text
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _not_understood("arguments of a call, which are no JSON") from error
        return self._as_json(text, value)

    def _json_text(self, text: str) -> str:
        """Return a tool's result; where it is JSON it stays so."""
        if not text.lstrip().startswith(("{", "[", '"')):
            return self._text(text)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return self._text(text)
        return self._as_json(text, value)

    def _as_json(self, text: str, value: object) -> str:
        changed = self._deep(value, 0)
        return text if changed == value else json.dumps(changed, ensure_ascii=False)

    def _deep(self, value: object, depth: int) -> object:
        # JSON of any form; keys are texts as well.
        if depth > _MOST_DEPTH:
            raise InputError(f"is nested over {_MOST_DEPTH} deep")
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {self._text(str(key)): self._deep(one, depth + 1) for key, one in value.items()}
        if isinstance(value, list):
            return [self._deep(one, depth + 1) for one in value]
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return self._number(value)
        raise _not_understood(type(value).__name__)

    def _number(self, value: float) -> object:
        if abs(value) < _LEAST_NUMBER:
            return value
        written = str(int(value)) if value == int(value) else repr(value)
        veiled_number = self._text(written)
        return value if veiled_number == written else veiled_number

    def _name(self, where: str, value: object) -> object:
        if value is None or isinstance(value, int):
            return value
        if not isinstance(value, str) or self._find(value):
            raise InputError(f"{where}: holds personal data where the API wants a name; change it")
        return value

    def _text(self, text: str) -> str:
        parts: list[str] = []
        at = 0
        for one in self._find(text):
            written = text[one.start : one.end]
            parts += (text[at : one.start], self._placeholders.word(one, written))
            at = one.end
        return "".join([*parts, text[at:]])


def _plain(name: str, value: object) -> object:
    if isinstance(value, bool | int | float):
        return value
    words = [value] if isinstance(value, str) else value
    if isinstance(words, list) and all(one in _WORDS for one in words):
        return value
    raise _not_understood(name)


def _part(part: object) -> str:
    text = (
        part.get("text") if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS else None
    )
    if not isinstance(text, str):
        raise InputError("messages: content: has a part that is no text; nothing here reads it")
    return text


def _is_token(key: object) -> bool:
    return isinstance(key, str) and key.isascii() and key.isdigit() and len(key) <= 9


def _texts(value: object, depth: int) -> Iterator[str]:
    # Every text of a body, keys included, and the joined parts of contents.
    if depth > _MOST_DEPTH * 2:
        raise InputError(f"is nested over {_MOST_DEPTH} deep")
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield str(key)
            yield from _texts(one, depth + 1)
    elif isinstance(value, list | tuple):
        parts = [one.get("text") for one in value if isinstance(one, Mapping)]
        yield "".join(one for one in parts if isinstance(one, str))
        for one in value:
            yield from _texts(one, depth + 1)


def _not_understood(name: str) -> InputError:
    return InputError(f"{name}: is not understood, so it cannot be said what is personal in it")
