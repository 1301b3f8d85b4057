"""Operators on whole numbers that stand for others: y = (q - zero) * scale."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from onhand.core.errors import InputError
from onhand.core.onnxgraph import OnnxNode
from onhand.core.onnxtensor import TENSOR_DTYPES
from onhand.device.networks.operators.kinds import Array, Operator
from onhand.device.networks.operators.windows import convolve

__all__ = ["MICROSOFT", "QUANTIZED", "check_bits"]


def _spread(node: OnnxNode, parameter: Array, x: Array, axis: int) -> Array:
    """Return a scale or zero point in a shape that goes with x: of all, of an axis, of blocks."""
    if parameter.size == 1 and parameter.ndim <= 1:
        return parameter.reshape(())
    if parameter.ndim == 1:
        shape = [1] * x.ndim
        shape[axis] = -1
        return parameter.reshape(shape)
    block = node.whole("block_size", 0)
    return np.repeat(parameter, block, axis=axis)[
        tuple(slice(0, size) for size in x.shape)
    ]  # the last block may be smaller


def _codes(x: Array, scale: Array, zero: Array, dtype: np.dtype[Any]) -> Array:
    limits = np.iinfo(dtype)
    # Half to even, as ONNX says; numpy's rint does.
    rounded = np.rint(x / scale) + zero
    return np.clip(np.nan_to_num(rounded), limits.min, limits.max).astype(dtype)


def _quantize(node: OnnxNode, x: Array, scale: Array, zero: Array | None = None) -> Array:
    axis = node.whole("axis", 1)
    if zero is not None:
        dtype = zero.dtype
    else:
        dtype = np.dtype(TENSOR_DTYPES.get(node.whole("output_dtype", 0) or 2, "float32"))
    if dtype.kind not in "iu":
        raise InputError(f"QuantizeLinear {node.outputs[0]!r}: codes of {dtype} are not known")
    offset = np.zeros((), np.float32) if zero is None else zero.astype(np.float32)
    wide = scale.astype(np.float32)
    return _codes(x.astype(np.float32), _spread(node, wide, x, axis),
                  _spread(node, offset, x, axis), dtype)  # fmt: skip


def _dequantize(node: OnnxNode, x: Array, scale: Array, zero: Array | None = None) -> Array:
    axis = node.whole("axis", 1)
    wide = x.astype(np.int32)
    if zero is not None:
        wide -= _spread(node, zero.astype(np.int32), x, axis)
    return wide.astype(scale.dtype) * _spread(node, scale, x, axis)


def _quantize_dynamically(node: OnnxNode, x: Array) -> tuple[Array, Array, Array]:
    low = np.minimum(x.min(), np.float32(0))
    high = np.maximum(x.max(), np.float32(0))
    scale = np.asarray((high - low) / np.float32(255) if high > low else 1, dtype=np.float32)
    zero = np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8)
    return _codes(x, scale, zero.astype(np.float32), np.dtype(np.uint8)), scale, zero


def _centred(x: Array, zero: Array | None, *, axis: int) -> Array:
    """Return whole numbers less their zero point: in float64, whose products are exact here."""
    wide = x.astype(np.float64)
    if zero is None:
        return wide
    if zero.size == 1:
        return wide - float(zero.reshape(-1)[0])
    if zero.ndim > 1:
        return wide - zero
    shape = [1] * x.ndim
    shape[axis] = -1
    return wide - zero.reshape(shape)


def _matmul_integer(
    node: OnnxNode, a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None
) -> Array:
    product = _centred(a, a_zero, axis=a.ndim - 2) @ _centred(b, b_zero, axis=b.ndim - 1)
    return product.astype(np.int32)


def _conv_integer(
    node: OnnxNode, x: Array, w: Array, x_zero: Array | None = None, w_zero: Array | None = None
) -> Array:
    return convolve(node, _centred(x, x_zero, axis=0), _centred(w, w_zero, axis=0)).astype(np.int32)


def _requantized(total: Array, scale: Array, zero: Array) -> Array:
    return _codes(total.astype(np.float32), 1 / scale, zero.astype(np.float32), zero.dtype)


def _qlinear_matmul(
    node: OnnxNode,
    a: Array,
    a_scale: Array,
    a_zero: Array,
    b: Array,
    b_scale: Array,
    b_zero: Array,
    y_scale: Array,
    y_zero: Array,
) -> Array:
    total = _matmul_integer(node, a, b, a_zero, b_zero)
    return _requantized(total, a_scale * b_scale / y_scale, y_zero)


def _qlinear_conv(
    node: OnnxNode,
    x: Array,
    x_scale: Array,
    x_zero: Array,
    w: Array,
    w_scale: Array,
    w_zero: Array,
    y_scale: Array,
    y_zero: Array,
    bias: Array | None = None,
) -> Array:
    total = _conv_integer(node, x, w, x_zero, w_zero)
    column = (-1, *(1,) * (x.ndim - 2))
    if bias is not None:
        total += bias.reshape(column)
    scale = (x_scale * w_scale / y_scale).reshape(-1)
    return _requantized(total, scale.reshape(column) if scale.size > 1 else scale[0], y_zero)


def _unpacked(packed: Array, bits: int, count: int) -> Array:
    """Return codes of the last axis, the lowest bits of a byte first; `count` of them."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return codes.reshape(*packed.shape[:-1], -1)[..., :count]


def check_bits(node: OnnxNode, groups: Array | None) -> None:
    """Check that a product with weights of few bits is of a known kind.

    Raises:
        InputError: if it is not.
    """
    bits = node.whole("bits", 4)
    if bits not in {2, 4, 8}:
        raise InputError(f"MatMulNBits {node.outputs[0]!r}: {bits} bits are not known")
    if groups is not None:
        raise InputError(f"MatMulNBits {node.outputs[0]!r}: groups in another order are not known")


def _matmul_bits(
    node: OnnxNode,
    a: Array,
    packed: Array,
    scales: Array,
    zeros: Array | None = None,
    groups: Array | None = None,
    bias: Array | None = None,
) -> Array:
    check_bits(node, groups)
    K, N = node.whole("K", 0), node.whole("N", 0)
    bits, block = node.whole("bits", 4), node.whole("block_size", 32)
    G = -(-K // block)
    codes = _unpacked(packed.reshape(N, G, -1), bits, block).astype(np.float32)
    if zeros is None:
        offset = np.full((N, G), 2 ** (bits - 1), dtype=np.float32)
    elif zeros.dtype == np.uint8:
        offset = _unpacked(zeros.reshape(N, -1), bits, G).astype(np.float32)
    else:
        offset = zeros.reshape(N, G).astype(np.float32)
    weights = (codes - offset[..., None]) * scales.reshape(N, G, 1).astype(np.float32)
    matrix = weights.reshape(N, G * block)[:, :K]
    product = a.astype(np.float32) @ matrix.T
    return (product if bias is None else product + bias).astype(a.dtype)


QUANTIZED: Final[Mapping[str, Operator]] = {
    "ConvInteger": _conv_integer,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _quantize_dynamically,
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QuantizeLinear": _quantize,
}
MICROSOFT: Final[Mapping[str, Operator]] = {
    "DequantizeLinear": _dequantize,
    "MatMulNBits": _matmul_bits,
    "QuantizeLinear": _quantize,
}
