"""JSON that may come from outside: one meaning for every reader, or refused."""

import json
import reprlib
from collections.abc import Collection, Mapping
from typing import NoReturn

from onhand.core.errors import InputError

__all__ = ["count", "flag", "object_of", "parse_json", "positive", "shown", "word"]

# Of a factor, a base or an epsilon: float32 still holds its products, and what is divided by it.
_SMALLEST, _LARGEST = 1e-12, 1e12
_MOST_DIGITS = 300
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def parse_json(content: bytes) -> object:
    """Read JSON as the standard defines it, and nothing more.

    Two values under one name, NaN, whole numbers that no float holds, and encodings other than
    UTF-8 mean different things to different readers, so a check by one says nothing about another.

    Args:
        content: UTF-8; the caller has bounded its length.

    Returns:
        The value.

    Raises:
        InputError: if it is not JSON, is nested too deeply, or gives a name twice.
    """
    try:
        value: object = json.loads(
            content.decode(),
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse,
            parse_int=_whole,
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from error
    return value


def object_of(value: object, where: str, known: set[str]) -> Mapping[str, object]:
    """Return a JSON object that has only known keys.

    Raises:
        InputError: if it is no object or has another key.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: must be a JSON object, found {type(value).__name__}")
    if unknown := sorted(set(value) - known):
        raise InputError(f"{where}: unknown key {shown(unknown[0])}")
    return value


def shown(value: object) -> str:
    """Return a value as a message shows it: on one line, and short whatever it holds."""
    return _SHORT.repr(value)


def count(table: Mapping[str, object], key: str, where: str, *, most: int, least: int = 1) -> int:
    """Return a whole number from `least` to `most`.

    Raises:
        InputError: if it is missing or something else.
    """
    value = table.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(
            f"{where}: {key} is {shown(value)}, must be a whole number from {least} to {most}"
        )
    return value


def positive(value: object, where: str) -> float:
    """Return a number above 0 that float32 can multiply and divide by.

    Raises:
        InputError: if it is something else.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not _SMALLEST <= value <= _LARGEST
    ):
        raise InputError(
            f"{where} is {shown(value)}, must be a number from {_SMALLEST:g} to {_LARGEST:g}"
        )
    return float(value)


def flag(table: Mapping[str, object], key: str, where: str, *, default: bool = False) -> bool:
    """Return true or false.

    Raises:
        InputError: if it is something else.
    """
    value = table.get(key, default)
    if not isinstance(value, bool):
        raise InputError(f"{where}: {key} is {shown(value)}, must be true or false")
    return value


def word(table: Mapping[str, object], key: str, where: str, known: Collection[str]) -> str:
    """Return one of some words, the first of them if the key is missing.

    Raises:
        InputError: if it is something else.
    """
    words = list(known)
    value = table.get(key, words[0])
    if not isinstance(value, str) or value not in words:
        raise InputError(f"{where}: {key} is {shown(value)}, must be one of {', '.join(words)}")
    return value


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return table


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(text)} digits, at most {_MOST_DIGITS} are read")
    return int(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
