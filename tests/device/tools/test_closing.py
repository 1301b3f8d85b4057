"""Arguments that a schema does not name are not written."""

import json

import pytest

from onhand.device.tools.closing import closed

LAMP: dict[str, object] = {"type": "object", "properties": {"room": {"type": "string"}}}
SHUT = LAMP | {"additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (LAMP, SHUT),
        ({"properties": {"a": LAMP}}, {"properties": {"a": SHUT}, "additionalProperties": False}),
        ({"type": "array", "items": LAMP}, {"type": "array", "items": SHUT}),
        ({"prefixItems": [LAMP, True]}, {"prefixItems": [SHUT, True]}),
        ({"anyOf": [LAMP, {"type": "null"}]}, {"anyOf": [SHUT, {"type": "null"}]}),
        ({"$ref": "#/$defs/x", "$defs": {"x": LAMP}}, {"$ref": "#/$defs/x", "$defs": {"x": SHUT}}),
        ({"additionalProperties": LAMP}, {"additionalProperties": SHUT}),
    ],
)
def test_objects_that_name_their_properties_have_no_others(
    schema: dict[str, object], expected: dict[str, object]
) -> None:
    """Wherever they stand by themselves."""
    assert closed(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        LAMP | {"additionalProperties": True},
        LAMP | {"patternProperties": {"^x": {}}},
        LAMP | {"anyOf": [LAMP]},
        LAMP | {"required": ["other"]},
        LAMP | {"required": "room"},
        LAMP | {"minProperties": 2},
        {"allOf": [LAMP, LAMP]},
        {"not": LAMP},
        {"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": LAMP}},
        LAMP | {"oneOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": LAMP}},
        {"properties": 3},
        {"items": [LAMP], "anyOf": 3},
    ],
)
def test_what_may_have_others_stays_as_it_is(schema: dict[str, object]) -> None:
    """Where it says so, where another part may name them, and where it is no schema."""
    assert closed(schema) == schema


def test_the_schema_that_was_given_is_left_alone() -> None:
    """Models are still told of it as it was."""
    before = json.dumps(LAMP)
    closed({"properties": {"a": LAMP}})

    assert json.dumps(LAMP) == before
