"""A model that says what a test tells it to, piece by piece."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence

from onhand.device.sampling import Sampling
from onhand.device.serving.asks import Ask, Ending, Piece

__all__ = ["Scripted"]


class Scripted:
    """See `TextModel`.

    Attributes:
        asked: what was asked, oldest first.
        gate: while it is not set, an answer stops after its first piece.
    """

    def __init__(
        self,
        script: Callable[[Ask], Sequence[str]],
        *,
        name: str = "toy",
        pause_s: float = 0.0,
        source: str = "local",
    ) -> None:
        self.name = name
        self.usual = Sampling()
        self.context = 4096
        self.engine_name = "scripted"
        self.fingerprint = name
        self.n_active = 0
        self.prefix_cache_bytes = 0
        self.asked: list[Ask] = []
        self.gate = threading.Event()
        self.gate.set()
        self._script = script
        self._pause_s = pause_s
        self._source = source

    async def answer(self, ask: Ask) -> AsyncGenerator[Piece | Ending]:
        """See `Backend`."""
        self.asked.append(ask)
        self.n_active += 1
        try:
            pieces = self._script(ask)
            for text in pieces:
                yield Piece(text)
                await asyncio.sleep(self._pause_s)
                while not self.gate.is_set():
                    await asyncio.sleep(0.005)
            yield Ending(
                reason="stop",
                prompt_tokens=40 * len(ask.prompt),
                cached_tokens=40 * (len(ask.prompt) - 1),
                generated_tokens=len(pieces) + 1,
                source=self._source,
            )
        finally:
            self.n_active -= 1

    def break_off(self) -> None:
        """See `TextModel`."""

    def close(self) -> None:
        """See `TextModel`."""
