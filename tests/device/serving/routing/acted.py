"""Backends that act as they are told, on a clock that no test waits for."""

import asyncio
import math
import selectors
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from onhand.core.errors import EngineUnavailable, OnhandError
from onhand.device.serving.asks import Ask, Ending, Piece, Score
from onhand.device.template import Message

__all__ = ["Actor", "asked", "piece", "run", "texts"]

_T = TypeVar("_T")


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to what is due next."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        super().__init__(_Selector(self))

    def time(self) -> float:  # type: ignore[explicit-override] # Python 3.11 has no word for it
        return self.now_s


class _Selector(selectors.SelectSelector):
    """Where the loop would sleep, time passes."""

    def __init__(self, loop: _Loop) -> None:
        super().__init__()
        self._loop = loop

    def select(  # type: ignore[explicit-override] # likewise
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing is due: the test hangs")
        self._loop.now_s += timeout
        return super().select(0)


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run some work on a loop of its own, in no time."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)


def piece(text: str, probability: float | None = None) -> Piece:
    """A piece of one token, with its score where it is to have one."""
    if probability is None:
        return Piece(text)
    others = (Score(text.encode(), math.log(probability)), Score(b"-", math.log(0.01)))
    return Piece(text, (Score(text.encode(), math.log(probability), others),))


def asked(text: str = "lamp", **fields: Any) -> Ask:
    """A question."""
    return Ask(tenant="local", prompt=[Message("user", text)], **fields)


async def texts(parts: AsyncGenerator[Piece | Ending]) -> str:
    """Read an answer to its end, and return its text."""
    found = [part async for part in parts]
    assert isinstance(found[-1], Ending)
    return "".join(part.text for part in found[:-1] if isinstance(part, Piece))


@dataclass
class Actor:
    """A backend that says some pieces, and notes what happens to it.

    Attributes:
        pieces: what it says; an error in their place is raised.
        first_s: seconds to the first, or to the error.
        between_s: seconds between two.
        asks: what it was asked.
        n_closed: answers that ended or were broken off.
        n_whole: answers that came to their end.
        closing_s: seconds that it takes to break off.
        is_silent: whether it ends without anything.
        source: what its endings call it.
    """

    pieces: Sequence[Piece | OnhandError] = (Piece("yes"),)
    first_s: float = 0.0
    between_s: float = 0.0
    closing_s: float = 0.0
    is_silent: bool = False
    source: str = "local"
    asks: list[Ask] = field(default_factory=list)
    n_closed: int = 0
    n_whole: int = 0

    @classmethod
    def broken(cls, first_s: float = 0.0, error: OnhandError | None = None) -> "Actor":
        """One that gives no answer."""
        return cls([error or EngineUnavailable("it is gone")], first_s=first_s)

    async def answer(self, ask: Ask) -> AsyncGenerator[Piece | Ending]:
        """See `Backend`."""
        self.asks.append(ask)
        try:
            await asyncio.sleep(self.first_s)
            if self.is_silent:
                return
            for number, one in enumerate(self.pieces):
                if number:
                    await asyncio.sleep(self.between_s)
                if isinstance(one, OnhandError):
                    raise one
                yield one
            n = len(self.pieces)
            yield Ending(
                reason="stop",
                prompt_tokens=3,
                cached_tokens=0,
                generated_tokens=n,
                source=self.source,
            )
            self.n_whole += 1
        finally:
            if self.closing_s:
                await asyncio.sleep(self.closing_s)
            self.n_closed += 1
