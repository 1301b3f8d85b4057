"""ONNX's operators in torch: arithmetic, reductions, normalisations, products. It brings torch.

Source:
    The operators' definitions: https://onnx.ai/onnx/operators/
"""

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from onhand.host.networks.torch_call import Call, Operator, refuse
from onhand.host.networks.torch_quantize_ops import QUANTIZE_OPERATORS
from onhand.host.networks.torch_shape_ops import SHAPE_OPERATORS
from onhand.host.networks.torch_window_ops import WINDOW_OPERATORS

__all__ = ["OPERATORS"]


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda call: function(call.tensor(0))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda call: function(call.tensor(0), call.tensor(1))


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda call: reduce(function, call.tensors())


def _divide(call: Call) -> Tensor:
    a, b = call.tensor(0), call.tensor(1)
    # Whole numbers are divided towards zero.
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _power(call: Call) -> Tensor:
    base, exponent = call.tensor(0), call.tensor(1)
    if exponent.numel() == 1 and not exponent.requires_grad:
        # A plain number: its gradient at 0 is 0, where that of a tensor would be none.
        made = torch.pow(base, exponent.item()).to(base.dtype)
        return made.reshape((1,) * max(0, exponent.ndim - base.ndim) + base.shape)
    return torch.pow(base, exponent).to(base.dtype)


def _modulo(call: Call) -> Tensor:
    take = torch.fmod if call.node.whole("fmod", 0) else torch.remainder
    return take(call.tensor(0), call.tensor(1))


def _clip(call: Call) -> Tensor:
    x, low, high = call.tensor(0), call.maybe(1), call.maybe(2)
    if any(bound is not None and bound.requires_grad for bound in (low, high)):
        return torch.clamp(x, low, high)
    if not x.is_floating_point():
        return torch.clamp(x, low, high) if low is not None or high is not None else x
    least = -math.inf if low is None else float(low.item())
    most = math.inf if high is None else float(high.item())
    # The same as clamp, with a gradient in one step instead of four.
    return functional.hardtanh(x, least, most) if least < most else torch.clamp(x, least, most)


def _prelu(call: Call) -> Tensor:
    x, slope = call.tensor(0), call.tensor(1)
    return torch.where(x >= 0, x, x * slope)


def _gelu(call: Call) -> Tensor:
    kind = call.node.text("approximate", "none")
    return functional.gelu(call.tensor(0), approximate=kind)


def _hard_sigmoid(call: Call) -> Tensor:
    alpha, beta = call.node.number("alpha", 0.2), call.node.number("beta", 0.5)
    return torch.clamp(call.tensor(0) * alpha + beta, 0.0, 1.0)


def _cumulate(call: Call) -> Tensor:
    axis = int(call.tensor(1).item())
    if call.node.whole("exclusive", 0):
        raise refuse(call, "exclusive")
    x = call.tensor(0)
    if call.node.whole("reverse", 0):
        return x.flip(axis).cumsum(axis, dtype=x.dtype).flip(axis)
    return x.cumsum(axis, dtype=x.dtype)


def _reduction(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Operator:
    """Return an operator over axes: those of the attribute or the input; without any, over all."""

    def run(call: Call) -> Tensor:
        x, axes = call.tensor(0), call.axes(1)
        keep = bool(call.node.whole("keepdims", 1))
        if axes is None:
            if call.node.whole("noop_with_empty_axes", 0):
                return x
            axes = tuple(range(x.ndim))
        return function(x, axes, keep) if axes else x

    return run


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    # torch multiplies along one axis at a time; the last axes first, so that numbers stay valid.
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _norm(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    made: Tensor = torch.linalg.vector_norm(x, 2, dim=axes, keepdim=keep)
    return made


def _arg(function: Callable[[Tensor, int, bool], Tensor]) -> Operator:
    def run(call: Call) -> Tensor:
        if call.node.whole("select_last_index", 0):
            raise refuse(call, "select_last_index")
        keep = bool(call.node.whole("keepdims", 1))
        return function(call.tensor(0), call.node.whole("axis", 0), keep)

    return run


def _gemm(call: Call) -> Tensor:
    a, b, c = call.tensor(0), call.tensor(1), call.maybe(2)
    a = a.T if call.node.whole("transA", 0) else a  # (M, K)
    b = b.T if call.node.whole("transB", 0) else b  # (K, N)
    alpha, beta = call.node.number("alpha", 1.0), call.node.number("beta", 1.0)
    made = a @ b if alpha == 1.0 else alpha * (a @ b)
    if c is None:
        return made
    return made + (c if beta == 1.0 else beta * c)


def _batch_norm(call: Call) -> Tensor:
    x, mean, variance = call.tensor(0), call.tensor(3), call.tensor(4)
    keep = call.node.number("momentum", 0.9)
    return functional.batch_norm(
        x,
        mean,
        variance,
        call.tensor(1),
        call.tensor(2),
        training=call.batch_statistics,
        # ONNX says how much stays, torch how much is new.
        momentum=1.0 - keep,
        eps=call.node.number("epsilon", 1e-5),
    )


def _layer_norm(call: Call) -> Tensor:
    x, scale, bias = call.tensor(0), call.tensor(1), call.maybe(2)
    axis = call.node.whole("axis", -1) % x.ndim
    shape = x.shape[axis:]
    scale = scale.expand(shape)
    bias = None if bias is None else bias.expand(shape)
    return functional.layer_norm(x, shape, scale, bias, call.node.number("epsilon", 1e-5))


def _instance_norm(call: Call) -> Tensor:
    epsilon = call.node.number("epsilon", 1e-5)
    x, scale, bias = call.tensor(0), call.tensor(1), call.tensor(2)
    return functional.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def _group_norm(call: Call) -> Tensor:
    x, scale, bias = call.tensor(0), call.tensor(1), call.tensor(2)
    groups, epsilon = call.node.whole("num_groups", 1), call.node.number("epsilon", 1e-5)
    if scale.numel() == x.shape[1]:
        return functional.group_norm(x, groups, scale, bias, epsilon)
    # Before opset 21 scale and bias stand for a group, not for a channel.
    each = x.shape[1] // groups
    scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)  # (C,)
    return functional.group_norm(x, groups, scale, bias, epsilon)


def _lrn(call: Call) -> Tensor:
    node, x = call.node, call.tensor(0)
    size, alpha = node.whole("size", 1), node.number("alpha", 1e-4)
    beta, bias = node.number("beta", 0.75), node.number("bias", 1.0)
    before = (size - 1) // 2
    squares = functional.pad(x.square().transpose(1, -1), (before, size - 1 - before))
    total = squares.unfold(-1, size, 1).sum(-1).transpose(1, -1)  # (B, C, ...)
    return x / (bias + alpha / size * total) ** beta


def _einsum(call: Call) -> Tensor:
    made: Tensor = torch.einsum(call.node.text("equation", ""), *call.tensors())
    return made


def _dropout(call: Call) -> tuple[Tensor, ...]:
    x, given = call.tensor(0), call.maybe(1)
    ratio = 0.5 if given is None else float(given.item())
    made = functional.dropout(x, ratio, training=call.is_training)
    return made, torch.ones_like(x, dtype=torch.bool)


_ARITHMETIC: Final[Mapping[str, Operator]] = {
    "Abs": _unary(torch.abs),
    "Acos": _unary(torch.acos),
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "Atan": _unary(torch.atan),
    "Ceil": _unary(torch.ceil),
    "Celu": lambda call: functional.celu(call.tensor(0), call.node.number("alpha", 1.0)),
    "Clip": _clip,
    "Cos": _unary(torch.cos),
    "CumSum": _cumulate,
    "Div": _divide,
    "Elu": lambda call: functional.elu(call.tensor(0), call.node.number("alpha", 1.0)),
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gelu": _gelu,
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "IsInf": _unary(torch.isinf),
    "IsNaN": _unary(torch.isnan),
    "LeakyRelu": lambda call: functional.leaky_relu(
        call.tensor(0), call.node.number("alpha", 0.01)
    ),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "Max": _fold(torch.maximum),
    "Mean": lambda call: reduce(torch.add, call.tensors()) / len(call.inputs),
    "Min": _fold(torch.minimum),
    "Mish": _unary(functional.mish),
    "Mod": _modulo,
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _binary(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _power,
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(torch.relu),
    "Round": _unary(torch.round),
    "Selu": _unary(torch.selu),
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Softplus": _unary(functional.softplus),
    "Softsign": _unary(functional.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _binary(torch.sub),
    "Sum": _fold(torch.add),
    "Tanh": _unary(torch.tanh),
    "ThresholdedRelu": lambda call: torch.where(
        call.tensor(0) > call.node.number("alpha", 1.0), call.tensor(0), 0.0
    ),
    "Where": lambda call: torch.where(call.tensor(0), call.tensor(1), call.tensor(2)),
    "Xor": _binary(torch.logical_xor),
}
_REDUCTIONS: Final[Mapping[str, Operator]] = {
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "LogSoftmax": lambda call: call.tensor(0).log_softmax(call.node.whole("axis", -1)),
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduction(_norm),
    "ReduceLogSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "ReduceLogSumExp": _reduction(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype)),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
    "Softmax": lambda call: call.tensor(0).softmax(call.node.whole("axis", -1)),
}
_LAYERS: Final[Mapping[str, Operator]] = {
    "BatchNormalization": _batch_norm,
    "Dropout": _dropout,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "MatMul": _binary(torch.matmul),
}
OPERATORS: Final[Mapping[str, Operator]] = {
    **_ARITHMETIC,
    **_REDUCTIONS,
    **_LAYERS,
    **QUANTIZE_OPERATORS,
    **SHAPE_OPERATORS,
    **WINDOW_OPERATORS,
}
"""Name of an operator -> its computation; each as ONNX Runtime computes it, and differentiable."""
