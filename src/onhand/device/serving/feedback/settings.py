"""`[learning]`: whether a server learns from feedback, when, and what that may take."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from onhand.core.errors import InputError
from onhand.device.learning.gate import Bounds
from onhand.device.learning.suspicion import Limits

__all__ = ["LearningSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningSettings:
    """`[learning]`: how models learn from feedback on the device.

    Attributes:
        enabled: whether feedback is taken, and learned from in idle time.
        method: how it learns without forgetting, as `onhand learn --method` takes it.
        epochs: how often each example is seen.
        rate: learning rate; 0 for what is usual.
        held_out: share of the examples that judge what was learned and are not learned.
        remember: a file of what the models can do already: most of it is for methods that hold on
            to it, a share judges what was forgotten; "" for none.
        scope: whether only prompts like those taught are answered by what is learned; if not, as
            in the version in use. Of language models.
        least_examples: new examples before a model learns.
        idle_s: seconds without any request before it begins.
        retry_s: least seconds from the end of one training of a model to its next.
        threads: of learning; 0 for half of what this process may use.
        cpu_share: share of the time in which it may compute, above 0 to 1.
        memory_bytes: that the learning process may take; 0 for no ceiling.
        most_s: seconds of steps of one training; 0 for no ceiling.
        most_energy_j: joules of steps of one training; 0 for no ceiling.
        lowest_battery: charge, 0 to 1, below which it waits for mains.
        most_lost_points: of the gate: accuracy on old examples that may be lost, in hundredths.
        most_lost_loss: of the gate: loss on old examples that may be added; 0 for no such bound.
        remember_answers: answers of each tenant that can be rated by their id.
        remember_bytes: of all such answers together.
        remember_s: seconds after which an answer cannot be rated by its id any more.
        most_example_bytes: of one feedback.
    """

    enabled: bool = False
    method: str = "replay"
    epochs: int = 3
    rate: float = 0.0
    held_out: float = 0.2
    remember: str = ""
    scope: bool = False
    least_examples: int = 20
    idle_s: float = 60.0
    retry_s: float = 600.0
    threads: int = 0
    cpu_share: float = 0.5
    memory_bytes: int = 0
    most_s: float = 1800.0
    most_energy_j: float = 0.0
    lowest_battery: float = 0.5
    most_lost_points: float = 0.5
    most_lost_loss: float = 0.0
    remember_answers: int = 1000
    remember_bytes: int = 16 * 2**20
    remember_s: float = 3600.0
    most_example_bytes: int = 64 * 2**10

    def __post_init__(self) -> None:
        for name, low, high in (
            ("epochs", 1, 10_000),
            ("rate", 0.0, 10.0),
            ("held_out", 0.0, 0.9),
            ("least_examples", 1, 10**6),
            ("idle_s", 0.0, 10.0**6),
            ("retry_s", 0.0, 10.0**7),
            ("threads", 0, 1024),
            ("cpu_share", 0.01, 1.0),
            ("memory_bytes", 0, 2**50),
            ("most_s", 0.0, 10.0**7),
            ("most_energy_j", 0.0, 10.0**9),
            ("lowest_battery", 0.0, 1.0),
            ("most_lost_points", 0.0, 100.0),
            ("most_lost_loss", 0.0, 100.0),
            ("remember_answers", 0, 10**6),
            ("remember_bytes", 0, 2**40),
            ("remember_s", 0.0, 10.0**7),
            ("most_example_bytes", 1, 16 * 2**20),
        ):
            value = float(getattr(self, name))
            if not (math.isfinite(value) and low <= value <= high):
                raise InputError(f"{name} is {value:g}, must be from {low:g} to {high:g}")
        if not self.method:
            raise InputError("method is '', must be a way to learn, such as replay")

    @property
    def bounds(self) -> Bounds:
        """Of the gate."""
        return Bounds(most_lost_points=self.most_lost_points, most_lost_loss=self.most_lost_loss)

    @property
    def limits(self) -> Limits:
        """Of what is suspect."""
        return Limits(most_bytes=self.most_example_bytes)

    def placed(self, beside: Path) -> "LearningSettings":
        """Return them with the file to remember seen from a folder.

        Args:
            beside: where the settings lie.
        """
        if not self.remember:
            return self
        return replace(self, remember=str(beside / Path(self.remember).expanduser()))
