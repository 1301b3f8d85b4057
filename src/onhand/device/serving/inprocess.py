"""The same API within a Python program: no socket, no port, no key."""

import asyncio
import json
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from onhand.core.errors import EngineError, InputError
from onhand.device.access.doorkeeper import Admission
from onhand.device.access.scopes import EVERYTHING
from onhand.device.serving.app import make_routes
from onhand.device.serving.refusals import Refusal, RefusedRequest
from onhand.device.serving.settings import ANONYMOUS, ServeSettings
from onhand.device.serving.state import ServerState

if TYPE_CHECKING:
    import httpx2
    from starlette.types import ASGIApp, Message

__all__ = ["Service"]

_BASE_URL: Final = "http://onhand"
_DATA: Final = "data: "


class Service:
    """Models that answer as `onhand serve` does. May be shared between threads.

    Attributes:
        http: a client whose requests go to the models; OpenAI's client takes it as `http_client`.
    """

    def __init__(
        self,
        opened: AbstractContextManager[ServerState],
        settings: ServeSettings,
        *,
        tenant: str = ANONYMOUS,
    ) -> None:
        """Open the models, and start the thread that serves them.

        Args:
            opened: the models, as `opened_state` gives them; `close` leaves it.
            settings: how answers are given; where to listen and who may call do not matter here.
            tenant: whose requests these are, for caches.

        Raises:
            OnhandError: if a model cannot be opened here.
        """
        with ExitStack() as held:
            self._state = held.enter_context(opened)
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="onhand-service", daemon=True
            )
            self._thread.start()
            held.callback(self._stop)
            asyncio.run_coroutine_threadsafe(self._state.start(), self._loop).result()
            self.http = _client(make_routes(self._state, settings), self._loop, tenant)
            held.callback(self.http.close)
            self._held = held.pop_all()

    def get(self, path: str) -> dict[str, Any]:
        """Return what a route shows, as "/v1/models".

        Raises:
            RefusedRequest: if it is not there.
            InputError: if the service is closed.
        """
        self._check_open()
        return _checked(self.http.get(path))

    def post(self, path: str, fields: Mapping[str, object]) -> dict[str, Any]:
        """Ask, and return the whole answer.

        Args:
            path: the route, as "/v1/chat/completions".
            fields: of the request.

        Returns:
            The answer's JSON.

        Raises:
            RefusedRequest: as a client over HTTP would be told.
            InputError: if the service is closed.
        """
        self._check_open()
        return _checked(self.http.post(path, json=dict(fields)))

    def stream(self, path: str, fields: Mapping[str, object]) -> Iterator[dict[str, Any]]:
        """Ask, and yield the answer as it is computed; closing the iterator breaks it off.

        Args:
            path: as in `post`.
            fields: as in `post`.

        Yields:
            The data of each event.

        Raises:
            RefusedRequest: as in `post`, or if the answer breaks off.
            InputError: as in `post`.
        """
        self._check_open()
        asked = {**fields, "stream": True}
        with self.http.stream("POST", path, json=asked) as reply:
            if reply.status_code >= 400:
                reply.read()
                _checked(reply)
            for line in reply.iter_lines():
                if not line.startswith(_DATA) or line == f"{_DATA}[DONE]":
                    continue
                event: dict[str, Any] = json.loads(line.removeprefix(_DATA))
                if isinstance(event.get("error"), dict):
                    raise RefusedRequest(_refusal(500, event))
                yield event

    def close(self) -> None:
        """Break answers off and close the models; safe to call twice."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self.http.is_closed:
            raise InputError("the service is closed; open another")

    def _stop(self) -> None:
        self._state.break_off()
        asyncio.run_coroutine_threadsafe(_ended_tasks(), self._loop).result()
        asyncio.run_coroutine_threadsafe(self._state.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Exchange:
    """One request and its answer: the thread that asks on one side, the event loop on the other."""

    def __init__(self, app: "ASGIApp", scope: dict[str, Any], body: bytes) -> None:
        self._app = app
        self._scope = scope
        self._body: bytes | None = body
        self._news: queue.SimpleQueue[Message | BaseException] = queue.SimpleQueue()
        self._left = asyncio.Event()

    async def run(self) -> None:
        """Answer; what goes wrong goes to the one who asks."""
        try:
            await self._app(self._scope, self._receive, self._send)
            self._news.put(EngineError("the answer broke off: the service was closed"))
        except BaseException as error:
            self._news.put(error)
            raise

    def next(self) -> "Message":
        """Return the next part of the answer, when it has come.

        Raises:
            EngineError: if none comes any more.
        """
        found = self._news.get()
        if isinstance(found, asyncio.CancelledError):
            raise EngineError("the answer broke off: the service was closed") from found
        if isinstance(found, BaseException):
            raise found
        return found

    def leave(self) -> None:
        """Say that nobody waits any more; called by the event loop."""
        self._left.set()

    async def _receive(self) -> "Message":
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: "Message") -> None:
        self._news.put(message)


def _client(app: "ASGIApp", loop: asyncio.AbstractEventLoop, tenant: str) -> "httpx2.Client":
    import httpx2

    class Body(httpx2.SyncByteStream):
        """An answer's parts."""

        def __init__(self, exchange: _Exchange) -> None:
            self._exchange = exchange

        def __iter__(  # type: ignore[explicit-override] # Python 3.11 has no word for it
            self,
        ) -> Iterator[bytes]:
            more = True
            while more:
                message = self._exchange.next()
                more = bool(message.get("more_body"))
                yield message.get("body", b"")

        def close(self) -> None:  # type: ignore[explicit-override] # likewise
            """Leave: what is not computed yet is not computed."""
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._exchange.leave)

    class Within(httpx2.BaseTransport):
        """Hands requests to the application instead of to a network."""

        def handle_request(  # type: ignore[explicit-override] # likewise
            self, request: httpx2.Request
        ) -> httpx2.Response:
            """See `httpx2.BaseTransport`."""
            exchange = _Exchange(app, _scope(request, tenant), request.read())
            asyncio.run_coroutine_threadsafe(exchange.run(), loop)
            start = exchange.next()
            return httpx2.Response(start["status"], headers=start["headers"], stream=Body(exchange))

    return httpx2.Client(transport=Within(), base_url=_BASE_URL, timeout=None)


def _scope(request: "httpx2.Request", tenant: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.url.path,
        "raw_path": request.url.raw_path,
        "root_path": "",
        "query_string": request.url.query,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": None,
        "server": ("onhand", 80),
        "state": {
            "tenant": tenant,
            "admission": Admission(tenant=tenant, grant=EVERYTHING),
        },
    }


def _checked(reply: "httpx2.Response") -> dict[str, Any]:
    found: dict[str, Any] = reply.json()
    if reply.status_code >= 400:
        raise RefusedRequest(_refusal(reply.status_code, found))
    return found


def _refusal(status: int, body: Mapping[str, Any]) -> Refusal:
    error = body["error"]
    return Refusal(
        status=status, message=error["message"], code=error["code"], param=error.get("param")
    )


async def _ended_tasks() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
