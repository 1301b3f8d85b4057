"""Attributes of ONNX operators, read as what an operator expects them to be."""

from collections.abc import Mapping

from onhand.core.errors import InputError

__all__ = ["number_of", "text_attribute", "whole_of", "wholes_of"]


def whole_of(attributes: Mapping[str, object], key: str, default: int, *, where: str) -> int:
    """Return a whole number.

    Args:
        attributes: of an operator.
        key: name of the attribute.
        default: where it is absent.
        where: the operator, for messages.

    Returns:
        The number.

    Raises:
        InputError: if it is something else.
    """
    value = attributes.get(key, default)
    if not isinstance(value, int):
        raise InputError(f"{where}: {key} must be a whole number")
    return value


def wholes_of(
    attributes: Mapping[str, object], key: str, default: tuple[int, ...], *, where: str
) -> tuple[int, ...]:
    """Return a list of whole numbers; see `whole_of`.

    Raises:
        InputError: if it is something else.
    """
    value = attributes.get(key, default)
    if not isinstance(value, tuple) or not all(isinstance(item, int) for item in value):
        raise InputError(f"{where}: {key} must be whole numbers")
    return tuple(int(item) for item in value)


def number_of(attributes: Mapping[str, object], key: str, default: float, *, where: str) -> float:
    """Return a number; see `whole_of`.

    Raises:
        InputError: if it is something else.
    """
    value = attributes.get(key, default)
    if not isinstance(value, int | float):
        raise InputError(f"{where}: {key} must be a number")
    return float(value)


def text_attribute(attributes: Mapping[str, object], key: str, default: str, *, where: str) -> str:
    """Return a text; see `whole_of`.

    Raises:
        InputError: if it is something else.
    """
    value = attributes.get(key, default)
    if not isinstance(value, str):
        raise InputError(f"{where}: {key} must be a text")
    return value
