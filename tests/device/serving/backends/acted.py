"""Backends that do what a test says, and a pool of them whose clock the test turns."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from onhand.core.errors import OnhandError
from onhand.device.serving.asks import Ask, Ending, Piece, Route
from onhand.device.serving.backends.members import Member
from onhand.device.serving.backends.pool import Pool
from onhand.device.serving.backends.settings import BalanceSettings

__all__ = ["ASK", "PLAIN", "Scripted", "Slept", "member", "pool_of", "text_of"]

ASK = Ask(tenant="t", prompt="a prompt")
END = Ending(reason="stop", prompt_tokens=1, cached_tokens=0, generated_tokens=1)
PLAIN = BalanceSettings(affinity=False, choice="least-outstanding", eject_s=30, most_eject_s=60)


@dataclass(slots=True)
class Scripted:
    """A backend that gives what a test says: texts, an error, or a wait for an event."""

    steps: Sequence[str | OnhandError | asyncio.Event] = ("a", "b")
    n_asked: int = 0
    n_open: int = 0
    n_most: int = 0
    later: list[Sequence[str | OnhandError | asyncio.Event]] = field(default_factory=list)

    async def answer(self, ask: Ask) -> AsyncGenerator[Piece | Ending]:
        """See `Backend`."""
        steps = self.later.pop(0) if self.n_asked and self.later else self.steps
        self.n_asked += 1
        self.n_open += 1
        self.n_most = max(self.n_most, self.n_open)
        try:
            for step in steps:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, str):
                    yield Piece(step)
                else:
                    raise step
            yield END
        finally:
            self.n_open -= 1


class Slept:
    """Notes how long a pool would have slept, and lets its clock go on by that."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> Awaitable[None]:
        """Sleep for no time."""
        self.seconds.append(seconds)
        return asyncio.sleep(0)

    def clock(self) -> float:
        """The time."""
        return sum(self.seconds)


def member(
    backend: Scripted,
    name: str = "a",
    *,
    route: Route = "peer",
    max_active: int = 8,
    slept: Slept | None = None,
) -> Member:
    clock = (slept or Slept()).clock
    return Member(
        backend, name=name, route=route, balance=PLAIN, max_active=max_active, clock=clock
    )


def pool_of(*members: Member, balance: BalanceSettings = PLAIN, slept: Slept | None = None) -> Pool:
    return Pool(members, balance, draw=lambda: 0.5, sleep=slept or Slept())


async def text_of(pool: Pool, ask: Ask = ASK) -> str:
    async with aclosing(pool.answer(ask)) as parts:
        return "".join([part.text async for part in parts if isinstance(part, Piece)])
