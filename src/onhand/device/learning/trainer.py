"""The loop over steps: durable after each, within ceilings, ended by whoever interrupts it."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Literal

from onhand.core.errors import InputError, ResourceError
from onhand.core.progress import Progress, Quiet
from onhand.device.learning.base import Teachable, Values
from onhand.device.learning.ceilings import GO, Permit, Spent
from onhand.device.learning.durable import Generations
from onhand.device.learning.kept_training import restored, saved
from onhand.device.learning.methods.base import Method
from onhand.device.learning.training import Plan, Source, Stepped, Training, take_step

__all__ = ["Ended", "Trainer", "interrupts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run of a training ended.

    Attributes:
        kind: "done", "interrupted", or at a "ceiling".
        why: of a ceiling, for people; "" else.
        training: all that was learned; it is on disk too, where there is a folder.
    """

    kind: Literal["done", "interrupted", "ceiling"]
    why: str
    training: Training


class Trainer:
    """Trains, step by step. One thread at a time.

    Attributes:
        training: all that it is now.
        is_resumed: whether it goes on from where an earlier run was.
        notes: what was found damaged, a sentence each.
    """

    def __init__(
        self,
        teachable: Teachable,
        source: Source,
        plan: Plan,
        *,
        method: Method,
        width: int,
        known: int | None = None,
        values: Values | None = None,
        folder: Path | None = None,
        fingerprint: str = "",
        before_begin: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        energy_j: Callable[[], float] | None = None,
    ) -> None:
        """Begin a training, or go on with the one that was kept.

        Args:
            teachable: gives loss and gradients.
            source: the examples.
            plan: how it goes.
            method: how it learns without forgetting; it may remember something already.
            width: classes that are told apart, or tokens of the vocabulary.
            known: how many of the classes were known before; None for all.
            values: to begin with, a head grown already; None for the lesson's own.
            folder: where the state is kept after each step; None for nowhere.
            fingerprint: of all that decides the training: another one begins anew.
            before_begin: called before a new training begins, as to let the method remember.
            clock: seconds that only grow.
            energy_j: joules that only grow; None where nobody measures.

        Raises:
            ResourceError: if the state cannot be read.
            InputError: if it is not one of a training.
        """
        self._teachable = teachable
        self._source = source
        self._plan = plan
        self._method = method
        self._kept = None if folder is None else Generations(folder)
        self._fingerprint = fingerprint
        self._clock = clock
        self._energy_j = energy_j
        self._last_step_s = self._write_s = 0.0
        self.notes: list[str] = []
        self.is_resumed = False
        before = None if self._kept is None else self._resumed(self._kept)
        if before is None:
            before_begin()
            given = teachable.start() if values is None else dict(values)
            begun = method.begin(teachable, given, width=width, known=known)
            self.training = self._unlearned(begun)
            self._keep(self.training)
            return
        if before.values.keys() != teachable.lesson.trainables.keys():
            raise InputError("the state of this training is of another lesson; remove its folder")
        self.training = before
        self.is_resumed = True

    def _unlearned(self, begun: Values) -> Training:
        return Training(
            values=begun,
            begun=begun if self._plan.n_repeats > 1 else {},
            energy_j=None if self._energy_j is None else 0.0,
        )

    def _resumed(self, kept: Generations) -> Training | None:
        found, self.notes = kept.read()
        if found is None:
            return None
        before = restored(found, self._method, fingerprint=self._fingerprint)
        if before is None:
            kept.forget()
            self.notes.append("another training was kept there; it is replaced")
        return before

    def _keep(self, training: Training) -> None:
        if self._kept is not None:
            self._kept.write(saved(training, self._method, fingerprint=self._fingerprint))

    @property
    def method(self) -> Method:
        """How it learns without forgetting."""
        return self._method

    @property
    def spent(self) -> Spent:
        """What all runs of it took so far."""
        training = self.training
        return Spent(
            seconds=training.seconds, energy_j=training.energy_j, last_step_s=self._last_step_s
        )

    @property
    def is_done(self) -> bool:
        """Whether all its steps were made, and the method ended its session."""
        return self.training.is_ended

    @property
    def n_steps(self) -> int:
        """Of the whole training; a method that does not train sees each example once."""
        if self._method.trains:
            return self._plan.n_all
        return -(-len(self._source) // (self._plan.batch * self._plan.accumulate))

    def step(self) -> Stepped:
        """Make one step, and put all on disk.

        Raises:
            OnhandError: as `take_step`, or if the disk is full; the step before stays.
        """
        begun, joules = self._clock(), self._joules()
        after, stepped = take_step(
            self.training,
            teachable=self._teachable,
            source=self._source,
            plan=self._plan,
            method=self._method,
        )
        computed = self._clock()
        self._last_step_s = computed - begun
        energy_j = self.training.energy_j
        if energy_j is not None:
            energy_j += self._joules() - joules
        # What writing a state took can only be in the next one.
        seconds = self.training.seconds + self._write_s + self._last_step_s
        after = replace(after, seconds=seconds, energy_j=energy_j)
        self._keep(after)
        self._write_s = self._clock() - computed
        self.training = after
        return stepped

    def end(self) -> Training:
        """End the session, once all steps are made.

        Returns:
            What was learned.

        Raises:
            OnhandError: as `step`.
        """
        if not self.training.is_ended:
            values = self._method.end(self._teachable, self.training.learned)
            after = replace(self.training, values=values, is_ended=True)
            self._keep(after)
            self.training = after
        return self.training

    def run(
        self,
        *,
        permit: Permit = lambda _: GO,
        is_interrupted: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Ended:
        """Make all steps that are left, or as many as may be.

        Args:
            permit: asked before each step.
            is_interrupted: asked likewise.
            progress: told of each step, and why it waits.
            sleep: waits some seconds.

        Returns:
            How it ended.

        Raises:
            ResourceError: if a ceiling lets not even the first step begin.
            OnhandError: as `step`.
        """
        shown = progress or Quiet()
        shown.start("learning", max(self.n_steps, 1))
        shown.advance(self.training.step)
        told = ""
        while self.training.step < self.n_steps and not self.is_done:
            if is_interrupted():
                return Ended(kind="interrupted", why="", training=self.training)
            asked = permit(self.spent)
            if asked.kind == "end":
                if not self.training.step:
                    raise ResourceError(f"nothing was learned: {asked.why}; give it more")
                return Ended(kind="ceiling", why=asked.why, training=self.training)
            if asked.kind == "wait":
                if asked.why and asked.why != told:
                    shown.note(f"learning waits: {asked.why}")
                told = asked.why or told
                sleep(asked.wait_s)
                continue
            stepped = self.step()
            if stepped.skipped:
                shown.note(f"step {self.training.step} was skipped: {stepped.skipped}")
            shown.advance(1)
        return Ended(kind="done", why="", training=self.end())

    def _joules(self) -> float:
        return 0.0 if self._energy_j is None else self._energy_j()


@contextmanager
def interrupts(*, told: Callable[[], object] | None = None) -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C end a training after the step that it is in; a second one ends the program.

    Outside of the main thread signals are somebody else's: nothing is changed there.

    Args:
        told: called at the first one, within the signal's handler: it must not use buffers.

    Yields:
        Says whether somebody interrupted.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)
        if told is not None:
            told()

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
