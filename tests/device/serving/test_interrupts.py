"""Waiting that is ended by somebody else, for good."""

import asyncio

import pytest

from onhand.device.serving.interrupts import Interrupted, Interruptible


def test_what_is_waited_for_is_cancelled_by_an_interrupt() -> None:
    """The one that waits goes on, and knows why."""

    async def run() -> bool:
        wait = Interruptible()
        work = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_later(0.01, wait.interrupt)
        with pytest.raises(Interrupted):
            await wait.wait(work)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return work.cancelled()

    assert asyncio.run(run())


def test_nothing_is_begun_after_it() -> None:
    """It is over for good."""

    async def run() -> None:
        wait = Interruptible()
        assert await wait.wait(asyncio.sleep(0, "first")) == "first"
        wait.interrupt()
        second = asyncio.ensure_future(asyncio.sleep(0))
        with pytest.raises(Interrupted):
            await wait.wait(second)
        await second

    asyncio.run(run())


def test_a_task_that_is_cancelled_stays_cancelled() -> None:
    """Both at once as well: who cancels a task means all of it."""

    async def waits(wait: Interruptible) -> None:
        await wait.wait(asyncio.sleep(60))

    async def run(*, interrupts: bool) -> None:
        wait = Interruptible()
        task = asyncio.create_task(waits(wait))
        await asyncio.sleep(0)
        task.cancel()
        if interrupts:
            wait.interrupt()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run(interrupts=False))
    asyncio.run(run(interrupts=True))


def test_two_that_wait_within_each_other_end_both() -> None:
    """Each takes back what it asked for itself."""

    async def run() -> list[str]:
        outer, inner, seen = Interruptible(), Interruptible(), []

        async def within() -> None:
            try:
                await inner.wait(asyncio.sleep(60))
            except asyncio.CancelledError:
                seen.append("inner")
                raise

        def both() -> None:
            inner.interrupt()
            outer.interrupt()

        asyncio.get_running_loop().call_later(0.01, both)
        try:
            await outer.wait(within())
        except Interrupted:
            seen.append("outer")
        return seen

    assert asyncio.run(run()) == ["inner", "outer"]
