"""Until when an answer is of use: said by its client, and bounded by the server."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import Final, TypeVar

from onhand.device.serving.interrupts import Interrupted, Interruptible
from onhand.device.serving.refusals import Refusal, RefusedRequest

__all__ = ["HEADER", "deadline_of", "in_time", "until"]

HEADER: Final = "x-deadline-ms"
"""Milliseconds from now after which the client has no use for the answer."""

_MOST_MS: Final = 24 * 3600 * 1000
_T = TypeVar("_T")


def deadline_of(given: str | None, *, most_s: float, now_s: float) -> float | None:
    """Return until when a request's answer must have ended.

    Args:
        given: the header's value; None where there is none.
        most_s: what the server grants any answer; 0 for no end.
        now_s: on the clock of the event loop.

    Returns:
        On the same clock; None for no end.

    Raises:
        RefusedRequest: if it is no number of milliseconds.
    """
    if given is None:
        return now_s + most_s if most_s else None
    if not (given.isascii() and given.isdecimal()) or not 0 < int(given) <= _MOST_MS:
        message = f"{HEADER} is {given[:40]!r}, must be a whole number from 1 to {_MOST_MS}"
        raise RefusedRequest(Refusal(status=400, message=message, param=HEADER))
    wanted_s = int(given) / 1000
    return now_s + (min(wanted_s, most_s) if most_s else wanted_s)


async def until(parts: AsyncGenerator[_T], deadline_s: float | None) -> AsyncGenerator[_T]:
    """Yield what comes in time; what comes later is not computed.

    Args:
        parts: closed with the generator.
        deadline_s: on the clock of the event loop; None for no end.

    Yields:
        What `parts` does.

    Raises:
        RefusedRequest: when the time is over.
    """
    ending = Interruptible()
    timer = None
    if deadline_s is not None:
        timer = asyncio.get_running_loop().call_at(deadline_s, ending.interrupt)
    try:
        async with aclosing(parts):
            while True:
                try:
                    # Each on its own: between two parts another task may be the reader.
                    part = await ending.wait(anext(parts))
                except StopAsyncIteration:
                    return
                except Interrupted:
                    raise RefusedRequest(_too_late()) from None
                yield part
    finally:
        if timer is not None:
            timer.cancel()


async def in_time(work: Awaitable[_T], deadline_s: float | None) -> _T:
    """Wait for some work, which is cancelled when the time is over.

    Args:
        work: what to wait for.
        deadline_s: as in `until`.

    Returns:
        What it gives.

    Raises:
        RefusedRequest: when the time is over.
        TimeoutError: if the work itself raised one.
    """
    timeout = asyncio.timeout_at(deadline_s)
    try:
        async with timeout:
            return await work
    except TimeoutError:
        if not timeout.expired():
            raise
        raise RefusedRequest(_too_late()) from None


def _too_late() -> Refusal:
    message = "the answer did not end within its deadline; what was computed is not all of it"
    return Refusal(status=504, message=message, code="deadline_exceeded", param=HEADER)
