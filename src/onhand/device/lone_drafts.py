"""An answer that runs alone, in fewer steps: what its text says twice is guessed and checked.

See `onhand.device.speculate`, which does the same for one conversation with any drafter. Here the
drafter is the text itself, whoever's turn it is, and what pays is learnt over all answers.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

from onhand.device.draft_pace import MOST_DRAFTED, DraftPace
from onhand.device.drafters import PromptLookup
from onhand.device.engines.base import DraftChecker
from onhand.device.engines.choosing import StepSample
from onhand.device.request import Job

__all__ = ["LoneDrafts"]


class LoneDrafts:
    """Steps of one answer that nobody else computes beside. One thread at a time.

    Attributes:
        pace: what it learnt about drafts that pay.
        n_drafted: tokens guessed and read by the model so far.
        n_accepted: those of them that were right.
    """

    def __init__(
        self,
        checker: DraftChecker,
        step_sample: StepSample,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start without an answer.

        Args:
            checker: weights whose logits do not depend on what is computed beside them.
            step_sample: their plain step.
            clock: seconds that only grow.
        """
        self.pace = DraftPace()
        self.n_drafted = 0
        self.n_accepted = 0
        self._step_check = checker.step_check
        self._step_sample = step_sample
        self._clock = clock
        self._lookup = PromptLookup()
        self._job: Job | None = None
        self._n_known = 0  # tokens of the job's answer that the lookup has

    def takes(self, job: Job) -> bool:
        """Whether an answer may be drafted at its next step, which is to carry one token of it."""
        # What watches an answer wants to see it token by token.
        return not (job.is_prompt or job.sampler.watchers or self.pace.gives_up)

    def step(self, job: Job) -> list[int]:
        """Feed the token that was chosen last, and a guess at what follows.

        Args:
            job: an answer on its way, see `takes`.

        Returns:
            What is chosen, at least one token; the session remembers all of them but the last.

        Raises:
            OnhandError: as in `DraftChecker.step_check`.
        """
        self._turn_to(job)
        session, last = job.session, int(job.tokens[0])
        length = session.length
        grade = self._lookup.grade()
        # An answer of several tokens never ends with its context: a step of one token does that.
        room = session.context - length - 2
        if job.max_tokens is not None:
            room = min(room, job.max_tokens - job.n_chosen - 1)
        begun_s = self._clock()
        choice = self.pace.decide(grade, most=min(room, MOST_DRAFTED), is_free=True)
        draft = self._lookup.draft(choice.n_tokens).tokens if choice.n_tokens else ()
        rows = np.asarray([last, *draft], dtype=np.int64)
        if draft:
            chosen = self._step_check(session, rows, job.sampler)
        else:
            chosen = self._step_sample([(session, rows)], [job.sampler])
        step_s = self._clock() - begun_s
        ends = [i for i, token in enumerate(chosen, 1) if token in job.stop_ids]
        chosen = chosen[: ends[0]] if ends else chosen
        if session.length > length + len(chosen):
            session.rewind(length + len(chosen))
        self.pace.step(len(draft), len(chosen), step_s=step_s)
        if grade is not None:
            self._compare(grade, draft, chosen)
        return chosen

    def _turn_to(self, job: Job) -> None:
        if self._job is not job:
            self._job, self._n_known = job, 0
            self._lookup.begin(job.seen, job.sampler)
        self._lookup.push(job.said[self._n_known :])
        self._n_known = len(job.said)

    def _compare(self, grade: int, draft: Sequence[int], chosen: list[int]) -> None:
        # The lookup does not have `chosen` yet: a guess that was held back is what it would be.
        tokens = draft or self._lookup.draft(1).tokens
        n_compared = min(len(tokens), len(chosen))
        n_right = sum(a == b for a, b in zip(chosen, tokens, strict=False))
        self.pace.compared(grade, n_right, n_compared)
        if draft:
            self.n_drafted += len(draft)
            self.n_accepted += n_right
