"""Work that cannot be broken off, given up when it takes too long.

What another library computes in one call goes on until it ends by itself. So it runs in a thread
of its own, and whoever waits gives it up in time; while several such threads still run, no more are
begun: who asks for what never ends does not get all processors for it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from onhand.core.errors import EngineBusy, InputError

__all__ = ["TimeLimit"]

Result = TypeVar("Result")


class TimeLimit:
    """May be shared between threads."""

    def __init__(self, what: str, *, most_s: float, most_overdue: int = 2) -> None:
        """Set the limit.

        Args:
            what: the work, for messages: "grammar".
            most_s: seconds that it may take.
            most_overdue: pieces of work that were given up and still run, at which no more begin.
        """
        self._what, self._most_s, self._most_overdue = what, most_s, most_overdue
        self._lock = threading.Lock()
        self._n_overdue = 0

    def run(self, work: Callable[[], Result]) -> Result:
        """Do work.

        Args:
            work: what to do; it must let other threads run meanwhile.

        Returns:
            What it returned.

        Raises:
            InputError: if it takes too long.
            EngineBusy: if too much that was given up still runs.
            TimeoutError: if the work raised it.
        """
        with self._lock:
            if self._n_overdue >= self._most_overdue:
                raise EngineBusy(
                    f"{self._what}: {self._n_overdue} that took too long are still computed; ask "
                    "again later"
                )
        done: Future[Result] = Future()
        # Nobody waits for it when the process ends.
        threading.Thread(target=_worked, args=(work, done), name=self._what, daemon=True).start()
        try:
            return done.result(self._most_s)
        except TimeoutError:
            if done.done():  # its own
                raise
        with self._lock:
            self._n_overdue += 1
        done.add_done_callback(self._ended)
        raise InputError(f"{self._what}: takes over {self._most_s:g} seconds; make it simpler")

    def _ended(self, done: Future[Result]) -> None:
        with self._lock:
            self._n_overdue -= 1


def _worked(work: Callable[[], Result], done: Future[Result]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # whoever waits gets it
        done.set_exception(error)
        if not isinstance(error, Exception):
            raise
