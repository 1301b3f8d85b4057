"""Layers of networks that keep channels last, as ONNX operators with channels first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onhand.core.errors import SourceError
from onhand.host.networks.graph import Array, Attribute
from onhand.host.networks.sources.layout import Shape, Tensor, Weaver, first_axis, turned

__all__ = [
    "Window",
    "concatenate",
    "convolve",
    "deconvolve",
    "dense",
    "gelu",
    "pad",
    "pool",
    "reduce",
    "reshape",
    "resize",
    "softmax",
    "transpose",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a kernel moves.

    Attributes:
        kernel: sizes, one for each dimension of place.
        strides: steps.
        dilations: distance of its points.
        same: True for TensorFlow's SAME padding, False for none.
        pads: begins, then ends, where they are given instead.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    same: bool
    pads: tuple[int, ...] | None = None

    def attributes(self, places: Shape) -> dict[str, Attribute]:
        """Return kernel, strides and paddings of a node, for an input of these places."""
        found: dict[str, Attribute] = {"kernel_shape": self.kernel, "strides": self.strides}
        if self.pads is not None:
            found["pads"] = self.pads
        elif self.same and all(size is not None for size in places):
            found["pads"] = self._same_pads(places)
        elif self.same:
            found["auto_pad"] = "SAME_UPPER"
        return found

    def _same_pads(self, places: Shape) -> tuple[int, ...]:
        begins, ends = [], []
        for size, kernel, stride, dilation in zip(
            places, self.kernel, self.strides, self.dilations, strict=True
        ):
            whole = size or 0
            reach = (kernel - 1) * dilation + 1
            total = max((-(-whole // stride) - 1) * stride + reach - whole, 0)
            # The odd one goes to the end.
            begins.append(total // 2)
            ends.append(total - total // 2)
        return (*begins, *ends)


def convolve(
    weaver: Weaver,
    x: Tensor,
    weight: Array,
    bias: Array | None,
    window: Window,
    shape: Shape,
    *,
    group: int = 1,
) -> Tensor:
    """Add a convolution.

    Args:
        weaver: the graph.
        x: (B, ..., K).
        weight: (N, K / group, ...), as ONNX has it.
        bias: (N,), or None.
        window: how the kernel moves.
        shape: of the result, (B, ..., N).
        group: groups of channels; K of them for a depthwise one.

    Returns:
        The result, channels first.
    """
    inputs = [weaver.first(x), weaver.weight(weight, "weight")]
    if bias is not None:
        inputs.append(weaver.weight(bias, "bias"))
    attributes = window.attributes(x.shape[1:-1])
    attributes |= {"dilations": window.dilations, "group": group}
    return weaver.as_first(weaver.one("Conv", inputs, attributes), shape)


def deconvolve(
    weaver: Weaver, x: Tensor, weight: Array, bias: Array | None, window: Window, shape: Shape
) -> Tensor:
    """Add a transposed convolution, padded as TensorFlow pads.

    Args:
        weaver: the graph.
        x: (B, ..., K).
        weight: (K, N, ...), as ONNX has it.
        bias: (N,), or None.
        window: how the kernel moves.
        shape: of the result, (B, ..., N).

    Returns:
        The result, channels first.

    Raises:
        SourceError: if a size of the result is open, or no padding leads to it.
    """
    result = Tensor(shape=shape)
    begins, ends, extra = [], [], []
    for i, (kernel, stride, dilation) in enumerate(
        zip(window.kernel, window.strides, window.dilations, strict=True)
    ):
        whole = (x.size(i + 1) - 1) * stride + (kernel - 1) * dilation + 1
        over = whole - result.size(i + 1)
        if over < -max(stride, dilation):
            raise SourceError(f"a transposed convolution of {x.shape} cannot give {shape}")
        begins.append(max(over, 0) // 2 if window.same else 0)
        ends.append(max(over, 0) - begins[-1])
        extra.append(max(-over, 0))
    attributes: dict[str, Attribute] = {
        "kernel_shape": window.kernel,
        "strides": window.strides,
        "dilations": window.dilations,
        "pads": (*begins, *ends),
        "output_padding": tuple(extra),
    }
    inputs = [weaver.first(x), weaver.weight(weight, "weight")]
    if bias is not None:
        inputs.append(weaver.weight(bias, "bias"))
    return weaver.as_first(weaver.one("ConvTranspose", inputs, attributes), shape)


def pool(weaver: Weaver, x: Tensor, op: str, window: Window, shape: Shape) -> Tensor:
    """Add AveragePool or MaxPool; an average leaves the padding out."""
    attributes = window.attributes(x.shape[1:-1])
    if x.shape[1:-1] == window.kernel and not any(attributes.get("pads", ()) or ()):  # type: ignore[arg-type]
        name = weaver.one(f"Global{op}", [weaver.first(x)])
    else:
        name = weaver.one(op, [weaver.first(x)], attributes)
    return weaver.as_first(name, shape)


def dense(weaver: Weaver, x: Tensor, weight: Array, bias: Array | None, shape: Shape) -> Tensor:
    """Add a product of a value's last dimension with a matrix.

    Args:
        weaver: the graph.
        x: (..., K).
        weight: (K, N).
        bias: (N,), or None.
        shape: of the result, (..., N).

    Returns:
        The result; what is (B, ..., K) with channels first becomes a convolution of one point.
    """
    if x.rank > 2 and weaver.is_first(x):
        ones = (1,) * (x.rank - 2)
        window = Window(kernel=ones, strides=ones, dilations=ones, same=False)
        points = weight.T.reshape(*weight.T.shape, *ones)
        return convolve(weaver, x, points, bias, window, shape)
    if x.rank == 2:
        name, order = weaver.dense_input(x)
        if order is not None:
            rows = np.empty_like(weight)
            rows[order] = weight
            weight = rows
        inputs = [name, weaver.weight(weight, "weight")]
        if bias is not None:
            inputs.append(weaver.weight(bias, "bias"))
        return weaver.as_last(weaver.one("Gemm", inputs), shape)
    name = weaver.one("MatMul", [weaver.last(x), weaver.weight(weight, "weight")])
    if bias is not None:
        name = weaver.one("Add", [name, weaver.weight(bias, "bias")])
    return weaver.as_last(name, shape)


def reshape(weaver: Weaver, x: Tensor, shape: Shape) -> Tensor:
    """Add a Reshape in the source's order; at most one size of `shape` is open."""
    sizes = [-1 if size is None else size for size in shape]
    if x.array is not None:
        return weaver.constant(x.array.reshape(sizes))
    if x.shape == shape:
        return x
    if x.rank == 2 and len(shape) > 2 and all(size == 1 for size in shape[1:-1]):
        # One place: (B, 1, 1, C) is written as (B, C, 1, 1), for what follows.
        target = weaver.weight(np.asarray(turned(sizes), dtype=np.int64), "shape")
        return weaver.as_first(weaver.one("Reshape", [weaver.last(x), target]), shape)
    target = weaver.weight(np.asarray(sizes, dtype=np.int64), "shape")
    if weaver.is_first(x):
        # Where there is one place only, both orders are one.
        if all(size == 1 for size in x.shape[1:-1]):
            return weaver.as_last(weaver.one("Reshape", [weaver.first(x), target]), shape)
        inner = x.shape[1:]
        if shape == (x.shape[0], math.prod(size or 0 for size in inner)):
            return weaver.flattened(x, shape)
    return weaver.as_last(weaver.one("Reshape", [weaver.last(x), target]), shape)


def transpose(weaver: Weaver, x: Tensor, perm: Sequence[int]) -> Tensor:
    """Add a Transpose of the source's order."""
    if x.array is not None:
        return weaver.constant(x.array.transpose(perm))
    attributes: dict[str, Attribute] = {"perm": tuple(perm)}
    shape = tuple(x.shape[axis] for axis in perm)
    return weaver.as_last(weaver.one("Transpose", [weaver.last(x)], attributes), shape)


def concatenate(weaver: Weaver, parts: Sequence[Tensor], axis: int, shape: Shape) -> Tensor:
    """Add a Concat along an axis of the source's order."""
    rank = len(shape)
    if weaver.is_first(*parts):
        names = [weaver.first(part) for part in parts]
        attributes: dict[str, Attribute] = {"axis": first_axis(axis, rank)}
        return weaver.as_first(weaver.one("Concat", names, attributes), shape)
    names = [weaver.last(part) for part in parts]
    return weaver.as_last(weaver.one("Concat", names, {"axis": axis % rank}), shape)


def reduce(
    weaver: Weaver, x: Tensor, op: str, axes: Sequence[int], shape: Shape, *, keep: bool
) -> Tensor:
    """Add ReduceMean, ReduceSum, ReduceMax, ReduceMin or ReduceProd over axes of the source's."""
    axes = sorted({axis % x.rank for axis in axes})
    # Without its places, (B, C) is the same in both orders.
    plain = keep or axes == list(range(1, x.rank - 1))
    first = weaver.is_first(x) and plain
    given = tuple(sorted(first_axis(axis, x.rank) for axis in axes)) if first else tuple(axes)
    inputs = [weaver.first(x) if first else weaver.last(x)]
    attributes: dict[str, Attribute] = {"keepdims": int(keep)}
    if op == "ReduceSum":
        inputs.append(weaver.weight(np.asarray(given, dtype=np.int64), "axes"))
    else:
        attributes["axes"] = given
    name = weaver.one(op, inputs, attributes)
    return weaver.as_first(name, shape) if first else weaver.as_last(name, shape)


def softmax(weaver: Weaver, x: Tensor, op: str, axis: int) -> Tensor:
    """Add Softmax, LogSoftmax or LpNormalization along an axis of the source's order."""
    if weaver.is_first(x):
        name = weaver.one(op, [weaver.first(x)], {"axis": first_axis(axis, x.rank)})
        return weaver.as_first(name, x.shape)
    return weaver.as_last(weaver.one(op, [weaver.last(x)], {"axis": axis % x.rank}), x.shape)


def pad(
    weaver: Weaver,
    x: Tensor,
    amounts: Sequence[tuple[int, int]],
    shape: Shape,
    *,
    mode: str = "constant",
    value: float = 0.0,
) -> Tensor:
    """Add a Pad by (before, after) along each axis of the source's order."""
    first = weaver.is_first(x)
    order = turned(range(x.rank)) if first else tuple(range(x.rank))
    sizes = [amounts[axis][side] for side in (0, 1) for axis in order]
    inputs = [
        weaver.first(x) if first else weaver.last(x),
        weaver.weight(np.asarray(sizes, dtype=np.int64), "pads"),
    ]
    if value:
        inputs.append(weaver.weight(np.asarray(value, dtype=np.float32), "value"))
    name = weaver.one("Pad", inputs, {"mode": mode})
    return weaver.as_first(name, shape) if first else weaver.as_last(name, shape)


def resize(weaver: Weaver, x: Tensor, shape: Shape, *, mode: str, coordinates: str) -> Tensor:
    """Add a Resize of pictures to the sizes of `shape`.

    Args:
        weaver: the graph.
        x: (B, H, W, C).
        shape: of the result, sizes of places known.
        mode: "linear" or "nearest".
        coordinates: "half_pixel", "align_corners" or "asymmetric".

    Returns:
        The result, channels first.
    """
    places = [Tensor(shape=shape).size(axis) for axis in range(1, len(shape) - 1)]
    scales = [_scale(x.size(axis + 1), new) for axis, new in enumerate(places)]
    attributes: dict[str, Attribute] = {
        "mode": mode,
        "coordinate_transformation_mode": coordinates,
    }
    if mode == "nearest":
        # TensorFlow takes floor((i + 0.5) / scale): half_pixel's coordinate, rounded.
        kind = "floor" if coordinates == "asymmetric" else "round_prefer_ceil"
        attributes["nearest_mode"] = kind
    numbers = np.asarray([1.0, 1.0, *scales], dtype=np.float32)
    inputs = [weaver.first(x), "", weaver.weight(numbers, "scales")]
    return weaver.as_first(weaver.one("Resize", inputs, attributes), shape)


def _scale(old: int, new: int) -> np.float32:
    """Return new / old, so that old * scale rounded down is new in float32 as well."""
    scale = np.float32(new / old)
    while np.floor(np.float32(old) * scale) < new:
        scale = np.nextafter(scale, np.float32(np.inf))
    return scale


def gelu(weaver: Weaver, x: Tensor, *, is_tanh: bool) -> Tensor:
    """Add x / 2 (1 + erf(x / sqrt 2)), or the same with a tanh; one operator since opset 20 only.

    Source: arXiv:1606.08415, section 2.
    """

    def number(value: float) -> Tensor:
        return weaver.constant(np.asarray(value, dtype=np.float32))

    def then(op: str, *inputs: Tensor) -> Tensor:
        return weaver.elementwise(op, inputs, x.shape)

    if is_tanh:
        cube = then("Mul", then("Pow", x, number(3)), number(0.044715))
        bent = then("Tanh", then("Mul", then("Add", x, cube), number(math.sqrt(2 / math.pi))))
    else:
        bent = then("Erf", then("Div", x, number(math.sqrt(2))))
    return then("Mul", then("Mul", x, then("Add", bent, number(1))), number(0.5))
