"""What a way to learn without forgetting may change in a step."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.device.learning.base import Feeds, Taught, Values

__all__ = ["Method", "Naive"]


class Method(Protocol):
    """A way to learn. What it draws it draws from the generator that it is given."""

    @property
    def name(self) -> str:
        """As `onhand learn --method` takes it."""
        ...

    def batch(self, feeds: Feeds, values: Values, draws: np.random.Generator) -> Feeds:
        """Return what is taught in place of new examples: those and, say, some of the past."""
        ...

    def adjust(self, values: Values, gradients: Values) -> Mapping[str, FloatArray]:
        """Return gradients with those of a penalty added, or projected; before they are clipped."""
        ...

    def after_step(
        self, values: Values, feeds: Feeds, taught: Taught, draws: np.random.Generator
    ) -> None:
        """See what was taught, new examples alone, and the values after the step."""
        ...

    def state(self) -> Mapping[str, np.ndarray]:
        """Return all that `restore` needs."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become what `state` was of."""
        ...


class Naive:
    """Learns what is new and does nothing for what was: what others are compared with."""

    @property
    def name(self) -> str:
        """See `Method`."""
        return "naive"

    def batch(self, feeds: Feeds, values: Values, draws: np.random.Generator) -> Feeds:
        """Return the new examples alone."""
        return feeds

    def adjust(self, values: Values, gradients: Values) -> Mapping[str, FloatArray]:
        """Return the gradients as they are."""
        return gradients

    def after_step(
        self, values: Values, feeds: Feeds, taught: Taught, draws: np.random.Generator
    ) -> None:
        """Do nothing."""

    def state(self) -> Mapping[str, np.ndarray]:
        """Return nothing."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Do nothing."""
