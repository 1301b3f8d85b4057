"""The lexicon: what stands for what, and what never does."""

import pytest

from onhand.device.serving.caches.gate.lexicon import lexicon


@pytest.mark.parametrize(("one", "other"), [("buy", "purchase"), ("start", "begin")])
def test_words_stand_for_one_another(one: str, other: str) -> None:
    """In either order."""
    assert lexicon().are_same({one}, {other})
    assert lexicon().are_same({other}, {one})


@pytest.mark.parametrize(
    ("one", "other"),
    [("enable", "disable"), ("before", "after"), ("increase", "decrease"), ("lock", "unlock")],
)
def test_opposites_are_known(one: str, other: str) -> None:
    """And never stand for one another."""
    assert lexicon().are_opposite({one}, {other})
    assert not lexicon().are_same({one}, {other})


def test_nothing_is_both() -> None:
    """No pair of words is the same and an opposite."""
    assert not lexicon().same & lexicon().opposite
