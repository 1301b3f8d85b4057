"""How fast steps were of late: what a batcher notes, and who governs it reads."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from onhand.device.request import Job

__all__ = ["BatchLoad", "StepLog"]

# Enough for some seconds of any model; what nobody reads is forgotten.
_MOST_KEPT: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLoad:
    """What a batcher has to do, and how fast it was since it was last asked.

    Attributes:
        n_active: requests that are computed.
        n_waiting: requests that wait for their turn.
        token_s: seconds from each token of an answer to its next, waiting for prompts and other
            answers included; a token that its reader did not want yet is left out.
        step_s: answers of a step with a token for each and no prompt -> median seconds of such.
    """

    n_active: int = 0
    n_waiting: int = 0
    token_s: tuple[float, ...] = ()
    step_s: Mapping[int, float] = field(default_factory=dict)


class StepLog:
    """Notes steps until they are asked for. One thread at a time."""

    def __init__(self) -> None:
        """Start without any."""
        self._token_s: deque[float] = deque(maxlen=_MOST_KEPT)
        self._step_s: deque[tuple[int, float]] = deque(maxlen=_MOST_KEPT)

    def step(
        self,
        begun_s: float,
        ended_s: float,
        *,
        answers: Sequence[Job],
        prompts: Sequence[Job],
        n_tokens: int = 1,
    ) -> None:
        """Note a step that went well.

        Args:
            begun_s: when it began.
            ended_s: when its tokens were there, on the same clock.
            answers: those that got a token.
            prompts: those that a part of their prompt was read of.
            n_tokens: that each of `answers` got; several where they were drafted.
        """
        for job in answers:
            if job.chosen_s is not None:
                self._token_s.extend([(ended_s - job.chosen_s) / n_tokens] * n_tokens)
            job.chosen_s = ended_s
        for job in prompts:
            job.chosen_s = ended_s
        if answers and not prompts and n_tokens == 1:
            self._step_s.append((len(answers), ended_s - begun_s))

    def taken(self, *, n_active: int, n_waiting: int) -> BatchLoad:
        """Return what was noted, and forget it.

        Args:
            n_active: as in `BatchLoad`.
            n_waiting: likewise.

        Returns:
            All since the last call.
        """
        by_size: dict[int, list[float]] = {}
        for n, seconds in self._step_s:
            by_size.setdefault(n, []).append(seconds)
        load = BatchLoad(
            n_active=n_active,
            n_waiting=n_waiting,
            token_s=tuple(self._token_s),
            step_s={n: median(found) for n, found in by_size.items()},
        )
        self._token_s.clear()
        self._step_s.clear()
        return load
