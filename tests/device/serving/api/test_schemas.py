"""Schemas of requests are looked at before anything is compiled of them."""

from typing import Any

import pytest

from onhand.device.serving.api.bodies import Body
from onhand.device.serving.api.reading import grammar_of
from onhand.device.serving.api.schemas import ANSWER_SCHEMA, TOOL_SCHEMA, SchemaBounds
from onhand.device.serving.refusals import RefusedRequest

SMALL = SchemaBounds(depth=3, entries=6, keys=4, letters=60)


def nested(depth: int) -> dict[str, Any]:
    """A schema of objects within one another."""
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"a": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (nested(2), None),
        (nested(3), "nests over 3 deep"),
        ({"a": [1, 2, 3, 4, 5]}, None),
        ({"a": [1, 2, 3, 4, 5, 6]}, "over 6 entries"),
        (dict.fromkeys("abcd"), None),
        (dict.fromkeys("abcde"), "over 4 keys"),
        ({"a": "x" * 60}, "has 69 letters, at most 60"),
    ],
)
def test_each_bound(schema: dict[str, Any], told: str | None) -> None:
    """What is just within it is taken."""
    found = SMALL.why_not(schema)

    assert (found is None) if told is None else (told in str(found))


@pytest.mark.parametrize("is_flat", [True, False])
def test_attack_an_answers_schema_that_is_too_large(is_flat: bool) -> None:
    """Refused by its field's name, in both forms of the API."""
    deep = {"type": "json_schema", "schema": nested(ANSWER_SCHEMA.depth + 2)}
    if not is_flat:
        deep = {"type": "json_schema", "json_schema": {"schema": deep["schema"]}}
    wanted = Body(deep, where="format")

    with pytest.raises(RefusedRequest, match=r"schema: nests over 32 deep"):
        grammar_of(wanted, Body({}), "format", is_flat=is_flat)


def test_one_tool_of_many_may_be_smaller_than_an_answer() -> None:
    """In every way."""
    assert TOOL_SCHEMA.entries < ANSWER_SCHEMA.entries
    assert TOOL_SCHEMA.letters < ANSWER_SCHEMA.letters
