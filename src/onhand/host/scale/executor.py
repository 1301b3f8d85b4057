"""Who carries out many pieces of work: this process, several, or a cluster.

Each gives one result for each piece, in the order of the pieces, so that what is made of them is
the same wherever they ran. A worker that dies is replaced, and its piece begun anew.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from onhand.core.errors import InputError
from onhand.host.scale.slots import slot

__all__ = ["RETRIES", "Executor", "LocalExecutor", "Lost", "in_slot"]

RETRIES: Final = 3
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Lost:
    """A piece of work whose workers died each time.

    Attributes:
        why: in words.
    """

    why: str


class Executor(Protocol):
    """Carries out pieces of work. Used from one thread."""

    def map(
        self,
        work: Callable[[_T], _R],
        items: Sequence[_T],
        *,
        on_done: "Callable[[int, _R | Lost], None] | None" = None,
    ) -> "list[_R | Lost]":
        """Do a piece of work for each item.

        Args:
            work: a function of a module, without memory of its own. What it raises ends the
                whole: a result that is a failure it returns.
            items: what it is given, one at a time; they can be pickled, as the results can.
            on_done: told each result as it comes, with the item's number.

        Returns:
            The results, in the order of the items.

        Raises:
            OnhandError: what the work raised.
        """
        ...


def in_slot(work: Callable[[_T], _R], item: _T, at_once: int) -> _R:
    """Do a piece of work in one of its machine's places.

    Args:
        work: what is done.
        item: with what.
        at_once: how many places the machine has.

    Returns:
        Its result.
    """
    with slot(at_once):
        return work(item)


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Works on this machine: in this process, or in several. See `Executor`.

    Attributes:
        at_once: pieces at once; 1 for this process, one after the other.
        retries: how often a piece is begun anew whose process died.
    """

    at_once: int = 1
    retries: int = RETRIES

    def __post_init__(self) -> None:
        if self.at_once < 1 or self.retries < 0:
            raise InputError(f"{self.at_once} at once must be at least 1, {self.retries} retries 0")

    def map(
        self,
        work: Callable[[_T], _R],
        items: Sequence[_T],
        *,
        on_done: Callable[[int, _R | Lost], None] | None = None,
    ) -> list[_R | Lost]:
        """See `Executor`."""
        tell = on_done or _nothing
        if self.at_once > 1:
            return self._in_processes(work, items, tell)
        results: list[_R | Lost] = []
        for number, item in enumerate(items):
            results.append(in_slot(work, item, 1))
            tell(number, results[-1])
        return results

    def _in_processes(
        self, work: Callable[[_T], _R], items: Sequence[_T], tell: Callable[[int, _R | Lost], None]
    ) -> list[_R | Lost]:
        found: dict[int, _R | Lost] = {}
        tries = dict.fromkeys(range(len(items)), 0)
        while left := [number for number in tries if number not in found]:
            # A process that dies takes its pool with it; who it was, no one says: with one process
            # at a time after a loss, the guilty piece is the one that runs.
            at_once = self.at_once if not any(tries[number] for number in left) else 1
            for number in self._round(work, items, left, at_once, found, tell):
                tries[number] += 1
                if tries[number] > self.retries:
                    times = f"{tries[number]} times"
                    found[number] = Lost(f"its process died {times}: was there enough memory")
                    tell(number, found[number])
        return [found[number] for number in range(len(items))]

    def _round(
        self,
        work: Callable[[_T], _R],
        items: Sequence[_T],
        left: Sequence[int],
        at_once: int,
        found: dict[int, _R | Lost],
        tell: Callable[[int, _R | Lost], None],
    ) -> list[int]:
        """Work until all is done or a process dies; return the pieces that then ran."""
        started: dict[Future[_R], int] = {}
        waiting = list(left)
        # Not forked: threads of numerical libraries do not survive that.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=at_once, mp_context=context) as pool:
            while waiting or started:
                while waiting and len(started) < at_once:
                    number = waiting.pop(0)
                    started[pool.submit(in_slot, work, items[number], self.at_once)] = number
                done, _ = wait(started, return_when=FIRST_COMPLETED)
                for future in done:
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        return list(started.values())
                    number = started.pop(future)
                    found[number] = result
                    tell(number, result)
        return []


def _nothing(number: int, result: object) -> None:
    """Tell no one."""
