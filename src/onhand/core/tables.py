"""Tables of TOML to dataclasses: every key is a field, and every value of its type."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, fields
from typing import TypeVar

from onhand.core.errors import InputError, RecipeError

__all__ = ["filled", "unknown"]

_T = TypeVar("_T")


def filled(
    kind: type[_T], values: Mapping[str, object], *, where: str, also: Collection[str] = ()
) -> _T:
    """Make a dataclass of a table.

    A list becomes a tuple, and a whole number a float, where the field's default is one.

    Args:
        kind: the dataclass.
        values: name of a field -> its value.
        where: file and place, for messages.
        also: keys that the table may have beside its fields, for the suggestion.

    Returns:
        What was made.

    Raises:
        RecipeError: if a key is no field, one is missing, or a value is of another type or refused.
    """
    known: dict[str, Field[object]] = {
        field.name: field
        for field in fields(kind)  # type: ignore[arg-type] # no type says "a dataclass"
    }
    for key in values:
        if key not in known:
            raise RecipeError(f"{where}: {unknown('option', key, [*known, *also])}")
    fitting = {key: _fitting(value, known[key], where) for key, value in values.items()}
    try:
        return kind(**fitting)
    except (InputError, TypeError) as error:
        raise RecipeError(f"{where}: {error}") from error


def unknown(kind: str, got: str, known: Collection[str]) -> str:
    """Return what to say of a name that is not known: the nearest one, or all of them."""
    near = difflib.get_close_matches(got, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
    return f"unknown {kind} {got!r}; {hint}"


def _fitting(value: object, option: Field[object], where: str) -> object:
    """Return a value in the type of its field's default: "4" for 4 is a slip, not a number.

    Raises:
        RecipeError: if it is of another type.
    """
    default = option.default
    if option.default_factory is tuple:
        default = ()
    if default is MISSING and option.type is str and not isinstance(value, str):
        raise RecipeError(f"{where}: {option.name} is {value!r}, must be a text")
    if default is MISSING or default is None:
        return value
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise RecipeError(f"{where}: {option.name} is {value!r}, must be like {default!r}")
    return value
