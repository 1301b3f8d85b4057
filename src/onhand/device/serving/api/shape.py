"""What a request asked, and the form in which its client wants the answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from onhand.device.privacy.ledger import left_field
from onhand.device.serving.asks import Ask, Departure, Ending, Piece, Source, Wire
from onhand.device.serving.wishes import Wishes

__all__ = ["Answered", "Asked", "Shape", "Stamp", "StreamShape", "told_source"]

Answered = tuple[Sequence[Piece], Ending]
"""The pieces of one choice, and its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What marks an answer.

    Attributes:
        id: without the prefix that its kind has.
        created_s: when, in seconds since 1970.
        model: who answers.
        similarity: how near the question is whose answer this is; None where it is its own.
    """

    id: str
    created_s: int
    model: str
    similarity: float | None = None

    @property
    def mark(self) -> dict[str, object]:
        """What is said of where the answer comes from, beside what OpenAI's API says."""
        if self.similarity is None:
            return {}
        return {"onhand": {"cache": "semantic", "similarity": self.similarity}}


class Shape(Protocol):
    """Turns answers into what a kind of client reads. Holds no state of an answer."""

    def whole(self, stamp: Stamp, answers: Sequence[Answered]) -> object:
        """Return a whole answer's JSON.

        Args:
            stamp: what marks it.
            answers: one for each choice.
        """
        ...

    def stream(self, stamp: Stamp, n_choices: int) -> "StreamShape":
        """Begin an answer that comes piece by piece."""
        ...


class StreamShape(Protocol):
    """The events of one answer, as they go over the wire."""

    def begin(self) -> bytes:
        """Return what comes before anything is known."""
        ...

    def piece(self, index: int, piece: Piece) -> bytes:
        """Return a part of a choice."""
        ...

    def ending(self, index: int, ending: Ending) -> bytes:
        """Return a choice's end."""
        ...

    def end(self) -> bytes:
        """Return what comes after all choices; it may be nothing."""
        ...

    def failure(self, body: dict[str, object]) -> bytes:
        """Return that it broke off.

        Args:
            body: the error's JSON.
        """
        ...


def told_source(ending: Ending) -> dict[str, object]:
    """Return the field by which an answer's end says who gave it, which headers came too early for.

    Args:
        ending: of the answer.
    """
    told: dict[str, object] = {"route": ending.route, "backend": ending.source}
    if ending.left:
        told["left_device"] = [left_field(one) for one in ending.left]
    return {"onhand": told}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for text that was understood.

    Attributes:
        route: its name for counts: "chat", "text" or "responses".
        asks: one for each choice.
        is_stream: whether it is answered piece by piece.
        shape: of the answer.
    """

    route: str
    asks: tuple[Ask, ...]
    is_stream: bool
    shape: Shape

    def until(self, deadline_s: float | None) -> "Asked":
        """Return the same request with a time at which its answer must have ended."""
        if all(ask.deadline_s == deadline_s for ask in self.asks):
            return self
        return replace(self, asks=tuple(replace(ask, deadline_s=deadline_s) for ask in self.asks))

    def handed_on(self, n_hops: int) -> "Asked":
        """Return it with the number of servers of ours that handed it on."""
        if all(ask.wire is None or ask.wire.n_hops == n_hops for ask in self.asks):
            return self
        return self._with_wires(lambda wire: replace(wire, n_hops=n_hops))

    def wishing(self, wishes: Wishes, *, sent_key: str = "") -> "Asked":
        """Return it with what it says of who may answer, and when.

        Args:
            wishes: that.
            sent_key: the idempotency key that other servers are sent; "" for none.
        """
        asked = self
        if sent_key:
            headers = {"idempotency-key": sent_key}
            asked = self._with_wires(
                lambda wire: replace(wire, headers={**wire.headers, **headers})
            )
        if all(ask.wishes == wishes for ask in asked.asks):
            return asked
        return replace(asked, asks=tuple(replace(ask, wishes=wishes) for ask in asked.asks))

    def known_as(
        self,
        request_id: str,
        *,
        told: Callable[[Source], None],
        left: Callable[[int, Departure], Callable[[], None]] | None = None,
    ) -> "Asked":
        """Return it with what logs call it, here and elsewhere.

        Args:
            request_id: that.
            told: of who answers; see `Ask`.
            left: of what leaves, with the number of the choice; see `Ask`.
        """
        headers = {"x-request-id": request_id}
        named = self._with_wires(lambda wire: replace(wire, headers={**wire.headers, **headers}))
        asks = tuple(
            replace(ask, told=told, left=None if left is None else partial(left, index))
            for index, ask in enumerate(named.asks)
        )
        return replace(named, asks=asks)

    def _with_wires(self, change: Callable[[Wire], Wire]) -> "Asked":
        asks = tuple(
            ask if ask.wire is None else replace(ask, wire=change(ask.wire)) for ask in self.asks
        )
        return replace(self, asks=asks)
