"""Several backends for one answer: failover, race and hedge. The first content decides.

Until it has come, whoever reads the answer has seen nothing, so another backend may take over; from
then on the answer is that backend's, and where it breaks off the reader is told. Two halves of two
answers are never joined.

Asking twice is harmless for an answer that is only computed: tools are run by the client, once it
has read the one answer that it gets. So requests with tools are hedged and raced as well.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from onhand.core.errors import OnhandError
from onhand.device.serving.asks import Ask, Backend, Ending
from onhand.device.serving.routing.attempts import Attempt, Attempts, Part, may_pass_on
from onhand.device.serving.routing.meters import Meter

__all__ = ["Event", "Lane", "Noting", "Rules", "contest", "contested", "rest"]

Event = Literal[
    "asked", "won", "lost", "failed", "hedged", "hedge-denied", "escalated", "kept-unsure"
]
"""What happens to backends on the way to an answer: see `onhand_route_events` in the metrics."""


class Noting(Protocol):
    """Told what happens on the way to an answer."""

    def __call__(self, event: Event, name: str) -> None:
        """Note it.

        Args:
            event: what happened.
            name: of the backend.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One backend that may be asked.

    Attributes:
        name: of it.
        backend: it.
        ask: the request as this one gets it.
        meter: notes how fast it is.
    """

    name: str
    backend: Backend
    ask: Ask
    meter: Meter

    def start(self, attempts: Attempts, note: Noting) -> Attempt:
        """Ask it."""
        note("asked", self.name)
        return attempts.start(self.name, self.backend, self.ask, self.meter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When the next backend is asked, beside a failure of all that were.

    Attributes:
        at_once: how many are asked at the beginning.
        hedge_s: seconds without content after which one more is asked; None for never.
        may_hedge: asked then whether the budget allows it.
    """

    at_once: int = 1
    hedge_s: float | None = None
    may_hedge: Callable[[], bool] = lambda: True


async def contest(
    lanes: Sequence[Lane], rules: Rules, *, attempts: Attempts, note: Noting
) -> tuple[Attempt, Part]:
    """Ask backends until one gives content.

    Args:
        lanes: they, the preferred first; at least one.
        rules: when the next is asked.
        attempts: holds what was asked; losers are broken off at once.
        note: told of each step.

    Returns:
        winner: the answer whose content came first; of several at once the preferred one's.
        part: that content, or the ending of an answer without any.

    Raises:
        OnhandError: the last failure, where all failed; or that the request itself is wrong.
    """
    waiting = list(lanes)
    running = [waiting.pop(0).start(attempts, note) for _ in range(min(rules.at_once, len(lanes)))]
    hedge_s = rules.hedge_s
    while True:
        parts = {attempt.part() for attempt in running}
        timeout_s = hedge_s if waiting else None
        done, _ = await asyncio.wait(parts, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            hedge_s = None  # one more, not one after the other
            if rules.may_hedge():
                note("hedged", waiting[0].name)
                running.append(waiting.pop(0).start(attempts, note))
            else:
                note("hedge-denied", waiting[0].name)
            continue
        failure: OnhandError | None = None
        for attempt in [one for one in running if one.part() in done]:
            try:
                part = attempt.taken()
            except OnhandError as error:
                running.remove(attempt)
                _failed(attempt, error, attempts, note)
                failure = error
                continue
            _won(attempt, running, attempts, note)
            return attempt, part
        if not running:
            if not waiting:
                raise failure or OnhandError("nobody was asked")
            running.append(waiting.pop(0).start(attempts, note))


def _failed(attempt: Attempt, error: OnhandError, attempts: Attempts, note: Noting) -> None:
    note("failed", attempt.name)
    attempts.drop(attempt)
    if not may_pass_on(error):
        raise error


def _won(winner: Attempt, running: Sequence[Attempt], attempts: Attempts, note: Noting) -> None:
    note("won", winner.name)
    for loser in running:
        if loser is not winner:
            note("lost", loser.name)
            attempts.drop(loser)


async def contested(
    lanes: Sequence[Lane], rules: Rules, *, note: Noting, won: Callable[[str], None]
) -> AsyncGenerator[Part]:
    """Yield the answer whose content comes first.

    Args:
        lanes: as in `contest`.
        rules: likewise.
        note: likewise.
        won: told whose answer it is, before its first part.

    Yields:
        Its parts.

    Raises:
        OnhandError: as in `contest`, or what the winner raised later.
    """
    attempts = Attempts()
    try:
        winner, part = await contest(lanes, rules, attempts=attempts, note=note)
        won(winner.name)
        yield part
        async for later in rest(winner, part):
            yield later
    finally:
        await attempts.close()


async def rest(attempt: Attempt, part: Part) -> AsyncGenerator[Part]:
    """Yield what comes after a part.

    Args:
        attempt: whose answer.
        part: the last one that came.

    Yields:
        The parts up to the ending.

    Raises:
        OnhandError: what the backend raised.
    """
    while not isinstance(part, Ending):
        part = await attempt.next()
        yield part
