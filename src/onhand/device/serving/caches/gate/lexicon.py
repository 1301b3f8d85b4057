"""Which English words stand for one another, and which are opposites."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from onhand.device.serving.caches.gate import english
from onhand.device.serving.caches.gate.likes import OPPOSITE, SAME
from onhand.device.serving.caches.gate.notions import LOOSE

__all__ = ["OWN_LEXICON", "Lexicon", "pair_of"]

_PREFIXES: Final = ("un", "in", "im", "ir", "il", "dis", "non", "de", "mis", "anti", "counter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """Pairs of words. May be shared between threads.

    Attributes:
        same: pairs that stand for one another, each in the order of letters.
        opposite: pairs that do not, however near they are in meaning.
        known: words of English, those of `loose` among them.
        loose: words of doings, qualities and notions, which can be said in other words.
        is_wide: whether `known` has most words that English texts are made of.
    """

    same: frozenset[tuple[str, str]]
    opposite: frozenset[tuple[str, str]]
    known: frozenset[str]
    loose: frozenset[str]
    is_wide: bool = False

    def are_same(self, first: Iterable[str], second: Iterable[str]) -> bool:
        """Say whether a form of one word stands for a form of another."""
        others = tuple(second)
        pairs = {pair_of(one, other) for one in first for other in others}
        return not pairs.isdisjoint(self.same) and pairs.isdisjoint(self.opposite)

    def are_opposite(self, first: Iterable[str], second: Iterable[str]) -> bool:
        """Say whether two words are opposites, or one denies the other by its beginning."""
        others = tuple(second)
        return any(
            pair_of(one, other) in self.opposite or _denies(one, other)
            for one in first
            for other in others
        )


def pair_of(one: str, other: str) -> tuple[str, str]:
    """Return two words in the order of letters."""
    return (one, other) if one <= other else (other, one)


def _own_lexicon() -> Lexicon:
    opposite = {pair_of(one, other) for one, other in OPPOSITE}
    same = {pair_of(one, other) for group in SAME for one in group for other in group}
    listed = {word for pair in (*same, *opposite) for word in pair}
    small = english.SKIPPED | english.LIGHT | english.QUESTIONS | english.MARKERS
    return Lexicon(
        same=frozenset(same - opposite),
        opposite=frozenset(opposite),
        known=frozenset(listed | small | LOOSE | english.FIXED | english.NEGATIONS),
        loose=LOOSE,
    )


def _denies(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return len(short) > 2 and any(long == prefix + short for prefix in _PREFIXES)


OWN_LEXICON: Final = _own_lexicon()
"""What the lists of this package know, without any file."""
