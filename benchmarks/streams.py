"""Streams asked of a server at a steady rate, and what each of them took."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

__all__ = [
    "Backend",
    "Stream",
    "ask_steadily",
    "echo",
    "echo_within",
    "onhand_serve",
    "quantile",
]

_STAMP = re.compile(rb"@(\d+)@")
_SOURCE = re.compile(rb'"backend":"([^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One answer.

    Attributes:
        begun_s: when it was asked, from the beginning of the run.
        first_s: seconds to its first text; None where none came.
        whole_s: seconds to its end.
        late_s: of each text, from when it was sent to when it came.
        backend: who answered; "" where nobody said.
        error: what went wrong; "" for nothing.
    """

    begun_s: float
    first_s: float | None
    whole_s: float
    late_s: tuple[float, ...]
    backend: str
    error: str


@dataclass(frozen=True, slots=True)
class Backend:
    """A process that answers."""

    url: str
    process: "subprocess.Popen[str]"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)


@contextmanager
def echo(*arguments: str) -> Iterator[Backend]:
    """Run `benchmarks.echo` as long as the block does."""
    with _running([sys.executable, "-m", "benchmarks.echo", *arguments]) as backend:
        yield backend


@contextmanager
def echo_within(*arguments: str) -> Iterator[Backend]:
    """Run `benchmarks.echo_within` as long as the block does."""
    with _running([sys.executable, "-m", "benchmarks.echo_within", *arguments]) as backend:
        yield backend


@contextmanager
def onhand_serve(settings: Path) -> Iterator[Backend]:
    """Run `onhand serve` with a file of settings."""
    home = settings.parent / "home"
    command = [sys.executable, "-m", "onhand", "serve", "--open", "--config", str(settings)]
    with _running(command, ONHAND_HOME=str(home)) as backend:
        yield backend


@contextmanager
def _running(command: list[str], **environment: str) -> Iterator[Backend]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        if not line:
            raise RuntimeError(f"{' '.join(command)} ended with status {process.wait()}")
        yield Backend(line.strip(), process)
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def ask_steadily(url: str, *, per_s: float, seconds: float, model: str) -> list[Stream]:
    """Begin streams at a rate, however long they take.

    Args:
        url: of the server, with "/v1".
        per_s: streams begun in a second.
        seconds: for which new ones are begun.
        model: what is asked.

    Returns:
        All of them, in the order in which they were begun.
    """
    begun_s = time.monotonic()
    client = _Client(url, model)
    tasks: list[asyncio.Task[Stream]] = []
    for number in range(round(per_s * seconds)):
        await asyncio.sleep(max(begun_s + number / per_s - time.monotonic(), 0))
        tasks.append(asyncio.create_task(client.ask(number, begun_s)))
    found = await asyncio.gather(*tasks)
    client.close()
    return found


def quantile(values: list[float], share: float) -> float:
    """Return the value that a share of all are at or below; one of them, not one between."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class _Client:
    """As little as can be between the network and the clock; connections are used again."""

    def __init__(self, url: str, model: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._path = f"{parts.path}/chat/completions"
        self._model = model
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, number: int, start_s: float) -> Stream:
        messages = [{"role": "user", "content": f"question {number}"}]
        body = json.dumps({"model": self._model, "messages": messages, "stream": True}).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        begun_s = time.monotonic()
        late_s: list[float] = []
        first_s, answer, error = None, b"", ""
        try:
            reader, writer = await self._connection()
            writer.write(head.encode() + body)
            while not answer.endswith(b"0\r\n\r\n") or b"[DONE]" not in answer[-200:]:
                part = await reader.read(65536)
                now_ns = time.monotonic_ns()
                if not part:
                    raise ConnectionError("the connection was closed")
                for stamp in _STAMP.findall(part):
                    late_s.append((now_ns - int(stamp)) / 1e9)
                    first_s = now_ns / 1e9 - begun_s if first_s is None else first_s
                answer += part
                if not answer.startswith(b"HTTP/1.1 200"):
                    writer.close()
                    raise ConnectionError(answer[:60].decode(errors="replace"))
                if b'"error"' in part:
                    writer.close()
                    raise ConnectionError(answer[answer.index(b'"error"') :][:200].decode())
            self._idle.append((reader, writer))
        except (ConnectionError, OSError) as failure:
            error = str(failure)
        source = _SOURCE.search(answer)
        return Stream(
            begun_s=begun_s - start_s,
            first_s=first_s,
            whole_s=time.monotonic() - begun_s,
            late_s=tuple(late_s),
            backend=source.group(1).decode() if source else "",
            error=error,
        )

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
        return await asyncio.open_connection(self._host, self._port)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
