"""Fields of a report that somebody else may have written: each is checked before it is used."""

import dataclasses
import math
from collections.abc import Mapping
from types import UnionType
from typing import TYPE_CHECKING, TypeVar, get_args, get_origin

from onhand.core.errors import InputError
from onhand.core.measurement import Measurement, measurement_from_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "get_field",
    "get_text",
    "read_figure",
    "read_figures",
    "read_items",
    "read_record",
    "read_table",
    "read_value",
]

# Beyond this no figure means anything, and drawing it would leave the range of numbers.
_LARGEST = 1e30
_MOST_ITEMS = 100_000
Record = TypeVar("Record", bound="DataclassInstance")
Scalar = TypeVar("Scalar", str, bool, int, float)


def read_figures(value: object, where: str) -> dict[str, Measurement]:
    """Read measurements by name, each under its own.

    Raises:
        InputError: if it is anything else; the message gives the place.
    """
    table = read_table(value, where)
    found = {name: read_figure(item, f"{where}.{name}") for name, item in table.items()}
    for name, figure in found.items():
        if figure.name != name:
            raise InputError(f"report: {where}.{name} is a measurement of {figure.name!r}")
    return found


def read_figure(value: object, where: str) -> Measurement:
    """Read one measurement, its numbers finite.

    Raises:
        InputError: if it is anything else; the message gives the place.
    """
    try:
        figure = measurement_from_json(value)
    except InputError as error:
        raise InputError(f"report: {where}: {error}") from error
    read_value(figure.how, str, f"{where}.how")
    numbers = [figure.value, figure.spread, *(figure.interval or ())]
    if not all(math.isfinite(number) and abs(number) <= _LARGEST for number in numbers):
        raise InputError(f"report: {where} is {numbers}, must be finite numbers up to {_LARGEST}")
    if figure.spread < 0 or (figure.interval and figure.interval[0] > figure.interval[1]):
        raise InputError(
            f"report: {where}: spread {figure.spread} or interval {figure.interval} is negative"
        )
    return figure


def get_field(table: Mapping[str, object], key: str, where: str = "") -> object:
    """Return a field.

    Raises:
        InputError: if it is anything else; the message gives the place.
    """
    if key not in table:
        raise InputError(f"report: {where}{key} is missing")
    return table[key]


def get_text(table: Mapping[str, object], key: str, where: str = "") -> str:
    """Return a field that is a text.

    Raises:
        InputError: if it is anything else; the message gives the place.
    """
    return read_value(get_field(table, key, where), str, f"{where}{key}")


def read_table(value: object, where: str) -> dict[str, object]:
    """Read an object with texts as keys.

    Raises:
        InputError: if it is anything else; the message gives the place.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"report: {where} is {type(value).__name__}, must be an object")
    return {read_value(key, str, f"a key of {where}"): item for key, item in value.items()}


def read_items(value: object, where: str) -> list[object]:
    """Read a list of not too many items.

    Raises:
        InputError: if it is anything else; the message gives the place.
    """
    if not isinstance(value, list | tuple):
        raise InputError(f"report: {where} is {type(value).__name__}, must be a list")
    if len(value) > _MOST_ITEMS:
        raise InputError(f"report: {where} has {len(value)} items, at most {_MOST_ITEMS} are read")
    return list(value)


def read_record(kind: type[Record], value: object, where: str) -> Record:
    """Read a dataclass, its fields by their types.

    Raises:
        InputError: if it is anything else; the message gives the place.
    """
    table = read_table(value, where)
    given: dict[str, object] = {}
    for one in dataclasses.fields(kind):
        if one.name in table or one.default is dataclasses.MISSING:
            place = f"{where}.{one.name}"
            given[one.name] = _read_field(get_field(table, one.name, f"{where}."), one.type, place)
    return kind(**given)


def _read_field(value: object, kind: object, where: str) -> object:
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return tuple(
            _read_field(v, item, f"{where}[{i}]") for i, v in enumerate(read_items(value, where))
        )
    if isinstance(kind, UnionType):  # what may be None
        return None if value is None else _read_field(value, get_args(kind)[0], where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return read_record(kind, value, where)
    scalars = {"str": str, "bool": bool, "int": int, "float": float}
    return read_value(value, scalars[getattr(kind, "__name__", "")], where)


def read_value(value: object, kind: type[Scalar], where: str) -> Scalar:
    """Read a text, a truth or a number; whole numbers do for others.

    Raises:
        InputError: if it is anything else; the message gives the place.
    """
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, int | float) and not abs(value) <= _LARGEST:
        raise InputError(f"report: {where} is not finite, or beyond {_LARGEST}")
    if kind is float and is_whole and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and not is_whole):
        said = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
        raise InputError(f"report: {where} is {value!r}, must be {said[kind]}")
    if isinstance(value, str):
        # JSON can hold half of a pair of surrogates, which no file can.
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"report: {where} is {value!r}, must be valid Unicode") from error
    return value
