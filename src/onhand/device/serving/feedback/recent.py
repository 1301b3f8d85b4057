"""Answers that were given a moment ago, so that their id is enough to rate them."""

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from onhand.device.serving.asks import Ask, Ending, Piece
from onhand.device.tools.kinds import CallPart, ToolCall

__all__ = ["RecentAnswer", "RecentAnswers"]

_PREFIXES: Final = ("chatcmpl-", "cmpl-", "resp_", "msg_")
_OVERHEAD_BYTES: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentAnswer:
    """One choice of an answer.

    Attributes:
        model: who answered, by the name that requests give.
        ask: what was asked.
        text: what was answered.
        calls: of tools, that it made as a whole.
        is_cut: whether a call of it was cut off.
    """

    model: str
    ask: Ask
    text: str
    calls: tuple[ToolCall, ...] = ()
    is_cut: bool = False

    @property
    def n_bytes(self) -> int:
        """About what it takes."""
        prompt = self.ask.prompt
        texts = [prompt] if isinstance(prompt, str) else [one.content for one in prompt]
        texts += [call.arguments for call in self.calls]
        return _OVERHEAD_BYTES + len(self.text) + sum(len(text) for text in texts)


@dataclass(slots=True)
class _Kept:
    given_s: float
    n_bytes: int
    choices: tuple[RecentAnswer, ...]


class RecentAnswers:
    """The last answers of each tenant, within bounds; one event loop at a time.

    What was answered to one tenant is never found by another, whatever id it gives.
    """

    def __init__(
        self,
        *,
        most: int,
        most_bytes: int,
        most_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without any.

        Args:
            most: answers of one tenant.
            most_bytes: of all; the oldest go first.
            most_s: seconds that one is kept.
            clock: seconds that only grow.
        """
        self._most = most
        self._most_bytes = most_bytes
        self._most_s = most_s
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._counts: dict[str, int] = {}
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def noting(
        self,
        name: str,
        model: str,
        asks: Sequence[Ask],
        parts: AsyncGenerator[tuple[int, Piece | Ending]],
    ) -> AsyncGenerator[tuple[int, Piece | Ending]]:
        """Pass an answer on as it comes, and keep it when it has come to its end.

        Args:
            name: the answer's id, without the prefix of its kind.
            model: who answers.
            asks: one for each choice.
            parts: of the answer.

        Yields:
            The same parts.
        """
        pieces: list[list[Piece]] = [[] for _ in asks]
        n_ended = 0
        try:
            async for index, part in parts:
                if isinstance(part, Piece):
                    pieces[index].append(part)
                else:
                    n_ended += 1
                    if n_ended == len(asks):
                        # Before it is handed on: its reader may leave at once.
                        self._keep(name, model, asks, pieces)
                yield index, part
        finally:
            await parts.aclose()

    def find(self, tenant: str, name: str) -> tuple[RecentAnswer, ...]:
        """Return the choices of an answer; empty where the tenant has none of this id.

        Args:
            tenant: who asks.
            name: the id as the answer has it, with or without the prefix of its kind.
        """
        self._forget_old()
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        kept = self._kept.get((tenant, name))
        return () if kept is None else kept.choices

    def _keep(
        self, name: str, model: str, asks: Sequence[Ask], pieces: Sequence[Sequence[Piece]]
    ) -> None:
        choices = tuple(
            RecentAnswer(
                model=model,
                ask=ask,
                text="".join(piece.text for piece in made),
                calls=calls,
                is_cut=is_cut,
            )
            for ask, made in zip(asks, pieces, strict=True)
            for calls, is_cut in (_calls(made),)
        )
        tenant = asks[0].tenant
        kept = _Kept(self._clock(), sum(one.n_bytes for one in choices), choices)
        if self._most == 0 or kept.n_bytes > self._most_bytes:
            return
        self._kept[tenant, name] = kept
        self._counts[tenant] = self._counts.get(tenant, 0) + 1
        self.n_bytes += kept.n_bytes
        self._forget_old()
        if self._counts.get(tenant, 0) > self._most:
            self._drop(next(key for key in self._kept if key[0] == tenant))
        while self.n_bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def _forget_old(self) -> None:
        oldest_s = self._clock() - self._most_s
        while self._kept:
            key = next(iter(self._kept))
            if self._kept[key].given_s >= oldest_s:
                return
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        self.n_bytes -= self._kept.pop(key).n_bytes
        self._counts[key[0]] -= 1
        if not self._counts[key[0]]:
            del self._counts[key[0]]


def _calls(pieces: Sequence[Piece]) -> tuple[tuple[ToolCall, ...], bool]:
    """Return the calls of an answer, and whether one was cut off."""
    parts: dict[int, list[CallPart]] = {}
    for piece in pieces:
        if piece.call is not None:
            parts.setdefault(piece.call.index, []).append(piece.call)
    calls = tuple(
        ToolCall(made[0].id, made[0].name, "".join(part.arguments for part in made))
        for _, made in sorted(parts.items())
    )
    return calls, not all(made[-1].is_end for made in parts.values())
