"""Waiting for another server until a time, but for what this process was held up by itself."""

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

__all__ = ["in_fair_time"]

_T = TypeVar("_T")
_HELD_UP_S: Final = 0.05  # a timer that fires later than this was not alone on the processor


async def in_fair_time(work: Awaitable[_T], until_s: float) -> _T:
    """Wait for some work, which is cancelled when the time is over.

    A device whose processor is busy wakes its timers late, and then finds answers that came in
    time, or may yet: so the time that was lost is given back.

    Args:
        work: what to wait for.
        until_s: on the clock of the event loop.

    Returns:
        What it gives.

    Raises:
        TimeoutError: when the time is over.
    """
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(work)
    try:
        while True:
            await asyncio.wait({working}, timeout=max(until_s - loop.time(), 0.0))
            held_up_s = loop.time() - until_s
            if not working.done():
                # What has come with the timer is read in the next turns.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            if working.done():
                return working.result()
            if held_up_s < _HELD_UP_S:
                raise TimeoutError
            until_s = loop.time() + held_up_s
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
