"""One LiteRT operator on its way into a graph: what its translation may ask."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onhand.core.errors import SourceError
from onhand.host.networks.graph import Array
from onhand.host.networks.sources.flatbuffer import Table
from onhand.host.networks.sources.layout import Shape, Tensor, Weaver
from onhand.host.networks.sources.tflite_file import TfliteTensor

__all__ = ["FixedBatch", "Step"]


class FixedBatch(Exception):
    """The network does something to the batch: it runs with the size that it was exported for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operator.

    Attributes:
        op: its name.
        where: file and operator, for messages.
        weaver: the graph.
        inputs: what it reads; None for one that is left out.
        results: what it makes, as the file has it.
        shapes: of the results, an open batch as None.
        options: its own fields, None where the file has none.
        block: of a convolution that was three operators, its dilations; () for others.
        pads: and its paddings.
    """

    op: str
    where: str
    weaver: Weaver
    inputs: Sequence[Tensor | None]
    results: Sequence[TfliteTensor]
    shapes: Sequence[Shape]
    options: Table | None
    block: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()

    @property
    def x(self) -> Tensor:
        """The first input."""
        return self.input(0)

    @property
    def shape(self) -> Shape:
        """The first result's shape."""
        return self.shapes[0]

    def input(self, index: int) -> Tensor:
        """Return an input.

        Raises:
            SourceError: if it is left out.
        """
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise self.error(f"has no input {index}")
        return found

    def array(self, index: int) -> Array:
        """Return a constant input.

        Raises:
            SourceError: if it is none.
        """
        found = self.input(index)
        if found.array is None:
            raise self.error(f"input {index} must be a constant")
        return found.array

    def optional(self, index: int) -> Array | None:
        """Return a constant input, None where it is left out."""
        if index >= len(self.inputs) or self.inputs[index] is None:
            return None
        return self.array(index)

    def wholes(self, index: int) -> list[int]:
        """Return a constant input as whole numbers."""
        return [int(number) for number in np.ravel(self.array(index))]

    def all_inputs(self) -> list[Tensor]:
        """Return all inputs; none may be left out."""
        return [self.input(index) for index in range(len(self.inputs))]

    def option(self, slot: int, kind: str = "i", default: int = 0) -> int:
        """Return a whole number of its options."""
        return default if self.options is None else self.options.whole(slot, kind, default)

    def real(self, slot: int, default: float = 0.0) -> float:
        """Return a number of its options."""
        return default if self.options is None else self.options.real(slot, default)

    def axis(self, value: int, rank: int) -> int:
        """Return an axis as 0 or above.

        Raises:
            SourceError: if there is no such axis.
        """
        if not -rank <= value < rank:
            raise self.error(f"works along axis {value} of {rank}")
        return value % rank

    def keep_batch(self, *axes: int) -> None:
        """Make sure that none of some axes is the open batch.

        Raises:
            FixedBatch: if one is.
        """
        if 0 in axes and any(tensor is not None and _is_open(tensor) for tensor in self.inputs):
            raise FixedBatch

    def error(self, what: str) -> SourceError:
        """Return an error that names the operator."""
        return SourceError(f"{self.where}: {self.op} {what}")


def _is_open(tensor: Tensor) -> bool:
    return bool(tensor.shape) and tensor.shape[0] is None
