"""Operators that work on each element alone."""

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from onhand.core.errors import InputError
from onhand.core.onnxgraph import OnnxNode
from onhand.core.onnxtensor import TENSOR_DTYPES
from onhand.device.networks.operators.kinds import Array, Operator

__all__ = ["ELEMENTWISE"]


def _plain(function: Callable[..., Array]) -> Operator:
    """Return an operator without attributes."""
    return lambda node, *inputs: function(*inputs)


def _divide(node: OnnxNode, x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        return x / y
    # Whole numbers are cut towards zero, numpy's go down.
    quotient = np.abs(x) // np.abs(y)
    return (np.sign(x) * np.sign(y) * quotient).astype(x.dtype)


def _power(node: OnnxNode, x: Array, y: Array) -> Array:
    return np.power(x, y).astype(x.dtype)


def _mod(node: OnnxNode, x: Array, y: Array) -> Array:
    return np.fmod(x, y) if node.whole("fmod", 0) else np.mod(x, y)


def _many(function: Callable[[Array, Array], Array]) -> Operator:
    def operator(node: OnnxNode, *inputs: Array) -> Array:
        result = inputs[0]
        for other in inputs[1:]:
            result = function(result, other)
        return result

    return operator


def _mean(node: OnnxNode, *inputs: Array) -> Array:
    return _many(np.add)(node, *inputs) / np.asarray(len(inputs), inputs[0].dtype)


def _sigmoid(x: Array) -> Array:
    # tanh does not overflow, however large x is.
    return (np.tanh(x * x.dtype.type(0.5)) + x.dtype.type(1)) * x.dtype.type(0.5)


def _erf(x: Array) -> Array:
    exact = np.fromiter(map(math.erf, x.reshape(-1).tolist()), np.float64, x.size)
    return exact.reshape(x.shape).astype(x.dtype)


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, x.dtype.type(0))


def _gelu(node: OnnxNode, x: Array) -> Array:
    half = x * x.dtype.type(0.5)
    if node.text("approximate", "none") == "tanh":
        inner = x.dtype.type(math.sqrt(2 / math.pi)) * (x + x.dtype.type(0.044715) * x * x * x)
        return half * (np.tanh(inner) + x.dtype.type(1))
    return half * (_erf(x / x.dtype.type(math.sqrt(2))) + x.dtype.type(1))


def _leaky(node: OnnxNode, x: Array) -> Array:
    return np.where(x < 0, x * x.dtype.type(node.number("alpha", 0.01)), x)


def _elu(node: OnnxNode, x: Array) -> Array:
    return np.where(x < 0, np.expm1(np.minimum(x, 0)) * x.dtype.type(node.number("alpha", 1.0)), x)


def _selu(node: OnnxNode, x: Array) -> Array:
    alpha = node.number("alpha", 1.67326319217681884765625)
    gamma = x.dtype.type(node.number("gamma", 1.05070102214813232421875))
    return gamma * np.where(x < 0, np.expm1(np.minimum(x, 0)) * x.dtype.type(alpha), x)


def _hard_sigmoid(node: OnnxNode, x: Array) -> Array:
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    return np.clip(x * x.dtype.type(alpha) + x.dtype.type(beta), 0, 1)


def _hard_swish(x: Array) -> Array:
    return x * np.clip(x / x.dtype.type(6) + x.dtype.type(0.5), 0, 1)


def _swish(node: OnnxNode, x: Array) -> Array:
    return x * _sigmoid(x * x.dtype.type(node.number("alpha", 1.0)))


def _clip(node: OnnxNode, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    clipped = x if low is None else np.maximum(x, low)
    return clipped if high is None else np.minimum(clipped, high)


def _cast(node: OnnxNode, x: Array) -> Array:
    kind = node.whole("to", 0)
    if kind not in TENSOR_DTYPES:
        raise InputError(f"Cast {node.outputs[0]!r}: to type {kind}, which is not known")
    wanted = np.dtype(TENSOR_DTYPES[kind])
    # Of numbers that do not fit, ONNX says nothing: no warning.
    with np.errstate(invalid="ignore", over="ignore"):
        return x.astype(wanted)


def _cast_like(node: OnnxNode, x: Array, like: Array) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        return x.astype(like.dtype)


def _dropout(node: OnnxNode, x: Array, *_: Array | None) -> Array:
    return x


ELEMENTWISE: Final[Mapping[str, Operator]] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "And": _plain(np.logical_and),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _plain(np.ceil),
    "Clip": _clip,
    "Cos": _plain(np.cos),
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": _elu,
    "Equal": _plain(np.equal),
    "Erf": _plain(_erf),
    "Exp": _plain(np.exp),
    "Floor": _plain(np.floor),
    "Gelu": _gelu,
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(_hard_swish),
    "Identity": _plain(lambda x: x),
    "IsNaN": _plain(np.isnan),
    "LeakyRelu": _leaky,
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Log": _plain(np.log),
    "Max": _many(np.maximum),
    "Mean": _mean,
    "Min": _many(np.minimum),
    "Mish": _plain(lambda x: x * np.tanh(_softplus(x))),
    "Mod": _mod,
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "PRelu": _plain(lambda x, slope: np.where(x < 0, x * slope, x)),
    "Pow": _power,
    "Reciprocal": _plain(lambda x: x.dtype.type(1) / x),
    "Relu": _plain(lambda x: np.maximum(x, x.dtype.type(0))),
    "Round": _plain(np.rint),
    "Selu": _selu,
    "Sigmoid": _plain(_sigmoid),
    "Sign": _plain(np.sign),
    "Sin": _plain(np.sin),
    "Softplus": _plain(_softplus),
    "Softsign": _plain(lambda x: x / (np.abs(x) + x.dtype.type(1))),
    "Sqrt": _plain(np.sqrt),
    "Sub": _plain(np.subtract),
    "Sum": _many(np.add),
    "Swish": _swish,
    "Tanh": _plain(np.tanh),
    "Where": _plain(np.where),
    "Xor": _plain(np.logical_xor),
}
