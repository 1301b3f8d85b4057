"""Sends what is in the outbox, in order, as soon as somebody can answer it."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, ParamSpec, Protocol, TypeVar

from onhand.core.errors import OnhandError
from onhand.device.serving.routing.outbox import Deferred, Outbox

__all__ = ["OffLoop", "Outcome", "Retries", "Send", "Sender"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_LOG = logging.getLogger("onhand.serving.outbox")
_DRAW: Final = random.SystemRandom().random
_IDLE_S: Final = 60.0  # between two looks for what has expired


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How sending one request ended.

    Attributes:
        status: of HTTP, for an answer or a refusal for good; None where it is to be sent again.
        answer: its JSON.
        was_sent: whether anything left; where nobody could be asked, it was no attempt.
        retry_after_s: what the other side asked for.
    """

    status: int | None = None
    answer: bytes = b""
    was_sent: bool = True
    retry_after_s: float = 0.0


Send = Callable[[Deferred], Awaitable[Outcome]]
"""Sends one request and returns how that ended."""


class OffLoop(Protocol):
    """Runs a function that waits for the disk, so that nothing else does."""

    async def __call__(self, work: Callable[_P, _T], /, *given: _P.args, **named: _P.kwargs) -> _T:
        """Run it, and return what it does."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """When what was not answered is sent again.

    Attributes:
        poll_s: seconds between two looks whether anybody can be asked again.
        first_s: seconds after the first attempt that failed; doubled with each further one.
        most_s: but no longer than this.
        kept_s: seconds for which answers are kept for their client.
        most_lanes: lanes that are sent at the same time.
    """

    poll_s: float = 1.0
    first_s: float = 1.0
    most_s: float = 60.0
    kept_s: float = 7 * 86400.0
    most_lanes: int = 4

    def wait_s(self, attempts: int, draw: float) -> float:
        """Return the seconds until the next attempt.

        Args:
            attempts: that failed; 1 or more.
            draw: from 0 to 1; spreads the attempts of many devices.
        """
        whole: float = min(self.most_s, self.first_s * 2.0 ** min(attempts - 1, 30))
        return whole * (0.5 + 0.5 * draw)


class Sender:
    """One task that sends. Of one event loop; `run` until it is cancelled."""

    def __init__(
        self,
        outbox: Outbox,
        send: Send,
        *,
        retries: Retries,
        now: Callable[[], float],
        draw: Callable[[], float] = _DRAW,
        off_loop: "OffLoop" = asyncio.to_thread,
    ) -> None:
        """Prepare it.

        Args:
            outbox: what is to be sent.
            send: sends one.
            retries: when again.
            now: seconds since 1970.
            draw: a number from 0 to 1.
            off_loop: runs what waits for the disk.
        """
        self._outbox = outbox
        self._send = send
        self._retries = retries
        self._now = now
        self._draw = draw
        self._off_loop = off_loop
        self._news = asyncio.Event()
        self._lanes: dict[str, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """Look again at once: something was added, or the network may be back."""
        self._news.set()

    async def run(self) -> None:
        """Send until cancelled; what is being sent then is sent again by the next run."""
        try:
            while True:
                self._news.clear()
                wait_s = await self._round()
                try:
                    async with asyncio.timeout(wait_s):
                        await self._news.wait()
                except TimeoutError:
                    continue
        finally:
            tasks = list(self._lanes.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _round(self) -> float:
        """Start what can be sent; return the seconds until there is something to do."""
        now_s = self._now()
        try:
            n_expired = await self._off_loop(self._outbox.tidy, now_s, kept_s=self._retries.kept_s)
            if n_expired:
                _LOG.warning("%d requests of the outbox expired", n_expired)
            while len(self._lanes) < self._retries.most_lanes:
                found = await self._off_loop(self._outbox.next, now_s, busy=frozenset(self._lanes))
                if found is None:
                    break
                self._lanes[found.lane] = asyncio.create_task(self._lane(found))
            due_s = await self._off_loop(self._outbox.next_due_s)
        except OnhandError as error:
            _LOG.error("%s", error)
            return self._retries.most_s
        if due_s is None:
            return _IDLE_S
        # What is due and not started waits for a lane, whose end is news.
        return min(_IDLE_S, max(due_s - now_s, self._retries.poll_s))

    async def _lane(self, request: Deferred) -> None:
        try:
            await self._one(request)
        except OnhandError as error:
            _LOG.error("%s", error)
            await asyncio.sleep(self._retries.most_s)
        finally:
            self._lanes.pop(request.lane, None)
            self._news.set()

    async def _one(self, request: Deferred) -> None:
        outcome = await self._send(request)
        now_s = self._now()
        if outcome.status is not None:
            await self._off_loop(
                self._outbox.end,
                request.id,
                status=outcome.status,
                answer=outcome.answer,
                now_s=now_s,
            )
            return
        if outcome.was_sent:
            wait_s = self._retries.wait_s(request.attempts + 1, self._draw())
        else:
            wait_s = self._retries.poll_s
        due_s = now_s + max(wait_s, outcome.retry_after_s)
        await self._off_loop(self._outbox.again, request.id, due_s=due_s)
