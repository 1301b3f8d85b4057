"""Server-sent events, read from whatever parts they arrive in."""

import re
from typing import Final

from onhand.core.errors import InputError

__all__ = ["EventReader"]

_PLAIN: Final = re.compile(rb"data: ?([^\r\n]*)\n\n")  # one whole event, as most parts are


class EventReader:
    """Finds the data of events in a stream of bytes.

    Lines may end in CR, LF or both; comments and other fields are passed over. Text is decoded by
    who reads an event, so that a letter which two parts share is whole by then.

    Source:
        "Server-sent events" of the HTML standard, 9.2.6.
    """

    def __init__(self, *, most_bytes: int) -> None:
        """Begin.

        Args:
            most_bytes: of one line, and of the data of one event.
        """
        self._most_bytes = most_bytes
        self._line: list[bytes] = []  # parts of a line whose end has not come
        self._line_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._skips_lf = False
        self._is_first = True

    def push(self, part: bytes) -> list[bytes]:
        """Take what came next.

        Args:
            part: of any length.

        Returns:
            The data of the events that are whole now.

        Raises:
            InputError: if a line or an event is too long.
        """
        if not (self._line or self._data or self._skips_lf or self._is_first):
            plain = _PLAIN.fullmatch(part)
            if plain is not None and len(part) <= self._most_bytes:
                return [plain[1]]
        if self._skips_lf and part:
            part = part.removeprefix(b"\n")
            self._skips_lf = False
        if b"\r" in part:
            self._skips_lf = part.endswith(b"\r")
            part = part.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = part.split(b"\n")
        events: list[bytes] = []
        for line in lines:
            self._take(line)
            self._read(b"".join(self._line), events)
            self._line.clear()
            self._line_bytes = 0
        self._take(rest)
        return events

    def finish(self) -> list[bytes]:
        """Return the data of a last event whose empty line never came."""
        events: list[bytes] = []
        self._read(b"".join(self._line), events)
        self._read(b"", events)
        return events

    def _take(self, part: bytes) -> None:
        if part:
            self._line.append(part)
            self._line_bytes += len(part)
            self._check(self._line_bytes)

    def _read(self, line: bytes, events: list[bytes]) -> None:
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
                self._data_bytes = 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(value) + 1
            self._check(self._data_bytes)

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self._most_bytes:
            raise InputError(f"an event has more than the {self._most_bytes} bytes allowed")
