"""Answers that can be broken off from another thread, all at once."""

import asyncio
from collections.abc import AsyncGenerator

from onhand.core.errors import EngineUnavailable
from onhand.device.serving.interrupts import Interrupted, Interruptible
from onhand.device.serving.routing.attempts import Part

__all__ = ["Running"]


class Running:
    """The answers of one model that have not ended. One event loop, but for `break_off`."""

    def __init__(self) -> None:
        self.n_active = 0
        self._is_broken_off = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waits: set[Interruptible] = set()

    async def held(self, parts: AsyncGenerator[Part]) -> AsyncGenerator[Part]:
        """Yield an answer's parts, unless it is broken off.

        Args:
            parts: closed by whoever made them.

        Yields:
            They.

        Raises:
            EngineUnavailable: when it is broken off.
        """
        self._loop = asyncio.get_running_loop()
        self.n_active += 1
        wait = Interruptible()
        wait.is_over = self._is_broken_off
        self._waits.add(wait)
        try:
            while (part := await wait.wait(anext(parts, None))) is not None:
                yield part
        except Interrupted:
            raise EngineUnavailable("the answer was broken off: the server ends") from None
        finally:
            self._waits.discard(wait)
            self.n_active -= 1

    def break_off(self) -> None:
        """End all answers that run, and take no more; from any thread."""
        self._is_broken_off = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        for wait in list(self._waits):
            wait.interrupt()
