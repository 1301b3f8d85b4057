"""What a pass must offer. Passes match this shape; nobody subclasses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import ClassVar, Protocol

from onhand.core.decoder import Decoder
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.host.calibrate import InputStatistics
from onhand.host.model import Model

__all__ = ["Matrix", "MatrixLoss", "Named", "Pass", "PassReport", "pass_options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What a pass would do to each matrix; nothing is skipped in silence.

    Attributes:
        formats: matrix name -> how it would be stored; None keeps it in float32.
        kept: matrix or vector name -> why it stays as it is.
        rounding: what else decides the codes, such as the method: variants share a matrix that
            has the same format and the same rounding.
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
    return type(value).__name__
