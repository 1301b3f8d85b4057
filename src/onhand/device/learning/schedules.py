"""Learning rates over the steps of a training."""

import math
from dataclasses import dataclass
from typing import Final

from onhand.core.errors import InputError

__all__ = ["SCHEDULES", "Schedule"]

SCHEDULES: Final = ("constant", "cosine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A learning rate for each step.

    Attributes:
        rate: the highest.
        kind: after the warm-up: "constant", or "cosine" down to `last_share` at the last step.
        n_warmup: steps over which the rate grows from nothing.
        last_share: of `rate`, what "cosine" ends with.

    Source:
        Cosine: arXiv:1608.03983, without restarts; warm-up: arXiv:1706.02677.
    """

    rate: float
    kind: str = "constant"
    n_warmup: int = 0
    last_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 100:
            raise InputError(f"learning rate is {self.rate}, must be above 0 and at most 100")
        if self.kind not in SCHEDULES:
            raise InputError(f"schedule is {self.kind!r}, must be one of {', '.join(SCHEDULES)}")
        if self.n_warmup < 0 or not 0 <= self.last_share <= 1:
            raise InputError(
                f"schedule: {self.n_warmup} steps of warm-up and a last share of "
                f"{self.last_share}, must be 0 or more, and from 0 to 1"
            )

    def at(self, number: int, n_steps: int) -> float:
        """Return the rate of a step.

        Args:
            number: of the step, from 1 on.
            n_steps: of the whole training.

        Returns:
            Above 0 in the warm-up; the last step has `rate * last_share` if "cosine".
        """
        if number <= self.n_warmup:
            return self.rate * number / (self.n_warmup + 1)
        if self.kind == "constant":
            return self.rate
        whole = max(n_steps - self.n_warmup, 1)
        done = min((number - self.n_warmup) / whole, 1.0)
        share = self.last_share + (1 - self.last_share) * 0.5 * (1 + math.cos(math.pi * done))
        return self.rate * share
