"""LiteRT's operators that move numbers and compute none, as ONNX operators."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from onhand.host.networks.graph import Attribute
from onhand.host.networks.sources.layers import (
    concatenate,
    pad,
    reshape,
    transpose,
)
from onhand.host.networks.sources.layout import Tensor, first_axis
from onhand.host.networks.sources.tflite_layers import activated
from onhand.host.networks.sources.tflite_step import FixedBatch, Step

__all__ = ["MOVES"]

_Results = Tensor | list[Tensor]


def _reshape(step: Step) -> Tensor:
    # What the file says of the result holds, whatever computes the shape.
    if step.x.shape and step.x.shape[0] is None and step.shape[:1] != (None,):
        raise FixedBatch
    return reshape(step.weaver, step.x, step.shape)


def _transpose(step: Step) -> Tensor:
    perm = [step.axis(axis, step.x.rank) for axis in step.wholes(1)]
    if sorted(perm) != list(range(step.x.rank)):
        raise step.error(f"has order {perm} for {step.x.shape}")
    step.keep_batch(*(() if perm[:1] == [0] else (0,)))
    return transpose(step.weaver, step.x, perm)


def _concatenation(step: Step) -> Tensor:
    axis = step.axis(step.option(0), len(step.shape))
    step.keep_batch(axis)
    made = concatenate(step.weaver, step.all_inputs(), axis, step.shape)
    return activated(step, made, step.option(1, "b"), is_sum=False)


def _pack(step: Step) -> Tensor:
    axis = step.axis(step.option(1), len(step.shape))
    step.keep_batch(axis)
    weaver = step.weaver
    parts = []
    for tensor in step.all_inputs():
        shape = (*tensor.shape[:axis], 1, *tensor.shape[axis:])
        parts.append(reshape(weaver, tensor, shape))
    return concatenate(weaver, parts, axis, step.shape)


def _unpack(step: Step) -> list[Tensor]:
    axis = step.axis(step.option(1), step.x.rank)
    step.keep_batch(axis)
    return _parts(step, step.x, axis, [1] * len(step.results))


def _split(step: Step) -> list[Tensor]:
    x = step.input(1)
    axis = step.axis(step.wholes(0)[0], x.rank)
    step.keep_batch(axis)
    if x.size(axis) % len(step.results):
        raise step.error(f"cuts {x.shape} in {len(step.results)} parts")
    return _parts(step, x, axis, [x.size(axis) // len(step.results)] * len(step.results))


def _split_v(step: Step) -> list[Tensor]:
    axis = step.axis(step.wholes(2)[0], step.x.rank)
    step.keep_batch(axis)
    sizes = step.wholes(1)
    if -1 in sizes:
        sizes[sizes.index(-1)] = step.x.size(axis) - sum(sizes) - 1
    return _parts(step, step.x, axis, sizes)


def _parts(step: Step, x: Tensor, axis: int, sizes: Sequence[int]) -> list[Tensor]:
    """Cut a value; what UNPACK cuts loses the axis."""
    weaver, first = step.weaver, step.weaver.is_first(x)
    if sum(sizes) != x.size(axis) or min(sizes) < 0 or len(sizes) != len(step.results):
        raise step.error(f"cuts {x.shape} into {list(sizes)[:9]}")
    where: dict[str, Attribute] = {"axis": first_axis(axis, x.rank) if first else axis}
    inputs = [
        weaver.first(x) if first else weaver.last(x),
        weaver.weight(np.asarray(sizes, dtype=np.int64), "sizes"),
    ]
    names = weaver.emit("Split", inputs, where, n_outputs=len(sizes))
    made = []
    for name, size, shape in zip(names, sizes, step.shapes, strict=True):
        cut = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        part = weaver.as_first(name, cut) if first else weaver.as_last(name, cut)
        made.append(reshape(weaver, part, shape) if len(shape) < x.rank else part)
    return made


def _slice(step: Step) -> Tensor:
    begins, sizes = step.wholes(1), step.wholes(2)
    if not len(begins) == len(sizes) == step.x.rank:
        raise step.error(f"takes {begins} to {sizes} of {step.x.shape}")
    spans = [
        (begin, None if size == -1 else begin + size, 1)
        for begin, size in zip(begins, sizes, strict=True)
    ]
    return _cut(step, spans, dropped=())


def _strided_slice(step: Step) -> Tensor:
    masks = [step.option(slot) for slot in range(5)]
    begin_mask, end_mask, ellipsis, new_axis, shrink = masks
    begins, ends, strides = (step.wholes(index) for index in (1, 2, 3))
    n = len(begins)
    if ellipsis or new_axis or not n == len(ends) == len(strides) <= step.x.rank or 0 in strides:
        raise step.error("has an ellipsis, a new axis or steps that nothing here knows")
    spans: list[tuple[int | None, int | None, int]] = []
    dropped = []
    for axis in range(step.x.rank):
        bit = 1 << axis
        if axis >= n:
            spans.append((None, None, 1))
        elif shrink & bit:
            spans.append((begins[axis], begins[axis] + 1 if begins[axis] != -1 else None, 1))
            dropped.append(axis)
        else:
            begin = None if begin_mask & bit else begins[axis]
            spans.append((begin, None if end_mask & bit else ends[axis], strides[axis]))
    step.keep_batch(*dropped)
    return _cut(step, spans, dropped=dropped)


def _cut(
    step: Step, spans: Sequence[tuple[int | None, int | None, int]], dropped: Sequence[int]
) -> Tensor:
    """Add a Slice by (begin, end, step) along each axis, and drop axes of one number.

    Raises:
        FixedBatch: if it cuts the batch.
    """
    weaver, x = step.weaver, step.x
    first = weaver.is_first(x)
    axes, begins, ends, steps, shape = [], [], [], [], list(x.shape)
    for axis, (begin, end, stride) in enumerate(spans):
        size = x.shape[axis]
        if size is None:
            # A file of one example cuts its batch from 0 to 1, or to the end.
            if begin not in {None, 0} or end not in {None, 1} or stride != 1:
                raise FixedBatch
            continue
        span = range(*slice(begin, end, stride).indices(size))
        shape[axis] = len(span)
        if span == range(size):
            continue
        axes.append(first_axis(axis, x.rank) if first else axis)
        begins.append(span.start)
        # Backwards to the very first number: an end below it, which no -1 can say.
        ends.append(span.stop if span.stop >= 0 else -(2**31))
        steps.append(stride)
    cut = x
    if axes:
        lists = [(begins, "begins"), (ends, "ends"), (axes, "axes"), (steps, "steps")]
        names = [weaver.weight(np.asarray(n, dtype=np.int64), role) for n, role in lists]
        source = weaver.first(x) if first else weaver.last(x)
        name = weaver.one("Slice", [source, *names])
        whole = tuple(shape)
        cut = weaver.as_first(name, whole) if first else weaver.as_last(name, whole)
    if not dropped:
        return cut
    return reshape(weaver, cut, tuple(s for axis, s in enumerate(shape) if axis not in dropped))


def _pad(step: Step) -> Tensor:
    amounts = step.array(1).astype(np.int64)
    if amounts.shape != (step.x.rank, 2) or np.any(amounts < 0):
        raise step.error(f"has paddings {amounts.shape} for {step.x.shape}")
    step.keep_batch(*(() if not np.any(amounts[0]) else (0,)))
    pairs = [(int(before), int(after)) for before, after in amounts]
    mode, value = "constant", 0.0
    if step.op == "PADV2":
        value = float(np.ravel(step.array(2))[0])
    if step.op == "MIRROR_PAD":
        if step.option(0, "b"):
            raise step.error("mirrors the border as well, which ONNX does not")
        mode = "reflect"
    return pad(step.weaver, step.x, pairs, step.shape, mode=mode, value=value)


def _same(step: Step) -> Tensor:
    return step.x


def _cast(step: Step) -> Tensor:
    return _cast_to(step, step.x)


def _cast_to(step: Step, x: Tensor) -> Tensor:
    from onnx import helper

    dtype = step.results[0].dtype
    to = helper.np_dtype_to_tensor_dtype(np.dtype(np.float32) if dtype.kind == "f" else dtype)
    return step.weaver.elementwise("Cast", [x], step.shape, {"to": int(to)})


def _shape_of(step: Step) -> Tensor:
    sizes = [1 if size is None else size for size in step.x.shape]
    return step.weaver.constant(np.asarray(sizes, dtype=np.int32))


def _gather(step: Step) -> Tensor:
    axis = step.axis(step.option(0), step.x.rank)
    if step.option(1):
        raise step.error("gathers from each example of a batch, which nothing here knows")
    step.keep_batch(*(() if step.x.array is not None else (axis,)))
    weaver = step.weaver
    names = [weaver.last(step.x), weaver.last(step.input(1))]
    return weaver.as_last(weaver.one("Gather", names, {"axis": axis}), step.shape)


def _tile(step: Step) -> Tensor:
    times = step.wholes(1)
    step.keep_batch(*(() if times[:1] == [1] else (0,)))
    weaver = step.weaver
    repeats = weaver.weight(np.asarray(times, dtype=np.int64), "repeats")
    return weaver.as_last(weaver.one("Tile", [weaver.last(step.x), repeats]), step.shape)


def _extreme(op: str) -> Callable[[Step], Tensor]:
    def translate(step: Step) -> Tensor:
        axis = step.axis(step.wholes(1)[0], step.x.rank)
        step.keep_batch(axis)
        where: dict[str, Attribute] = {"axis": axis, "keepdims": 0}
        weaver = step.weaver
        found = weaver.as_last(weaver.one(op, [weaver.last(step.x)], where), step.shape)
        # ONNX counts in int64, the file says in what.
        return _cast_to(step, found)

    return translate


def _blocks(op: str) -> Callable[[Step], Tensor]:
    def translate(step: Step) -> Tensor:
        size = step.option(0)
        if size < 1 or step.x.rank != 4:
            raise step.error(f"has blocks of {size} for {step.x.shape}")
        weaver = step.weaver
        # Both order the new channels as (block, block, C).
        name = weaver.one(op, [weaver.first(step.x)], {"blocksize": size})
        return weaver.as_first(name, step.shape)

    return translate


def _batch_matmul(step: Step) -> Tensor:
    weaver = step.weaver
    names = []
    for index, slot in ((0, 0), (1, 1)):
        tensor = step.input(index)
        if step.option(slot, "B"):
            axes = list(range(tensor.rank))
            tensor = transpose(weaver, tensor, [*axes[:-2], axes[-1], axes[-2]])
        if tensor.shape[0] is None and tensor.rank != len(step.shape):
            raise FixedBatch
        names.append(weaver.last(tensor))
    return weaver.as_last(weaver.one("MatMul", names), step.shape)


MOVES: Final[Mapping[str, Callable[[Step], _Results]]] = {
    "ARG_MAX": _extreme("ArgMax"),
    "ARG_MIN": _extreme("ArgMin"),
    "BATCH_MATMUL": _batch_matmul,
    "CAST": _cast,
    "CONCATENATION": _concatenation,
    "DEPTH_TO_SPACE": _blocks("DepthToSpace"),
    "DEQUANTIZE": _same,
    "EXPAND_DIMS": _reshape,
    "FAKE_QUANT": _same,
    "GATHER": _gather,
    "MIRROR_PAD": _pad,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "QUANTIZE": _same,
    "RESHAPE": _reshape,
    "SHAPE": _shape_of,
    "SLICE": _slice,
    "SPACE_TO_DEPTH": _blocks("SpaceToDepth"),
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
"""Operators of shapes: name -> its translation; a list for several results."""
