"""LiteRT's layers as ONNX operators: convolutions, pools, dense layers, activations, reductions."""

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from onhand.host.networks.graph import Attribute
from onhand.host.networks.sources.layers import (
    Window,
    convolve,
    deconvolve,
    dense,
    gelu,
    pool,
    reduce,
    reshape,
    resize,
    softmax,
)
from onhand.host.networks.sources.layout import Tensor
from onhand.host.networks.sources.tflite_step import FixedBatch, Step

__all__ = ["LAYERS", "activated"]

_SAME = 0
# number in the schema -> bounds; Tanh is one of its own.
_BOUNDS: Final = {1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
_TANH = 4


def activated(step: Step, x: Tensor, kind: int, *, is_sum: bool = True) -> Tensor:
    """Return a result behind the activation that its operator includes.

    Args:
        step: the operator.
        x: its result.
        kind: number of the activation in the schema.
        is_sum: whether the result can be below 0 where its inputs are not.

    Returns:
        The result; numbers that cannot be below 0 where they are quantised are not.

    Raises:
        SourceError: if nothing here knows the activation.
    """
    if kind == _TANH:
        return step.weaver.elementwise("Tanh", [x], x.shape)
    if kind in _BOUNDS:
        return _bounded(step, x, *_BOUNDS[kind])
    if kind:
        raise step.error(f"has activation {kind}, which nothing here knows")
    result = step.results[0]
    if is_sum and result.is_quantized and result.zero_point.size == 1:
        # A converter leaves out a Relu that the range of the stored numbers makes up for.
        lowest = -(2 ** (result.bits - 1)) if result.dtype.kind == "i" else 0
        if int(result.zero_point[0]) == lowest:
            return _bounded(step, x, 0.0, None)
    return x


def _bounded(step: Step, x: Tensor, low: float, high: float | None) -> Tensor:
    if high is None:
        return step.weaver.elementwise("Relu", [x], x.shape)
    ends = [step.weaver.constant(np.asarray(end, dtype=np.float32)) for end in (low, high)]
    return step.weaver.elementwise("Clip", [x, *ends], x.shape)


def _window(step: Step, kernel: tuple[int, ...], *, dilations: int | None) -> Window:
    steps = (step.option(2), step.option(1))
    spread = (1, 1)
    if dilations is not None:
        spread = (step.option(dilations + 1, default=1), step.option(dilations, default=1))
    if min(*steps, *spread, *kernel) < 1:
        raise step.error(f"has strides {steps}, dilations {spread} and kernel {kernel}")
    same = step.option(0, "b") == _SAME
    if step.block:
        if same or (*steps, *spread) != (1, 1, 1, 1):
            raise step.error("between SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND is not a plain one")
        return Window(
            kernel=kernel, strides=steps, dilations=step.block, same=False, pads=step.pads
        )
    return Window(kernel=kernel, strides=steps, dilations=spread, same=same)


def _convolution(step: Step) -> Tensor:
    weight = step.array(1)  # (N, H, W, K)
    channels = step.x.size(-1)
    if weight.ndim != 4 or step.x.rank != 4 or channels % weight.shape[3]:
        raise step.error(f"has weights {weight.shape} for {step.x.shape}")
    window = _window(step, weight.shape[1:3], dilations=4)
    turned = weight.transpose(0, 3, 1, 2)
    made = convolve(
        step.weaver, step.x, turned, step.optional(2), window, step.shape,
        group=channels // weight.shape[3],
    )  # fmt: skip
    return activated(step, made, step.option(3, "b"))


def _depthwise(step: Step) -> Tensor:
    weight = step.array(1)  # (1, H, W, K * multiplier)
    channels = step.x.size(-1)
    if weight.ndim != 4 or step.x.rank != 4 or weight.shape[3] % channels:
        raise step.error(f"has weights {weight.shape} for {step.x.shape}")
    window = _window(step, weight.shape[1:3], dilations=5)
    turned = weight.transpose(3, 0, 1, 2)
    made = convolve(
        step.weaver, step.x, turned, step.optional(2), window, step.shape, group=channels
    )
    return activated(step, made, step.option(4, "b"))


def _transposed(step: Step) -> Tensor:
    weight, x = step.array(1), step.input(2)  # (N, H, W, K)
    if weight.ndim != 4 or x.rank != 4 or weight.shape[3] != x.size(-1):
        raise step.error(f"has weights {weight.shape} for {x.shape}")
    window = _window(step, weight.shape[1:3], dilations=None)
    turned = weight.transpose(3, 0, 1, 2)
    made = deconvolve(step.weaver, x, turned, step.optional(3), window, step.shape)
    return activated(step, made, step.option(3, "b"))


def _pool(op: str) -> Callable[[Step], Tensor]:
    def translate(step: Step) -> Tensor:
        if step.x.rank != 4:
            raise step.error(f"reads {step.x.shape}, must be (B, H, W, C)")
        window = _window(step, (step.option(4), step.option(3)), dilations=None)
        made = pool(step.weaver, step.x, op, window, step.shape)
        return activated(step, made, step.option(5, "b"), is_sum=False)

    return translate


def _dense(step: Step) -> Tensor:
    weight = step.array(1)  # (N, K)
    if weight.ndim != 2 or step.option(1, "b"):
        raise step.error(f"has weights {weight.shape}, in an order that nothing here knows")
    x = step.x
    # Without "keep_num_dims" all but the last dimension are one.
    if len(step.shape) == 2 and (x.rank != 2 or x.shape[-1] != weight.shape[1]):
        rows = None if x.shape[0] is None else step.shape[0]
        if x.shape[0] is None and math.prod(size or 0 for size in x.shape[1:]) != weight.shape[1]:
            raise FixedBatch
        x = reshape(step.weaver, x, (rows, weight.shape[1]))
    if x.shape[-1] != weight.shape[1]:
        raise step.error(f"has weights {weight.shape} for {x.shape}")
    made = dense(step.weaver, x, weight.T, step.optional(2), step.shape)
    return activated(step, made, step.option(0, "b"))


def _binary(op: str) -> Callable[[Step], Tensor]:
    def translate(step: Step) -> Tensor:
        made = _elementwise(step, op, [step.input(0), step.input(1)])
        fused = step.op in {"ADD", "SUB", "MUL", "DIV"}
        return activated(step, made, step.option(0, "b")) if fused else made

    return translate


def _elementwise(step: Step, op: str, inputs: list[Tensor]) -> Tensor:
    rank = len(step.shape)
    # A batch that is not the first size of both would meet another axis.
    if any(t.shape and t.shape[0] is None and t.rank != rank for t in inputs):
        raise FixedBatch
    return step.weaver.elementwise(op, inputs, step.shape)


def _unary(op: str, attributes: Mapping[str, Attribute] | None = None) -> Callable[[Step], Tensor]:
    return lambda step: step.weaver.elementwise(op, [step.x], step.shape, attributes)


def _bounds(low: float, high: float | None) -> Callable[[Step], Tensor]:
    return lambda step: _bounded(step, step.x, low, high)


def _squared_difference(step: Step) -> Tensor:
    made = _elementwise(step, "Sub", [step.input(0), step.input(1)])
    return step.weaver.elementwise("Mul", [made, made], step.shape)


def _square(step: Step) -> Tensor:
    return step.weaver.elementwise("Mul", [step.x, step.x], step.shape)


def _rsqrt(step: Step) -> Tensor:
    root = step.weaver.elementwise("Sqrt", [step.x], step.shape)
    return step.weaver.elementwise("Reciprocal", [root], step.shape)


def _add_n(step: Step) -> Tensor:
    return _elementwise(step, "Sum", step.all_inputs())


def _leaky(step: Step) -> Tensor:
    return step.weaver.elementwise("LeakyRelu", [step.x], step.shape, {"alpha": step.real(0)})


def _prelu(step: Step) -> Tensor:
    return step.weaver.elementwise(
        "PRelu", [step.x, step.weaver.constant(step.array(1))], step.shape
    )


def _gelu(step: Step) -> Tensor:
    return gelu(step.weaver, step.x, is_tanh=bool(step.option(0, "B")))


def _softmax(step: Step) -> Tensor:
    x, beta = step.x, step.real(0)
    if step.op == "SOFTMAX" and beta != 1.0:
        factor = step.weaver.constant(np.asarray(beta, dtype=np.float32))
        x = step.weaver.elementwise("Mul", [x, factor], x.shape)
    return softmax(step.weaver, x, "LogSoftmax" if step.op == "LOG_SOFTMAX" else "Softmax", -1)


def _l2_normalization(step: Step) -> Tensor:
    return softmax(step.weaver, step.x, "LpNormalization", -1)


def _reduce(op: str) -> Callable[[Step], Tensor]:
    def translate(step: Step) -> Tensor:
        axes = [step.axis(axis, step.x.rank) for axis in step.wholes(1)]
        step.keep_batch(*axes)
        keep = bool(step.option(0, "B"))
        return reduce(step.weaver, step.x, op, axes, step.shape, keep=keep)

    return translate


def _resize(mode: str, slots: tuple[int, int]) -> Callable[[Step], Tensor]:
    def translate(step: Step) -> Tensor:
        aligned, half = (bool(step.option(slot, "B")) for slot in slots)
        if step.x.rank != 4:
            raise step.error(f"reads {step.x.shape}, must be (B, H, W, C)")
        kind = "align_corners" if aligned else "half_pixel" if half else "asymmetric"
        return resize(step.weaver, step.x, step.shape, mode=mode, coordinates=kind)

    return translate


LAYERS: Final[Mapping[str, Callable[[Step], Tensor]]] = {
    "ABS": _unary("Abs"),
    "ADD": _binary("Add"),
    "ADD_N": _add_n,
    "AVERAGE_POOL_2D": _pool("AveragePool"),
    "CEIL": _unary("Ceil"),
    "CONV_2D": _convolution,
    "COS": _unary("Cos"),
    "DEPTHWISE_CONV_2D": _depthwise,
    "DIV": _binary("Div"),
    "ELU": _unary("Elu"),
    "EXP": _unary("Exp"),
    "FLOOR": _unary("Floor"),
    "FULLY_CONNECTED": _dense,
    "GELU": _gelu,
    "HARD_SWISH": _unary("HardSwish"),
    "L2_NORMALIZATION": _l2_normalization,
    "LEAKY_RELU": _leaky,
    "LOG": _unary("Log"),
    "LOGISTIC": _unary("Sigmoid"),
    "LOG_SOFTMAX": _softmax,
    "MAXIMUM": _binary("Max"),
    "MAX_POOL_2D": _pool("MaxPool"),
    "MEAN": _reduce("ReduceMean"),
    "MINIMUM": _binary("Min"),
    "MUL": _binary("Mul"),
    "NEG": _unary("Neg"),
    "POW": _binary("Pow"),
    "PRELU": _prelu,
    "REDUCE_MAX": _reduce("ReduceMax"),
    "REDUCE_MIN": _reduce("ReduceMin"),
    "REDUCE_PROD": _reduce("ReduceProd"),
    "RELU": _unary("Relu"),
    "RELU6": _bounds(0.0, 6.0),
    "RELU_0_TO_1": _bounds(0.0, 1.0),
    "RELU_N1_TO_1": _bounds(-1.0, 1.0),
    "RESIZE_BILINEAR": _resize("linear", (2, 3)),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest", (0, 1)),
    "ROUND": _unary("Round"),
    "RSQRT": _rsqrt,
    "SIGN": _unary("Sign"),
    "SIN": _unary("Sin"),
    "SOFTMAX": _softmax,
    "SQRT": _unary("Sqrt"),
    "SQUARE": _square,
    "SQUARED_DIFFERENCE": _squared_difference,
    "SUB": _binary("Sub"),
    "SUM": _reduce("ReduceSum"),
    "TANH": _unary("Tanh"),
    "TRANSPOSE_CONV": _transposed,
}
"""Operators of numbers: name -> its translation, of one result."""
