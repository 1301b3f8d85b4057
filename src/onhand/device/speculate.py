"""Answers with drafted tokens: several are checked in one step, and what is chosen stays the same.

A step that reads a few tokens costs little more than one that reads a single one. So what may
follow is guessed, all of it is read at once, and the model's own choices at each place say how
far the guess was right.
"""

import time
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray, TokenArray
from onhand.device.draft_pace import MOST_DRAFTED, Choice, DraftPace
from onhand.device.drafters import Draft, Drafter
from onhand.device.engines.base import Loaded, Session
from onhand.device.engines.choosing import (
    StepCheck,
    StepSample,
    step_check_of,
    step_sample_of,
)
from onhand.device.sampling import Sampler, Sampling, check_max_tokens

__all__ = ["SpeculationCounts", "Speculator"]

_NOTHING: Final = Draft(())


@dataclass(slots=True)
class SpeculationCounts:
    """What drafting did for one answer so far.

    Attributes:
        steps: steps of the model after the prompt's.
        tokens: tokens that they yielded.
        drafted: tokens guessed and read by the model.
        compared: those of them that stood after right ones only.
        accepted: those that were right.
        idle_steps: steps without a guess, because there was none or no room for it.
        off_steps: steps whose guess was held back, because it would not have paid.
        reading_s: seconds in which a draft model read the prompt, or text it had missed.
    """

    steps: int = 0
    tokens: int = 0
    drafted: int = 0
    compared: int = 0
    accepted: int = 0
    idle_steps: int = 0
    off_steps: int = 0
    reading_s: float = 0.0

    @property
    def acceptance(self) -> float:
        """Accepted tokens for each one drafted; 0 where none was."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_step(self) -> float:
        """Tokens for each step; 1 is plain decoding."""
        return self.tokens / self.steps if self.steps else 1.0

    def to_json(self) -> dict[str, float]:
        """Return all counts and both shares."""
        return {
            "acceptance": self.acceptance,
            "accepted": self.accepted,
            "compared": self.compared,
            "drafted": self.drafted,
            "idle_steps": self.idle_steps,
            "off_steps": self.off_steps,
            "reading_s": self.reading_s,
            "steps": self.steps,
            "tokens": self.tokens,
            "tokens_per_step": self.tokens_per_step,
        }


class Speculator:
    """Continues texts as `generate_tokens` does, in fewer steps. One thread at a time.

    What pays is learnt over all answers of a session; see `DraftPace`.

    Attributes:
        counts: of the answer that began last.
        pace: what it learnt.
    """

    def __init__(self, drafter: Drafter, *, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start without an answer.

        Args:
            drafter: what guesses, owned from now on.
            clock: seconds from anywhere.
        """
        self.counts = SpeculationCounts()
        self.pace = DraftPace()
        self._drafter = drafter
        self._clock = clock

    def generate_tokens(
        self,
        loaded: Loaded,
        session: Session,
        prompt: TokenArray,
        *,
        max_tokens: int | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        stop_ids: Collection[int] = (),
        seen: TokenArray | None = None,
        forbidden: NDArray[np.bool_] | None = None,
    ) -> Generator[int]:
        """Append a prompt to a session and continue it; see `onhand.device.generate`.

        The tokens are those of `generate_tokens`: the same ones where nothing is drawn at random,
        where a seed is given and wherever drafts are looked up, if the engine's logits do not
        depend on what is computed beside them; else drawn from the same distribution. One thing
        differs: tokens that were checked together enter the session's memory together, so while
        the answer goes on it may already hold some that are not yielded yet. None is ever wrong,
        and once the generator has ended or is closed the memory holds what was yielded, but for
        the last one.

        Args:
            loaded: the weights.
            session: one of its sessions; what it remembers comes before `prompt`.
            prompt: (T,) int64, T >= 1.
            max_tokens: most tokens to yield; None for as many as the context holds.
            sampling: how each is chosen.
            stop_ids: tokens that end the answer; the one that does is yielded as the last.
            seen: (T',) tokens for the repetition penalty and for the drafter, which takes them
                for the whole text before the answer; None for those of `prompt`.
            forbidden: (V,) True for ids that may never be chosen.

        Returns:
            Token ids, each computed as it is asked for.

        Raises:
            InputError: if `max_tokens` is below 1; as the first token is asked for, if the prompt
                is empty or not in the vocabulary. ContextOverflow and EngineError come then too.
        """
        check_max_tokens(max_tokens)
        text = prompt if seen is None else seen
        self.counts = SpeculationCounts()
        answer = _Answer(
            loaded=loaded,
            step_sample=step_sample_of(loaded),
            step_check=step_check_of(loaded),
            session=session,
            sampler=Sampler(sampling, seen=text, forbidden=forbidden),
            stop_ids=stop_ids,
            max_tokens=max_tokens,
            drafter=self._drafter,
            pace=self.pace,
            counts=self.counts,
            clock=self._clock,
        )
        return answer.tokens(prompt, text)

    def close(self) -> None:
        """Release the drafter; safe to call twice."""
        self._drafter.close()


@dataclass(slots=True, kw_only=True)
class _Answer:
    """One answer on its way."""

    loaded: Loaded
    step_sample: StepSample
    step_check: StepCheck
    session: Session
    sampler: Sampler
    stop_ids: Collection[int]
    max_tokens: int | None
    drafter: Drafter
    pace: DraftPace
    counts: SpeculationCounts
    clock: Callable[[], float]
    n_yielded: int = 0

    def tokens(self, prompt: TokenArray, text: TokenArray) -> Generator[int]:
        """Yield the answer."""
        begun = self.clock()
        chosen = self.step_sample([(self.session, prompt)], [self.sampler])
        self.pace.prompt(len(prompt), self.clock() - begun)
        if not self.pace.gives_up:
            self.drafter.begin(text, self.sampler)
        kept = length = self.session.length
        try:
            while True:
                for i, token in enumerate(chosen):
                    # The session's tokens that were yielded, but for this one.
                    kept = length + i
                    self.n_yielded += 1
                    yield token
                if self._is_over(chosen[-1]):
                    return
                length = self.session.length + 1
                if self.pace.gives_up:
                    chosen = self._plain_step(chosen[-1])
                    continue
                self.drafter.push(chosen)
                chosen = self._step(chosen[-1])
        finally:
            # Closed between tokens, or a step that failed: no token stays that nobody saw.
            self._forget_after(kept)

    def _is_over(self, last: int) -> bool:
        return (
            last in self.stop_ids
            or self.n_yielded == self.max_tokens
            or self.session.length >= self.session.context
        )

    def _step(self, last: int) -> list[int]:
        """Feed the last token and a draft, and return what is chosen, at least one token."""
        length = self.session.length
        grade = self.drafter.grade()
        choice = self._choose(grade)
        begun = self.clock()
        draft = self.drafter.draft(choice.n_tokens) if choice.n_tokens else _NOTHING
        n_drafted = len(draft.tokens)
        rows = np.asarray([last, *draft.tokens], dtype=np.int64)
        if draft.distributions:
            chosen = self._checked(self.loaded.score(self.session, rows), draft)
        elif n_drafted:
            chosen = self.step_check(self.session, rows, self.sampler)
        else:
            chosen = self.step_sample([(self.session, rows)], [self.sampler])
        step_s = self.clock() - begun
        ends = [i for i, token in enumerate(chosen, 1) if token in self.stop_ids]
        chosen = chosen[: ends[0]] if ends else chosen
        self._forget_after(length + len(chosen))
        self.pace.step(n_drafted, len(chosen), step_s=step_s)
        self.counts.steps += 1
        self.counts.tokens += len(chosen)
        if grade is not None:
            self._compare(chosen, draft, grade, choice)
        return chosen

    def _plain_step(self, last: int) -> list[int]:
        self.counts.steps += 1
        self.counts.tokens += 1
        self.counts.off_steps += 1
        rows = np.asarray([last], dtype=np.int64)
        return self.step_sample([(self.session, rows)], [self.sampler])

    def _choose(self, grade: int | None) -> Choice:
        """Decide how many tokens to draft, and let the drafter read what it needs for it."""
        room = self.session.context - self.session.length - 1
        if self.max_tokens is not None:
            room = min(room, self.max_tokens - self.n_yielded - 1)
        backlog = 0 if grade is None else self.drafter.backlog()
        choice = self.pace.decide(
            grade, most=min(room, MOST_DRAFTED), is_free=self.drafter.is_free, backlog=backlog
        )
        if choice.n_tokens and backlog:
            begun = self.clock()
            self.drafter.catch_up()
            seconds = self.clock() - begun
            self.pace.read(backlog, seconds, choice=choice)
            self.counts.reading_s += seconds
        if choice.why == "nothing":
            self.counts.idle_steps += 1
        elif choice.n_tokens == 0:
            self.counts.off_steps += 1
        return choice

    def _checked(self, logits: FloatArray, draft: Draft) -> list[int]:
        """Choose a token after each one of a draft that was drawn, up to the first refused."""
        chosen: list[int] = []
        for row, token, proposal in zip(logits, draft.tokens, draft.distributions, strict=False):
            chosen.append(self.sampler.sample_drafted(row, token, proposal))
            if chosen[-1] != token:
                return chosen
        return [*chosen, self.sampler.sample(logits[-1])]

    def _compare(self, chosen: list[int], draft: Draft, grade: int, choice: Choice) -> None:
        """Learn how far a guess was right, one that was held back included if it is free."""
        counts = self.counts
        tokens = draft.tokens
        if not tokens and self.drafter.is_free:
            # The text has not grown yet, so this is what would have been drafted.
            tokens = self.drafter.draft(1).tokens
        # A stop token may end the comparison early.
        n_compared = min(len(tokens), len(chosen))
        n_right = sum(a == b for a, b in zip(chosen, tokens, strict=False))
        if n_compared:
            self.pace.compared(grade, n_right, n_compared)
        if draft.tokens:
            counts.drafted += len(tokens)
            counts.compared += n_compared
            counts.accepted += n_right
        if choice.why == "trial":
            self.pace.tried(n_right)

    def _forget_after(self, length: int) -> None:
        # A session that was closed meanwhile remembers nothing.
        if self.session.length > length:
            self.session.rewind(length)
