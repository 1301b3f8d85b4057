"""Fields of ONNX's messages by number: what readers of graphs and tensors share.

Source:
    onnx.proto (https://github.com/onnx/onnx), protocol buffers' wire format.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import BundleCorrupt
from onhand.core.onnxfile import Field, walk_fields

__all__ = [
    "bytes_of",
    "floats_of",
    "messages",
    "messages_in",
    "number_in",
    "signed",
    "text_in",
    "text_of",
    "whole_numbers",
]


def messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and bytes of every field that is a message or a text."""
    for field in walk_fields(message):
        if isinstance(field.value, memoryview):
            yield field.number, field.value


def messages_in(message: memoryview, number: int) -> list[memoryview]:
    """Return the bytes of every field of one number."""
    return [value for found, value in messages(message) if found == number]


def text_in(message: memoryview, number: int) -> str:
    """Return a field that is a text; "" where it is absent.

    Raises:
        BundleCorrupt: if it is not UTF-8.
    """
    return text_of((messages_in(message, number) or [memoryview(b"")])[-1])


def text_of(value: memoryview) -> str:
    """Return bytes as a text.

    Raises:
        BundleCorrupt: if they are not UTF-8.
    """
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise BundleCorrupt(f"not an ONNX file: a text is not UTF-8: {error}") from error


def number_in(message: memoryview, number: int) -> int:
    """Return a field that is a number; 0 where it is absent."""
    found = 0
    for field in walk_fields(message):
        if field.number == number and isinstance(field.value, int):
            found = field.value
    return found


def bytes_of(field: Field) -> memoryview:
    """Return the bytes of a field.

    Raises:
        BundleCorrupt: if it is a number.
    """
    if not isinstance(field.value, memoryview):
        raise BundleCorrupt(f"not an ONNX file: field {field.number} is a number")
    return field.value


def whole_numbers(field: Field) -> list[int]:
    """Return the numbers of a repeated field, which may be packed.

    Raises:
        BundleCorrupt: if it holds anything else.
    """
    if isinstance(field.value, int):
        return [field.value]
    found: list[int] = []
    number = shift = 0
    for byte in bytes_of(field):
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(number)
            number = shift = 0
        elif shift > 63:
            raise BundleCorrupt("not an ONNX file: a number is too long")
    if shift:
        raise BundleCorrupt("not an ONNX file, or cut short")
    return found


def floats_of(field: Field, dtype: str) -> NDArray[np.generic]:
    """Return the numbers of a repeated field of fixed width, which may be packed.

    Args:
        field: the field.
        dtype: "<f4" or "<f8".

    Returns:
        The numbers.

    Raises:
        BundleCorrupt: if it holds anything else.
    """
    width = np.dtype(dtype).itemsize
    packed = field.raw[1:] if field.value is None else bytes_of(field)
    if len(packed) % width:
        raise BundleCorrupt(f"not an ONNX file: {len(packed)} bytes for numbers of {width}")
    return np.frombuffer(packed, dtype)


def signed(number: int) -> int:
    """Return a number as protocol buffers mean it: 64 bits, the highest one the sign."""
    low = number & (2**64 - 1)
    return low - 2**64 if low >= 2**63 else low
