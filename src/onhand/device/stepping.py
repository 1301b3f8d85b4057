"""One step of several requests: what each of them gets, and whose fault it is when one fails."""

import time
from collections.abc import Callable, Sequence

from onhand.core.errors import EngineError, InputError, OnhandError
from onhand.device.engines.base import DraftChecker, Loaded
from onhand.device.engines.choosing import step_sample_of
from onhand.device.lone_drafts import LoneDrafts
from onhand.device.request import Job

__all__ = ["Outcome", "Stepper"]

Outcome = list[int] | OnhandError
"""Of one request: its tokens, none where its prompt goes on, or what went wrong."""


class Stepper:
    """Does steps. One thread at a time; drafts may be switched by any.

    Attributes:
        drafts: how an answer that runs alone is drafted; None where it is not.
    """

    def __init__(self, loaded: Loaded, *, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start without drafts.

        Args:
            loaded: the weights.
            clock: seconds that only grow.
        """
        self.drafts: LoneDrafts | None = None
        self._step_sample = step_sample_of(loaded)
        self._checker = loaded if isinstance(loaded, DraftChecker) else None
        self._clock = clock

    @property
    def can_draft(self) -> bool:
        """Whether the engine checks drafts to the bit."""
        return self._checker is not None

    def draft_alone(self) -> None:
        """Draft the answer that runs alone from the next step on; its tokens stay the same.

        Engines that cannot check drafts to the bit do without.
        """
        if self._checker is not None and self.drafts is None:
            self.drafts = LoneDrafts(self._checker, self._step_sample, clock=self._clock)

    def draft_no_more(self) -> None:
        """Compute the answer that runs alone token by token from the next step on."""
        self.drafts = None

    def step(self, batch: Sequence[tuple[Job, int]]) -> list[Outcome]:
        """Feed some tokens of each request.

        Args:
            batch: requests, and how many of their tokens.

        Returns:
            The outcome of each.
        """
        try:
            return [*self._step(batch)]
        except InputError as error:
            # No session has changed: whose fault it is shows when each goes by itself.
            if len(batch) == 1:
                return [error]
            return [outcome for one in batch for outcome in self.step([one])]
        except OnhandError as error:
            return [error] * len(batch)

    def _step(self, batch: Sequence[tuple[Job, int]]) -> list[list[int]]:
        drafts, lone = self.drafts, batch[0][0]
        rows = [(job.session, job.tokens[:n]) for job, n in batch]
        samplers = [job.sampler if n == job.tokens.size else None for job, n in batch]
        try:
            if drafts is not None and len(batch) == 1 and drafts.takes(lone):
                return [drafts.step(lone)]
            return [[] if one < 0 else [one] for one in self._step_sample(rows, samplers)]
        except OnhandError:
            raise
        except Exception as error:
            raise EngineError(f"a step failed: {error}") from error
