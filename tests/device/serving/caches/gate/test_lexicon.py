"""The lexicon: what stands for what, and what never does."""

import pytest

from onhand.device.serving.caches.gate.english import FIXED
from onhand.device.serving.caches.gate.lexicon import OWN_LEXICON


@pytest.mark.parametrize(("one", "other"), [("buy", "purchase"), ("start", "begin")])
def test_words_stand_for_one_another(one: str, other: str) -> None:
    """In either order."""
    assert OWN_LEXICON.are_same({one}, {other})
    assert OWN_LEXICON.are_same({other}, {one})


@pytest.mark.parametrize(
    ("one", "other"),
    [("enable", "disable"), ("before", "after"), ("increase", "decrease"), ("lock", "unlock")],
)
def test_opposites_are_known(one: str, other: str) -> None:
    """And never stand for one another."""
    assert OWN_LEXICON.are_opposite({one}, {other})
    assert not OWN_LEXICON.are_same({one}, {other})


def test_nothing_is_both() -> None:
    """No pair of words is the same and an opposite."""
    assert not OWN_LEXICON.same & OWN_LEXICON.opposite


def test_words_that_may_differ_are_no_fixed_ones() -> None:
    """A size, a colour or an order is never said in other words."""
    assert OWN_LEXICON.loose.isdisjoint(FIXED)
    assert {"method", "provide", "useful"} <= OWN_LEXICON.loose
    assert OWN_LEXICON.loose <= OWN_LEXICON.known
