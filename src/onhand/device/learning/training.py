"""One step of a training, from one state to the next: nothing else decides what comes out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.base import Feeds, Taught, Teachable, Values
from onhand.device.learning.clipping import Clipping, global_norm
from onhand.device.learning.guards import Guard, why_not_finite
from onhand.device.learning.like_lengths import by_length, examples_by_length
from onhand.device.learning.methods.base import Method
from onhand.device.learning.optimizers import AdamW, Optimizer
from onhand.device.learning.order import Place, take
from onhand.device.learning.schedules import Schedule

__all__ = ["MOST_LOSSES", "Plan", "Source", "Stepped", "Training", "take_step"]

MOST_LOSSES: Final = 4096
"""Losses that a state keeps: of the last steps."""


class Source(Protocol):
    """Examples, ready to be fed. One thread at a time."""

    def __len__(self) -> int:
        """Return how many there are; it may grow, never shrink."""
        ...

    def weight(self, number: int) -> float:
        """Return what an example counts: its tokens that are learned, or 1 for a class."""
        ...

    def feeds(self, numbers: Sequence[int], *, scale: float) -> Feeds:
        """Return one batch.

        Args:
            numbers: of the examples.
            scale: factor on each of their weights.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a training goes.

    Attributes:
        n_steps: of the optimizer.
        batch: examples in one run of the graph.
        accumulate: runs whose gradients make one step.
        schedule: the learning rate.
        optimizer: turns gradients into steps.
        clipping: bounds of gradients.
        seed: decides the order of examples, and what a method draws.
        n_averaged: steps, the last ones, after which values are averaged: their mean is what is
            learned; 0 for the values after the last step.
        n_repeats: times that all steps are made, each time from the same values and with other
            draws: the mean of what all end with is learned.

    Source:
        Averages of weights along a training: Izmailov and others 2018, arXiv:1803.05407; of several
        trainings: Wortsman and others 2022, arXiv:2203.05482.
    """

    n_steps: int
    batch: int = 8
    accumulate: int = 1
    schedule: Schedule = field(default_factory=lambda: Schedule(rate=1e-3))
    optimizer: Optimizer = field(default_factory=AdamW)
    clipping: Clipping = field(default_factory=Clipping)
    seed: int = 0
    n_averaged: int = 0
    n_repeats: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.n_averaged <= self.n_steps:
            raise InputError(
                f"training: {self.n_averaged} steps are averaged, must be 0 to {self.n_steps}"
            )
        for name, value in (
            ("steps", self.n_steps),
            ("batch", self.batch),
            ("accumulate", self.accumulate),
            ("repeats", self.n_repeats),
        ):
            if value < 1:
                raise InputError(f"training: {name} is {value}, must be 1 or more")
        if self.seed < 0:
            raise InputError(f"training: seed is {self.seed}, must be 0 or more")

    @property
    def n_all(self) -> int:
        """Steps of all repeats together."""
        return self.n_steps * self.n_repeats

    def is_averaged(self, number: int) -> bool:
        """Say whether the values after a step are taken into the mean.

        Args:
            number: of the step, from 1 on.
        """
        n_averaged = self.n_averaged or (1 if self.n_repeats > 1 else 0)
        return (number - 1) % self.n_steps + 1 > self.n_steps - n_averaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """All that a training is after some steps.

    Attributes:
        step: steps so far, skipped ones included.
        values: of the trainables.
        kept: what the optimizer keeps.
        place: how far the order of examples has gone.
        guard: what was skipped.
        losses: (MOST_LOSSES at most,) float64, of the last steps; NaN of those that were skipped.
        seconds: that the steps took, writing their states included.
        energy_j: joules that they took; None where nobody measures.
        n_examples: that were taught, each as often as it was.
        means: of the values after steps that are averaged; empty before the first of them.
        n_means: how many steps these are of.
        begun: the values that it began with, where it is repeated.
        is_ended: whether the method ended the session: nothing is left to do.
    """

    step: int = 0
    values: Values
    kept: Mapping[str, FloatArray] = field(default_factory=dict)
    place: Place = field(default_factory=Place)
    guard: Guard = field(default_factory=Guard)
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float64))
    seconds: float = 0.0
    energy_j: float | None = None
    n_examples: int = 0
    means: Values = field(default_factory=dict)
    n_means: int = 0
    begun: Values = field(default_factory=dict)
    is_ended: bool = False

    @property
    def learned(self) -> Values:
        """What was learned: the mean of the values, where some are averaged."""
        return self.means or self.values


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """What one step was.

    Attributes:
        loss: of its examples, before it; NaN where it was skipped.
        norm: of the gradients, before they were clipped.
        skipped: why it changed nothing; "" where it did.
        numbers: its examples.
    """

    loss: float
    norm: float
    skipped: str
    numbers: tuple[int, ...]


def take_step(
    training: Training, *, teachable: Teachable, source: Source, plan: Plan, method: Method
) -> tuple[Training, Stepped]:
    """Make one step.

    Args:
        training: the state before; left as it is.
        teachable: gives loss and gradients.
        source: the examples.
        plan: how it goes.
        method: may change what is taught, and the gradients; its own state changes with the step.

    Returns:
        The state after, and what was done.

    Raises:
        InputError: if an example does not fit the lesson.
        EngineError: if the graph fails, or too many steps in a row gave no finite numbers.
    """
    if training.begun and training.step and training.step % plan.n_steps == 0:
        training = replace(training, values=training.begun, kept={})
    numbers, place, first = take(
        training.place, plan.batch * plan.accumulate, available=len(source), seed=plan.seed
    )
    after = replace(
        training,
        step=training.step + 1,
        place=place,
        n_examples=training.n_examples + len(numbers),
    )
    batches = _batches(source, numbers, plan.batch)
    if not method.trains:
        for batch in batches:
            method.after(teachable, training.values, batch, None, first=first)
        return after, Stepped(loss=math.nan, norm=math.nan, skipped="", numbers=tuple(numbers))
    gathered = _gathered(training.values, batches, teachable, method)
    made, norm = _stepped_values(training, gathered, plan, method)
    if isinstance(made, str):
        after = replace(
            after, guard=training.guard.skip(made), losses=_with(training.losses, math.nan)
        )
        return after, Stepped(loss=math.nan, norm=norm, skipped=made, numbers=tuple(numbers))
    for batch, taught in gathered.seen:
        method.after(teachable, training.values, batch, taught, first=first)
    after = replace(
        _averaged(after, made[0], plan),
        values=made[0],
        kept=made[1],
        guard=training.guard.passed(),
        losses=_with(training.losses, gathered.loss),
    )
    return after, Stepped(loss=gathered.loss, norm=norm, skipped="", numbers=tuple(numbers))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gathered:
    """Loss and gradients of the batches of a step together; `bad` says what was not finite."""

    loss: float = math.nan
    gradients: Mapping[str, FloatArray] = field(default_factory=dict)
    seen: Sequence[tuple[Feeds, Taught]] = ()
    bad: str = ""


def _batches(source: Source, numbers: Sequence[int], size: int) -> list[Feeds]:
    """Return examples in batches; each counts as if all were in one, however many there are."""
    total = sum(source.weight(number) for number in numbers)
    return [
        source.feeds(numbers[low : low + size], scale=1 / total)
        for low in range(0, len(numbers), size)
    ]


def _gathered(
    values: Values, batches: Sequence[Feeds], teachable: Teachable, method: Method
) -> _Gathered:
    loss = 0.0
    gradients: dict[str, FloatArray] = {}
    seen: list[tuple[Feeds, Taught]] = []
    for batch in batches:
        whole = method.feeds(teachable, values, batch)
        outputs: dict[str, FloatArray] = {}
        # No method asks for what a text was answered, so that texts may be taken apart.
        is_text = teachable.lesson.feeds == "tokens"
        runs: list[tuple[Sequence[int] | np.ndarray, Feeds]] = (
            [((), run) for run in by_length(whole)] if is_text else [*examples_by_length(whole)]
        )
        for rows, run in runs:
            taught = teachable.teach(values, run)
            if bad := why_not_finite(taught):
                return _Gathered(bad=bad)
            loss += taught.loss
            for name, gradient in taught.gradients.items():
                gradients[name] = gradients[name] + gradient if name in gradients else gradient
            if len(runs) == 1:
                outputs = dict(taught.outputs)
            elif not is_text:
                _put(outputs, rows, taught.outputs, len(whole["labels"]))
        # Gradients are large, and no method asks for those of one batch.
        seen.append((batch, Taught(loss=loss, outputs=outputs, gradients={})))
    return _Gathered(loss=loss, gradients=gradients, seen=seen)


def _put(
    outputs: dict[str, FloatArray],
    rows: Sequence[int] | np.ndarray,
    found: Mapping[str, FloatArray],
    n: int,
) -> None:
    """Put what some of n examples were answered in their places."""
    for name, array in found.items():
        whole = outputs.setdefault(name, np.zeros((n, *array.shape[1:]), array.dtype))
        whole[rows] = array


def _stepped_values(
    training: Training, gathered: _Gathered, plan: Plan, method: Method
) -> tuple[tuple[dict[str, FloatArray], dict[str, FloatArray]] | str, float]:
    """Return the next values and what the optimizer keeps, or why there are none; and the norm."""
    if gathered.bad:
        return gathered.bad, math.nan
    adjusted = method.adjust(training.values, gathered.gradients)
    norm = global_norm(adjusted.values())
    if not math.isfinite(norm):
        return "the gradient with its penalties was not finite", norm
    with np.errstate(over="ignore", invalid="ignore"):
        values, kept = plan.optimizer.step(
            training.values,
            plan.clipping.clip(adjusted),
            training.kept,
            rate=plan.schedule.at(training.step % plan.n_steps + 1, plan.n_steps),
        )
    held = method.hold(training.values, values)
    for name, value in held.items():
        if not np.isfinite(value).all():
            return f"{name!r} went beyond what float32 can hold", norm
    return (held, kept), norm


def _averaged(training: Training, values: Values, plan: Plan) -> Training:
    """Take values into their mean, where those after this step are averaged."""
    if not plan.is_averaged(training.step):
        return training
    n = training.n_means + 1
    means = {
        name: (before + (value - before) / np.float32(n)).astype(np.float32)
        for name, value in values.items()
        for before in (training.means.get(name, value),)
    }
    return replace(training, means=means, n_means=n)


def _with(losses: np.ndarray, loss: float) -> np.ndarray:
    return np.append(losses[-(MOST_LOSSES - 1) :], loss)
