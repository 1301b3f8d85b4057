"""Waiting that somebody else can end: at a time, or because the server does."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["Interrupted", "Interruptible"]

_T = TypeVar("_T")


class Interrupted(Exception):
    """The waiting was ended. Of this package's own use."""


class Interruptible:
    """Waits one after the other, ended all at once. One event loop.

    What `asyncio.timeout` does, for a stream of many parts: entering costs no timer and no object.
    The parts may be read by different tasks, one at a time.

    Attributes:
        is_over: whether `interrupt` was called.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._task: asyncio.Task[object] | None = None

    async def wait(self, work: Awaitable[_T]) -> _T:
        """Wait for some work, which is cancelled by `interrupt`.

        Args:
            work: not begun if the waiting is over already.

        Returns:
            What it gives.

        Raises:
            Interrupted: when the waiting is ended.
            CancelledError: when the task is cancelled by somebody else.
        """
        if self.is_over:
            raise Interrupted
        task = asyncio.current_task()
        n_before = 0 if task is None else task.cancelling()
        self._task = task
        try:
            return await work
        except asyncio.CancelledError:
            if self._was_ended() and task is not None and task.uncancel() <= n_before:
                raise Interrupted from None
            raise  # somebody else cancelled as well, or alone
        finally:
            self._task = None

    def _was_ended(self) -> bool:
        return self.is_over

    def interrupt(self) -> None:
        """End the waiting, now and for good; in the event loop."""
        if not self.is_over:
            self.is_over = True
            if self._task is not None:
                self._task.cancel()
