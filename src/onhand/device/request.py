"""One answer that is computed beside others: what its reader holds, and what the batcher does."""

import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.core.errors import OnhandError
from onhand.device.engines.base import Session
from onhand.device.sampling import Sampler

__all__ = ["Job", "Request", "RequestEnd"]

RequestEnd = Literal["stop", "length", "context", "cancelled", "error"]


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """A request as the batcher sees it; everything but `session` is guarded by its lock.

    Attributes:
        session: what remembers the conversation.
        tokens: those that its memory lacks: a prompt's rest, or the token chosen last.
        sampler: how tokens are chosen.
        stop_ids: tokens that end the answer.
        max_tokens: most tokens to choose; None for as many as the context holds.
        news: told of every change.
        seen: the whole text before the answer.
        said: the answer's tokens so far.
        is_prompt: whether `tokens` are of the prompt.
        in_step: whether a step with it runs.
        is_cancelled: whether to end it after that step.
        chosen: tokens that were chosen and not yet read.
        n_chosen: tokens chosen so far.
        chosen_s: when the last was, on the batcher's clock; None where it rested since.
        finish_reason: see `Request`.
        error: what its reader is told after the last token.
    """

    session: Session
    tokens: TokenArray
    sampler: Sampler
    stop_ids: Collection[int]
    max_tokens: int | None
    news: threading.Condition
    seen: TokenArray
    said: list[int] = field(default_factory=list)
    is_prompt: bool = True
    in_step: bool = False
    is_cancelled: bool = False
    chosen: deque[int] = field(default_factory=deque)
    n_chosen: int = 0
    chosen_s: float | None = None
    finish_reason: RequestEnd | None = None
    error: OnhandError | None = None

    def accept(self, token: int) -> RequestEnd | None:
        """Take the token that was chosen; return why the answer ends with it, if it does."""
        self.tokens = np.asarray([token], dtype=np.int64)
        self.is_prompt = False
        self.chosen.append(token)
        self.said.append(token)
        self.n_chosen += 1
        if token in self.stop_ids:
            return "stop"
        if self.n_chosen == self.max_tokens:
            return "length"
        return "context" if self.session.length >= self.session.context else None


class Request:
    """One answer: an iterator of token ids, which waits for each. Made by `Batcher.submit`.

    One thread reads it; any thread may close it.
    """

    def __init__(
        self,
        job: Job,
        *,
        take: Callable[[Job], int],
        cancel: Callable[[Job], None],
        stop: Callable[[Job], None],
    ) -> None:
        self._job = job
        self._take = take
        self._cancel = cancel
        self._stop = stop

    @property
    def finish_reason(self) -> RequestEnd | None:
        """Why no more tokens are computed, or None while they are.

        "stop" (a stop id was chosen), "length", "context", "cancelled" or "error"; the tokens
        before it can still be read.
        """
        return self._job.finish_reason

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        return self._take(self._job)

    def cancel(self) -> None:
        """Let no more tokens be computed, without waiting for the step that it is in.

        Its reader still gets those that were; then `close` it.
        """
        self._cancel(self._job)

    def close(self) -> None:
        """Break the answer off; safe to call twice and after its end.

        Waits for the step that it is in. Then the session is free again, and remembers the
        prompt and the answer up to some token: unless the request failed, what it remembers is
        a beginning of the two.
        """
        self._stop(self._job)
