"""JSON that may come from outside: one meaning for every reader, or refused."""

import json
from typing import NoReturn

from onhand.core.errors import InputError

__all__ = ["parse_json"]


def parse_json(content: bytes) -> object:
    """Read JSON as the standard defines it, and nothing more.

    Two values under one name, NaN and encodings other than UTF-8 mean different things to
    different readers, so a check by one says nothing about another.

    Args:
        content: UTF-8; the caller has bounded its length.

    Returns:
        The value.

    Raises:
        InputError: if it is not JSON, is nested too deeply, or gives a name twice.
    """
    try:
        value: object = json.loads(
            content.decode(), object_pairs_hook=_without_repeats, parse_constant=_refuse
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from error
    return value


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return table


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
