"""What a bundle's report holds, as types."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from onhand.core.budget import Breach
from onhand.core.measurement import Measurement
from onhand.core.profile import DeviceProfile
from onhand.device.report_evidence import ReportEvidence

__all__ = [
    "EngineUsed",
    "Report",
    "ReportMatrix",
    "ReportRepair",
    "ReportStep",
    "ReportVariant",
    "SourceModel",
    "TextUsed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUsed:
    """The engine that every figure was measured with: its settings, and its package."""

    name: str
    package: str
    version: str
    threads: int
    accuracy_level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """The model that was compressed; `weight_bits` is the width of one of its weights."""

    family: str
    sha256: str
    n_parameters: int
    weight_bits: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextUsed:
    """A text, or examples: what it is, its length in tokens or in examples, and its hash."""

    what: str
    n_tokens: int
    sha256: str
    counted: str = "tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportStep:
    """What one step of a recipe did.

    Attributes:
        name: the pass.
        options: its options, in words.
        size_bytes: of all weights after it.
        n_operations: multiply-accumulates of one run after it; 0 where they are not known.
        lost: by then, on examples that the step did not see: as `quality_loss`.
        seconds: that it took.
        undone: why it was undone; "" where it was not.
    """

    name: str
    options: str
    size_bytes: int
    n_operations: int
    lost: float
    seconds: float
    undone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportMatrix:
    """What one matrix takes and lost.

    Attributes:
        name: the matrix.
        bits: width of one code.
        group_size: inputs that share a scale.
        size_bytes: bytes stored.
        original_bytes: bytes of the same matrix in the original.
        relative_error: norm of the weight error / norm of the weights.
        output_error: the same, each input weighted by its mean square on the calibration text.
    """

    name: str
    bits: int
    group_size: int
    size_bytes: int
    original_bytes: int
    relative_error: float
    output_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRepair:
    """The cheapest way to lose less; its figures are estimates.

    Attributes:
        worst: the matrices that lose most, the worst one first.
        share: what these lose of all that is lost, 0 to 1.
        recipe: that gives more bits where most is lost for a byte, as TOML.
        added_bytes: what it adds to the size.
        remaining: loss afterwards, as a share of the present one.
    """

    worst: tuple[str, ...]
    share: float
    recipe: str
    added_bytes: int
    remaining: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportVariant:
    """One variant: its figures by name, its matrices, and why other tensors stayed as they are.

    `repair` is None where nothing can be given more bits.
    """

    figures: Mapping[str, Measurement]
    matrices: tuple[ReportMatrix, ...]
    kept: Mapping[str, str]
    repair: ReportRepair | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All evidence for one bundle; `parse_report` reads it.

    Attributes:
        name: the bundle's name.
        manifest_sha256: the bundle that the figures are of.
        onhand_version: that measured.
        measured_at: when, UTC.
        device: where.
        engine: with what.
        read_bandwidth: of the memory, measured beside the other figures.
        source: the original model.
        original: its figures by name.
        missing: why speed figures of the original are absent; None where they are not.
        default_variant: a key of `variants`.
        variants: by name, the default one first.
        calibration: text that scales were fitted on; None where no text was used.
        heldout: text that quality was judged on.
        limits: the budget: key of `AXES` -> value in SI units.
        breaches: limits that do not hold.
        energy_how: how energy was counted or estimated.
        energy_estimated: whether a formula gives the energy, not a counter.
        notes: sentences that a reader should know.
        kind: "language-model" or "network".
        steps: of each variant, the steps of its recipe, where there were several.
        evidence: what else was measured or predicted; empty in reports that are older.
    """

    name: str
    manifest_sha256: str
    onhand_version: str
    measured_at: datetime
    device: DeviceProfile
    engine: EngineUsed
    read_bandwidth: Measurement
    source: SourceModel
    original: Mapping[str, Measurement]
    missing: str | None
    default_variant: str
    variants: Mapping[str, ReportVariant]
    calibration: TextUsed | None
    heldout: TextUsed
    limits: Mapping[str, float]
    breaches: tuple[Breach, ...]
    energy_how: str
    energy_estimated: bool
    notes: tuple[str, ...]
    kind: str = "language-model"
    steps: Mapping[str, tuple[ReportStep, ...]] = field(default_factory=dict)
    evidence: ReportEvidence = field(default_factory=ReportEvidence)
