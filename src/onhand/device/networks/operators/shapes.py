"""Operators that move elements and compute none."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from onhand.core.errors import InputError
from onhand.core.onnxgraph import OnnxNode
from onhand.device.networks.operators.kinds import Array, Operator

__all__ = ["SHAPES"]

_MOST_ELEMENTS: Final = 2**31


def _sizes(array: Array) -> tuple[int, ...]:
    return tuple(int(size) for size in array.reshape(-1))


def _bounded(node: OnnxNode, shape: tuple[int, ...]) -> tuple[int, ...]:
    if any(size < 0 for size in shape) or np.prod(shape, dtype=np.float64) > _MOST_ELEMENTS:
        raise InputError(f"{node.op} {node.outputs[0]!r}: cannot make the shape {shape}")
    return shape


def _reshape(node: OnnxNode, x: Array, shape: Array) -> Array:
    wanted = list(_sizes(shape))
    if not node.whole("allowzero", 0):
        wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return x.reshape(wanted)


def _flatten(node: OnnxNode, x: Array) -> Array:
    axis = node.whole("axis", 1)
    axis += x.ndim if axis < 0 else 0
    rows = int(np.prod(x.shape[:axis]))
    return x.reshape(rows, int(np.prod(x.shape[axis:])))


def _squeeze(node: OnnxNode, x: Array, axes: Array | None = None) -> Array:
    return x.squeeze() if axes is None else x.squeeze(_sizes(axes))


def _unsqueeze(node: OnnxNode, x: Array, axes: Array) -> Array:
    return np.expand_dims(x, _sizes(axes))


def _transpose(node: OnnxNode, x: Array) -> Array:
    return x.transpose(node.wholes("perm", tuple(range(x.ndim))[::-1]))


def _concat(node: OnnxNode, *inputs: Array) -> Array:
    return np.concatenate(inputs, axis=node.whole("axis", 0))


def _split(node: OnnxNode, x: Array, split: Array | None = None) -> tuple[Array, ...]:
    axis = node.whole("axis", 0)
    if split is not None:
        ends = np.cumsum(_sizes(split))
    else:
        n = len(node.outputs)
        step = -(-x.shape[axis] // n)  # the last one may be smaller
        ends = np.minimum(np.arange(1, n + 1) * step, x.shape[axis])
    return tuple(np.split(x, ends[:-1], axis=axis))


def _slice(
    node: OnnxNode,
    x: Array,
    starts: Array,
    ends: Array,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    first, last = _sizes(starts), _sizes(ends)
    along = range(len(first)) if axes is None else _sizes(axes)
    by = (1,) * len(first) if steps is None else _sizes(steps)
    picked = [slice(None)] * x.ndim
    for axis, start, end, step in zip(along, first, last, by, strict=True):
        size = x.shape[axis]
        # Going backwards, an end before the first element takes that one as well.
        stop = None if step < 0 and end < -size else end
        picked[axis] = slice(start, stop, step)
    return x[tuple(picked)]


def _gather(node: OnnxNode, x: Array, indices: Array) -> Array:
    return np.take(x, indices, axis=node.whole("axis", 0))


def _gather_elements(node: OnnxNode, x: Array, indices: Array) -> Array:
    axis = node.whole("axis", 0)
    axis += x.ndim if axis < 0 else 0
    positive = np.where(indices < 0, indices + x.shape[axis], indices)
    # Along the other axes there may be fewer indices than elements.
    cut = [slice(0, size) for size in indices.shape]
    cut[axis] = slice(None)
    return np.take_along_axis(x[tuple(cut)], positive, axis=axis)


def _shape(node: OnnxNode, x: Array) -> Array:
    start, end = node.whole("start", 0), node.whole("end", x.ndim)
    return np.array(x.shape[start:end], dtype=np.int64)


def _expand(node: OnnxNode, x: Array, shape: Array) -> Array:
    wanted = _bounded(node, np.broadcast_shapes(x.shape, _sizes(shape)))
    return np.broadcast_to(x, wanted)


def _tile(node: OnnxNode, x: Array, repeats: Array) -> Array:
    times = _sizes(repeats)
    _bounded(node, tuple(a * b for a, b in zip(x.shape, times, strict=True)))
    return np.tile(x, times)


def _pad(
    node: OnnxNode,
    x: Array,
    pads: Array,
    value: Array | None = None,
    axes: Array | None = None,
) -> Array:
    given = _sizes(pads)
    along = tuple(range(x.ndim)) if axes is None else _sizes(axes)
    widths = [(0, 0)] * x.ndim
    for axis, before, after in zip(along, given[: len(along)], given[len(along) :], strict=True):
        widths[axis] = (before, after)
    # A negative padding cuts.
    cut = tuple(
        slice(max(0, -before), size - max(0, -after))
        for size, (before, after) in zip(x.shape, widths, strict=True)
    )
    kept = x[cut]
    grown = [(max(0, before), max(0, after)) for before, after in widths]
    _bounded(node, tuple(n + a + b for n, (a, b) in zip(kept.shape, grown, strict=True)))
    mode = node.text("mode", "constant")
    if mode == "constant":
        return np.pad(kept, grown, constant_values=0 if value is None else value.item())
    if mode == "edge":
        return np.pad(kept, grown, mode="edge")
    if mode == "reflect":
        return np.pad(kept, grown, mode="reflect")
    if mode == "wrap":
        return np.pad(kept, grown, mode="wrap")
    raise InputError(f"Pad {node.outputs[0]!r}: mode {mode!r} is not known")


def _constant_of_shape(node: OnnxNode, shape: Array) -> Array:
    value = node.attributes.get("value")
    filled = value if isinstance(value, np.ndarray) else np.zeros(1, np.float32)
    return np.full(_bounded(node, _sizes(shape)), filled.reshape(-1)[0])


def _constant(node: OnnxNode) -> Array:
    for key, value in node.attributes.items():
        if isinstance(value, np.ndarray):
            return value
        if key in {"value_float", "value_floats"}:
            return np.array(value, dtype=np.float32)
        if key in {"value_int", "value_ints"}:
            return np.array(value, dtype=np.int64)
    raise InputError(f"Constant {node.outputs[0]!r}: of a kind that is not known")


def _range(node: OnnxNode, start: Array, limit: Array, delta: Array) -> Array:
    count = max(0, int(np.ceil((limit.item() - start.item()) / delta.item())))
    _bounded(node, (count,))
    return (start + np.arange(count, dtype=start.dtype) * delta).astype(start.dtype)


def _depth_to_space(node: OnnxNode, x: Array) -> Array:
    side = node.whole("blocksize", 1)
    B, C, H, W = x.shape
    if node.text("mode", "DCR") == "DCR":
        blocks = x.reshape(B, side, side, C // side**2, H, W).transpose(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(B, C // side**2, side, side, H, W).transpose(0, 1, 4, 2, 5, 3)
    return blocks.reshape(B, C // side**2, H * side, W * side)


def _space_to_depth(node: OnnxNode, x: Array) -> Array:
    side = node.whole("blocksize", 1)
    B, C, H, W = x.shape
    blocks = x.reshape(B, C, H // side, side, W // side, side).transpose(0, 3, 5, 1, 2, 4)
    return blocks.reshape(B, C * side**2, H // side, W // side)


def _trilu(node: OnnxNode, x: Array, k: Array | None = None) -> Array:
    diagonal = 0 if k is None else int(k.item())
    return np.triu(x, diagonal) if node.whole("upper", 1) else np.tril(x, diagonal)


SHAPES: Final[Mapping[str, Operator]] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda node, x: np.array(x.size, dtype=np.int64),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
