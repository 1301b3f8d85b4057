"""Which English words stand for one another, and which are opposites."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from onhand.device.serving.caches.gate.likes import OPPOSITE, SAME

__all__ = ["Lexicon", "lexicon"]

_PREFIXES: Final = ("un", "in", "im", "ir", "il", "dis", "non", "de", "mis", "anti", "counter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """Pairs of words. May be shared between threads.

    Attributes:
        same: pairs that stand for one another, each in the order of letters.
        opposite: pairs that do not, however near they are in meaning.
        known: words of English, those of `loose` among them.
        loose: words of doings, qualities and notions, which can be said in other words.
    """

    same: frozenset[tuple[str, str]]
    opposite: frozenset[tuple[str, str]]
    known: frozenset[str]
    loose: frozenset[str]

    def are_same(self, first: Iterable[str], second: Iterable[str]) -> bool:
        """Say whether a form of one word stands for a form of another."""
        others = tuple(second)
        pairs = {_pair(one, other) for one in first for other in others}
        return not pairs.isdisjoint(self.same) and pairs.isdisjoint(self.opposite)

    def are_opposite(self, first: Iterable[str], second: Iterable[str]) -> bool:
        """Say whether two words are opposites, or one denies the other by its beginning."""
        others = tuple(second)
        return any(
            _pair(one, other) in self.opposite or _denies(one, other)
            for one in first
            for other in others
        )


@cache
def lexicon() -> Lexicon:
    """Read the lexicon that comes with this package, once."""
    same: set[tuple[str, str]] = set()
    opposite: set[tuple[str, str]] = set()
    known: set[str] = set()
    loose: set[str] = set()
    text = files("onhand.device.serving.caches.gate").joinpath("words.txt").read_text("utf-8")
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        sign, first, *rest = line.split()
        if sign in "~.":
            known.update((first, *rest))
            if sign == "~":
                loose.update((first, *rest))
            continue
        second = rest[0]
        (opposite if sign == "!" else same).add(_pair(first, second))
    same |= {_pair(one, other) for group in SAME for one in group for other in group}
    opposite |= {_pair(one, other) for one, other in OPPOSITE}
    return Lexicon(
        same=frozenset(same - opposite),
        opposite=frozenset(opposite),
        known=frozenset(known),
        loose=frozenset(loose),
    )


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one <= other else (other, one)


def _denies(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return len(short) > 2 and any(long == prefix + short for prefix in _PREFIXES)
