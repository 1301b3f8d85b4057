"""Arguments of calls as programs send them back, damaged or whole."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.device.tools.test_scanning import ARGUMENTS

from onhand.device.tools.kinds import parsed_arguments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("  ", {}),
        ("null", {}),
        ('{"a": 1}', {"a": 1}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('{"a": 1', {"a": 1}),
        ('{"a": "on', {"a": "on"}),
        ('{"a": "on\\', {"a": "on"}),
        ('{"a": [1, {"b": tr', {"a": [1, {}]}),
        ('{"a": 1, "b"', {"a": 1}),
        ('{"a": 1, "b": ', {"a": 1}),
        ('{"a": 1}}', {"a": 1}),
        ('{"a": 1} and more', {"a": 1}),
        ("{", {}),
        ("[1]", {"arguments": [1]}),
        ("turn it on", {"arguments": "turn it on"}),
    ],
)
def test_damaged_arguments_are_mended(text: str, expected: dict[str, object]) -> None:
    """What is there counts; what is missing at the end is added."""
    assert parsed_arguments(text) == expected


@settings(max_examples=40)
@given(arguments=ARGUMENTS)
def test_whole_arguments_are_themselves(arguments: dict[str, object]) -> None:
    """Nothing is mended that is not broken."""
    assert parsed_arguments(json.dumps(arguments)) == arguments


@given(arguments=ARGUMENTS, n=st.integers(0, 200))
def test_attack_arguments_may_be_cut_anywhere(arguments: dict[str, object], n: int) -> None:
    """There is an object always, and none of its keys was made up."""
    found = parsed_arguments(json.dumps(arguments, ensure_ascii=False)[:n])

    assert isinstance(found, dict)
    assert json.dumps(found)


@given(text=st.text(alphabet='{}[]",:\\ab1 ', max_size=40))
def test_attack_any_text_makes_arguments(text: str) -> None:
    """Never an error."""
    assert isinstance(parsed_arguments(text), dict)


def test_attack_brackets_without_end_are_no_trouble() -> None:
    """However deep."""
    assert isinstance(parsed_arguments("[" * 100_000), dict)
    assert isinstance(parsed_arguments('{"a":' * 50_000), dict)
