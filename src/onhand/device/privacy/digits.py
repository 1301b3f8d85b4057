"""Runs of digits with spaces and dashes between them, and the parts of runs that may be numbers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

__all__ = ["Window", "luhn_holds", "windows"]

# Digits and what separates them have no letter in common, and nothing is given back: linear.
_RUN: Final = re.compile(r"[0-9]++(?:[ \-./()]{1,3}[0-9]++)*+")
_MOST_GROUPS: Final = 8  # of a number whose groups have more than one digit
_PART: Final = re.compile(r"[0-9]++")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Neighbouring groups of digits of one run.

    Attributes:
        start: where the first begins.
        end: where the last ends.
        digits: all of them.
        groups: how many digits each group has.
        gaps: what stands between the groups.
        is_first: whether no digits stand before it, or only behind a space or a slash.
        is_last: likewise after it.
    """

    start: int
    end: int
    digits: str
    groups: tuple[int, ...]
    gaps: tuple[str, ...]
    is_first: bool
    is_last: bool


def windows(text: str, *, least: int, most: int) -> Iterator[Window]:
    """Yield the windows of a text by their number of digits, the longest of a start first.

    Args:
        text: plain form.
        least: digits.
        most: digits; bounds the work for each group.

    Yields:
        They.
    """
    for run in _RUN.finditer(text):
        if len(run.group()) < least:
            continue
        parts = [part.span() for part in _PART.finditer(text, *run.span())]
        yield from _of_run(text, parts, least=least, most=most)


def _of_run(text: str, parts: list[tuple[int, int]], *, least: int, most: int) -> Iterator[Window]:
    # Single digits one by one are one number or none: no window begins or ends among them.
    is_single = [end - start == 1 for start, end in parts]
    for first in range(len(parts)):
        if first and is_single[first] and is_single[first - 1]:
            continue
        found: list[Window] = []
        n = 0
        for last in range(first, len(parts)):
            n += parts[last][1] - parts[last][0]
            if n > most or (last - first >= _MOST_GROUPS and not is_single[last]):
                break
            is_within = last + 1 < len(parts) and is_single[last] and is_single[last + 1]
            if n >= least and not is_within:
                found.append(_window(text, parts, first, last))
        yield from reversed(found)


def luhn_holds(digits: str) -> bool:
    """Say whether a number's last digit checks the others.

    Args:
        digits: ASCII digits alone.

    Source:
        ISO/IEC 7812-1, annex B.
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _window(text: str, parts: list[tuple[int, int]], first: int, last: int) -> Window:
    chosen = parts[first : last + 1]
    before = text[parts[first - 1][1] : parts[first][0]] if first else " "
    after = text[parts[last][1] : parts[last + 1][0]] if last + 1 < len(parts) else " "
    return Window(
        start=chosen[0][0],
        end=chosen[-1][1],
        digits="".join(text[start:end] for start, end in chosen),
        groups=tuple(end - start for start, end in chosen),
        gaps=tuple(text[a[1] : b[0]] for a, b in pairwise(chosen)),
        is_first=any(one in " /" for one in before),
        is_last=any(one in " /" for one in after),
    )
