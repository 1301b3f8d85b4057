"""A tensor of few different float16, stored as a table of these and a byte for each number.

Its two streams lie in the variant's weights files, as `NAME.index` and `NAME.table`; the manifest
says what they make. Nothing is rounded: the bytes are those of the tensor.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.arrays import ByteArray, HalfArray
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.outside import count, object_of, shown
from onhand.core.sparse_form import LEAST_BYTES, LEAST_GAIN, MOST_EXPANDED_BYTES, name_and_shape

__all__ = ["MOST_VALUES", "TableForm", "TableTensor", "table_form_from_json", "tabulate_tensor"]

MOST_VALUES: Final = 256
"""Of a table: a byte says which one."""
_MOST_DIMS: Final = 3
_BYTES: Final = 2  # of a float16


@dataclass(frozen=True, slots=True, kw_only=True)
class TableForm:
    """What an index and a table make.

    Attributes:
        tensor: the streams' name in the weights files, without their endings.
        shape: of the tensor, 1 to 3 sizes.
        n_values: numbers in the table, at most 256.
    """

    tensor: str
    shape: tuple[int, ...]
    n_values: int

    def __post_init__(self) -> None:
        fits = 1 <= len(self.shape) <= _MOST_DIMS and all(size > 0 for size in self.shape)
        if not fits or self.size_bytes > MOST_EXPANDED_BYTES:
            raise InputError(
                f"{self.tensor}: shape is {shown(list(self.shape))}, must be 1 to {_MOST_DIMS} "
                f"sizes of {MOST_EXPANDED_BYTES} bytes at most"
            )
        if not 1 <= self.n_values <= MOST_VALUES:
            raise InputError(
                f"{self.tensor}: n_values is {self.n_values}, must be 1 to {MOST_VALUES}"
            )

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * _BYTES

    @property
    def stored_bytes(self) -> int:
        """Bytes of the streams."""
        return math.prod(self.shape) + self.n_values * _BYTES

    @property
    def streams(self) -> tuple[str, str]:
        """Names of the streams in a weights file: the index, and the table."""
        return f"{self.tensor}.index", f"{self.tensor}.table"

    def to_json(self) -> dict[str, object]:
        """Return a JSON object that `table_form_from_json` reads."""
        return {
            "n_values": self.n_values,
            "shape": list(self.shape),
            "tensor": self.tensor,
        }

    def expand(self, index: ByteArray, table: ByteArray) -> ByteArray:
        """Return the bytes of the tensor, as they would have been stored.

        Args:
            index: (N,) which number of the table each one is; may come from outside.
            table: (2 * n_values,) the numbers, little-endian.

        Returns:
            (size_bytes,) uint8.

        Raises:
            BundleCorrupt: if the streams do not match the form or each other.
        """
        wanted = math.prod(self.shape), self.n_values * _BYTES
        if (index.nbytes, table.nbytes) != wanted:
            raise BundleCorrupt(
                f"tensor {self.tensor!r}: index and table of {index.nbytes} and {table.nbytes} "
                f"bytes, must be {wanted[0]} and {wanted[1]}"
            )
        if int(index.max()) >= self.n_values:
            raise BundleCorrupt(
                f"tensor {self.tensor!r}: its index names number {index.max()} of a table of "
                f"{self.n_values}"
            )
        found: ByteArray = table.view("<u2")[index].view(np.uint8)
        return found


@dataclass(frozen=True, slots=True)
class TableTensor:
    """A tensor as an index and a table.

    Attributes:
        form: what they make.
        index: (N,) uint8.
        table: (2 * n_values,) uint8.
    """

    form: TableForm
    index: ByteArray
    table: ByteArray


def tabulate_tensor(name: str, numbers: HalfArray) -> TableTensor | None:
    """Store a tensor as a table of its values, or return None where that saves less than a tenth.

    Args:
        name: of the tensor.
        numbers: 1 to 3 axes, float16.

    Returns:
        The streams; None also where there are more than 256 values.
    """
    if numbers.nbytes < LEAST_BYTES:
        return None
    # By their bits: there are 65,536 of them, and to count these needs no sorting.
    bits = numbers.reshape(-1).view(np.uint16)
    values = np.flatnonzero(np.bincount(bits, minlength=2**16))
    if len(values) > MOST_VALUES:
        return None
    form = TableForm(tensor=name, shape=numbers.shape, n_values=len(values))
    if form.stored_bytes > (1 - LEAST_GAIN) * form.size_bytes:
        return None
    places = np.zeros(2**16, dtype=np.uint8)
    places[values] = np.arange(len(values))
    return TableTensor(form, places[bits], values.astype("<u2").view(np.uint8))


def table_form_from_json(value: object, where: str) -> TableForm:
    """Read a form, which may come from outside.

    Args:
        value: a parsed JSON value.
        where: for messages.

    Returns:
        The form.

    Raises:
        InputError: if anything is missing, unknown, of the wrong type or out of bounds.
    """
    table = object_of(value, where, {"n_values", "shape", "tensor"})
    tensor, shape = name_and_shape(table, where)
    return TableForm(
        tensor=tensor,
        shape=shape,
        n_values=count(table, "n_values", where, most=MOST_VALUES),
    )
