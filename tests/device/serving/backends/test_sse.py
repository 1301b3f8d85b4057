"""Events are found however their bytes arrive."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.serving.backends.sse import EventReader

TEXT = (
    b"\xef\xbb\xbf: a comment\n\n"
    b'event: x\r\ndata: {"a":1}\r\n\r\n'
    b"data:no space\rdata:  two\r\r"
    b"id: 7\n\n"
    b"data\n\n"
    b"data: \xe7\x81\xaf!\n\n"
    b"data: [DONE]\n\n"
)
FOUND = [b'{"a":1}', b"no space\n two", b"", "灯!".encode(), b"[DONE]"]


def read(parts: list[bytes], most_bytes: int = 1000) -> list[bytes]:
    reader = EventReader(most_bytes=most_bytes)
    found = [event for part in parts for event in reader.push(part)]
    return found + reader.finish()


def test_all_line_ends_and_comments() -> None:
    """As the standard says."""
    assert read([TEXT]) == FOUND


@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_wherever_it_is_cut(cuts: list[int]) -> None:
    """The same events, letter halves and CR from LF apart included."""
    places = [0, *sorted(cuts), len(TEXT)]

    assert read([TEXT[a:b] for a, b in pairwise(places)]) == FOUND


def test_a_last_event_without_its_empty_line() -> None:
    """Some servers close at once."""
    assert read([b"data: 1\n\ndata: 2"]) == [b"1", b"2"]


@pytest.mark.parametrize(
    "parts",
    [[b"data: " + b"x" * 100], [b"x"] * 100, [b"data: 12345678\n"] * 10, [b":" + b" " * 100]],
)
def test_attack_endless_event(parts: list[bytes]) -> None:
    """A line or an event that never ends is refused before it fills memory."""
    with pytest.raises(InputError, match="more than the 50 bytes"):
        read(parts, most_bytes=50)
