"""Products of matrices, sums along axes, and normalisations."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from onhand.core.errors import InputError
from onhand.core.onnxgraph import OnnxNode
from onhand.device.networks.operators.kinds import Array, Operator

__all__ = ["MATRICES"]

Axes = tuple[int, ...] | None


def _gemm(node: OnnxNode, a: Array, b: Array, c: Array | None = None) -> Array:
    left = a.T if node.whole("transA", 0) else a
    right = b.T if node.whole("transB", 0) else b
    product = (left @ right) * a.dtype.type(node.number("alpha", 1.0))
    return product if c is None else product + c * a.dtype.type(node.number("beta", 1.0))


def _einsum(node: OnnxNode, *inputs: Array) -> Array:
    # Any: numpy's type depends on the equation.
    result: Any = np.einsum(node.text("equation", ""), *inputs, optimize=True)
    return np.asarray(result)


def _softmax(node: OnnxNode, x: Array) -> Array:
    axis = node.whole("axis", -1)
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _log_softmax(node: OnnxNode, x: Array) -> Array:
    axis = node.whole("axis", -1)
    below = x - x.max(axis=axis, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=axis, keepdims=True))


def _reduction(function: Callable[[Array, Axes, bool], Array]) -> Operator:
    def operator(node: OnnxNode, x: Array, axes: Array | None = None) -> Array:
        along: Axes = node.wholes("axes") or None  # an attribute before opset 18 (13 of sums)
        if axes is not None and axes.size:
            along = tuple(int(axis) for axis in axes.reshape(-1))
        if along is None and node.whole("noop_with_empty_axes", 0):
            along = ()
        keeps = bool(node.whole("keepdims", 1))
        return np.asarray(function(x, along, keeps), dtype=x.dtype)

    return operator


def _log_sum_exp(x: Array, axes: Axes, keeps: bool) -> Array:
    peak = x.max(axis=axes, keepdims=True)
    total = np.log(np.exp(x - peak).sum(axis=axes, keepdims=True)) + peak
    return total if keeps else total.squeeze(axes)


def _arg(function: Callable[..., Array], *, name: str) -> Operator:
    def operator(node: OnnxNode, x: Array) -> Array:
        axis = node.whole("axis", 0)
        if node.whole("select_last_index", 0):
            found = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis, keepdims=True)
        else:
            found = function(x, axis=axis, keepdims=True)
        kept = found if node.whole("keepdims", 1) else found.squeeze(axis)
        return kept.astype(np.int64)

    operator.__name__ = name
    return operator


def _top_k(node: OnnxNode, x: Array, k: Array) -> tuple[Array, Array]:
    axis, count = node.whole("axis", -1), int(k.item())
    # Of equal ones the first: a stable sort of the negated, which unsigned numbers have not.
    keys = x.astype(np.float64) if x.dtype.kind in "ub" else x
    order = np.argsort(-keys if node.whole("largest", 1) else keys, axis=axis, kind="stable")
    picked = np.take(order, np.arange(count), axis=axis)
    return np.take_along_axis(x, picked, axis=axis), picked.astype(np.int64)


def _cumulative(node: OnnxNode, x: Array, axis: Array) -> Array:
    along = int(axis.item())
    turned = np.flip(x, along) if node.whole("reverse", 0) else x
    total = np.cumsum(turned, axis=along, dtype=x.dtype)
    if node.whole("exclusive", 0):
        total = total - turned
    return np.flip(total, along) if node.whole("reverse", 0) else total


def _over_channels(vector: Array, x: Array) -> Array:
    return vector.reshape(-1, *(1,) * (x.ndim - 2))


def _batch_norm(
    node: OnnxNode, x: Array, scale: Array, bias: Array, mean: Array, variance: Array
) -> Array:
    if node.whole("training_mode", 0):
        raise InputError(f"BatchNormalization {node.outputs[0]!r}: training is not known")
    steepness = scale / np.sqrt(variance + variance.dtype.type(node.number("epsilon", 1e-5)))
    shift = bias - mean * steepness
    return (x * _over_channels(steepness, x) + _over_channels(shift, x)).astype(x.dtype)


def _standardized(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    wide = x.astype(np.float32) if x.dtype == np.float16 else x
    centred = wide - wide.mean(axis=axes, keepdims=True)
    variance = np.square(centred).mean(axis=axes, keepdims=True)
    return centred / np.sqrt(variance + variance.dtype.type(epsilon))


def _layer_norm(node: OnnxNode, x: Array, scale: Array, bias: Array | None = None) -> Array:
    axis = node.whole("axis", -1)
    axes = tuple(range(axis + x.ndim if axis < 0 else axis, x.ndim))
    scaled = _standardized(x, axes, node.number("epsilon", 1e-5)) * scale
    return (scaled if bias is None else scaled + bias).astype(x.dtype)


def _rms_norm(node: OnnxNode, x: Array, scale: Array) -> Array:
    axis = node.whole("axis", -1)
    axes = tuple(range(axis + x.ndim if axis < 0 else axis, x.ndim))
    wide = x.astype(np.float32)
    mean = np.square(wide).mean(axis=axes, keepdims=True)
    return (wide / np.sqrt(mean + np.float32(node.number("epsilon", 1e-5))) * scale).astype(x.dtype)


def _instance_norm(node: OnnxNode, x: Array, scale: Array, bias: Array) -> Array:
    flat = _standardized(x, tuple(range(2, x.ndim)), node.number("epsilon", 1e-5))
    return (flat * _over_channels(scale, x) + _over_channels(bias, x)).astype(x.dtype)


def _group_norm(node: OnnxNode, x: Array, scale: Array, bias: Array) -> Array:
    B, C = x.shape[:2]
    G = node.whole("num_groups", 1)
    grouped = x.reshape(B, G, -1)  # (B, G, rest)
    flat = _standardized(grouped, (2,), node.number("epsilon", 1e-5)).reshape(x.shape)
    # Before opset 21 there was one for each group.
    wide = [vector if vector.size == C else np.repeat(vector, C // G) for vector in (scale, bias)]
    return (flat * _over_channels(wide[0], x) + _over_channels(wide[1], x)).astype(x.dtype)


def _lp_norm(node: OnnxNode, x: Array) -> Array:
    axis, p = node.whole("axis", -1), node.whole("p", 2)
    return x / np.linalg.norm(x, ord=p, axis=axis, keepdims=True)


MATRICES: Final[Mapping[str, Operator]] = {
    "ArgMax": _arg(np.argmax, name="arg_max"),
    "ArgMin": _arg(np.argmin, name="arg_min"),
    "BatchNormalization": _batch_norm,
    "CumSum": _cumulative,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_norm,
    "MatMul": lambda node, a, b: np.matmul(a, b),
    "RMSNormalization": _rms_norm,
    "ReduceL1": _reduction(lambda x, axes, keeps: np.abs(x).sum(axis=axes, keepdims=keeps)),
    "ReduceL2": _reduction(
        lambda x, axes, keeps: np.sqrt(np.square(x).sum(axis=axes, keepdims=keeps))
    ),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ReduceMax": _reduction(lambda x, axes, keeps: x.max(axis=axes, keepdims=keeps)),
    "ReduceMean": _reduction(lambda x, axes, keeps: x.mean(axis=axes, keepdims=keeps)),
    "ReduceMin": _reduction(lambda x, axes, keeps: x.min(axis=axes, keepdims=keeps)),
    "ReduceProd": _reduction(lambda x, axes, keeps: x.prod(axis=axes, keepdims=keeps)),
    "ReduceSum": _reduction(lambda x, axes, keeps: x.sum(axis=axes, keepdims=keeps)),
    "ReduceSumSquare": _reduction(
        lambda x, axes, keeps: np.square(x).sum(axis=axes, keepdims=keeps)
    ),
    "Softmax": _softmax,
    "TopK": _top_k,
}
