"""One answer of HTTP/1.1, read from whatever parts it arrives in. No sockets here.

What is not plainly of the form that the standard gives is refused: where two readers could take a
message for two different ones, one of them lets another's answer in.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from onhand.core.errors import InputError

__all__ = ["Head", "ReplyReader", "request_bytes"]

_MOST_HEAD_BYTES: Final = 64 * 1024
_MOST_HEADERS: Final = 256
_MOST_INTERIM: Final = 16  # answers such as "100 Continue" before the one that counts
_MOST_SIZE_LINE: Final = 4096
_MOST_TRAILER_BYTES: Final = 16 * 1024

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*([\t\x20-\x7e\x80-\xff]*)")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,7})\r\n")
_LENGTH = re.compile(r"[0-9]{1,15}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x20-\x7e\x80-\xff]*")

_State = Literal["head", "length", "size", "data", "data-end", "trailers", "close", "done"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What an answer begins with.

    Attributes:
        status: of HTTP, 200 to 599.
        headers: by their names in small letters; the values of one name are joined by ", ".
        n_bytes: of the headers.
    """

    status: int
    headers: Mapping[str, str]
    n_bytes: int


class ReplyReader:
    """Reads one answer to a GET or POST.

    Attributes:
        head: None until it is whole.
        is_done: whether the answer is whole.
        keeps: whether the connection can carry another request once it is.

    Source:
        RFC 9112, sections 2.2, 4, 5, 6.3 and 7.1.
    """

    def __init__(self) -> None:
        """Begin."""
        self.head: Head | None = None
        self.is_done = False
        self.keeps = False
        self._state: _State = "head"
        self._rest = b""  # what came of something that is not whole yet
        self._left = 0  # bytes that the part of the body under way still has
        self._n_interim = 0
        self._trailer_bytes = 0

    @property
    def has_begun(self) -> bool:
        """Whether anything came."""
        return self.head is not None or self._n_interim > 0 or bool(self._rest)

    def push(self, part: bytes) -> bytes:
        """Take what came next.

        Args:
            part: of any length.

        Returns:
            What of the body it holds.

        Raises:
            InputError: if it is no such answer.
        """
        data = self._rest + part if self._rest else part
        self._rest = b""
        found: list[bytes] = []
        at = 0
        while at < len(data) and self._state != "done":
            if self._state == "size" and (chunk := _CHUNK.match(data, at)) is not None:
                end = chunk.end() + int(chunk[1], 16)
                # The usual case: one part, all there.
                if chunk[1].strip(b"0") and data[end : end + 2] == b"\r\n":
                    found.append(data[chunk.end() : end])
                    at = end + 2
                    continue
            if self._state in {"length", "data", "close"}:
                at = self._take_body(data, at, found)
                continue
            after = self._take_line(data, at)
            if after is None:
                self._rest = data[at:]
                return b"".join(found)
            at = after
        if at < len(data):
            self.keeps = False  # what nobody asked for would be taken for the next answer
        return found[0] if len(found) == 1 else b"".join(found)

    def finish(self) -> None:
        """Note that the server closed the connection.

        Raises:
            InputError: if the answer is not whole.
        """
        if self._state == "close":
            self._end()
        if not self.is_done:
            what = "answer" if self.head is None else "answer's body"
            raise InputError(f"the connection was closed before the {what} was whole")

    def _take_body(self, data: bytes, at: int, found: list[bytes]) -> int:
        if self._state == "close":
            found.append(data[at:])
            return len(data)
        part = data[at : at + self._left]
        found.append(part)
        self._left -= len(part)
        if not self._left:
            if self._state == "data":
                self._state = "data-end"
            else:
                self._end()
        return at + len(part)

    def _take_line(self, data: bytes, at: int) -> int | None:
        # Reads a head or a line, and returns where it ends; None where it is not whole.
        if self._state == "head":
            end = data.find(b"\r\n\r\n", at)
            _check_length(data, at, end, _MOST_HEAD_BYTES, "head")
            if end >= 0:
                self._read_head(data[at:end])
                return end + 4
            return None
        end = data.find(b"\r\n", at)
        _check_length(data, at, end, _MOST_SIZE_LINE, "line between its parts")
        if end < 0:
            return None
        line = data[at:end]
        if self._state == "size":
            self._read_size(line)
        elif self._state == "data-end":
            if line:
                raise InputError("a part of the answer's body is longer than it says")
            self._state = "size"
        else:
            self._read_trailer(line)
        return end + 2

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(first)
        if status is None:
            raise InputError("what came is no answer of HTTP/1.1")
        headers = _headers(lines)
        code = int(status[2])
        if code == 101:
            raise InputError("the server changes to another protocol, which was not asked for")
        if code < 200:
            self._n_interim += 1
            if self._n_interim > _MOST_INTERIM:
                raise InputError(f"more than {_MOST_INTERIM} answers before the one that counts")
            return
        self.head = Head(status=code, headers=headers, n_bytes=len(head) - len(first))
        self._frame(code, headers, is_new=status[1] == b"1")

    def _frame(self, status: int, headers: Mapping[str, str], *, is_new: bool) -> None:
        options = {one.strip().lower() for one in headers.get("connection", "").split(",")}
        self.keeps = "close" not in options and (is_new or "keep-alive" in options)
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is not None and length is not None:
            raise InputError("the answer's length is said in two ways")
        if status in {204, 304}:
            self._end()
        elif coding is not None:
            if coding.strip().lower() != "chunked" or not is_new:
                raise InputError("the answer's transfer-encoding is not chunked")
            self._state = "size"
        elif length is not None:
            self._left = _one_length(length)
            self._state = "length"
            if not self._left:
                self._end()
        else:
            self.keeps = False
            self._state = "close"

    def _read_size(self, line: bytes) -> None:
        size = _SIZE.fullmatch(line)
        if size is None:
            raise InputError("a part of the answer's body does not say how long it is")
        self._left = int(size[1], 16)
        self._state = "data" if self._left else "trailers"

    def _read_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _MOST_TRAILER_BYTES:
            raise InputError(f"the answer's end has more than {_MOST_TRAILER_BYTES} bytes")
        if not line:
            self._end()
        elif _HEADER.fullmatch(line) is None:
            raise InputError("the answer's end holds a line that is no header")

    def _end(self) -> None:
        self._state = "done"
        self.is_done = True


def request_bytes(
    method: str, *, host: str, target: str, headers: Mapping[str, str], body: bytes
) -> tuple[bytes, int]:
    """Put a request into bytes.

    Args:
        method: "GET" or "POST".
        host: with its port, as the server is called.
        target: path, from the server's root.
        headers: beside those of the host and the length.
        body: empty for none.

    Returns:
        request: its head and body.
        n_headers: bytes of its headers.

    Raises:
        InputError: if a header could end before its end, or is no text of ISO 8859-1.
    """
    lines = [f"host: {host}"]
    for name, value in headers.items():
        if _TOKEN.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise InputError(f"the header {name[:40]!r} cannot be sent")
        lines.append(f"{name}: {value}")
    if method == "POST":
        lines.append(f"content-length: {len(body)}")
    told = "\r\n".join(lines).encode("latin-1")
    first = f"{method} {target} HTTP/1.1\r\n".encode("ascii")
    return b"".join((first, told, b"\r\n\r\n", body)), len(told) + 2


def _headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > _MOST_HEADERS:
        raise InputError(f"the answer has more than {_MOST_HEADERS} headers")
    found: dict[str, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise InputError("the answer's head holds a line that is no header")
        name = header[1].decode("ascii").lower()
        value = header[2].decode("latin-1").rstrip("\t ")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _one_length(given: str) -> int:
    # The same length twice is one length; RFC 9110, 8.6.
    lengths = {one.strip() for one in given.split(",")}
    length = lengths.pop()
    if lengths or _LENGTH.fullmatch(length) is None:
        raise InputError("the answer's content-length is no length")
    return int(length)


def _check_length(data: bytes, at: int, end: int, most: int, what: str) -> None:
    if (len(data) if end < 0 else end) - at > most:
        raise InputError(f"the answer's {what} has more than {most} bytes")
