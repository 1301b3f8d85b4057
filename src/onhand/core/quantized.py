"""The one quantised tensor: integer codes, a scale for each group of inputs, zero points.

The bytes are those of ONNX Runtime's MatMulNBits, so an engine maps them without a copy, and
they map without loss to GGUF Q4_0/Q8_0 (Q4_1 rounds its minimum) and OpenVINO INT4/INT8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onhand.core.arrays import ByteArray, FloatArray, HalfArray
from onhand.core.errors import InputError, ShapeError

__all__ = ["GroupFormat", "QuantTensor", "pack_bits", "unpack_bits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFormat:
    """How a matrix is stored.

    Attributes:
        bits: width of one code: 2, 3, 4 or 8.
        group_size: inputs that share one scale: 32, 64 or 128.
        symmetric: True for a fixed zero point of 2**(bits - 1); False stores one per group.
    """

    BITS: ClassVar[tuple[int, ...]] = (2, 3, 4, 8)
    GROUP_SIZES: ClassVar[tuple[int, ...]] = (32, 64, 128)

    bits: int = 4
    group_size: int = 32
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.bits not in self.BITS:
            raise InputError(f"bits is {self.bits}, must be one of {self.BITS}")
        if self.group_size not in self.GROUP_SIZES:
            raise InputError(f"group_size is {self.group_size}, must be one of {self.GROUP_SIZES}")

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The zero point of a symmetric tensor."""
        return 1 << (self.bits - 1)

    def n_groups(self, n_inputs: int) -> int:
        """Groups in a row of `n_inputs`; the last one is padded where needed."""
        return -(-n_inputs // self.group_size)

    def code_shape(self, shape: tuple[int, int]) -> tuple[int, int, int]:
        """Shape of the packed codes of an (N, K) matrix: (N, G, bytes of one group)."""
        return (shape[0], self.n_groups(shape[1]), self.group_size * self.bits // 8)

    def zero_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Shape of the packed zero points of an (N, K) matrix: (N, bytes of one row)."""
        return (shape[0], -(-self.n_groups(shape[1]) * self.bits // 8))

    def size_bytes(self, shape: tuple[int, int]) -> int:
        """Bytes of an (N, K) matrix in this format: codes, fp16 scales, zero points."""
        n, groups, width = self.code_shape(shape)
        zeros = 0 if self.symmetric else int(np.prod(self.zero_shape(shape)))
        return n * groups * width + n * groups * 2 + zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantTensor:
    """A matrix of N outputs by K inputs as codes: weight = scale * (code - zero).

    Attributes:
        shape: (N, K).
        format: bits, group size, symmetric or not.
        codes: (N, G, group_size * bits / 8) uint8, little-endian bit stream; a group that K does
            not fill is padded with codes that stand for zero.
        scales: (N, G) float16; may be negative (full-range symmetric).
        zeros: (N, ceil(G * bits / 8)) uint8, packed like the codes; None if symmetric.
    """

    shape: tuple[int, int]
    format: GroupFormat
    codes: ByteArray
    scales: HalfArray
    zeros: ByteArray | None

    def __post_init__(self) -> None:
        n, k = self.shape
        groups = self.format.n_groups(k)
        _check(self.codes, self.format.code_shape(self.shape), np.dtype(np.uint8), "codes")
        _check(self.scales, (n, groups), np.dtype(np.float16), "scales")
        if (self.zeros is None) != self.format.symmetric:
            raise ShapeError("zero points go with asymmetric tensors, and only with those")
        if self.zeros is not None:
            _check(self.zeros, self.format.zero_shape(self.shape), np.dtype(np.uint8), "zeros")

    @classmethod
    def pack(
        cls,
        codes: ByteArray,
        scales: HalfArray,
        zeros: ByteArray | None,
        *,
        n_inputs: int,
        format: GroupFormat,
    ) -> "QuantTensor":
        """Pack unpacked codes.

        Args:
            codes: (N, G, group_size) uint8, each at most `format.top`.
            scales: (N, G) float16.
            zeros: (N, G) uint8, each at most `format.top`; None if symmetric.
            n_inputs: K; at most G * group_size.
            format: bits, group size, symmetric or not.

        Returns:
            The packed tensor.

        Raises:
            ShapeError: if the arrays do not fit each other.
        """
        n_rows = codes.shape[0]
        packed_zeros = None
        if zeros is not None:
            _check(zeros, codes.shape[:2], np.dtype(np.uint8), "zeros")
            n_bytes = format.zero_shape((n_rows, n_inputs))[1]
            # Eight codes fill whole bytes at any width; what is too much is cut off again.
            padded = np.pad(zeros, ((0, 0), (0, -zeros.shape[1] % 8)))
            packed_zeros = pack_bits(padded, format.bits)[:, :n_bytes]
        return cls(
            shape=(n_rows, n_inputs),
            format=format,
            codes=pack_bits(codes, format.bits),
            scales=scales,
            zeros=packed_zeros,
        )

    @classmethod
    def stack(cls, pieces: Sequence["QuantTensor"]) -> "QuantTensor":
        """Join tensors of one format and width by rows; at least one."""
        zeros = [piece.zeros for piece in pieces if piece.zeros is not None]
        return cls(
            shape=(sum(piece.shape[0] for piece in pieces), pieces[0].shape[1]),
            format=pieces[0].format,
            codes=np.concatenate([piece.codes for piece in pieces]),
            scales=np.concatenate([piece.scales for piece in pieces]),
            zeros=np.concatenate(zeros) if zeros else None,
        )

    def unpack(self) -> tuple[ByteArray, ByteArray]:
        """Return codes (N, G, group_size) and zero points (N, G), one uint8 each."""
        codes = unpack_bits(self.codes, self.format.bits)  # (N, G, group_size)
        groups = self.codes.shape[1]
        if self.zeros is None:
            return codes, np.full((self.shape[0], groups), self.format.middle, dtype=np.uint8)
        return codes, unpack_bits(self.zeros, self.format.bits)[:, :groups]

    def dequantize(self) -> FloatArray:
        """Return the matrix that the codes stand for: (N, K) float32."""
        codes, zeros = self.unpack()
        centred = codes.astype(np.float32) - zeros[:, :, None]  # (N, G, group_size)
        centred *= self.scales.astype(np.float32)[:, :, None]
        n, k = self.shape
        return centred.reshape(n, -1)[:, :k]  # (N, K)

    def take(self, ids: np.ndarray) -> "QuantTensor":
        """Return some rows as they are stored: (T,) integer ids -> a tensor of (T, K)."""
        return QuantTensor(
            shape=(len(ids), self.shape[1]),
            format=self.format,
            codes=self.codes[ids],
            scales=self.scales[ids],
            zeros=None if self.zeros is None else self.zeros[ids],
        )

    def rows(self, ids: np.ndarray) -> FloatArray:
        """Return some rows, dequantised: (T,) integer ids -> (T, K) float32."""
        return self.take(ids).dequantize()

    @property
    def size_bytes(self) -> int:
        """Bytes stored."""
        zeros = 0 if self.zeros is None else self.zeros.nbytes
        return self.codes.nbytes + self.scales.nbytes + zeros


def pack_bits(codes: ByteArray, bits: int) -> ByteArray:
    """Pack the last axis as a little-endian bit stream.

    Args:
        codes: (..., K) uint8 with values below 2**bits; K * bits divisible by 8.
        bits: 2, 3, 4 or 8.

    Returns:
        (..., K * bits / 8) uint8.

    Raises:
        ShapeError: if a row does not fill whole bytes.
    """
    if codes.shape[-1] * bits % 8:
        raise ShapeError(f"{codes.shape[-1]} codes of {bits} bits do not fill whole bytes")
    if bits == 8:
        return codes
    if bits == 4:
        return (codes[..., 0::2] | (codes[..., 1::2] << 4)).astype(np.uint8, copy=False)
    if bits == 2:
        low = codes[..., 0::4] | (codes[..., 1::4] << 2)
        high = (codes[..., 2::4] << 4) | (codes[..., 3::4] << 6)
        return (low | high).astype(np.uint8, copy=False)
    planes = np.unpackbits(codes[..., None], axis=-1, bitorder="little")[..., :bits]
    flat = planes.reshape(*codes.shape[:-1], -1)  # (..., K * bits)
    return np.packbits(flat, axis=-1, bitorder="little")


def unpack_bits(packed: ByteArray, bits: int) -> ByteArray:
    """Undo `pack_bits`: (..., B) uint8 -> (..., B * 8 / bits) uint8, whole codes only."""
    if bits == 8:
        return packed
    if bits in {2, 4}:
        per_byte = 8 // bits
        shifts = np.arange(per_byte, dtype=np.uint8) * bits
        spread = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
        return spread.reshape(*packed.shape[:-1], -1)  # (..., B * 8 / bits)
    stream = np.unpackbits(packed, axis=-1, bitorder="little")  # (..., B * 8)
    whole = stream.shape[-1] // bits
    groups = stream[..., : whole * bits].reshape(*packed.shape[:-1], whole, bits)
    return np.packbits(groups, axis=-1, bitorder="little")[..., 0]


def _check(array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, what: str) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ShapeError(f"{what}: {array.dtype} {array.shape}, must be {dtype} {shape}")
