"""Answers that can be broken off from another thread, all at once."""

import asyncio
from collections.abc import AsyncGenerator

from onhand.core.errors import EngineUnavailable
from onhand.device.serving.routing.attempts import Part

__all__ = ["Running"]


class Running:
    """The answers of one model that have not ended. One event loop, but for `break_off`."""

    def __init__(self) -> None:
        self.n_active = 0
        self._is_broken_off = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waits: set[asyncio.Timeout] = set()

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
        try:
            while (part := await self._next(parts)) is not None:
                yield part
        finally:
            self.n_active -= 1

    def break_off(self) -> None:
        """End all answers that run, and take no more; from any thread."""
        self._is_broken_off = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._expire)

    async def _next(self, parts: AsyncGenerator[Part]) -> Part | None:
        if self._is_broken_off:
            raise _broken_off()
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._waits.add(wait)
                return await anext(parts, None)
        except TimeoutError:
            if not wait.expired():
                raise
            raise _broken_off() from None
        finally:
            self._waits.discard(wait)

    def _expire(self) -> None:
        for wait in self._waits:
            wait.reschedule(0)


def _broken_off() -> EngineUnavailable:
    return EngineUnavailable("the answer was broken off: the server ends")
