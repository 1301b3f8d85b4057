"""What a report holds beyond its table of figures, as types: evaluations, trials, the front."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from onhand.core.evaluation import Evaluation, Waterfall
from onhand.core.measurement import Measurement
from onhand.device.context_speed import ContextSpeed
from onhand.device.memory_series import MemorySeries

__all__ = ["FrontDot", "ReportEvidence", "ReportFront", "ReportWay", "SensitivityCell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportWay:
    """One way of running the bundle or its original, tried.

    Attributes:
        model: "compressed" or "original".
        engine: its name.
        threads: of one step.
        figures: its measurements; empty where it failed.
        missing: why it failed; "" where it did not.
    """

    model: str
    engine: str
    threads: int
    figures: Mapping[str, Measurement]
    missing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontDot:
    """One choice that a search looked at.

    Attributes:
        label: its name.
        choices: group of the model -> what was chosen for it.
        predicted: measurement name -> value by the cost model, in SI units.
        measured: the same, measured in a build; None where it was not built.
        is_chosen: whether this is the bundle.
        is_on_front: whether no other choice is better in everything.
    """

    label: str
    choices: Mapping[str, str]
    predicted: Mapping[str, float]
    measured: Mapping[str, float] | None
    is_chosen: bool
    is_on_front: bool

    def value(self, axis: str) -> float | None:
        """Return a figure, the measured one where there is one; None where there is neither."""
        if self.measured is not None and axis in self.measured:
            return self.measured[axis]
        return self.predicted.get(axis)

    def is_measured(self, axis: str) -> bool:
        """Say whether `value` is a measured one."""
        return self.measured is not None and axis in self.measured


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFront:
    """What a search found.

    Attributes:
        dots: every choice that is kept.
        axes: names of the measurements that it was searched by.
    """

    dots: tuple[FrontDot, ...]
    axes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityCell:
    """What one choice for one group of the model costs.

    Attributes:
        group: a matrix, or several that share a choice.
        choice: what was tried for it.
        bits: of a weight then.
        damage: what is lost, as the search counts it; 0 is nothing.
        size_bytes: of the group then.
    """

    group: str
    choice: str
    bits: float
    damage: float
    size_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportEvidence:
    """All of it; every part may be missing.

    Attributes:
        evaluation: the four evaluations.
        ways: ways of running that were tried.
        contexts: speed by the length of the context, ascending.
        memory: of the process over time.
        waterfalls: what each technique brought.
        front: what a search found.
        sensitivity: what each choice of each group costs.
    """

    evaluation: tuple[Evaluation, ...] = ()
    ways: tuple[ReportWay, ...] = ()
    contexts: tuple[ContextSpeed, ...] = ()
    memory: MemorySeries | None = None
    waterfalls: tuple[Waterfall, ...] = field(default=())
    front: ReportFront | None = None
    sensitivity: tuple[SensitivityCell, ...] = ()
