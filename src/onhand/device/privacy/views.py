"""A text as detectors read it: one form of every digit, space and dash, nothing that is hidden."""

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

__all__ = ["View", "viewed"]

_SPACES: Final = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_DASHES: Final = "\u2010-\u2015\u2043\u2212\ufe58\ufe63\uff0d\u30fc"
_HIDDEN: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff"
)
# What JSON, a URL or HTML writes in another way is read as what it stands for.
_ODD: Final = re.compile(
    r"\\u[0-9A-Fa-f]{4}|\\[nrt]|%[2-7][0-9A-Fa-f]|&#[0-9]{2,5};"
    f"|[{_SPACES}{_DASHES}{_HIDDEN}\uff01-\uff5e]|(?![0-9])\\d"
)
_IS_SPACE: Final = re.compile(f"[{_SPACES}]")
_IS_DASH: Final = re.compile(f"[{_DASHES}]")


@dataclass(frozen=True, slots=True)
class View:
    """A text in its plain form, and where each of its letters comes from.

    Attributes:
        text: the plain form.
        points: places in `text` from which on letters follow one another in the source too.
        sources: where those are in the source.
    """

    text: str
    points: tuple[int, ...]
    sources: tuple[int, ...]

    def source(self, place: int) -> int:
        """Return where a place of the plain form is in the source; its end for the end.

        Args:
            place: from 0 to the length of `text`.
        """
        index = bisect_right(self.points, place) - 1
        return self.sources[index] + place - self.points[index]


def viewed(text: str) -> View:
    """Return the plain form of a text, in time proportional to its length.

    Full-width letters, digits of every script, dashes and spaces become those of ASCII; escapes of
    JSON, URLs and HTML become what they stand for; what is not seen is left out.

    Args:
        text: any.

    Returns:
        Its view.
    """
    parts: list[str] = []
    points, sources = [0], [0]
    at = length = 0
    for match in _ODD.finditer(text):
        run, plain = text[at : match.start()], _plain(match.group())
        parts += (run, plain)
        length += len(run)
        at = match.end()
        if plain:
            points.append(length)
            sources.append(match.start())
        length += len(plain)
        points.append(length)
        sources.append(at)
    parts.append(text[at:])
    return View("".join(parts), tuple(points), tuple(sources))


def _plain(odd: str) -> str:
    """Return the one letter that a match stands for, or nothing."""
    first = odd[0]
    if len(odd) > 1:
        return _escaped(odd)
    if "\uff01" <= first <= "\uff5e":
        return "-" if first == "\uff0d" else chr(ord(first) - 0xFEE0)
    if _IS_SPACE.match(first):
        return " "
    if _IS_DASH.match(first):
        return "-"
    digit = unicodedata.decimal(first, None)
    return "" if digit is None else str(digit)


def _escaped(odd: str) -> str:
    if odd[1] in "nrt" and odd[0] == "\\":
        return " "
    if odd[0] == "\\":
        letter = chr(int(odd[2:], 16))
    elif odd[0] == "%":
        letter = chr(int(odd[1:], 16))
    else:
        number = int(odd[2:-1])
        letter = chr(number)
    plain = viewed(letter).text if len(letter) == 1 else ""
    return plain or " "
