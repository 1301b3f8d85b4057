"""Whether two questions ask the same, in whatever language they are: the second gate."""

import re
import unicodedata
from functools import lru_cache
from typing import Final

from onhand.device.serving.caches.gate import compare, english, mandarin
from onhand.device.serving.caches.gate.compare import Difference
from onhand.device.serving.caches.gate.forms import forms_of
from onhand.device.serving.caches.gate.lexicon import lexicon
from onhand.device.serving.caches.gate.reading import Reading, plain, read_question

__all__ = ["REASONS", "difference"]

REASONS: Final = (
    "language",
    "length",
    "name",
    "negation",
    "number",
    "opposite",
    "order",
    "person",
    "question",
    "thing",
    "time",
    "words",
)
"""All reasons that the gate gives."""

_MOST_LETTERS: Final = 4096
_LEAST_KNOWN: Final = 0.6


def difference(one: str, other: str) -> Difference:
    """Say how two questions differ.

    English is judged word by word, Chinese character by character; in any other language only
    the same text stands for itself.

    Args:
        one: a question.
        other: another.

    Returns:
        What keeps one from standing for the other, if anything does.
    """
    if plain(one) == plain(other):
        return Difference(None)
    if max(len(one), len(other)) > _MOST_LETTERS:
        return Difference("length")
    scripts = _scripts(one) | _scripts(other)
    if "OTHER" in scripts:
        return Difference("language")
    if "CJK" in scripts:
        return Difference(mandarin.difference(one, other))
    first, second = _read(one), _read(other)
    if not (_is_english(one) and _is_english(other)):
        return Difference("language")
    return compare.difference(first, second, lexicon())


@lru_cache(maxsize=2**10)
def _read(text: str) -> Reading:
    return read_question(text)


def _scripts(text: str) -> set[str]:
    found = set()
    for letter in text:
        if letter.isalpha() and not letter.isascii():
            name = unicodedata.name(letter, "")
            found.add(name.split(" ", 1)[0] if name.startswith(("LATIN", "CJK")) else "OTHER")
    return found - {"LATIN"}


@lru_cache(maxsize=2**10)
def _is_english(text: str) -> bool:
    known = lexicon().known | english.SKIPPED | english.LIGHT | english.QUESTIONS
    words = re.findall(r"[^\W\d_]+", text)
    # Names belong to no language.
    plain_words = [word.casefold() for word in words[:1]] + [
        word for word in words[1:] if not word[0].isupper()
    ]
    n_known = sum(_is_known(word, known) for word in plain_words)
    return bool(n_known) and n_known >= _LEAST_KNOWN * len(plain_words)


def _is_known(word: str, known: frozenset[str]) -> bool:
    return not forms_of(word).isdisjoint(known) or len(word) == 1
