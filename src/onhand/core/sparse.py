"""Codes of which many stand for zero, stored without these: integers, or floats by their bits.

Two layouts: a bit for each code that says whether it is there, or blocks of M codes of which at
most N are there, and the number of the one combination of places that they take.

    mask   ceil(n / 8) bytes, one bit for each code, the lowest first; then the others' codes
    N:M    for each block ceil(log2(binomial(M, N))) bits, and N codes in their order

Both streams fill whole bytes at their end alone. It is what lies on the disk: whoever opens it
expands it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import ByteArray
from onhand.core.errors import InputError, ShapeError

__all__ = [
    "CodeArray",
    "Pattern",
    "SparseCodes",
    "best_layout",
    "code_dtype",
    "dense_bytes",
    "parse_pattern",
    "sparse_bytes",
]

# Any: of uint8, uint16 or uint32, see `code_dtype`.
CodeArray = NDArray[Any]
_WIDE: Final = {16: np.uint16, 32: np.uint32}
_MOST_BITS, _MOST_BLOCK = 8, 8
_PART = 2**20  # a multiple of 8, so that parts begin at whole bytes


@dataclass(frozen=True, slots=True)
class Pattern:
    """At most `n` of each `m` codes in a row are not zero.

    Attributes:
        n: from 1 to below m.
        m: 2 to 8.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 1 <= self.n < self.m <= _MOST_BLOCK:
            raise InputError(f"pattern {self.n}:{self.m}, must be N:M with N below M, up to 8")

    @property
    def bits(self) -> int:
        """Bits of the number of a combination of places."""
        return math.ceil(math.log2(math.comb(self.m, self.n)))

    @property
    def text(self) -> str:
        """As people write it."""
        return f"{self.n}:{self.m}"


def parse_pattern(text: str) -> Pattern:
    """Read a pattern as people write it: "2:4".

    Raises:
        InputError: if it is something else.
    """
    n, colon, m = text.partition(":")
    if not (colon and n.isdecimal() and m.isdecimal() and len(text) <= 5):
        raise InputError(f"pattern is {text[:20]!r}, must be as '2:4'")
    return Pattern(int(n), int(m))


def code_dtype(bits: int) -> np.dtype[Any]:
    """Return what holds one code: uint8 up to 8 bits, else an integer as wide, for a float's bits.

    Raises:
        ShapeError: if no code is so wide.
    """
    if 1 <= bits <= _MOST_BITS:
        return np.dtype(np.uint8)
    if bits not in _WIDE:
        raise ShapeError(f"codes of {bits} bits, must be 1 to {_MOST_BITS}, 16 or 32")
    return np.dtype(_WIDE[bits])


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseCodes:
    """Codes of any shape without those that stand for zero; may come from outside.

    Attributes:
        shape: of the codes.
        bits: width of one code: 1 to 8, or the 16 or 32 of a float.
        pattern: None for a mask.
        places: (B,) uint8: the mask, or the numbers of the combinations.
        codes: (B,) uint8: the packed codes.
    """

    shape: tuple[int, ...]
    bits: int
    pattern: Pattern | None
    places: ByteArray
    codes: ByteArray

    def __post_init__(self) -> None:
        code_dtype(self.bits)
        if any(size < 0 for size in self.shape):
            raise ShapeError(f"codes of shape {self.shape}")
        for what, array in (("places", self.places), ("codes", self.codes)):
            if array.ndim != 1 or array.dtype != np.uint8:
                raise ShapeError(f"{what}: {array.dtype} {array.shape}, must be bytes in a row")
        if self.pattern is None:
            _check_stream(self.places, math.prod(self.shape), 1, "mask")
            n_here = int(np.bitwise_count(self.places).sum())
            _check_stream(self.codes, n_here, self.bits, "codes")
            return
        blocks = _blocks(self.shape, self.pattern)
        _check_stream(self.places, blocks, self.pattern.bits, "places")
        _check_stream(self.codes, blocks * self.pattern.n, self.bits, "codes")
        numbers = _unpacked(self.places, blocks, self.pattern.bits)
        if (numbers >= math.comb(self.pattern.m, self.pattern.n)).any():
            raise ShapeError(f"places: {numbers.max()} is no combination of {self.pattern.text}")

    @classmethod
    def pack(
        cls, codes: CodeArray, zeros: CodeArray, *, bits: int, pattern: Pattern | None = None
    ) -> "SparseCodes":
        """Store codes without those that stand for zero.

        Args:
            codes: (..., K) of `code_dtype`, each below 2**bits.
            zeros: likewise, broadcasts to `codes`: the code that stands for zero in each place.
            bits: 1 to 8, 16 or 32.
            pattern: None for a mask; else K is a multiple of M, and the codes follow it.

        Returns:
            The packed codes.

        Raises:
            ShapeError: if the codes do not fit, or do not follow the pattern.
        """
        if codes.dtype != code_dtype(bits):
            raise ShapeError(f"codes of {bits} bits are {codes.dtype}, must be {code_dtype(bits)}")
        if codes.size and int(codes.max()) >> bits:
            raise ShapeError(f"a code is {codes.max()}, must fit {bits} bits")
        here = codes != zeros
        if pattern is None:
            places, kept = np.packbits(here.reshape(-1), bitorder="little"), codes[here]
        else:
            blocks = _blocks(codes.shape, pattern)
            numbers = _numbers(here.reshape(blocks, pattern.m), pattern)
            rows = codes.reshape(blocks, pattern.m)
            kept = rows[_combinations(pattern)[numbers]]
            places = _packed(numbers, pattern.bits)
        return cls(
            shape=codes.shape, bits=bits, pattern=pattern, places=places,
            codes=_packed(kept, bits),
        )  # fmt: skip

    def unpack(self, zeros: CodeArray) -> CodeArray:
        """Undo `pack`.

        Args:
            zeros: as there.

        Returns:
            The codes, in their shape.

        Raises:
            ShapeError: if `zeros` does not broadcast to the shape.
        """
        try:
            found = np.broadcast_to(zeros, self.shape).astype(code_dtype(self.bits))
        except ValueError as error:
            raise ShapeError(f"zeros {zeros.shape} do not fit codes {self.shape}") from error
        if self.pattern is None:
            here = _unpacked(self.places, math.prod(self.shape), 1).view(np.bool_)
            found[here.reshape(self.shape)] = _unpacked(self.codes, int(here.sum()), self.bits)
            return found
        blocks = _blocks(self.shape, self.pattern)
        numbers = _unpacked(self.places, blocks, self.pattern.bits)
        kept = _unpacked(self.codes, blocks * self.pattern.n, self.bits)
        rows = found.reshape(blocks, self.pattern.m)
        rows[_combinations(self.pattern)[numbers]] = kept
        return rows.reshape(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes stored."""
        return self.places.nbytes + self.codes.nbytes


def dense_bytes(n_codes: int, bits: int) -> int:
    """Return the bytes of codes that are all stored."""
    return -(-n_codes * bits // 8)


def sparse_bytes(n_codes: int, n_here: int, bits: int, pattern: Pattern | None = None) -> int:
    """Return the bytes of codes of which some are stored.

    Args:
        n_codes: all.
        n_here: those that do not stand for zero; a pattern stores N of M whatever they are.
        bits: width of one code.
        pattern: None for a mask.
    """
    if pattern is None:
        return -(-n_codes // 8) + dense_bytes(n_here, bits)
    blocks = n_codes // pattern.m
    return dense_bytes(blocks, pattern.bits) + dense_bytes(blocks * pattern.n, bits)


def best_layout(
    codes: CodeArray, zeros: CodeArray, *, bits: int, patterns: Sequence[Pattern] = ()
) -> SparseCodes | None:
    """Return codes in the smallest layout, or None if storing all of them is smaller.

    A mask is smaller than all codes where more than one in `bits` of them stands for zero.

    Args:
        codes: (..., K) of `code_dtype`, each below 2**bits.
        zeros: likewise, broadcasts to `codes`.
        bits: width of one code.
        patterns: that may be tried beside a mask; those that the codes do not follow are left out.

    Raises:
        ShapeError: if a code does not fit.
    """
    here = codes != zeros
    least = dense_bytes(codes.size, bits)
    fitting = [p for p in patterns if codes.ndim and not codes.shape[-1] % p.m and codes.size]
    n_here, chosen, found = int(here.sum()), None, False
    for pattern in (None, *fitting):
        size = sparse_bytes(codes.size, n_here, bits, pattern)
        # To look at all blocks takes far longer than to compare two sizes.
        if size < least and (pattern is None or _follows(here, pattern)):
            chosen, found, least = pattern, True, size
    return SparseCodes.pack(codes, zeros, bits=bits, pattern=chosen) if found else None


def _follows(here: NDArray[np.bool_], pattern: Pattern) -> bool:
    return int(here.reshape(-1, pattern.m).sum(axis=1).max()) <= pattern.n


def _blocks(shape: tuple[int, ...], pattern: Pattern) -> int:
    if not shape or shape[-1] % pattern.m:
        raise ShapeError(f"codes {shape}: the last size must be a multiple of {pattern.m}")
    return math.prod(shape) // pattern.m


@cache
def _combinations(pattern: Pattern) -> NDArray[np.bool_]:
    """Return (binomial(M, N), M): where codes are, in lexicographic order of their places."""
    found = np.zeros((math.comb(pattern.m, pattern.n), pattern.m), dtype=np.bool_)
    for row, places in enumerate(combinations(range(pattern.m), pattern.n)):
        found[row, list(places)] = True
    found.flags.writeable = False
    return found


@cache
def _covering(pattern: Pattern) -> ByteArray:
    """Return for each set of places the first combination that holds it; 255 where none does.

    A set is a number: bit i stands for place i.
    """
    weights = 1 << np.arange(pattern.m)
    sets = _combinations(pattern) @ weights
    found = np.full(1 << pattern.m, 255, dtype=np.uint8)
    for few in range(1 << pattern.m):
        covering = np.flatnonzero((sets & few) == few)
        if covering.size:
            found[few] = covering[0]
    return found


def _numbers(here: NDArray[np.bool_], pattern: Pattern) -> ByteArray:
    """Return (blocks,) the combination of places of each block; zeros fill up where few are.

    Raises:
        ShapeError: if a block has too many.
    """
    found: ByteArray = _covering(pattern)[here @ (1 << np.arange(pattern.m))]
    if (found == 255).any():
        most = int(here.sum(axis=1).max())
        raise ShapeError(
            f"{most} of {pattern.m} codes are not zero, pattern {pattern.text} has fewer"
        )
    return found


def _packed(values: CodeArray, bits: int) -> ByteArray:
    """Pack a row of values as a little-endian bit stream."""
    if bits >= _MOST_BITS:
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        return np.ascontiguousarray(little).view(np.uint8)
    found = np.empty(dense_bytes(values.size, bits), dtype=np.uint8)
    # Part by part: each value is eight bytes on the way.
    for low in range(0, values.size, _PART):
        part = values[low : low + _PART].reshape(-1, 1)
        planes = np.unpackbits(part, axis=1, bitorder="little")[:, :bits]
        stream = np.packbits(planes.reshape(-1), bitorder="little")
        found[low * bits // 8 : low * bits // 8 + len(stream)] = stream
    return found


def _unpacked(packed: ByteArray, n: int, bits: int) -> CodeArray:
    """Undo `_packed` for `n` values."""
    if bits >= _MOST_BITS:
        values: CodeArray = packed.view(code_dtype(bits).newbyteorder("<"))
        return values
    if bits == 1:
        return np.unpackbits(packed, count=n, bitorder="little")
    found = np.empty(n, dtype=np.uint8)
    if bits == 4:
        found[0::2] = packed & 15
        found[1::2] = packed[: n // 2] >> 4
        return found
    for low in range(0, n, _PART):
        high = min(low + _PART, n)
        stream = np.unpackbits(packed[low * bits // 8 : -(-high * bits // 8)], bitorder="little")
        values = stream[: (high - low) * bits].reshape(-1, bits)
        found[low:high] = np.packbits(values, axis=1, bitorder="little")[:, 0]
    return found


def _check_stream(packed: ByteArray, n: int, bits: int, what: str) -> None:
    """See that a stream holds `n` values and nothing behind them.

    Raises:
        ShapeError: if it does not.
    """
    if len(packed) != dense_bytes(n, bits):
        raise ShapeError(f"{what}: {len(packed)} bytes, must be {dense_bytes(n, bits)}")
    if n * bits % 8 and int(packed[-1]) >> (n * bits % 8):
        raise ShapeError(f"{what}: bits are set behind the last of {n} values")
