"""A trainer of a small classifier, and a progress that remembers."""

# Python has `typing.override` from 3.12 on.
# mypy: disable-error-code="explicit-override"

import time
from collections.abc import Callable
from pathlib import Path

from tests.device.learning.models import LinearTeachable, Naive, Points, three_clouds

from onhand.core.progress import Quiet
from onhand.device.learning.methods.base import Method
from onhand.device.learning.schedules import Schedule
from onhand.device.learning.trainer import Trainer
from onhand.device.learning.training import Plan

PLAN = Plan(n_steps=40, batch=8, schedule=Schedule(rate=0.1), seed=3)


class Noting(Quiet):
    """Keeps what it was told."""

    def __init__(self) -> None:
        """Start empty."""
        self.notes: list[str] = []
        self.done = 0.0

    def advance(self, amount: float) -> None:
        """Count."""
        self.done += amount

    def note(self, text: str) -> None:
        """Keep."""
        self.notes.append(text)


def trainer_of(
    source: Points | None = None,
    plan: Plan = PLAN,
    *,
    teachable: LinearTeachable | None = None,
    method: Method | None = None,
    folder: Path | None = None,
    fingerprint: str = "",
    clock: Callable[[], float] = time.monotonic,
    energy_j: Callable[[], float] | None = None,
) -> Trainer:
    """A trainer of the linear classifier."""
    return Trainer(
        teachable or LinearTeachable(),
        source or three_clouds(),
        plan,
        method=method or Naive(),
        width=3,
        folder=folder,
        fingerprint=fingerprint,
        clock=clock,
        energy_j=energy_j,
    )
