"""ONNX's operators that move, join and choose numbers, in torch. It brings torch."""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from onhand.core.errors import InputError
from onhand.host.networks.torch_call import Call, Operator, refuse

__all__ = ["SHAPE_OPERATORS"]

# Numbers of ONNX's TensorProto.DataType.
_DTYPES: Final[Mapping[int, torch.dtype]] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}


def _needed(call: Call, index: int) -> tuple[int, ...]:
    found = call.wholes(index)
    if found is None:
        raise InputError(f"{call.node.op} {call.node.name!r}: input {index} is missing")
    return found


def _cast(call: Call) -> Tensor:
    number = call.node.whole("to", 0)
    if number not in _DTYPES:
        raise refuse(call, f"data type {number}")
    return call.tensor(0).to(_DTYPES[number])


def _cast_like(call: Call) -> Tensor:
    return call.tensor(0).to(call.tensor(1).dtype)


def _shape(call: Call) -> Tensor:
    node, sizes = call.node, call.tensor(0).shape
    end = node.whole("end", len(sizes))
    return torch.tensor(sizes[node.whole("start", 0) : end], dtype=torch.int64)


def _constant_of_shape(call: Call) -> Tensor:
    value = call.node.attributes.get("value")
    fill = value if isinstance(value, np.ndarray) else np.zeros(1, dtype=np.float32)
    number = torch.from_numpy(fill.reshape(-1)[:1].copy())  # (1,)
    return number.repeat(math.prod(_needed(call, 0))).reshape(_needed(call, 0))


def _range(call: Call) -> Tensor:
    start, end, step = (call.tensor(i) for i in range(3))
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def _reshape(call: Call) -> Tensor:
    x, wanted = call.tensor(0), list(_needed(call, 1))
    if not call.node.whole("allowzero", 0):
        wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return x.reshape(wanted)


def _flatten(call: Call) -> Tensor:
    x, axis = call.tensor(0), call.node.whole("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(call: Call) -> Tensor:
    x, axes = call.tensor(0), call.axes(1)
    if axes is None:
        return x.squeeze()
    return x.squeeze(axes)


def _unsqueeze(call: Call) -> Tensor:
    x, axes = call.tensor(0), call.axes(1) or ()
    ndim = x.ndim + len(axes)
    for axis in sorted(axis % ndim for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _transpose(call: Call) -> Tensor:
    x = call.tensor(0)
    return x.permute(call.node.wholes("perm") or tuple(range(x.ndim))[::-1])


def _expand(call: Call) -> Tensor:
    x, wanted = call.tensor(0), _needed(call, 1)
    # Each side may be the one that is repeated.
    return x.broadcast_to(np.broadcast_shapes(tuple(x.shape), wanted))


def _tile(call: Call) -> Tensor:
    return call.tensor(0).repeat(_needed(call, 1))


def _concat(call: Call) -> Tensor:
    return torch.cat(call.tensors(), dim=call.node.whole("axis", 0))


def _split(call: Call) -> tuple[Tensor, ...]:
    x, axis, sizes = call.tensor(0), call.node.whole("axis", 0), call.wholes(1)
    if sizes is None:
        parts = len(call.node.outputs)
        # Where they do not come out even, the last one is smaller.
        each = -(-x.shape[axis] // parts)
        sizes = (*(each,) * (parts - 1), x.shape[axis] - each * (parts - 1))
    return torch.split(x, list(sizes), dim=axis)


def _slice(call: Call) -> Tensor:
    x, starts, ends = call.tensor(0), _needed(call, 1), _needed(call, 2)
    axes = call.wholes(3) or tuple(range(len(starts)))
    steps = call.wholes(4) or (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        taken = range(*slice(start, end, step).indices(x.shape[axis]))
        if step == 1:
            x = x.narrow(axis, taken.start, len(taken)) if taken else x.narrow(axis, 0, 0)
        else:
            x = x.index_select(axis, torch.tensor(list(taken), dtype=torch.int64))
    return x


def _gather(call: Call) -> Tensor:
    x, indices = call.tensor(0), call.tensor(1).to(torch.int64)
    axis = call.node.whole("axis", 0) % x.ndim
    flat = torch.where(indices < 0, indices + x.shape[axis], indices).flatten()
    made = x.index_select(axis, flat)
    return made.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _gather_elements(call: Call) -> Tensor:
    x, indices = call.tensor(0), call.tensor(1).to(torch.int64)
    axis = call.node.whole("axis", 0)
    return x.gather(axis, torch.where(indices < 0, indices + x.shape[axis], indices))


def _gather_nd(call: Call) -> Tensor:
    if call.node.whole("batch_dims", 0):
        raise refuse(call, "batch_dims")
    indices = call.tensor(1).to(torch.int64)
    return call.tensor(0)[tuple(indices.unbind(-1))]


def _one_hot(call: Call) -> Tensor:
    depth, values = int(call.tensor(1).item()), call.tensor(2)
    axis = call.node.whole("axis", -1)
    hot = functional.one_hot(call.tensor(0).to(torch.int64) % depth, depth).bool()
    hot = torch.where(hot, values[1], values[0])
    return hot.movedim(-1, axis)


def _top(call: Call) -> tuple[Tensor, ...]:
    node, k = call.node, int(call.tensor(1).flatten()[0].item())
    largest, ordered = bool(node.whole("largest", 1)), bool(node.whole("sorted", 1))
    made = call.tensor(0).topk(k, node.whole("axis", -1), largest, ordered)
    return made.values, made.indices


def _trilu(call: Call) -> Tensor:
    x, given = call.tensor(0), call.maybe(1)
    k = 0 if given is None else int(given.item())
    return x.triu(k) if call.node.whole("upper", 1) else x.tril(k)


def _depth_to_space(call: Call) -> Tensor:
    x, size = call.tensor(0), call.node.whole("blocksize", 1)
    B, C, H, W = x.shape
    inner = C // size**2
    if call.node.text("mode", "DCR") == "DCR":
        x = x.reshape(B, size, size, inner, H, W).permute(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(B, inner, size, size, H, W).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(B, inner, H * size, W * size)


def _space_to_depth(call: Call) -> Tensor:
    x, size = call.tensor(0), call.node.whole("blocksize", 1)
    B, C, H, W = x.shape
    x = x.reshape(B, C, H // size, size, W // size, size).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(B, C * size**2, H // size, W // size)


SHAPE_OPERATORS: Final[Mapping[str, Operator]] = {
    "Cast": _cast,
    "CastLike": _cast_like,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": lambda call: call.tensor(0),
    "OneHot": _one_hot,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda call: torch.tensor(call.tensor(0).numel(), dtype=torch.int64),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "TopK": _top,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
