"""What a pass must offer. Passes match this shape; nobody subclasses.

A recipe for a language model is any number of shaping passes, each of which gives another model,
and then one pass that stores that model's matrices.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from onhand.core.arrays import TokenArray
from onhand.core.decoder import Decoder
from onhand.core.progress import Progress
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.core.recipe import Guard
from onhand.host.calibrate import InputStatistics
from onhand.host.model import Model

__all__ = [
    "Matrix",
    "MatrixLoss",
    "Named",
    "Pass",
    "PassReport",
    "ShapeReport",
    "ShapeWork",
    "ShapingPass",
    "ShapingStep",
    "pass_options",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What a pass would do to each matrix; nothing is skipped in silence.

    Attributes:
        formats: matrix name -> how it would be stored; None keeps it in float32.
        kept: matrix or vector name -> why it stays as it is.
        rounding: what else decides the codes, such as the method: variants share a matrix that
            has the same format and the same rounding.
        roundings: matrix -> the same, where it is not that of the others.
        scale_bits: 8 where the scales of narrow codes take few values, see `scale_tables`.
        needs_calibration: whether `apply` uses statistics of a text.
        whole_moments: whether it uses the second moments of all pairs of a matrix's inputs.
        scales_inputs: whether inputs are to be scaled before, see `awq`.
        rounds: how often the scales are trained on the calibration text after it, see `distil`.
    """

    formats: Mapping[str, GroupFormat | None]
    kept: Mapping[str, str]
    rounding: str
    needs_calibration: bool
    whole_moments: bool = False
    scales_inputs: bool = False
    rounds: int = 0
    roundings: Mapping[str, str] = field(default_factory=dict)
    scale_bits: int = 16

    def rounding_of(self, matrix: str) -> str:
        """Return what else decides the codes of a matrix.

        Args:
            matrix: its name.
        """
        return self.roundings.get(matrix, self.rounding)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixLoss:
    """What one matrix lost.

    Attributes:
        name: the matrix.
        bits: width of one code.
        group_size: inputs that share a scale.
        size_bytes: bytes stored.
        relative_error: norm of the weight error / norm of the weights.
        output_error: the relative error of the matrix's outputs on the calibration text; inputs
            of different groups are taken as uncorrelated unless the method looks at all pairs.
    """

    name: str
    bits: int
    group_size: int
    size_bytes: int
    relative_error: float
    output_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One finished matrix and what it lost."""

    tensor: QuantTensor
    loss: MatrixLoss


class Pass(Protocol):
    """One transform of a model; its fields are its options."""

    name: ClassVar[str]

    def plan(self, decoder: Decoder) -> PassReport:
        """Say what `apply` would change, from shapes alone: no weights, no work."""
        ...

    def apply(
        self,
        model: Model,
        statistics: InputStatistics,
        *,
        names: Sequence[str],
        threads: int,
        advance: Callable[[float], None],
    ) -> Iterator[Matrix]:
        """Yield finished matrices, one by one.

        Args:
            model: the source.
            statistics: of the calibration text; empty if there is none.
            names: the matrices to yield, in this order; `plan` formats them.
            threads: threads to use.
            advance: told the number of weights finished since the last call.

        Yields:
            The matrices, one by one, so that memory holds one at a time.

        Raises:
            SourceError: if a weight is not finite.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeReport:
    """What a shaping pass would do, from shapes alone.

    Attributes:
        decoder: the model afterwards; where a text decides which parts go, of the same size.
        trains: whether it makes good for what earlier passes lost.
        training_tokens: most tokens of text that it trains on; 0 for none.
        operations: multiplications and additions that it takes, about.
        memory_bytes: memory that it takes, about.
        kept: part of the model -> why it stays as it is.
    """

    decoder: Decoder
    trains: bool = False
    training_tokens: int = 0
    operations: float = 0.0
    memory_bytes: int = 0
    kept: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeWork:
    """What a shaping pass works with.

    Attributes:
        original: the source, before any pass.
        calibration: sequences that statistics are taken of; (T,) int64 each.
        training: sequences to train on; those of calibration are among them.
        folder: the pass's own; what it keeps there it takes up when it is called again.
        threads: threads to use.
        progress: told how far it is.
    """

    original: Model
    calibration: Sequence[TokenArray]
    training: Sequence[TokenArray]
    folder: Path
    threads: int
    progress: Progress


@runtime_checkable
class ShapingPass(Protocol):
    """One change of a model before its matrices are stored; its fields are its options."""

    name: ClassVar[str]

    def plan_shape(self, decoder: Decoder, *, tokens: int) -> ShapeReport:
        """Say what `shape` would change, from shapes alone.

        Args:
            decoder: the model before.
            tokens: tokens of the calibration text.

        Raises:
            InputError: if the options do not fit the model.
        """
        ...

    def shape(self, model: Model, work: ShapeWork) -> Model:
        """Return the changed model; its weights may be read from `work.folder`.

        Args:
            model: what the pass before gave.
            work: what there is to work with.

        Raises:
            SourceError: if a weight is not finite.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapingStep:
    """A shaping pass, and what it may lose.

    Attributes:
        transform: the pass.
        guard: its `most_loss` is the increase of perplexity over the original's, as a fraction,
            on held-out text after the step; or after the training step behind it, if there is
            one, which it holds for unless that has its own.
    """

    transform: ShapingPass
    guard: Guard = field(default_factory=Guard)


class Named(Protocol):
    """A pass of any kind."""

    name: ClassVar[str]


def pass_options(transform: Named) -> dict[str, object]:
    """Return a pass's name and options, as a recipe's step has them.

    Args:
        transform: the pass; of a third party's, options that JSON cannot hold are left as text
            of their type alone, because a text of their value may hold a path or an address.

    Returns:
        A JSON object.
    """
    options: dict[str, object] = {"pass": transform.name}
    made: object = transform
    for option in fields(made) if is_dataclass(made) else ():
        value = getattr(made, option.name)
        options[option.name] = _plain(value)
    return options


def _plain(value: object) -> object:
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return type(value).__name__
