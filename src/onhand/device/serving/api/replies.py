"""Answers over ASGI that end at once when their reader is gone."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

from onhand.device.serving.api.bodies import as_json

__all__ = ["EventStream", "JsonReply", "until_gone"]

_LEAST_PING_S: Final = 0.001


class JsonReply:
    """One JSON object as the whole answer; an ASGI application.

    Attributes:
        value: it.
    """

    def __init__(
        self, value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.value = value
        self._status = status
        self._headers = dict(headers or {})

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Send it."""
        body = as_json(self.value)
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **self._headers,
        }
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self._status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})


class EventStream:
    """Server-sent events; an ASGI application.

    Headers go out at once, and comments while there is no news, so that no proxy between gives
    up on a long prompt. When the reader is gone, the events are closed.
    """

    def __init__(
        self,
        events: Callable[[], AsyncGenerator[bytes]],
        *,
        ping_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare it.

        Args:
            events: makes the data of events; each is sent as it is.
            ping_s: seconds without news after which a comment is sent.
            headers: of the answer, beside those of an event stream; read when the first event
                is there.
        """
        self._events = events
        self._ping_s = ping_s
        self._headers = headers or {}

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Send all of it."""
        await until_gone(self._send_all(send), receive)

    async def _send_all(self, send: "Send") -> None:
        loop = asyncio.get_running_loop()
        sent_s = loop.time()
        has_begun = False
        sending = asyncio.Lock()

        async def say(data: bytes) -> None:
            nonlocal has_begun, sent_s
            async with sending:
                if not has_begun:
                    await send(self._start())
                    has_begun = True
                await send({"type": "http.response.body", "body": data, "more_body": True})
                sent_s = loop.time()

        async def ping() -> None:
            while True:
                await asyncio.sleep(max(sent_s + self._ping_s - loop.time(), _LEAST_PING_S))
                # A reader that takes nothing is told nothing.
                if loop.time() >= sent_s + self._ping_s and not sending.locked():
                    await say(b": ping\n\n")

        # Beside the events, which then need no task each.
        pinging = asyncio.create_task(ping())
        try:
            async with aclosing(self._events()) as events:
                async for data in events:
                    await say(data)
        finally:
            pinging.cancel()
            await asyncio.gather(pinging, return_exceptions=True)
        await send({"type": "http.response.body", "body": b""})

    def _start(self) -> "Message":
        headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-store",
            "x-accel-buffering": "no",
            **self._headers,
        }
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        return {"type": "http.response.start", "status": 200, "headers": pairs}


async def until_gone(work: Awaitable[object], receive: "Receive") -> bool:
    """Do some work for a client, and cancel it when the client goes.

    Args:
        work: what to do.
        receive: of ASGI; the request's body was read.

    Returns:
        Whether the client stayed to the end.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working  # raises what it raised
            return True
        return False
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: "Receive") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
