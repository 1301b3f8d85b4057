"""Connections to another server: kept while that is safe, closed when it is not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from onhand.device.serving.backends.connections import (
    ConnectError,
    Connections,
    LateConnectError,
    LostError,
)

FINE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """A server that answers each request as a test says, and counts its connections."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.n_connections = 0
        self.n_ended = 0
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until the client leaves."""
        self.n_connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                await self.answering(writer)
        self.n_ended += 1
        writer.close()


@contextlib.asynccontextmanager
async def listening(answering: Answering) -> AsyncIterator[Listener]:
    """Run one as long as the block does."""
    found = Listener(answering)
    server = await asyncio.start_server(found.connected, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for writer in found.writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


def fine(*parts: bytes) -> Answering:
    """Answer with these bytes."""

    async def answering(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return answering


def connections(port: int, *, keep_s: float = 5.0, most_idle: int = 4) -> Connections:
    """Connections to a port of this machine."""
    return Connections(
        f"http://localhost:{port}/v1",
        trusted=None,
        connect_s=2.0,
        keep_s=keep_s,
        most_idle=most_idle,
    )


async def get(found: Connections, *, seconds: float = 5.0, reads: bool = True) -> bytes:
    """The body of an answer."""
    until_s = asyncio.get_running_loop().time() + seconds
    reply, _ = await found.ask("GET", "/x", {}, b"", until_s=until_s)
    try:
        body = b""
        while reads and (part := await reply.part(until_s)):
            body += part
        return body
    finally:
        reply.close()


def counted(answering: Answering, n: int, *, keep_s: float = 5.0) -> int:
    """How many connections some requests took, one after the other."""

    async def run() -> int:
        async with listening(answering) as server:
            found = connections(server.port, keep_s=keep_s)
            for _ in range(n):
                assert await get(found) == b"ok"
                await asyncio.sleep(0.01)
            found.close()
            return server.n_connections

    return asyncio.run(run())


def test_a_connection_is_kept() -> None:
    """For the next request, and the one after that."""
    assert counted(fine(FINE), 3) == 1


@pytest.mark.parametrize(
    "answer",
    [
        FINE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),
        FINE.replace(b"1.1", b"1.0"),
        FINE + FINE,
        FINE + b"HTTP/1.1 408 Late\r\n\r\n",
    ],
)
def test_attack_a_connection_that_holds_more_is_not_kept(answer: bytes) -> None:
    """Nobody is told what was not the answer to what they asked."""
    assert counted(fine(answer), 3) == 3


def test_attack_an_answer_to_nothing() -> None:
    """One that is sent later, while nothing is asked, is nobody's."""

    async def run() -> tuple[bytes, int]:
        async with listening(fine(FINE)) as server:
            found = connections(server.port)
            await get(found)
            server.writers[0].write(FINE.replace(b"ok", b"no"))
            while not server.n_ended:
                await asyncio.sleep(0.001)
            body = await get(found)
            found.close()
            return body, server.n_connections

    assert asyncio.run(run()) == (b"ok", 2)


def test_a_connection_that_rested_long_is_not_used() -> None:
    """The server may be about to close it."""
    assert counted(fine(FINE), 2, keep_s=0.0) == 2


def test_what_was_not_read_closes_the_connection() -> None:
    """And the server is told by that."""

    async def run() -> tuple[int, int]:
        endless = b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n" + b"x" * 1000
        async with listening(fine(endless)) as server:
            found = connections(server.port)
            for _ in range(2):
                await get(found, reads=False)
            while server.n_ended < 2:
                await asyncio.sleep(0.001)
            return server.n_connections, server.n_ended

    assert asyncio.run(run()) == (2, 2)


def test_no_more_rest_than_may() -> None:
    """Those beyond are closed."""

    async def run() -> int:
        async with listening(fine(FINE)) as server:
            found = connections(server.port, most_idle=1)
            await asyncio.gather(*(get(found) for _ in range(3)))
            while server.n_ended < 2:
                await asyncio.sleep(0.001)
            n_open = server.n_connections - server.n_ended
            found.close()
            return n_open

    assert asyncio.run(run()) == 1


def test_a_large_answer_waits_for_its_reader() -> None:
    """What is not read yet does not pile up here."""
    n_bytes = 16 * 2**20
    sent = 0

    async def answering(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {n_bytes}\r\n\r\n".encode())
        for _ in range(n_bytes // 2**16):
            writer.write(b"x" * 2**16)
            await writer.drain()
            sent += 2**16

    async def run() -> tuple[int, int]:
        async with listening(answering) as server:
            found = connections(server.port)
            until_s = asyncio.get_running_loop().time() + 30
            reply, _ = await found.ask("GET", "/x", {}, b"", until_s=until_s)
            before = -1
            while sent != before:  # until it stands still
                before = sent
                await asyncio.sleep(0.05)
            n_read = 0
            while part := await reply.part(until_s):
                n_read += len(part)
            reply.close()
            found.close()
            return before, n_read

    n_ahead, n_read = asyncio.run(run())

    assert n_ahead < n_bytes - 2**20
    assert n_read == n_bytes


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"nonsense\r\n\r\n", "no answer of HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "no length"),
    ],
)
def test_what_is_no_answer_is_said(answer: bytes, reason: str) -> None:
    """As the connection's loss; it is not used again."""

    async def run() -> None:
        async with listening(fine(answer)) as server:
            with pytest.raises(LostError, match=reason):
                await get(connections(server.port))

    asyncio.run(run())


def test_the_time_to_the_next_part_is_kept_to() -> None:
    """Each part has its own; one timer looks after all."""

    async def answering(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        for _ in range(3):
            writer.write(b"a")
            await asyncio.sleep(0.03)

    async def run() -> bytes:
        async with listening(answering) as server:
            found, loop = connections(server.port), asyncio.get_running_loop()
            reply, _ = await found.ask("GET", "/x", {}, b"", until_s=loop.time() + 5)
            body = b""
            while len(body) < 3:
                body += await reply.part(loop.time() + 0.3)
            with pytest.raises(TimeoutError):
                await reply.part(loop.time() + 0.05)
            reply.close()
            return body

    assert asyncio.run(run()) == b"aaa"


def test_nobody_there_and_nobody_who_answers() -> None:
    """Two errors, as the first says that the request was never sent."""

    async def run() -> None:
        async with listening(fine(FINE)) as server:
            pass
        with pytest.raises(ConnectError):
            await get(connections(server.port))
        async with listening(fine()) as silent:
            with pytest.raises(TimeoutError):
                await get(connections(silent.port), seconds=0.1)

    asyncio.run(run())


def test_connecting_has_a_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a server that is off is known sooner than one that thinks."""

    async def run() -> None:
        loop = asyncio.get_running_loop()

        async def never(*arguments: object, **options: object) -> None:
            await asyncio.sleep(60)

        monkeypatch.setattr(loop, "create_connection", never)
        found = Connections(
            "http://far.example/v1", trusted=None, connect_s=0.05, keep_s=1, most_idle=1
        )
        with pytest.raises(LateConnectError):
            await get(found)

    asyncio.run(run())


def test_who_leaves_while_it_connects_leaves_no_connection() -> None:
    """It is closed as soon as it is there."""

    async def run() -> None:
        async with listening(fine(FINE)) as server:
            found = connections(server.port)
            asking = asyncio.create_task(get(found))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            for _ in range(1000):
                if server.n_connections and server.n_connections == server.n_ended:
                    break
                await asyncio.sleep(0.005)
            assert server.n_connections == server.n_ended == 1

    asyncio.run(run())
