"""JSON from outside has one meaning, or is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.core.outside import parse_json

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(values)
def test_json_is_read(value: object) -> None:
    """What the standard library writes is read back the same."""
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        ('{"a": 1}'.encode("utf-16"), "not JSON"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' is given twice"),
        (b'[{"a": {"b": 1, "b": 1}}]', "'b' is given twice"),
        (b"[NaN]", "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b"[" * 200_000, "not JSON"),
        (b"9" * 5000, "not JSON"),
        (b"[" + b"9" * 301 + b"]", "has 301 digits"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_attack_json_with_two_meanings(content: bytes, message: str) -> None:
    """One sentence, whatever is wrong."""
    with pytest.raises(InputError, match=message):
        parse_json(content)
