"""What a lesson's graph computes, held against another's gradients before a bundle is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import EngineError
from onhand.device.learning.base import Feeds, Taught, Values

__all__ = ["STEPS", "TOLERANCE", "Checked", "Teach", "check_gradients"]

Teach = Callable[[Values, Feeds], Taught]
"""Loss and gradients at some values of the trainables, for one batch."""
TOLERANCE: Final = 1e-4
"""Largest relative distance of a gradient."""
STEPS: Final = 50
# What both lose in float32 is a share of the largest gradient, about 1e-7 of it: one that is nearly
# zero, as that of the keys' bias in attention, is nothing but that.
_FLOOR: Final = 1e-3
_LEAST_LOSS: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a check found.

    Attributes:
        gradient_error: the largest relative distance of any gradient, at the start and at a
            shifted one.
        loss_error: the largest relative distance of a loss, over all steps.
        value_error: the largest relative distance of what was learned, after the last step.
        n_steps: steps taken.
    """

    gradient_error: float
    loss_error: float
    value_error: float
    n_steps: int

    def to_json(self) -> dict[str, object]:
        """Return plain numbers for a report."""
        return {
            "gradient_error": self.gradient_error,
            "loss_error": self.loss_error,
            "n_steps": self.n_steps,
            "value_error": self.value_error,
        }


def check_gradients(
    ours: Teach,
    theirs: Teach,
    start: Values,
    batches: Sequence[Feeds],
    *,
    steps: int = STEPS,
    learning_rate: float | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> Checked:
    """Compare every gradient, and then where plain gradient descent leads to.

    Gradients are compared at the start and near it, as some are zero at the start: those of LoRA's
    first factors. Each side then goes its own way for some steps.

    Args:
        ours: the lesson's graph.
        theirs: an independent computation of the same.
        start: the trainables' starting values.
        batches: taken in turn, at least one.
        steps: of descent.
        learning_rate: of descent; None for one that moves the values by a hundredth of their own
            length in all steps together.
        seed: of the shift.
        tolerance: largest relative distance of a gradient; more where activations are rounded, as
            one that lies between two codes may be rounded to either.

    Returns:
        How far apart they were.

    Raises:
        EngineError: if a gradient, a loss or a value is further away than float32 explains, or
            is not finite.
    """
    worst = 0.0
    for values in (start, _shifted(start, seed)):
        for feeds in batches[:2]:
            worst = max(worst, _compare(ours(values, feeds), theirs(values, feeds), tolerance))
    rate = learning_rate or (_rate(theirs, start, batches[0], steps) if steps else 0.0)
    first, second = dict(start), dict(start)
    loss_error = 0.0
    for step in range(steps):
        feeds = batches[step % len(batches)]
        a, b = ours(first, feeds), theirs(second, feeds)
        apart = abs(a.loss - b.loss) / max(abs(b.loss), _LEAST_LOSS)
        loss_error = max(loss_error, apart)
        if not apart <= tolerance * 10:
            raise EngineError(
                f"the lesson's loss is {a.loss:.7g} after {step} steps, PyTorch's {b.loss:.7g}: "
                "the bundle is not written"
            )
        first = {name: value - rate * a.gradients[name] for name, value in first.items()}
        second = {name: value - rate * b.gradients[name] for name, value in second.items()}
    return Checked(
        gradient_error=worst,
        loss_error=loss_error,
        value_error=_values_apart(start, first, second, tolerance),
        n_steps=steps,
    )


def _compare(ours: Taught, theirs: Taught, tolerance: float) -> float:
    """Return the largest relative distance of a gradient.

    Raises:
        EngineError: if it is over the tolerance.
    """
    lengths = {name: _length(value) for name, value in theirs.gradients.items()}
    floor = max(max(lengths.values()) * _FLOOR, 1e-12)
    worst = 0.0
    for name, right in theirs.gradients.items():
        found = ours.gradients[name]
        if found.shape != right.shape:
            raise EngineError(f"the gradient of {name!r} is {found.shape}, must be {right.shape}")
        apart = _length(found.astype(np.float64) - right) / max(lengths[name], floor)
        if not apart <= tolerance:  # so that what is no number is refused as well
            raise EngineError(
                f"the gradient of {name!r} is {apart:.2g} away from PyTorch's, at most "
                f"{tolerance:g} is rounding: the bundle is not written"
            )
        worst = max(worst, apart)
    return worst


def _values_apart(start: Values, first: Values, second: Values, tolerance: float) -> float:
    """Return how far two ways ended from each other, relative to how far they led.

    Raises:
        EngineError: if they ended apart.
    """
    worst = 0.0
    moved = {name: _length(value - start[name]) for name, value in second.items()}
    longest = max(moved.values(), default=0.0)
    for name, value in second.items():
        apart = _length(first[name] - value) / max(moved[name], longest * 1e-3, 1e-12)
        worst = max(worst, apart)
        if not apart <= tolerance * 100:
            raise EngineError(
                f"what was learned of {name!r} is {apart:.2g} away from PyTorch's after all steps: "
                "the bundle is not written"
            )
    return worst


def _rate(theirs: Teach, start: Values, feeds: Feeds, steps: int) -> float:
    """Return a learning rate that is sure not to leave the neighbourhood of the start."""
    gradients = theirs(start, feeds).gradients
    slope = float(np.sqrt(sum(_length(value) ** 2 for value in gradients.values())))
    size = float(np.sqrt(sum(_length(value) ** 2 for value in start.values())))
    return 0.01 * max(size, 1.0) / (max(slope, 1e-12) * max(steps, 1))


def _shifted(start: Values, seed: int) -> dict[str, FloatArray]:
    random = np.random.default_rng(seed)
    shifted: dict[str, FloatArray] = {}
    for name, value in start.items():
        spread = 0.05 * float(np.sqrt(np.mean(np.square(value)))) if value.size else 0.0
        noise = random.normal(0.0, spread or 0.02, value.shape)
        shifted[name] = (value + noise).astype(np.float32)
    return shifted


def _length(array: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(array, dtype=np.float64)))
