"""What came of learning, and what it would take: for people and for programs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

__all__ = ["Foreseen", "Learned", "not_begun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What came of a training.

    Attributes:
        name: of the bundle.
        method: how it learned.
        ended: "done", "interrupted", or at a "ceiling".
        why: of a ceiling.
        examples: that were taught.
        heldout: that judged what was learned.
        past: that were to be remembered.
        past_heldout: that judged what was forgotten.
        steps: that were made, by all runs.
        n_steps: that it has.
        resumed_at: step after which this run went on; 0 where it began.
        skipped: steps that gave no finite numbers and changed nothing.
        seconds: that steps took.
        energy_j: joules that they took.
        energy_estimated: whether a formula gave them.
        peak_memory_bytes: the most that the process held, by this run.
        losses: of the last steps.
        added_classes: that the model did not have.
        notes: what the user should know.
        version: number of the version; None where it was interrupted.
        is_accepted: whether the version passed its gate.
        is_used: whether it is in use now.
        reasons: why it did not pass.
        figures: name -> value: before and after, on new and old examples.
    """

    name: str
    method: str
    ended: str
    why: str
    examples: int
    heldout: int
    past: int
    past_heldout: int
    steps: int
    n_steps: int
    resumed_at: int
    skipped: int
    seconds: float
    energy_j: float | None
    energy_estimated: bool
    peak_memory_bytes: int
    losses: tuple[float, ...]
    added_classes: tuple[str, ...]
    notes: tuple[str, ...]
    version: int | None = None
    is_accepted: bool = False
    is_used: bool = False
    reasons: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return a JSON object."""
        return asdict(self) | {"figures": dict(self.figures)}


def not_begun(name: str, method: str) -> Learned:
    """Return what came of a training that was interrupted before it began.

    Args:
        name: of the bundle.
        method: how it would have learned.
    """
    return Learned(
        name=name,
        method=method,
        ended="interrupted",
        why="",
        examples=0,
        heldout=0,
        past=0,
        past_heldout=0,
        steps=0,
        n_steps=0,
        resumed_at=0,
        skipped=0,
        seconds=0.0,
        energy_j=None,
        energy_estimated=True,
        peak_memory_bytes=0,
        losses=(),
        added_classes=(),
        notes=(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What a training would do.

    Attributes:
        name: of the bundle.
        kind: of the lesson.
        method: how it would learn.
        parent: the version that it would begin from; 0 for the bundle as it was built.
        examples: that would be taught.
        heldout: that would judge what was learned.
        past: that would be remembered.
        past_heldout: that would judge what was forgotten.
        tokens: of the examples; None where they have none.
        learned_tokens: of these, those that would be learned.
        n_steps: of the optimizer.
        rate: learning rate.
        n_trained: numbers that would change.
        added_classes: that the model does not have.
        is_resumed: whether an earlier run would be gone on with.
        notes: what the user should know.
    """

    name: str
    kind: str
    method: str
    parent: int
    examples: int
    heldout: int
    past: int
    past_heldout: int
    tokens: int | None
    learned_tokens: int | None
    n_steps: int
    rate: float
    n_trained: int
    added_classes: tuple[str, ...]
    is_resumed: bool
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return a JSON object."""
        return asdict(self)
