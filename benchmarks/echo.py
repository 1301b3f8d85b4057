"""A server that answers as OpenAI's API does, with the time at which each text was sent.

    python -m benchmarks.echo [--pieces 20] [--first-s 0.02] [--pause-s 0.02]

It stands for a backend whose own time is known. Its address goes to stdout. On SIGUSR1 it begins
to answer everything with status 500, and on the next one it stops to.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from dataclasses import dataclass

__all__ = ["main"]


@dataclass(slots=True)
class Echo:
    """What the server does."""

    n_pieces: int
    first_s: float
    pause_s: float
    fails: bool = False

    def toggle(self) -> None:
        """Begin to fail, or stop to."""
        self.fails = not self.fails

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(_length(head))
                if self.fails:
                    writer.write(b"HTTP/1.1 500 Failed\r\ncontent-length: 0\r\n\r\n")
                elif head.startswith(b"GET"):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                else:
                    await self._answer(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        begun_s = time.monotonic()
        for number in range(self.n_pieces):
            # By the clock, so that what a wait took too long is not added up.
            due_s = begun_s + self.first_s + number * self.pause_s
            await asyncio.sleep(max(due_s - time.monotonic(), 0))
            delta = {"content": f"@{time.monotonic_ns()}@ "}
            writer.write(_chunk({"choices": [{"index": 0, "delta": delta}]}))
            await writer.drain()
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": self.n_pieces}
        done = b"data: [DONE]\n\n"
        writer.write(
            _chunk({"choices": [end]})
            + _chunk({"choices": [], "usage": usage})
            + f"{len(done):x}\r\n".encode()
            + done
            + b"\r\n0\r\n\r\n"
        )


def _chunk(value: object) -> bytes:
    data = b"data: " + json.dumps(value).encode() + b"\n\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def _serve(echo: Echo) -> None:
    server = await asyncio.start_server(echo.connected, "127.0.0.1", 0)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, echo.toggle)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"http://127.0.0.1:{port}/v1\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Answer until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pieces", type=int, default=20)
    parser.add_argument("--first-s", type=float, default=0.02)
    parser.add_argument("--pause-s", type=float, default=0.02)
    given = parser.parse_args()
    echo = Echo(n_pieces=given.pieces, first_s=given.first_s, pause_s=given.pause_s)
    asyncio.run(_serve(echo))


if __name__ == "__main__":
    main()
