"""A time limit for others that does not blame them for what held this process up."""

import asyncio
import time

import pytest

from onhand.device.serving.backends.patience import in_fair_time


async def given(value: str, after_s: float) -> str:
    await asyncio.sleep(after_s)
    return value


def test_what_comes_in_time_is_returned() -> None:
    """And what it raises is raised."""

    async def fails() -> str:
        raise ValueError("no")

    async def run() -> str:
        until_s = asyncio.get_running_loop().time() + 60
        with pytest.raises(ValueError, match="no"):
            await in_fair_time(fails(), until_s)
        return await in_fair_time(given("yes", 0), until_s)

    assert asyncio.run(run()) == "yes"


def test_what_is_late_is_cancelled() -> None:
    """Nothing of it runs on."""

    async def run() -> bool:
        work = asyncio.ensure_future(given("late", 60))
        with pytest.raises(TimeoutError):
            await in_fair_time(work, asyncio.get_running_loop().time() + 0.01)
        return work.cancelled()

    assert asyncio.run(run())


def test_time_that_this_process_lost_is_given_back() -> None:
    """An answer that lies there already counts, however late the clock is looked at."""

    async def run() -> str:
        loop = asyncio.get_running_loop()
        loop.call_soon(time.sleep, 0.3)
        return await in_fair_time(given("just in time", 0.2), loop.time() + 0.1)

    assert asyncio.run(run()) == "just in time"


def test_who_waits_may_leave() -> None:
    """The work ends with them."""

    async def run() -> bool:
        work = asyncio.ensure_future(given("never", 60))
        waiting = asyncio.ensure_future(in_fair_time(work, asyncio.get_running_loop().time() + 60))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return work.cancelled()

    assert asyncio.run(run())
