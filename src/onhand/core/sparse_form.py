"""How a tensor of a bundle is stored without its zeros, and back to its bytes.

Its two streams lie in the variant's weights files, as `NAME.places` and `NAME.kept`; the manifest
says what they make. Nothing is rounded: the bytes are those of the tensor.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import ByteArray
from onhand.core.errors import BundleCorrupt, InputError, ShapeError
from onhand.core.outside import count, flag, object_of, shown
from onhand.core.quantized import pack_bits
from onhand.core.sparse import (
    CodeArray,
    Pattern,
    SparseCodes,
    best_layout,
    code_dtype,
    dense_bytes,
    parse_pattern,
    sparse_bytes,
)

__all__ = [
    "LEAST_BYTES",
    "LEAST_GAIN",
    "MOST_EXPANDED_BYTES",
    "SparseForm",
    "SparseTensor",
    "expand_tensor",
    "name_and_shape",
    "shrink_tensor",
    "sparse_form_from_json",
    "stream_names",
]

MOST_EXPANDED_BYTES: Final = 2**30
"""Of all tensors of a graph: an ONNX file may have twice as many bytes and no more."""
LEAST_GAIN: Final = 0.1
"""Share of a tensor's bytes that must be saved: less is not worth the time that opening takes."""
LEAST_BYTES: Final = 1024
"""Of a tensor that may be stored without its zeros."""
_WIDTHS: Final = (4, 8, 16, 32)
_MOST_DIMS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseForm:
    """What two streams make.

    Attributes:
        tensor: the streams' name in the weights files, without their endings.
        shape: of the codes as they were stored, 1 to 3 sizes.
        bits: width of a code: 4 (two in a byte, the lower first), 8, 16 or 32.
        n_kept: codes that are stored; with a pattern N of each M.
        zero: the code that is left out.
        pattern: of the codes in a row of `shape`; None for a mask.
        turned: whether the tensor is the codes' transpose.
    """

    tensor: str
    shape: tuple[int, ...]
    bits: int
    n_kept: int
    zero: int = 0
    pattern: Pattern | None = None
    turned: bool = False

    def __post_init__(self) -> None:
        if self.bits not in _WIDTHS:
            raise InputError(f"{self.tensor}: bits is {self.bits}, must be one of {_WIDTHS}")
        if not 0 <= self.zero < 1 << self.bits:
            raise InputError(f"{self.tensor}: zero is {self.zero}, no code of {self.bits} bits")
        fits = 1 <= len(self.shape) <= _MOST_DIMS and all(size > 0 for size in self.shape)
        if not fits or self.size_bytes > MOST_EXPANDED_BYTES:
            raise InputError(
                f"{self.tensor}: shape is {shown(list(self.shape))}, must be 1 to {_MOST_DIMS} "
                f"sizes of {MOST_EXPANDED_BYTES} bytes at most"
            )
        if self.turned and len(self.shape) != 2:
            raise InputError(f"{self.tensor}: is turned, must have 2 sizes, not {len(self.shape)}")
        if self.pattern is not None and self.shape[-1] % self.pattern.m:
            raise InputError(
                f"{self.tensor}: rows of {self.shape[-1]} codes are no multiple of {self.pattern.m}"
            )

        n_codes = math.prod(self.shape)
        whole = self.pattern is None or self.n_kept == n_codes // self.pattern.m * self.pattern.n
        if not 0 <= self.n_kept <= n_codes or not whole:
            raise InputError(f"{self.tensor}: n_kept is {self.n_kept}, of {n_codes} codes")

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor."""
        return dense_bytes(math.prod(self.shape), self.bits)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the streams."""
        return sparse_bytes(math.prod(self.shape), self.n_kept, self.bits, self.pattern)

    @property
    def streams(self) -> tuple[str, str]:
        """Names of the streams in a weights file: places, and the codes kept."""
        return stream_names(self.tensor)

    def to_json(self) -> dict[str, object]:
        """Return a JSON object that `sparse_form_from_json` reads."""
        return {
            "bits": self.bits,
            "n_kept": self.n_kept,
            "pattern": "" if self.pattern is None else self.pattern.text,
            "shape": list(self.shape),
            "tensor": self.tensor,
            "turned": self.turned,
            "zero": self.zero,
        }


@dataclass(frozen=True, slots=True)
class SparseTensor:
    """A tensor without its zeros.

    Attributes:
        form: how it is stored; of the tensor's name the caller knows more.
        codes: its streams.
    """

    form: SparseForm
    codes: SparseCodes


def stream_names(tensor: str) -> tuple[str, str]:
    """Return the names of a tensor's streams in a weights file: places, and the codes kept."""
    return f"{tensor}.places", f"{tensor}.kept"


def sparse_form_from_json(value: object, where: str) -> SparseForm:
    """Read a form, which may come from outside.

    Args:
        value: a parsed JSON value.
        where: for messages.

    Returns:
        The form.

    Raises:
        InputError: if anything is missing, unknown, of the wrong type or out of bounds.
    """
    known = {"bits", "n_kept", "pattern", "shape", "tensor", "turned", "zero"}
    table = object_of(value, where, known)
    tensor, shape = name_and_shape(table, where)
    if not isinstance(pattern := table.get("pattern"), str):
        raise InputError(f"{where}: pattern is {shown(pattern)}, must be as '2:4', or ''")
    return SparseForm(
        tensor=tensor,
        shape=shape,
        bits=count(table, "bits", where, most=max(_WIDTHS)),
        n_kept=count(table, "n_kept", where, least=0, most=2**40),
        zero=count(table, "zero", where, least=0, most=2**32 - 1),
        pattern=parse_pattern(pattern) if pattern else None,
        turned=flag(table, "turned", where),
    )


def name_and_shape(table: Mapping[str, object], where: str) -> tuple[str, tuple[int, ...]]:
    """Read what all forms have: the name of a tensor's streams, and its shape.

    Args:
        table: a JSON object.
        where: for messages.

    Raises:
        InputError: if one is missing, or of the wrong type.
    """
    tensor, shape = table.get("tensor"), table.get("shape")
    if not isinstance(tensor, str) or not tensor:
        raise InputError(f"{where}: tensor is {shown(tensor)}, must be a name")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise InputError(f"{where}: shape is {shown(shape)}, must be a list of sizes")
    return tensor, tuple(shape)


def shrink_tensor(
    codes: CodeArray, *, bits: int, zero: int = 0, turned: bool = False
) -> SparseTensor | None:
    """Store a tensor without its zeros, or return None where that saves less than a tenth.

    All patterns of up to 8 codes are tried beside a mask.

    Args:
        codes: 1 to 3 axes, of `code_dtype`, each below 2**bits.
        bits: 4, 8, 16 or 32.
        zero: the code that is left out.
        turned: whether the tensor is (and the patterns may run along) the transpose of `codes`.

    Returns:
        The streams, and their form without a name.
    """
    dense = dense_bytes(codes.size, bits)
    zeros = np.array(zero, dtype=code_dtype(bits))
    if dense < LEAST_BYTES or (codes == zeros).mean() < LEAST_GAIN:
        return None
    found = best_layout(codes, zeros, bits=bits, patterns=_patterns())
    if found is None or found.size_bytes > (1 - LEAST_GAIN) * dense:
        return None
    kept = int(np.count_nonzero(codes != zeros))
    if found.pattern is not None:
        kept = codes.size // found.pattern.m * found.pattern.n
    form = SparseForm(
        tensor="",
        shape=codes.shape,
        bits=bits,
        n_kept=kept,
        zero=zero,
        pattern=found.pattern,
        turned=turned,
    )
    return SparseTensor(form, found)


def expand_tensor(form: SparseForm, places: ByteArray, kept: ByteArray) -> ByteArray:
    """Return the bytes of a tensor, as they would have been stored.

    Args:
        form: what the streams make.
        places: (B,) the first stream; may come from outside.
        kept: (B,) the second.

    Returns:
        (size_bytes,) uint8.

    Raises:
        BundleCorrupt: if the streams do not match the form or each other.
    """
    if (found_bytes := places.nbytes + kept.nbytes) != form.stored_bytes:
        raise BundleCorrupt(
            f"sparse tensor {form.tensor!r}: {found_bytes} bytes, must be {form.stored_bytes}"
        )
    try:
        codes = SparseCodes(
            shape=form.shape, bits=form.bits, pattern=form.pattern, places=places, codes=kept
        )
        found = codes.unpack(np.array(form.zero, dtype=code_dtype(form.bits)))
    except ShapeError as error:
        raise BundleCorrupt(f"sparse tensor {form.tensor!r}: {error}") from error
    flat: NDArray[np.unsignedinteger] = (found.T if form.turned else found).reshape(-1)
    if form.bits == 4:
        return pack_bits(np.pad(flat, (0, -flat.size % 2)).astype(np.uint8, copy=False), 4)
    return np.ascontiguousarray(flat.astype(flat.dtype.newbyteorder("<"), copy=False)).view(
        np.uint8
    )


@cache
def _patterns() -> tuple[Pattern, ...]:
    return tuple(Pattern(n, m) for m in range(2, 9) for n in range(1, m))
