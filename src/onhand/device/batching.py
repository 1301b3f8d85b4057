"""Several answers from one set of weights, computed together: continuous batching.

One step carries a token of every answer that runs, and beside them parts of the prompts that
wait; `schedule.plan_step` says which. A request that is alone is computed by the thread that
reads it, as it reads; from the second on a thread of the batcher's own does it.
"""

import threading
import time
from collections.abc import Callable, Collection, Generator, Sequence

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import TokenArray
from onhand.core.errors import EngineBusy, EngineError, InputError, OnhandError
from onhand.device.engines.base import Loaded, Session
from onhand.device.engines.memory import check_fits, check_tokens
from onhand.device.request import Job, Request, RequestEnd
from onhand.device.sampling import Sampler, Sampling, Watcher
from onhand.device.schedule import Limits, Pace, Turn, plan_step
from onhand.device.step_log import BatchLoad, StepLog
from onhand.device.stepping import Outcome, Stepper

__all__ = ["Batcher"]


class Batcher:
    """Computes the answers of many requests in common steps. May be shared between threads.

    What a request asks for wrongly is its own error; an engine that fails ends every request of
    the step, since their memories cannot be trusted any more. The weights stay their owner's:
    close the batcher first, then the weights.

    Attributes:
        stepper: what does its steps; it may be told to draft the answer that runs alone.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start without requests, and without a thread.

        Args:
            loaded: the weights; while requests are open nobody else steps their sessions.
            limits: how much to take on at once.
            clock: seconds that only grow.
        """
        self.stepper = Stepper(loaded, clock=clock)
        self._vocab_size = loaded.vocab_size
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._change = threading.Condition(self._lock)  # for the worker, and for `close`
        self._open: list[Job] = []  # in the order they came
        self._n_begun = 0  # answers that ran when the limits were lowered, and still run
        self._pace = Pace()
        self._log = StepLog()
        self._is_stepping = False
        self._is_closed = False
        self._worker: threading.Thread | None = None

    @property
    def n_requests(self) -> int:
        """Requests that have not ended."""
        return len(self._open)

    @property
    def limits(self) -> Limits:
        """How much is taken on at once."""
        return self._limits

    def use_limits(self, limits: Limits) -> None:
        """Plan by other limits from the next step on.

        What runs or waits is not touched: answers that have begun go on, all of them, while
        those that wait do so until fewer than `max_active` run; as many as came before may wait.

        Args:
            limits: the new ones.
        """
        with self._lock:
            n_running = sum(not job.is_prompt for job in self._open)
            self._n_begun = n_running if n_running > limits.max_active else 0
            self._limits = limits
            self._change.notify_all()

    def load(self) -> BatchLoad:
        """Say how many requests run and wait, and how fast steps were since the last call."""
        with self._lock:
            n_open = len(self._open)
            n_running = sum(not job.is_prompt for job in self._open)
            n_active = min(n_open, max(self._limits.max_active, n_running))
            return self._log.taken(n_active=n_active, n_waiting=n_open - n_active)

    def submit(
        self,
        session: Session,
        prompt: TokenArray,
        *,
        max_tokens: int | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        stop_ids: Collection[int] = (),
        seen: TokenArray | None = None,
        forbidden: NDArray[np.bool_] | None = None,
        watchers: Sequence[Watcher] = (),
    ) -> Request:
        """Append a prompt to a session and continue it, beside other requests.

        Args:
            session: one of the weights' sessions, the request's own until it ends.
            prompt: (T,) int64, T >= 1.
            max_tokens: most tokens to choose; None for as many as the context holds.
            sampling: how each is chosen.
            stop_ids: tokens that end the answer; the one that does is its last.
            seen: (T',) tokens for the repetition penalty; None for those of `prompt`.
            forbidden: (V,) True for ids that may never be chosen.
            watchers: what follows the answer; called by whichever thread steps.

        Returns:
            The answer; read it to its end, or close it.

        Raises:
            InputError: if `max_tokens` is below 1, the prompt is empty or not in the vocabulary,
                the session has a request already, or the batcher is closed.
            ContextOverflow: if the prompt does not fit the session's context.
            EngineBusy: if as many requests are open as may be.
        """
        if max_tokens is not None and max_tokens < 1:
            raise InputError(f"max_tokens is {max_tokens}, must be 1 or more")
        tokens = check_tokens(prompt, self._vocab_size)
        job = Job(
            session=session,
            tokens=tokens,
            sampler=Sampler(
                sampling,
                seen=tokens if seen is None else seen,
                forbidden=forbidden,
                watchers=watchers,
            ),
            stop_ids=stop_ids,
            max_tokens=max_tokens,
            news=threading.Condition(self._lock),
            seen=tokens if seen is None else seen,
        )
        with self._lock:
            self._check_place(session)
            check_fits(session.length, tokens.size, session.context)
            self._open.append(job)
            if len(self._open) > 1:
                self._start_worker()
            self._change.notify_all()
        return Request(job, take=self._take, cancel=self._cancel, stop=self._stop)

    def generate(
        self,
        session: Session,
        prompt: TokenArray,
        *,
        max_tokens: int | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        stop_ids: Collection[int] = (),
        seen: TokenArray | None = None,
        forbidden: NDArray[np.bool_] | None = None,
    ) -> Generator[int]:
        """Do as `submit` when the first token is asked for, and close with the generator.

        Args:
            session: as in `submit`.
            prompt: as in `submit`.
            max_tokens: as in `submit`.
            sampling: as in `submit`.
            stop_ids: as in `submit`.
            seen: as in `submit`.
            forbidden: as in `submit`.

        Yields:
            Token ids.

        Raises:
            InputError: as in `submit`, or if the batcher is closed before the answer ended.
            OnhandError: as in `submit`, or what the engine raised.
        """
        request = self.submit(
            session,
            prompt,
            max_tokens=max_tokens,
            sampling=sampling,
            stop_ids=stop_ids,
            seen=seen,
            forbidden=forbidden,
        )
        try:
            yield from request
            if request.finish_reason == "cancelled":
                raise InputError("the model was closed before the answer ended; open it again")
        finally:
            request.close()

    def drain(self) -> None:
        """Take no more requests, and wait until those that are open were computed to their end."""
        with self._lock:
            self._is_closed = True
            if self._open:
                self._start_worker()
            self._change.notify_all()
            while self._open:
                self._change.wait()

    def close(self) -> None:
        """Take no more requests, and cancel those that are open; safe to call twice."""
        with self._lock:
            self._is_closed = True
            for job in list(self._open):
                self._mark_cancelled(job)
            while self._open:
                self._change.wait()
            worker = self._worker
        if worker is not None:
            worker.join()

    def _check_place(self, session: Session) -> None:
        if self._is_closed:
            raise InputError("the batcher is closed; open another")
        if any(job.session is session for job in self._open):
            raise InputError("the session has a request that has not ended; close that one first")
        limits = self._limits
        if len(self._open) >= limits.max_active + limits.max_waiting:
            raise EngineBusy(
                f"{len(self._open)} requests are open, of which {limits.max_active} may run and "
                f"{limits.max_waiting} wait; ask again when one has ended"
            )

    def _take(self, job: Job) -> int:
        # The next token, computed here if nobody else is about.
        while True:
            with self._lock:
                if job.chosen:
                    if self._rests(job):
                        self._change.notify_all()
                    return job.chosen.popleft()
                if job.error is not None:
                    error, job.error = job.error, None
                    raise error
                if job.finish_reason is not None:
                    raise StopIteration
                is_alone = self._worker is None and not self._is_stepping and len(self._open) == 1
                batch = self._claim() if is_alone else []
                if not batch:
                    job.news.wait()
                    continue
            self._run(batch)

    def _cancel(self, job: Job) -> None:
        with self._lock:
            self._mark_cancelled(job)

    def _stop(self, job: Job) -> None:
        with self._lock:
            self._mark_cancelled(job)
            while job.finish_reason is None:
                job.news.wait()
            job.chosen.clear()
            job.error = None

    def _mark_cancelled(self, job: Job) -> None:
        if job.finish_reason is None:
            job.is_cancelled = True
            if not job.in_step:
                self._finish(job, "cancelled")

    def _rests(self, job: Job) -> bool:
        return len(job.chosen) >= self._limits.max_ahead and not self._is_closed

    def _start_worker(self) -> None:
        if self._worker is None:
            # What nobody closed must not keep the process from ending.
            self._worker = threading.Thread(target=self._work, name="onhand-batcher", daemon=True)
            self._worker.start()

    def _work(self) -> None:
        while batch := self._next_batch():
            self._run(batch)

    def _next_batch(self) -> list[tuple[Job, int]]:
        """Wait for the worker's next step; empty when it is no longer needed."""
        with self._lock:
            while len(self._open) > 1 or (self._open and self._is_closed):
                if not self._is_stepping and (batch := self._claim()):
                    return batch
                self._change.wait()
            self._worker = None
            for job in self._open:
                job.news.notify_all()  # its reader goes on by itself
            return []

    def _claim(self) -> list[tuple[Job, int]]:
        """Plan a step, and mark it as begun if there is anything in it."""
        for job in self._open:
            if self._rests(job):
                job.chosen_s = None  # how long it rests is its reader's choice
        turns = [
            Turn(0 if self._rests(job) else job.tokens.size, job.is_prompt) for job in self._open
        ]
        if self._n_begun:
            self._n_begun = min(self._n_begun, sum(not job.is_prompt for job in self._open))
        plan = plan_step(turns, self._limits, self._pace, n_begun=self._n_begun)
        batch = [(job, n) for job, n in zip(self._open, plan, strict=True) if n > 0]
        for job, _ in batch:
            job.in_step = True
        self._is_stepping = bool(batch)
        return batch

    def _run(self, batch: Sequence[tuple[Job, int]]) -> None:
        """Do a step that was claimed; the lock is free meanwhile."""
        prompts = [n for job, n in batch if job.is_prompt]
        # What an interrupted step leaves behind.
        outcomes: list[Outcome] = [EngineError("the step was interrupted")] * len(batch)
        begun_s = self._clock()
        try:
            outcomes = self.stepper.step(batch)
        finally:
            ended_s = self._clock()
            seconds = ended_s - begun_s
            with self._lock:
                self._is_stepping = False
                if not any(isinstance(outcome, OnhandError) for outcome in outcomes):
                    self._log.step(
                        begun_s,
                        ended_s,
                        answers=[job for job, _ in batch if not job.is_prompt],
                        prompts=[job for job, _ in batch if job.is_prompt],
                        n_tokens=_n_tokens(outcomes) if len(batch) == 1 else 1,
                    )
                    self._pace = self._pace.after(
                        seconds,
                        n_answers=len(batch) - len(prompts),
                        n_prompt_tokens=sum(prompts),
                    )
                for (job, n), outcome in zip(batch, outcomes, strict=True):
                    self._settle(job, n, outcome)
                self._change.notify_all()

    def _settle(self, job: Job, n: int, outcome: Outcome) -> None:
        job.in_step = False
        if isinstance(outcome, OnhandError):
            self._finish(job, "error", outcome)
        elif job.is_cancelled:
            self._finish(job, "cancelled")
        elif not outcome:
            job.tokens = job.tokens[n:]
        # A stop token is the last of a step's, and so is one that has no room behind it.
        elif reason := [job.accept(token) for token in outcome][-1]:
            self._finish(job, reason)
        job.news.notify_all()

    def _finish(self, job: Job, reason: RequestEnd, error: OnhandError | None = None) -> None:
        job.finish_reason = reason
        job.error = error
        self._open.remove(job)
        job.news.notify_all()
        self._change.notify_all()


def _n_tokens(outcomes: Sequence[Outcome]) -> int:
    return sum(len(one) for one in outcomes if isinstance(one, list))
