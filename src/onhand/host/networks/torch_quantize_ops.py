"""QuantizeLinear and DequantizeLinear in torch, so that they can be trained through.

Between the two, codes are whole numbers in float tensors, exactly those of ONNX Runtime. Rounding
passes gradients on as if it did nothing (straight-through), clipping where it does nothing. What
follows for a scale is the gradient of learned step sizes: round(x / s) - x / s inside the range,
the range's end outside of it.

Source:
    Straight-through estimator: arXiv:1308.3432. Learned step sizes: LSQ, arXiv:1902.08153.
"""

# Python has `typing.override` from 3.12 on.
# mypy: disable-error-code="explicit-override"

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from onhand.host.networks.graph import Node
from onhand.host.networks.torch_call import Call, Operator, refuse

__all__ = ["QUANTIZE_OPERATORS", "code_range", "quantize", "spread"]

_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1),
}


def code_range(dtype: str) -> tuple[int, int] | None:
    """Return the smallest and the largest code of a dtype by its name; None if it has none."""
    return _RANGES.get(dtype)


def spread(node: Node, value: Tensor, like: Tensor) -> Tensor:
    """Give a scale or a zero point the shape that it is multiplied with.

    Args:
        node: with the attributes axis and block_size.
        value: (), (1,), (C,), or as `like` with one size a block_size-th.
        like: what is quantized.

    Returns:
        The same numbers, broadcastable to `like`.
    """
    if value.numel() == 1:
        return value.reshape(())
    axis = node.whole("axis", 1) % like.ndim
    block = node.whole("block_size", 0)
    if block and value.ndim == like.ndim:
        return value.repeat_interleave(block, dim=axis).narrow(axis, 0, like.shape[axis])
    return value.reshape([-1 if i == axis else 1 for i in range(like.ndim)])


def quantize(x: Tensor, scale: Tensor, zero: Tensor | float, low: int, high: int) -> Tensor:
    """Round to codes, half to even, and saturate.

    Args:
        x: any shape, float32.
        scale: broadcastable to `x`.
        zero: the code of 0, likewise.
        low: the smallest code.
        high: the largest code.

    Returns:
        Whole numbers in float32; gradients reach `x` and `scale`.
    """
    rounded: Tensor = _Round.apply(x / scale)  # type: ignore[no-untyped-call] # torch has no type for it
    return torch.clamp(rounded + zero, low, high)


class _Round(torch.autograd.Function):
    """Rounds half to even; gradients pass as if it did not."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


def _quantize(call: Call) -> Tensor:
    x, given, zero = call.tensor(0), call.tensor(1), call.maybe(2)
    # A number in bfloat16 would not lie on the grid that ONNX Runtime has.
    x, scale = x.float(), spread(call.node, given, x).float()
    if call.node.whole("output_dtype", 0) and zero is None:
        raise refuse(call, "output_dtype")
    if zero is None:
        return quantize(x, scale, 0.0, 0, 255)
    low, high = _limits(call, zero)
    return quantize(x, scale, spread(call.node, zero, x).float(), low, high)


def _dequantize(call: Call) -> Tensor:
    codes, given, zero = call.tensor(0), call.tensor(1), call.maybe(2)
    scale = spread(call.node, given, codes)
    if zero is None:
        return codes.to(scale.dtype) * scale
    offset = spread(call.node, zero, codes)
    if not codes.is_floating_point():
        return (codes.to(torch.int32) - offset.to(torch.int32)).to(scale.dtype) * scale
    return (codes - offset.to(codes.dtype)).to(scale.dtype) * scale


def _dynamic(call: Call) -> tuple[Tensor, ...]:
    x = call.tensor(0).float()
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = ((high - low) / 255).detach()
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.clamp((-low / scale).round(), 0, 255).detach()
    return quantize(x, scale, zero, 0, 255), scale, zero.to(torch.uint8)


def _limits(call: Call, zero: Tensor) -> tuple[int, int]:
    found = code_range(str(zero.dtype).removeprefix("torch."))
    if found is None:
        raise refuse(call, f"a zero point of {zero.dtype}")
    return found


QUANTIZE_OPERATORS: Final[Mapping[str, Operator]] = {
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "QuantizeLinear": _quantize,
}
