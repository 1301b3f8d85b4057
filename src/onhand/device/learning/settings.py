"""How a device is to learn from a file: what `onhand learn` and `onhand.learn` are told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.device.learning.ceilings import Ceilings
from onhand.device.learning.clipping import Clipping
from onhand.device.learning.gate import Bounds
from onhand.device.learning.graph import Memory
from onhand.device.learning.new_rows import NewRows
from onhand.device.learning.optimizers import make_optimizer
from onhand.device.learning.preferences import Preferring
from onhand.device.learning.schedules import Schedule
from onhand.device.learning.training import Plan

__all__ = ["HELD_OUT_SHARE", "LearnSettings"]

HELD_OUT_SHARE: Final = 0.1
# By optimizer, then by what is learned: usual for adapters, and for what is small and shallow.
_RATES: Final = {
    "adamw": {"lora": 1e-3, "head": 1e-2, "last-block": 1e-3, "bias": 1e-2},
    "sgd": {"lora": 1e-1, "head": 1e-1, "last-block": 1e-2, "bias": 1e-1},
}
_WARM_UP_SHARE: Final = 0.05
_MOST_VARIANTS: Final = 100
_MOST_REHEARSED: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnSettings:
    """How to learn.

    Attributes:
        method: how it learns without forgetting.
        epochs: times that all examples are taught, where `steps` is not given.
        steps: of the optimizer; None for as many as the epochs have.
        batch: examples in one run of the graph.
        accumulate: runs whose gradients make one step.
        rate: learning rate; None for what is usual for the optimizer and what is learned.
        optimizer: "adamw" or "sgd".
        schedule: "cosine", after a short warm-up, or "constant".
        average: share of the steps, the last ones, whose values are averaged; 0 for none.
        repeats: times that it learns anew, from the same values and with other draws; the mean of
            what they end with is learned.
        heldout: a file of examples that judge, or the share of those given that do.
        remember: examples of what the model can do already: most are for methods that hold on to
            them, a share judges what was forgotten; None for none.
        vary: variants of each example, in which what its answer copies is exchanged; see
            `variants`.
        rehearse: remembered commands that are tried about other names; those that the model
            answers as they say are remembered as well; see `rehearsal`.
        preferring: where answers that were liked and disliked are taught.
        new_rows: how the rows of new classes begin; see `NewRows`.
        seed: decides every choice that is left to chance.
        clip_norm: most of the gradients' global norm; None for no bound.
        memory: see `graph.Memory`.
        ceilings: what the training may take.
        bounds: of the gate.
        use: whether a version that passed its gate goes into use.
        scope: whether only prompts like those taught are answered by what is learned; None for
            what holds of the version that is in use. Of a language model; see `scoping`.
    """

    method: str = "replay"
    epochs: int = 3
    steps: int | None = None
    batch: int = 8
    accumulate: int = 1
    rate: float | None = None
    optimizer: str = "adamw"
    schedule: str = "cosine"
    average: float = 0.0
    repeats: int = 1
    heldout: Path | float = HELD_OUT_SHARE
    remember: Path | None = None
    vary: int = 0
    rehearse: int = 0
    preferring: Preferring = field(default_factory=Preferring)
    new_rows: NewRows = "zeros"
    seed: int = 0
    clip_norm: float | None = 1.0
    memory: Memory = "fast"
    ceilings: Ceilings = field(default_factory=Ceilings)
    bounds: Bounds = field(default_factory=Bounds)
    use: bool = True
    scope: bool | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"epochs is {self.epochs}, must be 1 or more")
        if not 0 <= self.vary <= _MOST_VARIANTS:
            raise InputError(f"vary is {self.vary}, must be from 0 to {_MOST_VARIANTS}")
        if not 0 <= self.average <= 1:
            raise InputError(f"average is {self.average}, must be from 0 to 1")
        if not 0 <= self.rehearse <= _MOST_REHEARSED:
            raise InputError(f"rehearse is {self.rehearse}, must be from 0 to {_MOST_REHEARSED}")
        if not isinstance(self.heldout, Path) and not 0 <= self.heldout < 1:
            raise InputError(
                f"the share held out is {self.heldout}, must be from 0 to below 1, or a file"
            )

    def plan(self, lesson: Lesson, n_examples: int) -> Plan:
        """Return the plan of a training.

        Args:
            lesson: what is learned.
            n_examples: that are taught.

        Raises:
            InputError: if a setting is out of range.
        """
        optimizer = make_optimizer(self.optimizer)
        in_step = max(self.batch * self.accumulate, 1)
        n_steps = self.epochs * -(-n_examples // in_step) if self.steps is None else self.steps
        rate = _RATES[self.optimizer][lesson.kind] if self.rate is None else self.rate
        n_warmup = round(n_steps * _WARM_UP_SHARE) if self.schedule == "cosine" else 0
        return Plan(
            n_steps=n_steps,
            batch=self.batch,
            accumulate=self.accumulate,
            schedule=Schedule(rate=rate, kind=self.schedule, n_warmup=n_warmup),
            optimizer=optimizer,
            clipping=Clipping(norm=self.clip_norm),
            seed=self.seed,
            n_averaged=round(n_steps * self.average),
            n_repeats=self.repeats,
        )
