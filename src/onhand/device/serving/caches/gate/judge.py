"""Whether two questions ask the same, in whatever language they are: the second gate."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from onhand.device.serving.caches.gate import compare, english, mandarin
from onhand.device.serving.caches.gate.compare import Difference
from onhand.device.serving.caches.gate.forms import forms_of
from onhand.device.serving.caches.gate.lexicon import Lexicon
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

_QUOTES: Final = str.maketrans("\u2019\u2018", "''")
_MOST_LETTERS: Final = 4096
_LEAST_KNOWN: Final = 0.6
_LEAST_LISTED: Final = 0.3


def difference(one: str, other: str, words: Lexicon) -> Difference:
    """Say how two questions differ.

    English is judged word by word, Chinese character by character; in any other language only
    the same text stands for itself.

    Args:
        one: a question.
        other: another.
        words: what stands for what in English.

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
    if not (_is_english(one, words) and _is_english(other, words)):
        return Difference("language")
    return compare.difference(first, second, words)


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


def _is_english(text: str, lexicon: Lexicon) -> bool:
    """Say whether the words that a comparison leaves out mean in a text what they do in English.

    With a wide lexicon most words have to be known. Without one the small words tell: one has to
    be there that few other languages have, none that belongs to another, and no other letters.
    """
    if lexicon.is_wide:
        words = _plain_words(re.findall(r"[^\W\d_]+", text))
        n_known = sum(_is_known(word, lexicon.known) for word in words)
        return bool(n_known) and n_known >= _LEAST_KNOWN * len(words)
    # Parts of paths and of names in code belong to no language either.
    tokens = re.findall(r"[^\s,;:?!\"\u201c\u201d()\[\]{}`]+", text.translate(_QUOTES))
    words = _plain_words([
        token.split("'")[0] for token in (token.strip(".'") for token in tokens) if _is_word(token)
    ])
    if not all(word.isascii() and word not in english.ELSEWHERE for word in words):
        return False
    is_told = not english.TELLING.isdisjoint(words) or any(
        {"is", small}.issubset(words) for small in ("a", "not")
    )
    n_known = sum(_is_known(word, lexicon.known) for word in words)
    return is_told and n_known >= _LEAST_LISTED * len(words)


def _plain_words(words: Sequence[str]) -> list[str]:
    """Return words in small letters, but for names: those belong to no language."""
    return [word.casefold() for word in words[:1]] + [
        word for word in words[1:] if not word[0].isupper()
    ]


def _is_word(token: str) -> bool:
    return re.fullmatch(r"[^\W\d_]+(?:['-][^\W\d_]+)*", token) is not None


def _is_known(word: str, known: frozenset[str]) -> bool:
    return not forms_of(word).isdisjoint(known) or len(word) == 1
