"""Stop strings across the borders of pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.stop_strings import StopStrings

few_letters = st.text("ab", max_size=12)


def shown(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    """Push every piece, and return what was shown and whether a stop string came."""
    scanner = StopStrings(stops)
    out = ""
    for piece in pieces:
        text, found = scanner.push(piece)
        out += text
        if found:
            return out, True
    return out + scanner.finish(), False


@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    pieces=st.lists(few_letters, max_size=8),
)
def test_text_ends_before_the_first_stop_string(stops: list[str], pieces: list[str]) -> None:
    """However the text is cut into pieces, up to the place where the stop is complete."""
    whole = ""
    for letter in "".join(pieces):
        whole += letter
        ends = [stop for stop in stops if whole.endswith(stop)]
        if ends:
            expected = min(whole.find(stop) for stop in ends)
            assert shown(stops, list("".join(pieces))) == (whole[:expected], True)
            break
    else:
        assert shown(stops, pieces) == (whole, False)

    text, found = shown(stops, pieces)
    assert not any(stop in text for stop in stops)
    assert found == any(stop in "".join(pieces) for stop in stops)


def test_what_may_begin_a_stop_string_waits() -> None:
    """Text is shown as soon as it can no longer be the beginning, and not before."""
    scanner = StopStrings(["\n\nUser:"])

    assert scanner.push("Hi\n") == ("Hi", False)
    assert scanner.push("\nUs") == ("", False)
    assert scanner.push("able") == ("\n\nUsable", False)
    assert scanner.push("\n\nUser: next") == ("", True)
    assert scanner.finish() == ""


def test_the_earliest_of_several_wins() -> None:
    """The order in which they were given does not matter."""
    assert shown(["END", "STOP"], ["a STOP b END"]) == ("a ", True)


def test_slips_are_refused() -> None:
    """An empty string would stop everything; one string would stop at each of its letters."""
    with pytest.raises(InputError, match="empty"):
        StopStrings([""])
    with pytest.raises(InputError, match=r"one string, expected a sequence"):
        StopStrings("abc")
