"""Our server with a backend inside it that echoes, so that nothing but the server is measured.

    python -m benchmarks.echo_within [--pieces 20] [--first-s 0.02] [--pause-s 0.02]

A request takes the whole way: HTTP, its checks, the router, a pool of one member, the stream back;
only the connection to another server is not there. Texts carry the time at which they were given,
as those of `benchmarks.echo` do. Its address goes to stdout.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from onhand.device.serving.asks import Ask, Ending, Piece
from onhand.device.serving.assembling import read_settings
from onhand.device.serving.backends.members import Member
from onhand.device.serving.backends.mounting import PooledModel
from onhand.device.serving.backends.pool import Pool
from onhand.device.serving.metrics import Metrics
from onhand.device.serving.routing.building import routed
from onhand.device.serving.server import serve
from onhand.device.serving.state import ServerState

__all__ = ["main"]

SETTINGS = (
    "[server]\nport = 0\n[log]\nrequests = false\n[cache]\nexact_bytes = 0\n[access]\nopen = true\n"
)


@dataclass(frozen=True, slots=True)
class Echo:
    """See `onhand.device.serving.asks.Backend`."""

    n_pieces: int
    first_s: float
    pause_s: float

    async def answer(self, ask: Ask) -> AsyncGenerator[Piece | Ending]:
        """Give texts by the clock."""
        begun_s = time.monotonic()
        for number in range(self.n_pieces):
            due_s = begun_s + self.first_s + number * self.pause_s
            await asyncio.sleep(max(due_s - time.monotonic(), 0))
            yield Piece(text=f"@{time.monotonic_ns()}@ ")
        yield Ending(
            reason="stop",
            prompt_tokens=1,
            cached_tokens=0,
            generated_tokens=self.n_pieces,
            source="echo",
            route="peer",
        )


def main() -> None:
    """Answer until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pieces", type=int, default=20)
    parser.add_argument("--first-s", type=float, default=0.02)
    parser.add_argument("--pause-s", type=float, default=0.02)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "serve.toml"
        file.write_text(SETTINGS)
        settings = read_settings(file, environment={})
    echo = Echo(given.pieces, given.first_s, given.pause_s)
    member = Member(echo, name="echo", route="peer", balance=settings.balance, max_active=64)
    pool = Pool([member], settings.balance)
    model = PooledModel("echo", pool, local=None, context=0, fingerprint="echo")
    metrics = Metrics()
    state = ServerState(routed([model], settings, metrics=metrics), metrics=metrics)
    serve(state, settings, listening=lambda url: print(f"{url}/v1", flush=True))


if __name__ == "__main__":
    main()
