"""Whether two English questions ask the same, by their words: the reason why not, if there is one.

Every word of one has to be found in the other: the same, a form of it, or one that a lexicon says
stands for it. So a name, a number, a negation or an opposite in its place is never let through, and
neither is a word that nobody knows. Then their order has to be the same, but for parts that hang
on the same preposition in both.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from onhand.device.serving.caches.gate.english import FIXED, LIGHT, STATED
from onhand.device.serving.caches.gate.lexicon import Lexicon
from onhand.device.serving.caches.gate.reading import Item, Reading

__all__ = ["MOST_ITEMS", "Difference", "difference"]

MOST_ITEMS: Final = 160
"""A longer question has to be the same to the letter."""

_ANEW: Final = 4
_LONG: Final = 10
_CLASHING: Final = {
    "from": {"to", "into", "onto", "for", "towards"},
    "to": {"from", "by", "than"},
    "by": {"to", "for", "from", "without", ""},
    "than": {"", "to", "as", "by", "and"},
    "for": {"against", "from", "by"},
    "in": {"out", "outside"},
    "on": {"off"},
    "up": {"down"},
    "with": {"without", "against"},
}


@dataclass(frozen=True, slots=True)
class Difference:
    """How two questions differ.

    Attributes:
        reason: what keeps one from standing for the other: "negation", "number", "name",
            "opposite", "question", "thing", "words", "order", "person", "time" or "length"; None
            for nothing that is known.
        n_loose: words of either that the other says in words nobody knows to be the same.
        n_same: words that both have.
    """

    reason: str | None
    n_loose: int = 0
    n_same: int = 0


@dataclass(frozen=True, slots=True)
class _Pair:
    first: int
    second: int


def difference(one: Reading, other: Reading, words: Lexicon) -> Difference:
    """Say how two questions differ.

    Args:
        one: a question.
        other: another.
        words: what stands for what.

    Returns:
        What keeps one from standing for the other, or how much of them is said in other words.
    """
    if one.plain == other.plain:
        return Difference(None, 0, len(one.items))
    if max(len(one.items), len(other.items)) > MOST_ITEMS:
        return Difference("length")
    states = not one.is_question and not other.is_question
    if not states and sorted(one.questions) != sorted(other.questions):
        return Difference("question")
    pairs, left, right = _matched(one.items, other.items, words)
    if not pairs:
        return Difference("words")
    # Where many words changed, a statement was said anew, and may be said in another order.
    is_reworded = states and _n_changed(one, other) >= _ANEW
    light = LIGHT | STATED if states else LIGHT
    left, right = ([item for item in items if item.text not in light] for items in (left, right))
    n_loose = len(left) + len(right)
    reason = _left_over(left, right, words, is_reworded=is_reworded, n_same=len(pairs))
    if reason is None:
        reason = _modes(one, other, states=is_reworded)
    if reason is None and _tenses_differ(one, other, pairs):
        reason = "time"
    if reason is None and not is_reworded and _persons_differ(one, other):
        reason = "person"
    if reason is None and _is_turned_round(one, other, pairs, is_reworded=is_reworded):
        reason = "order"
    return Difference(reason, n_loose, len(pairs))


def _n_changed(one: Reading, other: Reading) -> int:
    """Return how many words, the smallest included, only one of two texts has."""
    first, second = Counter(one.words), Counter(other.words)
    return (first - second).total() + (second - first).total()


def _matches(one: Item, other: Item, words: Lexicon) -> bool:
    if not one.forms.isdisjoint(other.forms):
        return True
    if one.kind != "word" or other.kind != "word":
        return False
    return words.are_same(one.forms, other.forms)


def _matched(
    first: Sequence[Item], second: Sequence[Item], words: Lexicon
) -> tuple[list[_Pair], list[Item], list[Item]]:
    """Pair the items of two questions, those in the same order before those that moved."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    fits = [[_matches(one, other, words) for other in second] for one in first]
    for i in range(len(first) - 1, -1, -1):
        for j in range(len(second) - 1, -1, -1):
            table[i][j] = max(
                table[i + 1][j], table[i][j + 1], table[i + 1][j + 1] + 1 if fits[i][j] else 0
            )
    pairs: list[_Pair] = []
    i = j = 0
    while i < len(first) and j < len(second):
        if fits[i][j] and table[i][j] == table[i + 1][j + 1] + 1:
            pairs.append(_Pair(i, j))
            i, j = i + 1, j + 1
        elif table[i + 1][j] >= table[i][j + 1]:
            i += 1
        else:
            j += 1
    free = set(range(len(second))) - {pair.second for pair in pairs}
    known = {pair.first for pair in pairs}
    for place in range(len(first)):
        if place not in known:
            moved = next((j for j in sorted(free) if fits[place][j]), None)
            if moved is not None:
                pairs.append(_Pair(place, moved))
                free.discard(moved)
    known = {pair.first for pair in pairs}
    left = [item for place, item in enumerate(first) if place not in known]
    return pairs, left, [second[place] for place in sorted(free)]


def _left_over(
    left: Sequence[Item], right: Sequence[Item], words: Lexicon, *, is_reworded: bool, n_same: int
) -> str | None:
    """Return what the items say that one question has and the other has not."""
    for one in left:
        for other in right:
            if words.are_opposite(one.forms, other.forms):
                return "opposite"
    kinds = {item.kind for item in (*left, *right)}
    for kind in ("negation", "number", "name"):
        if kind in kinds:
            return kind
    # Where little else changed, the asker meant the word that differs, or that is there at all.
    if (left or right) and not is_reworded:
        return "words"
    if any(item.text in FIXED for item in (*left, *right)):
        return "thing"
    things, others = (
        [item for item in items if item.kind == "word" and item.forms.isdisjoint(words.loose)]
        for items in (left, right)
    )
    # In a long text that is said in other words, one of the two may name a thing once more.
    is_long = n_same >= _LONG
    if (things or others) and not (is_long and not (things and others)):
        return "thing"
    return None


def _modes(one: Reading, other: Reading, *, states: bool) -> str | None:
    modes, others = set(one.modes), set(other.modes)
    if states or any(asked.startswith("how") for asked in one.questions):
        # How one can, does or should do something is how to do it.
        modes -= {"ability", "duty"}
        others -= {"ability", "duty"}
        if "past" not in modes | others and not states:
            modes -= {"future"}
            others -= {"future"}
    return "time" if modes != others else None


def _tenses_differ(one: Reading, other: Reading, pairs: Sequence[_Pair]) -> bool:
    for pair in pairs:
        first, second = one.items[pair.first], other.items[pair.second]
        if first.is_past != second.is_past and not (one if first.is_past else other).has_auxiliary:
            return True
    return False


def _persons_differ(one: Reading, other: Reading) -> bool:
    if (one.first, one.second) == (other.first, other.second):
        return False
    if (one.first and one.second) or (other.first and other.second):
        return True
    if not (one.is_question or other.is_question or one.first or other.first):
        return False  # "you can" is what can be done
    asked = set(one.questions) & {"how", "where", "why", "when", "what"}
    for side in (one, other):
        # Who asks and who is asked mean anybody where they are the subject of "how do I".
        if (side.first or side.second) and not (asked and side.subject):
            return not ("how" in asked and not side.second)
    return False


def _is_turned_round(
    one: Reading, other: Reading, pairs: Sequence[_Pair], *, is_reworded: bool
) -> bool:
    """Say whether what does something and what it is done to may have changed places."""
    ordered = sorted(pairs, key=lambda pair: pair.first)
    crossing: set[_Pair] = set()
    for place, pair in enumerate(ordered):
        for later in ordered[place + 1 :]:
            if later.second < pair.second and not _is_list(one, other, pair, later):
                crossing |= {pair, later}
    if is_reworded:
        return any(
            _clash(one.items[pair.first], other.items[pair.second])
            for pair in crossing
            if "by" not in {one.items[pair.first].marker, other.items[pair.second].marker}
        )
    if any(_clash(one.items[pair.first], other.items[pair.second]) for pair in ordered):
        return True
    kept = _longest_run(ordered)
    for pair in crossing:
        first, second = one.items[pair.first], other.items[pair.second]
        if first.kind == "question" and len(one.questions) == 1:
            continue
        if pair in kept and first.marker == second.marker:
            continue
        if not first.marker or first.marker != second.marker:
            return True
    return one.is_passive != other.is_passive


def _clash(one: Item, other: Item) -> bool:
    return other.marker in _CLASHING.get(one.marker, ()) or one.marker in _CLASHING.get(
        other.marker, ()
    )


def _is_list(one: Reading, other: Reading, pair: _Pair, later: _Pair) -> bool:
    """Say whether two items are neighbours joined by "and" or "or", so that either may be first."""
    if later.first != pair.first + 1 or pair.second != later.second + 1:
        return False
    joined = one.items[later.first].marker
    return joined in {"and", "or"} and other.items[pair.second].marker == joined


def _longest_run(pairs: Sequence[_Pair]) -> set[_Pair]:
    """Return the most pairs that stand in the same order in both."""
    best: list[list[_Pair]] = []
    for place, pair in enumerate(pairs):
        before = [best[i] for i in range(place) if pairs[i].second < pair.second]
        longest: Sequence[_Pair] = max(before, key=len) if before else []
        best.append([*longest, pair])
    most: Sequence[_Pair] = max(best, key=len) if best else []
    return set(most)
