"""Endings of words: what is a form of what, and what is not."""

import pytest

from onhand.device.serving.caches.gate.forms import forms_of


@pytest.mark.parametrize(
    ("word", "base"),
    [
        ("cities", "city"),
        ("boxes", "box"),
        ("lamps", "lamp"),
        ("using", "use"),
        ("running", "run"),
        ("telling", "tell"),
        ("tried", "try"),
        ("given", "give"),
        ("children", "child"),
    ],
)
def test_forms_of_number_and_tense_are_known(word: str, base: str) -> None:
    """By rule, or from the list."""
    assert base in forms_of(word)


@pytest.mark.parametrize(
    ("word", "other"),
    [("caring", "car"), ("bigger", "big"), ("bed", "b"), ("using", "us")],
)
def test_other_words_are_no_forms(word: str, other: str) -> None:
    """Comparatives among them: they ask something else."""
    assert other not in forms_of(word)
