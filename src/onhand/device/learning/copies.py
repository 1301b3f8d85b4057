"""What an answer copies from its prompt: texts of JSON that stand there word for word."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Copied", "Said", "copied_values", "key_counts", "objects_of", "places_of", "quoted"]

_SHORTEST: Final = 2
_MOST_LETTERS: Final = 65536


@dataclass(frozen=True, slots=True)
class Said:
    """What was said before an answer, and the answer."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Copied:
    """A text that an answer copies.

    Attributes:
        key: under which it stands in the answer.
        text: it.
    """

    key: str
    text: str


def copied_values(prompt: str, answer: str) -> tuple[Copied, ...]:
    """Find what an answer copies from its prompt.

    Args:
        prompt: what was said.
        answer: JSON; of anything else nothing is found.

    Returns:
        Texts of two letters or more that stand once in the prompt, as words of their own where
        their script has spaces, and once in the answer; in the order of the answer.
    """
    found = [Copied(key, text) for key, text in _texts(_parsed(answer), "")]
    return tuple(one for one in found if _is_copied(one.text, prompt, answer))


def key_counts(said: Iterable[Said]) -> tuple[Counter[str], Counter[str]]:
    """Count the texts of answers.

    Args:
        said: prompts and answers.

    Returns:
        n_texts: texts under each key.
        n_copied: those that were copied.
    """
    n_texts: Counter[str] = Counter()
    n_copied: Counter[str] = Counter()
    for one in said:
        n_texts.update(key for key, _ in _texts(_parsed(one.answer), ""))
        n_copied.update(copied.key for copied in copied_values(one.prompt, one.answer))
    return n_texts, n_copied


def objects_of(answer: str) -> Iterator[dict[str, object]]:
    """Find every object of an answer.

    Args:
        answer: JSON; of anything else there is none.

    Yields:
        One after the other, the outermost first.
    """
    waiting = [_parsed(answer)]
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, dict):
            yield value
            waiting += list(value.values())
        elif isinstance(value, list):
            waiting += value


def places_of(text: str, prompt: str) -> list[int]:
    """Return where a text stands as words of its own; anywhere, in a script without spaces.

    Args:
        text: what is looked for.
        prompt: where.
    """
    edge = r"(?<![A-Za-z0-9_]){}(?![A-Za-z0-9_])" if text.isascii() else "{}"
    return [match.start() for match in re.finditer(edge.format(re.escape(text)), prompt)]


def quoted(text: str) -> str:
    """Return a text as JSON has it."""
    return json.dumps(text, ensure_ascii=False)


def _parsed(answer: str) -> object:
    """Return what an answer says; None of one that is no JSON, or too long."""
    if len(answer) > _MOST_LETTERS:
        return None
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return None


def _texts(value: object, key: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)


def _is_copied(text: str, prompt: str, answer: str) -> bool:
    if len(text) < _SHORTEST or quoted(text) not in answer:
        return False
    return prompt.count(text) == 1 and answer.count(text) == 1 and bool(places_of(text, prompt))
