"""The quantised tensor as GGUF's blocks of 32 weights: the same codes in another order.

Q4_0: a float16 scale, then 16 bytes, byte i holds the codes of weights i and i + 16; zero is 8.
Q4_1: scale and minimum, then the same; weight = scale * code + minimum.
Q8_0: a scale, then 32 signed bytes.

Source:
    ggml's block_q4_0, block_q4_1 and block_q8_0 (https://github.com/ggml-org/llama.cpp,
    ggml/src/ggml-common.h).
"""

from dataclasses import dataclass

import numpy as np

from onhand.core.arrays import ByteArray, HalfArray
from onhand.core.errors import InputError
from onhand.core.quantized import GroupFormat, QuantTensor

__all__ = ["BLOCK", "Blocks", "block_type", "row_bytes", "to_blocks"]

BLOCK = 32
_BLOCK_BYTES = {"Q4_0": 2 + 16, "Q4_1": 2 + 2 + 16, "Q8_0": 2 + 32}
_TYPES = {(4, True): "Q4_0", (4, False): "Q4_1", (8, True): "Q8_0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """A matrix as GGUF stores it.

    Attributes:
        type: "Q4_0", "Q4_1" or "Q8_0".
        data: (N, bytes of a row) uint8.
        largest_error: most that a weight moved, 0.0 where every weight is the same; above it
            only for Q4_1, whose minimum is rounded to float16.
        largest_error_steps: the same in steps of the weight's own scale.
    """

    type: str
    data: ByteArray
    largest_error: float
    largest_error_steps: float


def block_type(form: GroupFormat, shape: tuple[int, int], name: str) -> str:
    """Return the GGUF type that holds a matrix's codes.

    Args:
        form: how the bundle stores it.
        shape: (N, K).
        name: the matrix, for messages.

    Returns:
        "Q4_0", "Q4_1" or "Q8_0".

    Raises:
        InputError: if GGUF has no such type.
    """
    kind = _TYPES.get((form.bits, form.symmetric))
    if kind is None:
        stored = f"{form.bits} bits, {'symmetric' if form.symmetric else 'asymmetric'}"
        raise InputError(
            f"{name} is stored with {stored}, which GGUF has no lossless type for; build the "
            "bundle with 4 bits, or with 8 bits without --asymmetric"
        )
    if shape[1] % BLOCK:
        raise InputError(
            f"{name} has rows of {shape[1]} weights, GGUF's {kind} needs a multiple of {BLOCK}; "
            "this model cannot be exported quantised"
        )
    return kind


def row_bytes(kind: str, n_inputs: int) -> int:
    """Return the bytes of a row of `n_inputs` weights."""
    return n_inputs // BLOCK * _BLOCK_BYTES[kind]


def to_blocks(tensor: QuantTensor, name: str) -> Blocks:
    """Lay the codes out in blocks; a larger group repeats its scale in each of its blocks.

    Args:
        tensor: the matrix, (N, K).
        name: it, for messages.

    Returns:
        The blocks, and what was lost.

    Raises:
        InputError: if GGUF has no type for it, or a minimum is beyond float16.
    """
    kind = block_type(tensor.format, tensor.shape, name)
    n, k = tensor.shape
    per_group = tensor.format.group_size // BLOCK
    codes, zeros = tensor.unpack()
    codes = codes.reshape(n, -1)[:, :k].reshape(n, k // BLOCK, BLOCK)  # (N, B, 32)
    scales = np.repeat(tensor.scales, per_group, axis=1)[:, : k // BLOCK]  # (N, B)
    parts: list[ByteArray] = [_bytes(scales)]
    error = steps = 0.0
    if kind == "Q4_1":
        zeros = np.repeat(zeros, per_group, axis=1)[:, : k // BLOCK]  # (N, B)
        minima, error, steps = _minima(scales, zeros, name)
        parts.append(_bytes(minima))
    if kind == "Q8_0":
        # 0 .. 255 around 128 becomes -128 .. 127: the sign bit turns.
        parts.append((codes ^ 0x80).astype(np.uint8, copy=False))
    else:
        halves = codes[..., :16] | (codes[..., 16:] << 4)  # (N, B, 16)
        parts.append(halves.astype(np.uint8, copy=False))
    data = np.concatenate(parts, axis=2).reshape(n, -1)  # (N, bytes of a row)
    return Blocks(type=kind, data=data, largest_error=error, largest_error_steps=steps)


def _bytes(values: HalfArray) -> ByteArray:
    """Return float16 values as little-endian bytes: (N, B) -> (N, B, 2)."""
    return np.ascontiguousarray(values, dtype="<f2")[..., None].view(np.uint8)


def _minima(scales: HalfArray, zeros: ByteArray, name: str) -> tuple[HalfArray, float, float]:
    """Return -scale * zero in float16, (N, B), and the most that its rounding moves a weight.

    Raises:
        InputError: if one is beyond float16.
    """
    wide = scales.astype(np.float64)
    exact = -wide * zeros  # (N, B)
    with np.errstate(over="ignore"):
        minima = exact.astype(np.float16)
    if not np.isfinite(minima).all():
        raise InputError(
            f"{name} has a group whose smallest weight is beyond float16, which Q4_1 stores it in"
        )
    moved = np.abs(minima.astype(np.float64) - exact)
    in_steps = np.divide(moved, np.abs(wide), out=np.zeros_like(moved), where=wide != 0)
    return minima, float(moved.max(initial=0)), float(in_steps.max(initial=0))
