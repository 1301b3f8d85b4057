"""Another server on a port of this machine, which does what a test says, and notes what it saw."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = [
    "Request",
    "Script",
    "Upstream",
    "events",
    "freezes",
    "gives",
    "resets",
    "says",
    "upstream",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked of it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> dict[str, object]:
        """The body's JSON."""
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


Script = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    """A server that runs.

    Attributes:
        url: its address, with "/v1".
        requests: all that were sent, probes apart.
        probes: those.
        left: set whenever a client has closed its connection in the middle of an answer.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.probe: Script = gives(200, b"{}")
        self.url = ""
        self.requests: list[Request] = []
        self.probes: list[Request] = []
        self.left = threading.Event()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        try:
            while (request := await _read(reader)) is not None:
                is_probe = request.method == "GET"
                (self.probes if is_probe else self.requests).append(request)
                script = self.probe if is_probe else self.script
                working = asyncio.ensure_future(script(request, writer))
                leaving = asyncio.ensure_future(reader.read(1))
                await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    self.left.set()
                    working.cancel()
                    await asyncio.gather(working, return_exceptions=True)
                    return
                await working
                if not leaving.done():
                    leaving.cancel()
                    await asyncio.gather(leaving, return_exceptions=True)
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1") if not reader.at_eof() else ""
    if not head:
        return None
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method=method, path=path, headers=headers, body=body)


@contextmanager
def upstream(script: Script) -> Iterator[Upstream]:
    """Run a server as long as the block does."""
    found = Upstream(script)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(found.connected, "127.0.0.1", 0)

    async def end() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result()
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield found
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def events(*texts: str, usage: bool = True, end: bool = True) -> list[bytes]:
    """A usual answer: a role, texts, a reason, counts, and the end."""
    deltas: list[dict[str, object]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text} for text in texts]
    choices: list[dict[str, object]] = [{"index": 0, "delta": delta} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    chunks: list[dict[str, object]] = [{"choices": [choice]} for choice in choices]
    if usage:
        counts = {"prompt_tokens": 7, "completion_tokens": len(texts)}
        details = {"prompt_tokens_details": {"cached_tokens": 3}}
        chunks.append({"choices": [], "usage": counts | details})
    data = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return [*data, b"data: [DONE]\n\n"] if end else data


def gives(status: int, body: bytes = b"", **headers: str) -> Script:
    """Answer everything so; names of headers have _ for -."""
    given = {"content-type": "application/json", "content-length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        writer.write(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode() + body)
        await writer.drain()

    return script


def says(*parts: bytes, pause_s: float = 0.0, then: Script | None = None, **headers: str) -> Script:
    """Answer with a stream of parts, each sent by itself; `then` is done in place of its end."""

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        given = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        writer.write(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode())
        for part in parts:
            await writer.drain()
            await asyncio.sleep(pause_s)
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        if then is not None:
            await writer.drain()
            await then(request, writer)
            return
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    return script


async def freezes(request: Request, writer: asyncio.StreamWriter) -> None:
    """Do nothing, for ever."""
    await asyncio.Event().wait()


async def resets(request: Request, writer: asyncio.StreamWriter) -> None:
    """Break the connection."""
    writer.transport.abort()
