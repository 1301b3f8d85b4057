"""Connections to one server, kept open between requests; HTTP/1.1, with TLS or without."""

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from onhand.core.errors import InputError
from onhand.device.serving.backends.http1 import Head, ReplyReader, request_bytes
from onhand.device.serving.backends.patience import in_fair_time

__all__ = ["ConnectError", "Connections", "LateConnectError", "LostError", "Reply"]

_MOST_UNREAD: Final = 256 * 1024  # bytes: above, the server is let wait until they are read
_NEXT_ADDRESS_S: Final = 0.25  # without an answer, after which a host's next address is tried
_PORTS: Final = {"http": 80, "https": 443}


class ConnectError(Exception):
    """No connection came about. Of this package's own use."""


class LateConnectError(ConnectError):
    """None came about in time."""


class LostError(Exception):
    """The connection ended before the answer did, or what came is none."""


class _Wire(asyncio.Protocol):
    """One connection. Of one event loop; one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.reader = ReplyReader()
        self.idle_since_s = 0.0
        self.is_idle = True
        self._parts: deque[bytes] = deque()
        self._n_unread = 0
        self._is_paused = False
        self._failure: str | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._until_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether it can carry another request."""
        return (
            self._failure is None and self.transport is not None and not self.transport.is_closing()
        )

    def connection_made(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self, transport: asyncio.BaseTransport
    ) -> None:
        """See `asyncio.Protocol`."""
        if isinstance(transport, asyncio.Transport):
            self.transport = transport

    def data_received(  # type: ignore[explicit-override] # likewise
        self, data: bytes
    ) -> None:
        """See `asyncio.Protocol`."""
        if self.is_idle or self._failure is not None:
            self._fail("the server sent what was not asked for")
            return
        try:
            part = self.reader.push(data)
        except InputError as error:
            self._fail(str(error))
            return
        if part:
            self._parts.append(part)
            self._n_unread += len(part)
            if self._n_unread > _MOST_UNREAD and not self._is_paused and self.transport is not None:
                self._is_paused = True
                self.transport.pause_reading()
        self._wake()

    def connection_lost(  # type: ignore[explicit-override] # likewise
        self, exc: Exception | None
    ) -> None:
        """See `asyncio.Protocol`."""
        if self._failure is None:
            try:
                self.reader.finish()
                self._failure = "the connection was closed"
            except InputError as error:
                self._failure = str(exc or error)
        self._wake()

    def ask(self, request: bytes) -> None:
        """Send a request."""
        self.reader = ReplyReader()
        self.is_idle = False
        if self.transport is not None:
            self.transport.write(request)

    async def head(self, until_s: float) -> Head:
        """Wait for what the answer begins with; as `part` else."""
        while self.reader.head is None:
            await self._news(until_s, is_fair=True)
        return self.reader.head

    async def part(self, until_s: float, *, is_fair: bool) -> bytes:
        """Wait for the next part of the body; no bytes at its end."""
        while not self._parts:
            if self.reader.is_done:
                return b""
            await self._news(until_s, is_fair=is_fair)
        if len(self._parts) == 1:
            part = self._parts.popleft()
        else:
            part = b"".join(self._parts)
            self._parts.clear()
        self._n_unread = 0
        if self._is_paused and self.is_open and self.transport is not None:
            self._is_paused = False
            self.transport.resume_reading()
        return part

    def rest(self) -> bool:
        """Make it ready for the next request; say whether that worked."""
        self._parts.clear()
        self._n_unread = 0
        self._stop_timer()
        self.is_idle = True
        return self.reader.is_done and self.reader.keeps and self.is_open

    def drop(self) -> None:
        """Close it at once."""
        self._stop_timer()
        if self.transport is not None:
            self.transport.abort()

    async def _news(self, until_s: float, *, is_fair: bool) -> None:
        if self._failure is not None:
            raise LostError(self._failure)
        loop = asyncio.get_running_loop()
        waiting = self._waiting = loop.create_future()
        try:
            if is_fair:
                await in_fair_time(waiting, until_s)
                return
            self._until_s = until_s
            if self._timer is None:
                self._timer = loop.call_at(until_s, self._look)
            await waiting
        finally:
            self._waiting = None

    def _look(self) -> None:
        # One timer for many parts: it looks again when the last of them is late.
        self._timer = None
        if self._waiting is None or self._waiting.done():
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._until_s:
            self._timer = loop.call_at(self._until_s, self._look)
        else:
            self._waiting.set_exception(TimeoutError())

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self.drop()
        self._wake()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Reply:
    """An answer whose head has come. Close it.

    Attributes:
        head: it.
    """

    def __init__(self, wire: _Wire, head: Head, connections: "Connections") -> None:
        self.head = head
        self._wire: _Wire | None = wire
        self._connections = connections

    @property
    def is_whole(self) -> bool:
        """Whether all of it has come, read or not."""
        return self._wire is None or self._wire.reader.is_done

    async def part(self, until_s: float, *, is_fair: bool = False) -> bytes:
        """Wait for the next part of the body.

        Args:
            until_s: on the clock of the event loop.
            is_fair: whether to wait as `in_fair_time` does.

        Returns:
            It; no bytes at the end.

        Raises:
            LostError: if the connection is lost.
            TimeoutError: when the time is over.
        """
        return b"" if self._wire is None else await self._wire.part(until_s, is_fair=is_fair)

    def close(self) -> None:
        """Keep the connection if all came, and break it off otherwise; safe to call twice."""
        wire, self._wire = self._wire, None
        if wire is not None:
            self._connections.take_back(wire)


class Connections:
    """Those to one server. Of one event loop; the last used is used first."""

    def __init__(
        self, url: str, *, trusted: ssl.SSLContext | None, connect_s: float, keep_s: float,
        most_idle: int,
    ) -> None:  # fmt: skip
        """Connect to nobody yet.

        Args:
            url: of the server.
            trusted: the certificates; None without TLS.
            connect_s: seconds in which a connection must come about.
            keep_s: for which one is kept that nobody uses.
            most_idle: of those.
        """
        parts = urlsplit(url)
        self._name = parts.hostname or ""
        self._port = parts.port or _PORTS[parts.scheme]
        self._trusted = trusted
        self._connect_s = connect_s
        self._keep_s = keep_s
        self._most_idle = most_idle
        self._idle: list[_Wire] = []
        self._busy: set[_Wire] = set()
        shown = f"[{self._name}]" if ":" in self._name else _ascii(self._name)
        self._host = shown if parts.port is None else f"{shown}:{parts.port}"

    async def ask(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, *, until_s: float
    ) -> tuple[Reply, int]:
        """Send a request, and wait for the answer's head.

        Args:
            method: "GET" or "POST".
            target: path, from the server's root.
            headers: beside host and length.
            body: empty for none.
            until_s: when the head must have come, on the clock of the event loop.

        Returns:
            reply: the answer, its body unread.
            n_headers: bytes of the request's headers.

        Raises:
            ConnectError: if there is no connection.
            LostError: if it is lost.
            TimeoutError: when the time is over.
            InputError: if a header cannot be sent.
        """
        request, n_headers = request_bytes(
            method, host=self._host, target=target, headers=headers, body=body
        )
        wire = self._rested() or await self._connected(until_s)
        self._busy.add(wire)
        try:
            wire.ask(request)
            return Reply(wire, await wire.head(until_s), self), n_headers
        except BaseException:
            self._busy.discard(wire)
            wire.drop()
            raise

    def take_back(self, wire: _Wire) -> None:
        """Keep a connection, or close it. For `Reply`."""
        self._busy.discard(wire)
        if not wire.rest() or len(self._idle) >= self._most_idle:
            wire.drop()
            return
        wire.idle_since_s = asyncio.get_running_loop().time()
        self._idle.append(wire)

    def close(self) -> None:
        """Close all of them; they may be used afterwards."""
        for wire in (*self._idle, *self._busy):
            wire.drop()
        self._idle.clear()
        self._busy.clear()

    def _rested(self) -> _Wire | None:
        oldest_s = asyncio.get_running_loop().time() - self._keep_s
        # The longest unused are at the front.
        while self._idle and (self._idle[0].idle_since_s < oldest_s or not self._idle[0].is_open):
            self._idle.pop(0).drop()
        while self._idle:
            wire = self._idle.pop()
            if wire.is_open:
                return wire
        return None

    async def _connected(self, until_s: float) -> _Wire:
        # A task of its own, which nobody cancels: with several addresses Python 3.11 may lose an
        # open socket then, and the server would wait for its request.
        connecting = asyncio.create_task(self._connect())
        try:
            return await in_fair_time(asyncio.shield(connecting), until_s)
        except BaseException:
            connecting.add_done_callback(_drop)
            raise

    async def _connect(self) -> _Wire:
        loop = asyncio.get_running_loop()
        work = loop.create_connection(
            _Wire, self._name, self._port, ssl=self._trusted, happy_eyeballs_delay=_NEXT_ADDRESS_S
        )
        try:
            _, wire = await in_fair_time(work, loop.time() + self._connect_s)
        except TimeoutError as error:
            if error.errno is None:
                raise LateConnectError from None
            raise ConnectError(str(error)) from None
        except (OSError, UnicodeError) as error:
            raise ConnectError(str(error) or type(error).__name__) from None
        return wire


def _drop(connecting: asyncio.Task[_Wire]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().drop()


def _ascii(name: str) -> str:
    return name if name.isascii() else name.encode("idna").decode("ascii")
