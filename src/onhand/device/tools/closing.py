"""Schemas of arguments without what they do not name: nobody declared it, so no tool reads it."""

from collections.abc import Mapping
from typing import Final

__all__ = ["closed"]

_COMBINED: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "$ref"})
# Beside these, an object's properties are not all that it may have.
_OPEN: Final = _COMBINED | {
    "additionalProperties",
    "unevaluatedProperties",
    "patternProperties",
    "dependentSchemas",
    "minProperties",
}


def closed(schema: Mapping[str, object]) -> dict[str, object]:
    """Forbid properties that a schema does not name, where it does not say whether they may be.

    JSON Schema allows them then. A model that writes arguments by such a grammar may add
    properties for ever, and a small one does.

    Args:
        schema: of a tool's arguments, as a client gave it.

    Returns:
        Another one. Parts that are combined with others, and definitions where any is, are as
        they were: what one part does not name another may.
    """
    shared: frozenset[str] = frozenset()
    if not _combines(schema):
        shared = frozenset({"$defs", "definitions"})
    return _closed(schema, shared)


def _combines(value: object) -> bool:
    if isinstance(value, list):
        return any(_combines(one) for one in value)
    if not isinstance(value, Mapping):
        return False
    beside = "properties" in value and not _COMBINED.isdisjoint(value)
    return beside or "allOf" in value or any(_combines(one) for one in value.values())


def _closed(schema: Mapping[str, object], shared: frozenset[str]) -> dict[str, object]:
    changed = {key: _part(key, value, shared, schema) for key, value in schema.items()}
    named, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(named, Mapping) or not _OPEN.isdisjoint(schema):
        return changed
    # What must be there and is not named could not be written any more.
    has_all = isinstance(required, list) and all(
        isinstance(name, str) and name in named for name in required
    )
    return changed | {"additionalProperties": False} if has_all else changed


def _part(key: str, value: object, shared: frozenset[str], schema: Mapping[str, object]) -> object:
    if isinstance(value, Mapping):
        if key == "properties" or key in shared:
            return {name: _maybe(one, shared) for name, one in value.items()}
        if key in {"items", "additionalProperties"}:
            return _closed(value, shared)
    # Of a choice each part is whole where nothing stands beside it.
    is_choice = key in {"anyOf", "oneOf"} and "properties" not in schema
    if isinstance(value, list) and (is_choice or key == "prefixItems"):
        return [_maybe(one, shared) for one in value]
    return value


def _maybe(value: object, shared: frozenset[str]) -> object:
    return _closed(value, shared) if isinstance(value, Mapping) else value
