"""Several backends as one: chosen by load, asked again elsewhere as long as nothing was said."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final

from onhand.core.errors import EngineError, OnhandError, ResourceError
from onhand.device.serving.asks import Ask, Ending, Piece
from onhand.device.serving.backends.budget import RetryBudget
from onhand.device.serving.backends.choosing import CHOICES, affine, prefix_key
from onhand.device.serving.backends.members import Member
from onhand.device.serving.backends.settings import BalanceSettings
from onhand.device.serving.refusals import BackendFailed, Refusal

__all__ = ["Pool"]

_PATIENT_S: Final = 2.0  # that a request waits rather than fail while all backends rest
_DRAW: Final = random.SystemRandom().random
_LOOK_S: Final = 0.5  # what is waited for may also come without a word


class Pool:
    """See `Backend`. One event loop; nothing in it waits for a backend but the request itself.

    A request goes to one backend, and to another if that one fails before its first text or tool
    call; what was said is never said twice.

    Attributes:
        members: the backends.
        n_retries: second attempts so far.
    """

    def __init__(
        self,
        members: Sequence[Member],
        balance: BalanceSettings,
        *,
        may_use: Callable[[Ask, Member], bool] = lambda ask, member: True,
        draw: Callable[[], float] = _DRAW,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Put backends together.

        Args:
            members: they may be members of other pools too.
            balance: how they share.
            may_use: whether a backend may get a request at all.
            draw: numbers from 0 to 1, without 1.
            sleep: waits for seconds.
        """
        self.members = tuple(members)
        self.n_retries = 0
        self._balance = balance
        self._may_use = may_use
        self._draw = draw
        self._sleep = sleep
        self._choose = CHOICES[balance.choice]
        self._budget = RetryBudget(share=balance.retry_share, reserve=balance.retry_reserve)
        self._waiting: deque[asyncio.Future[None]] = deque()
        for member in self.members:
            member.freed.append(self._wake)

    @property
    def n_waiting(self) -> int:
        """Requests that wait because all backends are full."""
        return len(self._waiting)

    @property
    def is_able(self) -> bool:
        """Whether a backend would be asked at once."""
        return any(member.permits and member.is_free for member in self.members)

    async def answer(self, ask: Ask) -> AsyncGenerator[Piece | Ending]:
        """See `Backend`.

        Yields:
            As in `Backend`.

        Raises:
            OnhandError: what the last backend said that was asked.
        """
        self._budget.earn()
        attempts = _Attempts(self._balance.attempts)
        while True:
            member = await self._chosen(ask, attempts)
            if ask.told is not None:
                ask.told(member.source)
            has_begun = False
            try:
                async with aclosing(_answered(member, ask)) as parts:
                    async for part in parts:
                        has_begun = True
                        yield part
                return
            except OnhandError as error:
                if has_begun or not _helps_elsewhere(error):
                    raise
                attempts.failed(member, error)
                if attempts.n_left == 0 or not self._budget.spend():
                    raise
                self.n_retries += 1

    async def _chosen(self, ask: Ask, attempts: "_Attempts") -> Member:
        # Who is full is waited for, and who rests for a moment too.
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._balance.wait_s
        able = [member for member in self.members if self._may_use(ask, member)]
        has_waited = False
        while True:
            ready = [one for one in able if one.permits and one not in attempts.given_up]
            # Others first; the same one again only where there is no other.
            fresh = [one for one in ready if one not in attempts.failures] or ready
            free = [one for one in fresh if one.is_free]
            if free and (has_waited or not self._waiting):
                member = self._best(ask, free)
                if (n_failed := attempts.failures.get(member, 0)) and not has_waited:
                    await self._sleep(self._draw() * self._balance.backoff_s * 2 ** (n_failed - 1))
                    has_waited = True
                    continue  # what was free may be full by now
                return member
            if not ready:
                await self._rest(able, attempts, until_s)
                continue
            await self._wait(until_s, at_front=has_waited)
            has_waited = True

    def _best(self, ask: Ask, free: Sequence[Member]) -> Member:
        nearest = [one for one in free if one.route != "cloud"] or free
        by_name = {one.name: one for one in nearest}
        candidates = [one.candidate for one in nearest]
        chosen = None
        if self._balance.affinity and len(candidates) > 1:
            chosen = affine(prefix_key(ask), candidates)
        return by_name[(chosen or self._choose(candidates, self._draw)).name]

    async def _rest(self, able: Sequence[Member], attempts: "_Attempts", until_s: float) -> None:
        # For the first that may be asked again, if that is soon.
        waits = [one.breaker.wait_s for one in able if one not in attempts.given_up]
        wait_s = min(waits, default=0.0)
        is_late = asyncio.get_running_loop().time() + wait_s > until_s
        if is_late or not 0 < wait_s <= _PATIENT_S:
            raise attempts.error or _nobody(wait_s)
        await self._sleep(wait_s)

    async def _wait(self, until_s: float, *, at_front: bool) -> None:
        loop = asyncio.get_running_loop()
        if len(self._waiting) >= self._balance.max_waiting and not at_front:
            raise _full("as many requests wait for a backend as may; ask again")
        if loop.time() >= until_s:
            raise _full(f"no backend was free within {self._balance.wait_s:g} s; ask again")
        turn: asyncio.Future[None] = loop.create_future()
        if at_front:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(min(until_s, loop.time() + _LOOK_S)):
                await turn
        except TimeoutError:
            return
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return


class _Attempts:
    """What came of asking for one answer so far."""

    def __init__(self, n: int) -> None:
        self.n_left = n
        self.failures: dict[Member, int] = {}
        self.given_up: set[Member] = set()
        self.error: OnhandError | None = None

    def failed(self, member: Member, error: OnhandError) -> None:
        """Note a failure before the first text."""
        self.n_left -= 1
        self.failures[member] = self.failures.get(member, 0) + 1
        self.error = error
        if isinstance(error, BackendFailed) and error.is_lasting:
            self.given_up.add(member)


async def _answered(member: Member, ask: Ask) -> AsyncGenerator[Piece | Ending]:
    use = member.begin()
    is_first, is_whole = True, False
    failure: OnhandError | None = None
    try:
        async with aclosing(member.backend.answer(ask)) as parts:
            async for part in parts:
                if is_first:
                    is_first = False
                    member.saw_first(use)
                is_whole = isinstance(part, Ending)
                yield part
    except OnhandError as error:
        failure = error
        raise
    finally:
        member.ended(use, failure, is_whole=is_whole)


def _helps_elsewhere(error: OnhandError) -> bool:
    return isinstance(error, EngineError | ResourceError)


def _nobody(wait_s: float) -> OnhandError:
    message = "no backend of this model can be asked at present"
    after = {"Retry-After": str(max(round(wait_s), 1))}
    refusal = Refusal(status=503, message=message, code="no_backend", headers=after)
    return BackendFailed(message, refusal, is_fault=False)


def _full(message: str) -> OnhandError:
    refusal = Refusal(status=429, message=message, code="busy", headers={"Retry-After": "1"})
    return BackendFailed(message, refusal, is_fault=False)
