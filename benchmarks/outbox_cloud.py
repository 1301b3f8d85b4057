"""A cloud for `benchmarks.outbox`, whose network can be cut."""

import asyncio
import json
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

__all__ = ["Cloud"]


@dataclass
class Cloud:
    """Speaks OpenAI's chat API on a port of this machine, from a thread of its own.

    A request with an idempotency key that it knows gets the answer that it had: as a real one does.

    Attributes:
        answer_s: seconds that one answer takes.
        arrivals: content and idempotency key of each request, in the order in which they came.
        answered: idempotency keys whose answers were computed, in order; each once.
        port: where it listens.
    """

    answer_s: float
    arrivals: list[tuple[str, str]] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Self:
        self._answers: dict[str, str] = {}
        self._is_cut_next = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self.restore()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Take no more connections, and break those that there are."""
        self._do(self._cut())

    def cut_next(self) -> None:
        """Cut while the next request is being answered: its answer is lost."""
        self._is_cut_next = True

    def restore(self) -> None:
        """Take connections again, at the same port."""
        self._do(self._listen())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _end(self) -> None:
        await self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                headers = dict(
                    line.split(": ", 1) for line in head.strip().split("\r\n")[1:] if ": " in line
                )
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                if head.startswith("get"):
                    content = b'{"object": "list", "data": []}'
                else:
                    content = await self._answer(json.loads(body), headers)
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                    + f"content-length: {len(content)}\r\n\r\n".encode()
                    + content
                )
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, fields: dict[str, Any], headers: dict[str, str]) -> bytes:
        text = str(fields["messages"][-1]["content"])
        key = headers.get("idempotency-key", "")
        self.arrivals.append((text, key))
        if self._is_cut_next:
            self._is_cut_next = False
            self._loop.call_later(self.answer_s / 2, lambda: self._loop.create_task(self._cut()))
        if key not in self._answers:
            await asyncio.sleep(self.answer_s)
            self._answers[key] = f"answer to {text}"
            self.answered.append(key)
        message = {"role": "assistant", "content": self._answers[key]}
        answer = {
            "id": "x",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 3},
        }
        return json.dumps(answer).encode()
