"""Texts in their plain form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.device.privacy.views import viewed

ODD = st.sampled_from([
    *("\uff11", "\uff20", "\u200b", "\u3000", "\u2014", "\u0663", "\\n", "\\u0040", "%40"),
    *("a", "1", "-", "&#64;", "\U0001d7d8", "\u4e2d", "\\", "%"),
])


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("\uff11\uff12\uff0d\uff13", "12-3"),
        ("a\u200bb\ufeffc\u00add", "abcd"),
        ("1\u20142\u22123", "1-2-3"),
        ("a\u3000b\u00a0c", "a b c"),
        ("\u0661\u0662 \U0001d7d9", "12 1"),
        ("x\\n1\\u0040", "x 1@"),
        ("a%40b &#64;", "a@b @"),
        ("\u4e2d\u6587", "\u4e2d\u6587"),
        ("", ""),
    ],
)
def test_every_form_of_a_letter_is_read_as_one(given: str, plain: str) -> None:
    """Full width, other scripts, escapes and what is hidden."""
    assert viewed(given).text == plain


@given(parts=st.lists(ODD, max_size=40))
def test_places_lead_back_to_the_source(parts: list[str]) -> None:
    """Places only grow, and what was plain already is found where it was."""
    text = "".join(parts)

    view = viewed(text)

    places = [view.source(place) for place in range(len(view.text) + 1)]
    assert places == sorted(places)
    assert places[-1] == len(text)
    assert all(
        text[place] == letter
        for letter, place in zip(view.text, places, strict=False)
        if letter == "a"
    )


@given(text=st.text())
def test_a_view_is_never_longer(text: str) -> None:
    """Each letter of it stands for at least one of the text."""
    assert len(viewed(text).text) <= len(text)
