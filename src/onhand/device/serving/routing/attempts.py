"""One backend asked for an answer, so that several can be asked at once and all but one dropped."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from onhand.core.errors import ContextOverflow, EngineError, InputError, OnhandError
from onhand.device.serving.asks import Ask, Backend, Ending, Piece
from onhand.device.serving.routing.meters import Meter

__all__ = ["Attempt", "Attempts", "Part", "may_pass_on"]

Part = Piece | Ending
"""What answers are made of."""


def may_pass_on(error: OnhandError) -> bool:
    """Say whether another backend may answer what one did not.

    A request that is wrong is wrong everywhere; a prompt that is too long for one context may fit
    another.

    Args:
        error: what the backend raised.
    """
    return isinstance(error, ContextOverflow) or not isinstance(error, InputError)


class Attempt:
    """One backend's answer, part by part. Made by `Attempts.start`; one reader at a time."""

    def __init__(self, name: str, parts: AsyncGenerator[Part], meter: Meter) -> None:
        self.name = name
        self._parts = parts
        self._meter = meter
        self._waiting: asyncio.Future[Part] | None = None
        self._begun_s = self._now()
        self._first_s: float | None = None
        self._is_closed = False
        meter.n_active += 1

    def part(self) -> "asyncio.Future[Part]":
        """Return the next part, to be waited for; the same one until `taken`."""
        if self._waiting is None:
            self._waiting = asyncio.ensure_future(_next(self._parts))
        return self._waiting

    def taken(self) -> Part:
        """Return the part that `part` gave, which has come.

        Raises:
            OnhandError: what the backend raised.
        """
        waiting, self._waiting = self.part(), None
        return self._noted(waiting.result())

    def _noted(self, part: Part) -> Part:
        if self._first_s is None:
            self._first_s = self._now() - self._begun_s
            self._meter.saw_first(self._first_s)
        if isinstance(part, Ending):
            self._meter.saw_answer(
                self._now() - self._begun_s - self._first_s, part.generated_tokens
            )
        return part

    async def next(self) -> Part:
        """Wait for the next part and take it.

        Raises:
            OnhandError: what the backend raised.
        """
        if self._waiting is None:  # nobody else is asked any more: no task for each part
            return self._noted(await _next(self._parts))
        await asyncio.wait({self._waiting})
        return self.taken()

    async def close(self) -> None:
        """Break it off; safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._meter.n_active -= 1
        if self._waiting is not None:
            self._waiting.cancel()
            with suppress(asyncio.CancelledError, OnhandError):
                await self._waiting
        await self._parts.aclose()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


class Attempts:
    """All backends that were asked for one answer; leaving the block breaks them all off."""

    def __init__(self) -> None:
        self._open: list[Attempt] = []
        self._closing: set[asyncio.Task[None]] = set()

    def start(self, name: str, backend: Backend, ask: Ask, meter: Meter) -> Attempt:
        """Ask one.

        Args:
            name: of the backend.
            backend: whom.
            ask: what.
            meter: notes how fast it is.

        Returns:
            Its answer, which begins to be computed at once.
        """
        attempt = Attempt(name, backend.answer(ask), meter)
        attempt.part()
        self._open.append(attempt)
        return attempt

    def drop(self, attempt: Attempt) -> None:
        """Break one off, without waiting until it has ended."""
        if attempt in self._open:
            self._open.remove(attempt)
            task = asyncio.create_task(attempt.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def drop_others(self, kept: Attempt) -> None:
        """Break all off but one."""
        for attempt in [one for one in self._open if one is not kept]:
            self.drop(attempt)

    async def close(self) -> None:
        """Break all off, and wait until they have ended."""
        for attempt in list(self._open):
            self.drop(attempt)
        if self._closing:
            # Where this is cancelled itself, they end all the same.
            await asyncio.shield(asyncio.gather(*self._closing, return_exceptions=True))


async def _next(parts: AsyncGenerator[Part]) -> Part:
    try:
        return await anext(parts)
    except StopAsyncIteration:
        # A future cannot hold it; and an answer without an ending is no answer.
        raise EngineError("the answer ended without an ending") from None
