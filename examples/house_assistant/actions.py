"""The answer of the assistant: one JSON object, its keys in one order, its values in one form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "ASKS",
    "DOINGS",
    "FIELDS",
    "REFUSALS",
    "SAYINGS",
    "Clause",
    "Example",
    "Target",
    "action",
    "dump",
    "problems",
]

Action = dict[str, str]

FIELDS = ("do", "what", "device", "room", "value", "by", "text", "at", "day", "after", "for")
"""The keys of an action, in the order in which they stand."""

_DOINGS_TEXT = """
turn_on turn_off open close lock unlock set raise lower start stop pause resume mute unmute
next previous play clean scene alarm timer cancel remind
"""
DOINGS = frozenset(_DOINGS_TEXT.split())
_ASKS_TEXT = """
temperature humidity air_quality state battery brightness volume power time date timer
alarm weather
"""
ASKS = frozenset(_ASKS_TEXT.split())
REFUSALS = frozenset(["out_of_scope", "unsafe", "private", "unclear"])
SAYINGS = frozenset([
    "hello",
    "thanks",
    "bye",
    "good_night",
    "who",
    "how_are_you",
    "help",
    "joke",
    "praise",
    "cancel",
    "insult",
])


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One command and its right answer.

    Attributes:
        command: what the person says.
        answer: the JSON text, compact, keys in order.
        language: "en" or "zh".
        category: what kind of command it is, such as "switch" or "ask".
        held: what in the command training never sees: "rule", "name", "misspelling".
    """

    command: str
    answer: str
    language: str
    category: str
    held: tuple[str, ...] = ()


@dataclass(slots=True)
class Clause:
    """Part of a command.

    Attributes:
        text: what is said.
        actions: what it means.
        imperative: whether "could you" may stand before it.
        category: the kind of command.
        timed: whether it may be given a time.
    """

    text: str
    actions: list[Action]
    imperative: bool
    category: str
    timed: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """Devices as spoken, and what they mean: (device, room) pairs, either of which may be None."""

    text: str
    pairs: tuple[tuple[str | None, str | None], ...]


def action(**given: str | None) -> Action:
    """Build an action, its keys in order, without those that are None.

    Args:
        given: the keys in `FIELDS` and their values.
    """
    return {name: value for name in FIELDS if (value := given.get(name)) is not None}


def dump(answer: Mapping[str, object]) -> str:
    """Write an answer as the model does."""
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def problems(answer: str) -> Sequence[str]:
    """Say what is wrong with an answer's form; nothing if it follows the schema.

    Args:
        answer: JSON text.
    """
    try:
        parsed = json.loads(answer)
    except ValueError as error:
        return [f"not JSON: {error}"]
    if not isinstance(parsed, dict) or len(parsed) != 1:
        return ["needs an object with one key"]
    ((kind, body),) = parsed.items()
    if kind == "actions":
        if not isinstance(body, list) or not body:
            return ["actions: needs at least one"]
        return [problem for item in body for problem in _action_problems(item)]
    if kind == "ask":
        return _ask_problems(body)
    known = {"refuse": REFUSALS, "say": SAYINGS}.get(kind)
    if known is None:
        return [f"unknown key {kind!r}"]
    return [] if body in known else [f"{kind}: unknown {body!r}"]


def _action_problems(item: object) -> list[str]:
    if not isinstance(item, dict) or not all(isinstance(value, str) for value in item.values()):
        return ["an action needs to be an object of strings"]
    found = [f"unknown field {name!r}" for name in item if name not in FIELDS]
    if list(item) != [name for name in FIELDS if name in item]:
        found.append("fields out of order")
    if item.get("do") not in DOINGS:
        found.append(f"unknown act {item.get('do')!r}")
    return found


def _ask_problems(body: object) -> list[str]:
    if not isinstance(body, dict) or body.get("what") not in ASKS:
        return ["ask: unknown question"]
    return [
        f"ask: unknown field {name!r}" for name in body if name not in ("what", "device", "room")
    ]
