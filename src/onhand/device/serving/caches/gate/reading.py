"""A question in English, read into what is compared: words with their forms, numbers, names.

What is not known here counts as a word that has to be the same in both questions, so other
languages of Latin letters are judged too strictly, never too loosely.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from onhand.device.serving.caches.gate import english
from onhand.device.serving.caches.gate.forms import forms_of
from onhand.device.serving.caches.gate.numbers import with_numbers

__all__ = ["Item", "Kind", "Reading", "plain", "read_question"]

Kind = Literal["word", "name", "number", "negation", "question"]

_TOKEN: Final = re.compile(
    r"""
    (?P<number>(?<![\w.])-?\d[\d,]*(?:\.\d+)*(?![\d.]*\w*[._/]\w))
    | (?P<word>[^\W\d_][^\W_]*(?:'[^\W\d_]+)?(?:[-_./:@#=][^\W_]+|_+)*(?:\(\))?[+\#]*)
    | (?P<mixed>\w+(?:[-_./:@#=]\w+)*)
    | (?P<stop>[.,;:?!]+)
    | (?P<sign>[^\s\w"'`()\[\]{}*~-])
    """,
    re.VERBOSE,
)
# Of single and double quotes, as they are typed and printed.
_QUOTES: Final = str.maketrans("\u2019\u2018`\u201c\u201d\uff07", "'' \"\"'")
_LONGEST_PHRASE: Final = max(len(phrase) for phrase in english.PHRASES)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is compared.

    Attributes:
        text: as it is written, in small letters.
        forms: what it may be a form of; two words are the same if they share one.
        kind: what it is.
        marker: the preposition or conjunction that it hangs on; "" for none.
        is_past: whether it looks like a past tense.
    """

    text: str
    forms: frozenset[str]
    kind: Kind
    marker: str = ""
    is_past: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A question as it was read.

    Attributes:
        plain: the text without what never matters: case, spaces, quotes, the last stop.
        words: all its words and signs, in order.
        items: what is compared, in order.
        questions: its question words, in order.
        modes: what its auxiliaries say: "past", "future", "duty", "ability".
        first: whether it speaks of the asker.
        second: whether it speaks to the one who is asked.
        subject: "i" or "you" where that does what is asked for.
        is_passive: whether a form of "be" or "get" stands before a participle.
        has_auxiliary: whether a past form in it may be no past tense.
        is_question: whether it asks, and does not state something.
    """

    plain: str
    words: tuple[str, ...]
    items: tuple[Item, ...]
    questions: tuple[str, ...]
    modes: frozenset[str]
    first: bool
    second: bool
    subject: str
    is_passive: bool
    has_auxiliary: bool
    is_question: bool


def plain(text: str) -> str:
    """Return a text without what never matters, for telling whether two are the same."""
    folded = unicodedata.normalize("NFKC", text).translate(_QUOTES).casefold()
    return " ".join(folded.split()).rstrip(" ?.!\u3002")


def read_question(text: str) -> Reading:
    """Read a question.

    Args:
        text: of any length.

    Returns:
        What is compared of it.
    """
    folded = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    tokens = list(_phrased(_without_reply(list(_tokens(folded)))))
    small = [token.small for token in tokens]
    modes = {
        name
        for name, words in (
            ("past", english.PAST),
            ("future", english.FUTURE),
            ("duty", english.DUTY),
            ("ability", english.ABILITY),
        )
        if not words.isdisjoint(small)
    }
    items = tuple(_items(tokens))
    return Reading(
        plain=plain(text),
        words=tuple(token.small for token in tokens if not token.is_stop),
        items=items,
        questions=tuple(item.text for item in items if item.kind == "question"),
        modes=frozenset(modes),
        first=not english.FIRST.isdisjoint(small),
        second=not english.SECOND.isdisjoint(small),
        subject=_subject(small),
        is_passive=_is_passive(small),
        has_auxiliary=not _AUXILIARIES.isdisjoint(small),
        is_question="?" in folded or _begins_a_question(small),
    )


_AUXILIARIES: Final = english.PASSIVE | {"have", "has", "had", "having"}
_BE: Final = frozenset({"is", "are", "was", "were", "am"})
_HELPERS: Final = frozenset({
    "do",
    "did",
    "does",
    "can",
    "could",
    "should",
    "would",
    "will",
    "may",
    "might",
    "must",
    "to",
})


@dataclass(frozen=True, slots=True)
class _Token:
    small: str
    is_name: bool = False
    is_stop: bool = False


def _tokens(text: str) -> Iterator[_Token]:
    is_first = True
    for match in _TOKEN.finditer(text):
        word = match.group()
        if match.lastgroup == "stop":
            # A colon or comma inside a sentence begins none.
            is_first = word[-1] in ".?!"
            yield _Token(word[-1], is_stop=True)
            continue
        if match.lastgroup == "word":
            yield from _split_word(word, is_first)
        elif match.lastgroup == "mixed":
            yield from _split_mixed(word)
        else:
            sign = word.replace(",", "") if match.lastgroup == "number" else word
            yield _Token(english.UNITS.get(sign, sign))
        is_first = False


def _split_word(word: str, is_first: bool) -> Iterator[_Token]:
    small = word.casefold()
    if small in english.CONTRACTIONS:
        yield from (_Token(part) for part in english.CONTRACTIONS[small])
        return
    if "'" in small:
        head, tail = small.split("'", 1)
        if tail == "t" and head.endswith("n"):
            yield from (_Token(head[:-1]), _Token("not"))
            return
        full = {"re": "are", "ve": "have", "ll": "will", "m": "am", "d": "would"}.get(tail)
        if full or tail == "s":
            yield from _split_word(word[: len(head)], is_first)
            if full:
                yield _Token(full)
            return
    if re.fullmatch(r"[^\W\d_]+(?:[-/][^\W\d_]+)+", small):
        for part in re.split(r"[-/]", word):
            yield from _split_word(part, is_first)
            is_first = False
        return
    is_name = not is_first and word != small and small not in english.SKIPPED
    yield _Token(small, is_name=is_name)


def _split_mixed(word: str) -> Iterator[_Token]:
    # "5kg" and "2nd" are a number and what it counts; "v2.10.0" and "int8" are names.
    small = word.casefold()
    match = re.fullmatch(r"(\d+(?:\.\d+)*)[-_]?([^\W\d_]+)", small)
    if match is None:
        yield from (_Token(part) for part in re.split(r"[-/]", small) if part)
        return
    number, unit = match.groups()
    if unit in {"st", "nd", "rd", "th"}:
        yield _Token(f"{number}th")
        return
    yield _Token(number)
    yield _Token(english.UNITS.get(unit, unit))


def _without_reply(tokens: Sequence[_Token]) -> Sequence[_Token]:
    """Leave "yes," away where a text begins with it, and "no," where it denies once more."""
    if len(tokens) > 4 and tokens[1].small == ",":
        rest = {token.small for token in tokens[2:]}
        if tokens[0].small == "yes" or (tokens[0].small == "no" and "not" in rest):
            return tokens[2:]
    return tokens


def _begins_a_question(small: Sequence[str]) -> bool:
    return bool(small) and (
        small[0] in english.QUESTIONS or small[0] in _HELPERS - {"to"} | _BE or "how_" in small[0]
    )


def _phrased(tokens: Sequence[_Token]) -> Iterator[_Token]:
    """Put what stands for a run of words in its place; the longest run first.

    Yields:
        Tokens.
    """
    place = 0
    while place < len(tokens):
        for length in range(min(_LONGEST_PHRASE, len(tokens) - place), 0, -1):
            run = tuple(token.small for token in tokens[place : place + length])
            if (stands := english.PHRASES.get(run)) is not None:
                yield from (_Token(word) for word in stands)
                place += length
                break
        else:
            yield tokens[place]
            place += 1


def _items(tokens: Sequence[_Token]) -> Iterator[Item]:
    marker = ""
    asked = ""
    last = next((token for token in reversed(tokens) if not token.is_stop), None)
    for token in with_numbers(_without_anybody(tokens), _Token):
        small = token.small
        if small in english.QUESTIONS or small.startswith("how_"):
            # "Tell me what" asks once.
            if asked not in {"", "what"}:
                yield _question(asked)
            asked = {"whom": "who"}.get(small, small)
            marker = ""
            continue
        if asked and small not in {"is", "are", "the"} and not token.is_stop:
            yield _question(asked)
            asked = ""
        if token is last and small == "do":
            yield Item(small, frozenset({small}), "word")  # "what does it do" asks for doings
            continue
        marker, item = _read_token(token, marker)
        if item is not None:
            yield item
    if asked:
        yield _question(asked)


_UNSAID: Final = english.LIGHT | {"of", "to", "and", "as", "using"}


def _read_token(token: _Token, marker: str) -> tuple[str, Item | None]:
    """Return what the next token hangs on, and what of this one is compared."""
    small = token.small
    if token.is_stop:
        return "", None
    if small in english.NEGATIONS:
        return "", Item(small, frozenset({"not" if small == "no" else small}), "negation")
    if small in english.MARKERS:
        return small, None if small in _UNSAID else Item(small, frozenset({small}), "word")
    if small in english.SKIPPED:
        return marker if small in _DETERMINERS else "", None
    return marker, _item(token, marker)


def _question(asked: str) -> Item:
    return Item(asked, frozenset({asked}), "question")


def _without_anybody(tokens: Sequence[_Token]) -> list[_Token]:
    """Leave "one" away where it is no number: "one can", "one of"."""
    after = [token.small for token in tokens[1:]] + [""]
    kept = zip(tokens, after, strict=False)
    return [token for token, then in kept if token.small != "one" or then not in _AFTER_ANYBODY]


_AFTER_ANYBODY: Final = frozenset({
    "can",
    "could",
    "may",
    "might",
    "must",
    "should",
    "to",
    "of",
    "has",
    "is",
    "would",
    "will",
})
_DETERMINERS: Final = frozenset({
    "a",
    "an",
    "the",
    "this",
    "that",
    "these",
    "those",
    "its",
    "my",
    "your",
    "our",
})


def _item(token: _Token, marker: str) -> Item:
    small = token.small
    if any(letter.isdigit() for letter in small):
        return Item(small, frozenset({small}), "number", marker)
    if (unit := english.UNITS.get(small)) is not None:
        return Item(small, frozenset({unit}), "number", marker)
    forms = forms_of(small)
    is_past = small.endswith("ed") or small in english.PAST_FORMS
    return Item(small, forms, "name" if token.is_name else "word", marker, is_past)


def _subject(small: Sequence[str]) -> str:
    for before, word in pairwise(small):
        if word in {"i", "you", "we"} and (before in _HELPERS or before in english.QUESTIONS):
            return "you" if word == "you" else "i"
    return ""


def _is_passive(small: Sequence[str]) -> bool:
    # Up to two words may stand between, as in "is X used" and "was never told".
    for place, word in enumerate(small):
        if word in english.PASSIVE:
            for near in small[place + 1 : place + 4]:
                if near in english.IRREGULAR or (near.endswith("ed") and len(near) > 3):
                    return True
    return False
