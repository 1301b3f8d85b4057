"""Numbers in words, ordinals and dates, as one token each."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, TypeVar

from onhand.device.serving.caches.gate.english import MONTHS, NUMBERS, ORDINALS, SCALES

__all__ = ["with_numbers"]

_DIGITS: Final = re.compile(r"-?\d+(?:\.\d+)?")
_DAY: Final = re.compile(r"(\d{1,2})(?:th)?")
_YEAR: Final = re.compile(r"\d{4}")


class _Spelled(Protocol):
    @property
    def small(self) -> str: ...


_T = TypeVar("_T", bound=_Spelled)


def with_numbers(tokens: Sequence[_T], make: Callable[[str], _T]) -> Iterator[_T]:
    """Yield tokens, numbers and dates among them as one token that begins with "#".

    Args:
        tokens: words and numbers.
        make: makes a token of its text.

    Yields:
        "twenty-five" and "25" alike as "#25", "12 March 2024" and "March 12, 2024" alike.
    """
    place = 0
    while place < len(tokens):
        for reader in (_date, _number):
            text, length = reader([token.small for token in tokens[place : place + 8]])
            if length:
                yield make(text)
                place += length
                break
        else:
            yield tokens[place]
            place += 1


def _date(small: Sequence[str]) -> tuple[str, int]:
    """Return a day and a month, and the year if it is there, and how many tokens they take."""
    if len(small) > 2 and small[1] == "of":
        text, length = _date([small[0], *small[2:]])
        return text, length + 1 if length else 0
    for order in ((0, 1), (1, 0)):
        if len(small) < 2 or not (day := _DAY.fullmatch(small[order[0]])):
            continue
        if (month := MONTHS.get(small[order[1]])) is None:
            continue
        length = 2
        year = ""
        rest = [*small[2:4], "", ""]
        if _YEAR.fullmatch(rest[0]):
            year, length = rest[0], 3
        elif rest[0] == "," and _YEAR.fullmatch(rest[1]):
            year, length = rest[1], 4
        return f"#{year}-{month}-{int(day[1])}", length
    return "", 0


def _number(small: Sequence[str]) -> tuple[str, int]:
    """Return a number and how many tokens it takes; 0 where there is none."""
    first = small[0]
    if first in ORDINALS and first != "second":
        return f"#{ORDINALS[first]}th", 1
    if re.fullmatch(r"\d+th", first):
        return f"#{int(first[:-2])}th", 1
    if first in _FIXED:
        return _FIXED[first], 1
    if small[:2] == ["a", "dozen"]:
        return _FIXED["dozen"], 2
    if first == "a" and small[1:2] and small[1] in SCALES and small[1] != "k":
        return _spelled(["one", *small[1:]])
    return _spelled(small)


_FIXED: Final = {"half": "#0.5", "dozen": "#12"}


def _spelled(small: Sequence[str]) -> tuple[str, int]:
    total = part = 0.0
    last = length = 0  # what stands next has to be smaller than the last
    for place, word in enumerate(small):
        if word in NUMBERS and (place == 0 or last > NUMBERS[word] > 0):
            part += NUMBERS[word]
            last = 10 if NUMBERS[word] >= 20 else 1
        elif place == 0 and _DIGITS.fullmatch(word):
            part, last = float(word), 1
        elif place and word in SCALES:
            part = max(part, 1) * SCALES[word]
            if SCALES[word] > 100:
                total, part = total + part, 0.0
            last = 1000
        elif not (word == "and" and last == 1000 and set(small[place + 1 : place + 2]) & _ONES):
            break
        length = place + 1
    if length == 1 and "." in small[0]:
        return f"#{small[0]}", 1  # 3.10 is a later version than 3.1
    value = total + part
    return (f"#{value:g}" if value < 1e6 else f"#{value:.0f}", length) if length else ("", 0)


_ONES: Final = frozenset(NUMBERS)
