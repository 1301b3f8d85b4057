"""Optimizers in numpy: a value and its gradient in, the next value out; their state is arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.base import Values

__all__ = ["OPTIMIZERS", "AdamW", "Optimizer", "Sgd", "make_optimizer"]

_PIECE: Final = 65536
"""Values at a time: what is in between stays in the cache, and needs no new pages."""

Kept = Mapping[str, FloatArray]
"""Name of what is kept and of the trainable, as "first.NAME" -> an array of its shape."""


class Optimizer(Protocol):
    """How gradients become steps. Has no state: what it keeps is handed in and out."""

    name: ClassVar[str]
    kept: ClassVar[tuple[str, ...]]
    """What it keeps of each trainable."""

    def step(
        self, values: Values, gradients: Values, kept: Kept, *, rate: float
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Make one step.

        Args:
            values: of every trainable.
            gradients: likewise.
            kept: what the step before returned; empty before the first one. A trainable that has
                grown since begins anew.
            rate: learning rate.

        Returns:
            The next values, and what is to be kept; new arrays.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sgd:
    """Stochastic gradient descent, with momentum.

    Attributes:
        momentum: of the direction before, what is kept; 0 for none.
        nesterov: whether the gradient is added once more to the direction.
        decay: of the value, added to the gradient.

    Source:
        As `torch.optim.SGD` computes it, dampening 0. Nesterov: Sutskever and others, ICML 2013.
    """

    name: ClassVar[str] = "sgd"
    kept: ClassVar[tuple[str, ...]] = ("momentum",)
    momentum: float = 0.9
    nesterov: bool = False
    decay: float = 0.0

    def __post_init__(self) -> None:
        _check_share("momentum", self.momentum)
        _check_decay(self.decay)
        if self.nesterov and not self.momentum:
            raise InputError("sgd: nesterov needs a momentum above 0")

    def step(
        self, values: Values, gradients: Values, kept: Kept, *, rate: float
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """See `Optimizer`."""
        made: dict[str, FloatArray] = {}
        keeps: dict[str, FloatArray] = {}
        for name, value in values.items():
            slope = gradients[name]
            if self.decay:
                slope = slope + np.float32(self.decay) * value
            if self.momentum:
                before = _known(kept, "momentum", name, value)
                way = slope if before is None else np.float32(self.momentum) * before + slope
                keeps[f"momentum.{name}"] = way.astype(np.float32)
                slope = slope + np.float32(self.momentum) * way if self.nesterov else way
            made[name] = (value - np.float32(rate) * slope).astype(np.float32)
        return made, keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay, and its bias corrected.

    Attributes:
        first: what is kept of the mean of gradients.
        second: what is kept of the mean of their squares.
        epsilon: added to what is divided by.
        decay: of the value, taken from it in each step, times the rate.

    Source:
        arXiv:1711.05101, algorithm 2; as `torch.optim.AdamW` computes it.
    """

    name: ClassVar[str] = "adamw"
    kept: ClassVar[tuple[str, ...]] = ("first", "second", "steps")
    first: float = 0.9
    second: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.01

    def __post_init__(self) -> None:
        _check_share("first", self.first)
        _check_share("second", self.second)
        _check_decay(self.decay)
        if not self.epsilon > 0:
            raise InputError(f"adamw: epsilon is {self.epsilon}, must be above 0")

    def step(
        self, values: Values, gradients: Values, kept: Kept, *, rate: float
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """See `Optimizer`."""
        made: dict[str, FloatArray] = {}
        keeps: dict[str, FloatArray] = {}
        for name, value in values.items():
            slope = gradients[name]
            mean = _known(kept, "first", name, value)
            square = _known(kept, "second", name, value)
            # Counted for each: one that began anew is corrected as one that is new.
            done = 0.0 if mean is None or square is None else float(kept[f"steps.{name}"][0])
            if mean is None or square is None:
                mean, square = np.zeros_like(value), np.zeros_like(value)
            done += 1
            made[name], mean, square = self._moved(value, slope, mean, square, rate, done)
            keeps[f"first.{name}"], keeps[f"second.{name}"] = mean, square
            keeps[f"steps.{name}"] = np.array([done], dtype=np.float32)
        return made, keeps

    def _moved(
        self,
        value: FloatArray,
        slope: FloatArray,
        mean: FloatArray,
        square: FloatArray,
        rate: float,
        done: float,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the next value and both means, made a piece at a time that stays in the cache."""
        found = tuple(np.empty(value.shape, dtype=np.float32) for _ in range(3))
        flat = [np.ravel(array) for array in (value, slope, mean, square)]
        to = [np.reshape(array, -1) for array in found]
        first, second = np.float32(self.first), np.float32(self.second)
        new_first, new_second = np.float32(1 - self.first), np.float32(1 - self.second)
        size = np.float32((1 - self.second**done) ** -0.5)
        step, shrink = np.float32(rate / (1 - self.first**done)), np.float32(1 - rate * self.decay)
        epsilon = np.float32(self.epsilon)
        for start in range(0, value.size, _PIECE):
            piece = slice(start, start + _PIECE)
            old, by, average, power = (array[piece] for array in flat)
            new, next_average, next_power = (array[piece] for array in to)
            np.add(first * average, new_first * by, out=next_average)
            np.add(second * power, new_second * by * by, out=next_power)
            way = np.sqrt(next_power)
            way *= size
            way += epsilon
            np.divide(next_average, way, out=way)
            way *= step
            np.multiply(old, shrink, out=new)
            new -= way
        return found[0], found[1], found[2]


OPTIMIZERS: Final = (AdamW.name, Sgd.name)


def make_optimizer(name: str) -> Optimizer:
    """Return an optimizer with its usual settings.

    Args:
        name: one of `OPTIMIZERS`.

    Raises:
        InputError: if there is no such optimizer.
    """
    if name == AdamW.name:
        return AdamW()
    if name == Sgd.name:
        return Sgd()
    raise InputError(f"optimizer is {name!r}, must be one of {', '.join(OPTIMIZERS)}")


def _known(kept: Kept, what: str, name: str, value: FloatArray) -> FloatArray | None:
    """Return what was kept of a trainable; None where nothing was, or of another shape."""
    found = kept.get(f"{what}.{name}")
    return found if found is not None and found.shape == value.shape else None


def _check_share(what: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(f"{what} is {value}, must be from 0 to below 1")


def _check_decay(value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(f"decay is {value}, must be from 0 to below 1")
