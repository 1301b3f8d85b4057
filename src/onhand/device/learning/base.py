"""What learning needs of a model: a loss, what it answered, and gradients."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.lesson import Lesson

__all__ = ["Answering", "Feeds", "Taught", "Teachable", "Values"]

Values = Mapping[str, FloatArray]
"""Name of a trainable -> its value."""
Feeds = Mapping[str, np.ndarray]
"""Name of an input of the lesson's graph that is no trainable -> its value: see `core.lesson`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What one run of a lesson's graph gave.

    Attributes:
        loss: of the whole batch.
        outputs: "logprobs" (R, K), or "losses" (B,) and "logits" (B, C).
        gradients: of the loss, for each trainable.
    """

    loss: float
    outputs: Mapping[str, FloatArray]
    gradients: Mapping[str, FloatArray]


class Teachable(Protocol):
    """A bundle's lesson, opened. One thread at a time."""

    @property
    def lesson(self) -> Lesson:
        """What can be learned."""
        ...

    def start(self) -> dict[str, FloatArray]:
        """Return the trainables' starting values; the caller's own."""
        ...

    def latent(self, inputs: Feeds) -> FloatArray:
        """Run the trunk.

        Args:
            inputs: the network's own inputs.

        Returns:
            (B, ...) float32, to be fed as `latent`.

        Raises:
            InputError: if the lesson has no trunk, or an input does not fit.
        """
        ...

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """Compute a loss and its gradients.

        Args:
            values: of every trainable; one that grows may have more classes than it started with.
            feeds: the other inputs of the lesson's graph.

        Raises:
            InputError: if something is missing or does not fit.
            EngineError: if the graph fails.
        """
        ...

    def close(self) -> None:
        """Release the weights; safe to call twice."""
        ...


@runtime_checkable
class Answering(Protocol):
    """A `Teachable` that can leave gradients out, which saves most of the time. Some are."""

    def answer(self, values: Values, feeds: Feeds) -> Taught:
        """Compute what `teach` does, without gradients; see there."""
        ...
