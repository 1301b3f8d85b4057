"""What detectors find: kinds of personal data, and where they stand."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["KINDS", "Detector", "Found", "Kind", "is_apart"]

Kind = Literal["url", "secret", "email", "iban", "id", "card", "phone", "host", "name"]
"""secret: keys, tokens, passwords. url: an address on the web with credentials in it. id: a number
that a state gives to a person. host: an address or an internal name of a computer."""

KINDS: Final[tuple[Kind, ...]] = (
    *("url", "secret", "email", "iban", "id"),
    *("card", "phone", "host", "name"),
)
"""Where two overlap, the earlier one counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One piece of personal data.

    Attributes:
        kind: of it.
        start: where it begins in the text that was read.
        end: where it ends; above `start`.
        value: the same for other ways to write the same: a number without its spaces.
    """

    kind: Kind
    start: int
    end: int
    value: str


Detector = Callable[[str], Iterable[Found]]
"""Finds one kind in the plain form of a text; pure, and in time proportional to its length."""


def is_apart(text: str, start: int, end: int) -> bool:
    """Say whether neither a letter nor a digit of ASCII touches a part of a text.

    Chinese is written without spaces, so its characters may touch anything.

    Args:
        text: the whole.
        start: where the part begins.
        end: where it ends.
    """
    before, after = text[start - 1 : start], text[end : end + 1]
    return not any(one.isascii() and one.isalnum() for one in (before, after))
