"""A bounded reader of FlatBuffers, a binary format of tables that point to one another.

Source: https://flatbuffers.dev/internals/ (binary format).
"""

import struct
from collections.abc import Callable
from typing import Final

import numpy as np

from onhand.core.errors import SourceError
from onhand.host.networks.graph import Array

__all__ = ["Table", "root_table"]

_SIZES: Final = {"b": 1, "B": 1, "?": 1, "H": 2, "i": 4, "I": 4, "f": 4, "q": 8, "Q": 8}


class _Bytes:
    """A file, and how much of it may still be read: lists may be shared, but not without end."""

    def __init__(self, content: bytes, where: str) -> None:
        self.content = content
        self.where = where
        self._left = 8 * len(content) + 4096

    def number(self, kind: str, place: int) -> int | float | bool:
        """Return a number at a place of the file."""
        size = _SIZES[kind]
        if not 0 <= place <= len(self.content) - size:
            raise self.broken(f"a number at byte {place} is outside")
        found: int | float | bool = struct.unpack_from(f"<{kind}", self.content, place)[0]
        return found

    def whole(self, kind: str, place: int) -> int:
        """Return a whole number at a place of the file."""
        return int(self.number(kind, place))

    def span(self, place: int, size: int) -> tuple[int, int]:
        """Return where a list's content begins, and how many entries of `size` bytes it has."""
        n = self.whole("I", place)
        if n * size > len(self.content) - place - 4:
            raise self.broken(f"a list at byte {place} has {n} entries, more than the file")
        self._left -= n * size + 4
        if self._left < 0:
            raise self.broken("lists overlap too often")
        return place + 4, n

    def broken(self, what: str) -> SourceError:
        """Return the error for a file that cannot be right."""
        size = len(self.content)
        return SourceError(f"{self.where}: {what} of the file's {size} bytes; damaged?")


class Table:
    """One table of a file; its fields are numbered as in the schema."""

    __slots__ = ("_bytes", "_fields", "_n_fields", "_place")

    def __init__(self, whole: _Bytes, place: int) -> None:
        self._bytes = whole
        self._place = place
        self._fields = place - whole.whole("i", place)
        size = whole.whole("H", self._fields)
        self._n_fields = max(0, (size - 4) // 2)

    def _field(self, slot: int) -> int | None:
        if slot >= self._n_fields:
            return None
        offset = self._bytes.whole("H", self._fields + 4 + 2 * slot)
        return self._place + offset if offset else None

    def _target(self, slot: int) -> int | None:
        place = self._field(slot)
        return None if place is None else place + self._bytes.whole("I", place)

    def whole(self, slot: int, kind: str, default: int = 0) -> int:
        """Return a whole number.

        Args:
            slot: the field.
            kind: its type, as in `struct`.
            default: where the file leaves it out.

        Returns:
            The number.
        """
        place = self._field(slot)
        return default if place is None else self._bytes.whole(kind, place)

    def real(self, slot: int, default: float = 0.0) -> float:
        """Return a number of 32 bits, `default` where the file leaves it out."""
        place = self._field(slot)
        return default if place is None else float(self._bytes.number("f", place))

    def flag(self, slot: int) -> bool:
        """Return a truth value, False where the file leaves it out."""
        return bool(self.whole(slot, "B"))

    def table(self, slot: int) -> "Table | None":
        """Return the table that a field points to, None where there is none."""
        place = self._target(slot)
        return None if place is None else Table(self._bytes, place)

    def tables(self, slot: int) -> list["Table"]:
        """Return the tables of a list."""
        return self._each(slot, lambda place: Table(self._bytes, place))

    def text(self, slot: int) -> str:
        """Return a text, "" where there is none; what is no UTF-8 is replaced."""
        return self.bytes(slot).decode(errors="replace")

    def bytes(self, slot: int) -> bytes:
        """Return the bytes of a list."""
        place = self._target(slot)
        if place is None:
            return b""
        begin, n = self._bytes.span(place, 1)
        return self._bytes.content[begin : begin + n]

    def numbers(self, slot: int, dtype: str) -> Array:
        """Return a list of numbers.

        Args:
            slot: the field.
            dtype: of numpy, with its order of bytes: "<i4".

        Returns:
            One dimension; empty where there is none.
        """
        place = self._target(slot)
        if place is None:
            return np.zeros(0, dtype=dtype)
        begin, n = self._bytes.span(place, np.dtype(dtype).itemsize)
        return np.frombuffer(self._bytes.content, dtype=dtype, count=n, offset=begin)

    def _each(self, slot: int, make: Callable[[int], "Table"]) -> list["Table"]:
        place = self._target(slot)
        if place is None:
            return []
        begin, n = self._bytes.span(place, 4)
        places = range(begin, begin + 4 * n, 4)
        return [make(place + self._bytes.whole("I", place)) for place in places]


def root_table(content: bytes, *, mark: bytes, where: str) -> Table:
    """Return the first table of a file.

    Args:
        content: the whole file.
        mark: four bytes behind the first four, which say what the file is.
        where: its name for messages.

    Returns:
        The table; reading beyond the file raises SourceError, there and further on.

    Raises:
        SourceError: if the mark is another, or the file is cut.
    """
    if content[4:8] != mark:
        raise SourceError(f"{where}: bytes 4 to 8 are {content[4:8]!r}, must be {mark!r}")
    whole = _Bytes(content, where)
    return Table(whole, whole.whole("I", 0))
