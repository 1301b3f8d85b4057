"""What is refused before it changes a model: losses and gradients that are no numbers."""

from dataclasses import dataclass, replace

import numpy as np

from onhand.core.errors import EngineError, InputError
from onhand.device.learning.base import Taught

__all__ = ["Guard", "why_not_finite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Counts steps that were skipped, and ends a training where too many follow each other.

    Attributes:
        most_in_row: skipped steps that may follow each other.
        skipped: of the whole training.
        in_row: that just followed each other.
    """

    most_in_row: int = 5
    skipped: int = 0
    in_row: int = 0

    def __post_init__(self) -> None:
        if self.most_in_row < 1:
            raise InputError(f"most_in_row is {self.most_in_row}, must be 1 or more")

    def passed(self) -> "Guard":
        """Return the guard after a step that counts."""
        return replace(self, in_row=0)

    def skip(self, why: str) -> "Guard":
        """Return the guard after a step that was skipped.

        Args:
            why: what was not finite.

        Raises:
            EngineError: if too many followed each other.
        """
        after = replace(self, skipped=self.skipped + 1, in_row=self.in_row + 1)
        if after.in_row >= self.most_in_row:
            raise EngineError(
                f"training: {why} in {after.in_row} steps in a row, so it ended; what was learned "
                "before is kept: lower the learning rate, or look at the last examples"
            )
        return after


def why_not_finite(taught: Taught) -> str:
    """Say what of a step is no finite number.

    Args:
        taught: of a step.

    Returns:
        "" where all is finite, else what is not, in words.
    """
    if not np.isfinite(taught.loss):
        return f"the loss was {taught.loss}"
    for name, gradient in taught.gradients.items():
        # One sum is a tenth of the work of looking at each: it is finite if all are, but for
        # sums beyond float32, which the second look clears.
        if not np.isfinite(gradient.sum(dtype=np.float64)) and not np.isfinite(gradient).all():
            return f"the gradient of {name!r} was not finite"
    return ""
