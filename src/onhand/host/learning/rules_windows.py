"""Gradients of poolings."""

import itertools
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from onnx import NodeProto, TensorProto

from onhand.core.errors import SourceError
from onhand.host.learning.rules import Gradients, Rules, only, whole_of, wholes_of
from onhand.host.learning.tape import Tape, called
from onhand.host.learning.windows import Window, spread, window_of

__all__ = ["RULES"]


def _max_pool(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Scatter to the places that the forward pass says it took.

    Raises:
        SourceError: if those are counted by columns.
    """
    if whole_of(node, "storage_order", 0):
        raise SourceError(f"{called(node)}: storage_order 1 has no rule")
    x, flat = node.input[0], tape.integers([-1])
    places = tape.add("Reshape", tape.extra_output(node, 1, kind="places"), flat)
    passed = tape.add("Reshape", only(node, given), flat)
    zeros = tape.add("Reshape", tape.zeros(x), flat)
    scattered = tape.add("ScatterElements", zeros, places, passed, axis=0, reduction="add")
    return [tape.reshape_like(scattered, None, x)]


def _average_pool(
    tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]
) -> Gradients:
    """Spread each number, over its count, evenly over its window; channels one by one."""
    x, y = node.input[0], node.output[0]
    kernel = wholes_of(node, "kernel_shape", ())
    window = window_of(tape, node, kernel)
    share = tape.add("Div", only(node, given), _counts(tape, node, window))
    single = tape.add("Concat", tape.integers([-1, 1]), tape.add("Shape", y, start=2), axis=0)
    apart = tape.add("Reshape", share, single)  # (B C, 1, ...)
    ones = tape.constant(np.ones((1, 1, *kernel), tape.dtype(x)))
    found = spread(tape, node, apart, ones, window)
    return [tape.add("Reshape", found, tape.shape_of(x))]


def _counts(tape: Tape, node: NodeProto, window: Window) -> str:
    """Return how many numbers each window averages: () or (1, 1, ...).

    Raises:
        SourceError: if that depends on sizes that are not known.
    """
    x = node.input[0]
    padded, upwards = any(window.begins + window.ends), whole_of(node, "ceil_mode", 0)
    whole = whole_of(node, "count_include_pad", 0)
    if not upwards and (whole or not padded):
        return tape.number(math.prod(window.kernel), like=x)
    sizes, outs = tape.shape(x)[2:], tape.shape(node.output[0])[2:]
    known = [size for size in sizes if isinstance(size, int)]
    made = [out for out in outs if isinstance(out, int)]
    if len(known) == len(sizes) and len(made) == len(outs):
        counts = _counted(known, made, window, whole=bool(whole))
        return tape.constant(counts.astype(tape.dtype(x)))
    if upwards:
        raise SourceError(f"{called(node)}: with ceil_mode, the input's sizes must be known")
    one = tape.number(1.0, like=x)
    shape = tape.add("Concat", tape.integers([1, 1]), tape.add("Shape", x, start=2), axis=0)
    kernel = tape.constant(np.ones((1, 1, *window.kernel), tape.dtype(x)))
    return tape.add(
        "Conv",
        tape.add("Expand", one, shape),
        kernel,
        dilations=list(window.dilations),
        pads=[*window.begins, *window.ends],
        strides=list(window.strides),
    )


def _counted(
    sizes: Sequence[int], outs: Sequence[int], window: Window, *, whole: bool
) -> np.ndarray:
    """Count what lies inside the input, or inside its padding where that counts: (1, 1, ...)."""
    counts = np.ones(outs)
    for axis, (size, out) in enumerate(zip(sizes, outs, strict=True)):
        first = -window.begins[axis] if whole else 0
        end = size + window.ends[axis] if whole else size
        steps = range(window.kernel[axis])
        inside = np.zeros(out)
        for i, k in itertools.product(range(out), steps):
            place = i * window.strides[axis] - window.begins[axis] + k * window.dilations[axis]
            inside[i] += first <= place < end
        counts *= inside.reshape([-1, *[1] * (len(outs) - 1 - axis)])
    return counts[None, None]


def _global_average(
    tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]
) -> Gradients:
    x = node.input[0]
    sizes = tape.shape(x)[2:]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) == len(sizes):
        count = tape.number(math.prod(known), like=x)
    else:
        numbers = tape.add("ReduceProd", tape.add("Shape", x, start=2), keepdims=0)
        element = tape.kinds[x].element or TensorProto.FLOAT
        count = tape.add("Cast", numbers, to=element)
    return [tape.add("Expand", tape.add("Div", only(node, given), count), tape.shape_of(x))]


def _global_max(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Equal maxima share the gradient."""
    x = node.input[0]
    axes = tape.integers(range(2, len(tape.shape(x))))
    element = tape.kinds[x].element or TensorProto.FLOAT
    mask = tape.add("Cast", tape.add("Equal", x, node.output[0]), to=element)
    share = tape.add("Div", only(node, given), tape.add("ReduceSum", mask, axes))
    return [tape.add("Mul", mask, share)]


RULES: Final[Rules] = {
    ("", "AveragePool"): _average_pool,
    ("", "GlobalAveragePool"): _global_average,
    ("", "GlobalMaxPool"): _global_max,
    ("", "MaxPool"): _max_pool,
}
