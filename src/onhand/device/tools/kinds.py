"""Tools that an answer may call, and the calls."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from onhand.device.tools.nesting import Nesting

__all__ = ["CallPart", "Tool", "ToolCall", "ToolUse", "parsed_arguments"]

_MOST_DEPTH: Final = 64  # of arguments that are mended


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the asking program offers.

    Attributes:
        name: of at most 64 letters, digits, underscores and hyphens.
        description: what it is for; "" for none.
        parameters: JSON schema of its arguments, an object's.
        is_strict: whether a schema that cannot be followed to the letter is an error.
    """

    name: str
    description: str
    parameters: Mapping[str, object]
    is_strict: bool = False

    def described(self) -> dict[str, object]:
        """Return what models are told of it, in the form that chat templates expect."""
        return {"name": self.name, "description": self.description, "parameters": self.parameters}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an earlier answer made.

    Attributes:
        id: what its result is known by.
        name: the tool's.
        arguments: JSON as text; it may be damaged, for programs send back what they were given.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """Which tools an answer may call, and whether it must.

    Attributes:
        tools: what the model is told of; at least one.
        names: those of them that it may call.
        is_required: whether the answer must be a call.
        is_parallel: whether one answer may hold several.
    """

    tools: tuple[Tool, ...]
    names: tuple[str, ...]
    is_required: bool = False
    is_parallel: bool = True

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """Those that may be called."""
        return tuple(tool for tool in self.tools if tool.name in self.names)


@dataclass(frozen=True, slots=True)
class CallPart:
    """A part of a call that an answer makes.

    Attributes:
        index: which of the answer's calls, from 0.
        id: what its result is to be known by; in the first part alone.
        name: the tool's; in the first part alone.
        arguments: what comes next of its JSON.
        is_end: whether the call is whole now. One that never is was cut off.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    is_end: bool = False


def parsed_arguments(text: str) -> dict[str, object]:
    """Return a call's arguments, whatever was made of them on the way.

    Histories hold calls that were cut off, and a server that refused them could never be asked
    again: what is missing at the end is added, an empty text means none, and what is no object at
    all stands under the key "arguments".

    Args:
        text: as a program sent it.

    Returns:
        Them.
    """
    if text.strip() in {"", "null"}:
        return {}
    for candidate in (text, *_mended(text)):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, str) and value != text:
            return parsed_arguments(value)  # JSON within JSON
        return {"arguments": value} if not isinstance(value, dict) else value
    return {"arguments": text}


def _mended(text: str) -> list[str]:
    """Return ways to end JSON that was cut off, the one that keeps most first."""
    nesting = Nesting()
    cut, cut_closers = 0, ""  # the last place where a value may end
    for place, letter in enumerate(text):
        was_in_string = nesting.in_string
        if not nesting.take(letter) or len(nesting.closers) > _MOST_DEPTH:
            break
        if was_in_string:
            continue
        if letter in "{[":
            cut, cut_closers = place + 1, nesting.closers
        elif letter == ",":
            cut, cut_closers = place, nesting.closers
        elif letter in "}]" and not nesting.closers:
            return [text[: place + 1]]  # something stands behind a whole value
    whole = text[:-1] if nesting.is_escaped else text
    quote = '"' if nesting.in_string else ""
    return [whole + quote + nesting.closers[::-1], text[:cut] + cut_closers[::-1]]
