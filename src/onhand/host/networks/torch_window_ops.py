"""ONNX's operators with a window or a grid, in torch: convolution, pooling, padding, resizing."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from onhand.core.errors import InputError
from onhand.host.networks.graph import Node
from onhand.host.networks.interpolation import Grid, interpolation
from onhand.host.networks.torch_call import Call, Operator, refuse

__all__ = ["WINDOW_OPERATORS"]

Sizes = Sequence[int]
_CONVOLUTIONS: Final = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED: Final = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
_MAXIMA: Final = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEANS: Final = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


class _Window:
    """A node's kernel, steps and borders for an input of some sizes."""

    def __init__(self, node: Node, sizes: Sizes, kernel: Sizes) -> None:
        n = len(sizes)
        self.kernel = tuple(kernel)
        self.strides = node.wholes("strides") or (1,) * n
        self.dilations = node.wholes("dilations") or (1,) * n
        self.reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, self.dilations, strict=True))
        pads = node.wholes("pads") or (0,) * (2 * n)
        self.begin, self.end = pads[:n], pads[n:]
        kind = node.text("auto_pad", "NOTSET")
        if kind == "VALID":
            self.begin = self.end = (0,) * n
        elif kind in {"SAME_UPPER", "SAME_LOWER"}:
            total = tuple(
                max(0, (math.ceil(size / stride) - 1) * stride + reach - size)
                for size, stride, reach in zip(sizes, self.strides, self.reach, strict=True)
            )
            less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
            self.begin, self.end = (less, more) if kind == "SAME_UPPER" else (more, less)

    def padded(self, x: Tensor, fill: float, more: Sizes = ()) -> Tensor:
        """Return the input with its borders, and `more` behind them."""
        more = more or (0,) * len(self.end)
        ends = [end + extra for end, extra in zip(self.end, more, strict=True)]
        return _filled(x, self.begin, ends, fill)

    def overhang(self, sizes: Sizes) -> tuple[int, ...]:
        """Return how far the last window of ceil_mode reaches beyond the borders."""
        found = []
        for i, size in enumerate(sizes):
            whole = size + self.begin[i] + self.end[i]
            steps = math.ceil((whole - self.reach[i]) / self.strides[i])
            if steps * self.strides[i] >= size + self.begin[i]:
                steps -= 1  # a window that begins behind the input counts for nothing
            found.append(max(0, steps * self.strides[i] + self.reach[i] - whole))
        return tuple(found)


def _filled(x: Tensor, begin: Sizes, end: Sizes, fill: float) -> Tensor:
    if not any((*begin, *end)):
        return x
    # torch names the last axis first.
    pairs = [size for both in zip(reversed(begin), reversed(end), strict=True) for size in both]
    return functional.pad(x, pairs, value=fill)


def _dimensions(call: Call) -> int:
    n = call.tensor(0).ndim - 2
    if n not in _CONVOLUTIONS:
        raise refuse(call, f"an input of {n + 2} dimensions")
    return n


def _conv(call: Call) -> Tensor:
    x, weight, bias, n = call.tensor(0), call.tensor(1), call.maybe(2), _dimensions(call)
    window = _Window(call.node, x.shape[2:], weight.shape[2:])
    padding = window.begin
    if window.begin != window.end:
        x, padding = window.padded(x, 0.0), (0,) * n
    groups, strides = call.node.whole("group", 1), window.strides
    skipped = _is_slow_to_train(x, weight, groups) and max(strides) > 1
    made = _CONVOLUTIONS[n](
        x,
        weight,
        bias,
        stride=(1,) * n if skipped else strides,
        padding=padding,
        dilation=window.dilations,
        groups=groups,
    )
    if not skipped:
        return made
    # The same numbers at the places that the strides would have taken.
    return made[(slice(None), slice(None), *(slice(None, None, step) for step in strides))]


def _is_slow_to_train(x: Tensor, weight: Tensor, groups: int) -> bool:
    """Whether oneDNN takes many times as long for the gradient with strides as without.

    It does for a convolution of each channel by itself: from 128 channels of 16 x 16, 432 ms for
    128 examples in bfloat16, and 36 ms without strides.
    """
    is_trained = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    depthwise = groups > 1 and weight.shape[1] == 1
    return is_trained and depthwise and x.device.type == "cpu"


def _conv_transpose(call: Call) -> Tensor:
    x, weight, bias, n = call.tensor(0), call.tensor(1), call.maybe(2), _dimensions(call)
    node, window = call.node, _Window(call.node, x.shape[2:], weight.shape[2:])
    extra = node.wholes("output_padding") or (0,) * n
    whole = [
        stride * (size - 1) + more + reach
        for stride, size, more, reach in zip(
            window.strides, x.shape[2:], extra, window.reach, strict=True
        )
    ]
    kind, wanted = node.text("auto_pad", "NOTSET"), node.wholes("output_shape")
    if kind in {"SAME_UPPER", "SAME_LOWER"} and not wanted:
        wanted = tuple(s * size for s, size in zip(window.strides, x.shape[2:], strict=True))
    begin, end = window.begin, window.end
    if wanted:
        total = [max(0, w - size) for w, size in zip(whole, wanted[-n:], strict=True)]
        less, more_ = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        begin, end = (less, more_) if kind == "SAME_UPPER" else (more_, less)
    made = _TRANSPOSED[n](
        x,
        weight,
        bias,
        stride=window.strides,
        output_padding=extra,
        groups=node.whole("group", 1),
        dilation=window.dilations,
    )
    return _filled(made, [-size for size in begin], [-size for size in end], 0.0)


def _max_pool(call: Call) -> Tensor:
    x, node, n = call.tensor(0), call.node, _dimensions(call)
    if len(node.outputs) > 1:
        raise refuse(call, "an output of indices")
    window = _Window(node, x.shape[2:], node.wholes("kernel_shape"))
    more = window.overhang(x.shape[2:]) if node.whole("ceil_mode", 0) else ()
    lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    x = window.padded(x, lowest, more)
    return _MAXIMA[n](x, window.kernel, window.strides, 0, window.dilations)


def _average_pool(call: Call) -> Tensor:
    x, node, n = call.tensor(0), call.node, _dimensions(call)
    window = _Window(node, x.shape[2:], node.wholes("kernel_shape"))
    if any(d != 1 for d in window.dilations):
        raise refuse(call, "dilations")
    more = window.overhang(x.shape[2:]) if node.whole("ceil_mode", 0) else ()
    made = _MEANS[n](window.padded(x, 0.0, more), window.kernel, window.strides)
    if not any((*window.begin, *window.end, *more)):
        return made
    # Which places count: the borders where the node says so, never what ceil_mode adds.
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype)
    border = 1.0 if node.whole("count_include_pad", 0) else 0.0
    ones = _filled(window.padded(ones, border), (0,) * n, more or (0,) * n, 0.0)
    return made / _MEANS[n](ones, window.kernel, window.strides)


def _over_places(call: Call) -> tuple[int, ...]:
    return tuple(range(2, call.tensor(0).ndim))


def _pad(call: Call) -> Tensor:
    x, pads, value = call.tensor(0), call.wholes(1), call.maybe(2)
    if pads is None:
        raise InputError(f"Pad {call.node.name!r}: input 1 is missing")
    axes = [axis % x.ndim for axis in call.wholes(3) or range(x.ndim)]
    begin, end = [0] * x.ndim, [0] * x.ndim
    for i, axis in enumerate(axes):
        begin[axis], end[axis] = pads[i], pads[len(axes) + i]
    mode = call.node.text("mode", "constant")
    if mode == "constant":
        return _filled(x, begin, end, 0.0 if value is None else value.item())
    x = _filled(x, [min(0, n) for n in begin], [min(0, n) for n in end], 0.0)
    for axis in range(x.ndim):
        before, after = max(0, begin[axis]), max(0, end[axis])
        if before or after:
            places = _bordered(x.shape[axis], before, after, call)
            x = x.index_select(axis, torch.from_numpy(places))
    return x


def _bordered(size: int, before: int, after: int, call: Call) -> np.ndarray:
    # Which place of an axis each place of the padded one is a copy of.
    places = np.arange(size)
    match call.node.text("mode", "constant"):
        case "reflect":
            return np.pad(places, (before, after), mode="reflect")
        case "edge":
            return np.pad(places, (before, after), mode="edge")
        case "wrap":
            return np.pad(places, (before, after), mode="wrap")
        case other:
            raise refuse(call, f"mode {other!r}")


def _resize(call: Call) -> Tensor:
    x, node = call.tensor(0), call.node
    if node.whole("antialias", 0):
        raise refuse(call, "antialias")
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise refuse(call, "keep_aspect_ratio_policy")
    axes = node.wholes("axes") or tuple(range(x.ndim))
    given, sizes = call.maybe(2), call.wholes(3)
    scales = [] if given is None else [float(s) for s in given.flatten().tolist()]
    for i, axis in enumerate(axes):
        size = x.shape[axis]
        new = sizes[i] if sizes else math.floor(size * scales[i])
        scale = new / size if sizes else scales[i]
        if new == size and scale == 1.0:
            continue
        grid = Grid(size=size, new=new, scale=scale)
        weights = interpolation(node, grid).astype(np.float32)  # (new, size)
        if node.text("mode", "nearest") == "nearest":
            x = x.index_select(axis, torch.from_numpy(weights.argmax(axis=1)))
        else:
            x = (x.movedim(axis, -1) @ torch.from_numpy(weights).T.to(x.dtype)).movedim(-1, axis)
    return x


WINDOW_OPERATORS: Final[Mapping[str, Operator]] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": lambda call: call.tensor(0).mean(_over_places(call), keepdim=True),
    "GlobalMaxPool": lambda call: call.tensor(0).amax(_over_places(call), keepdim=True),
    "MaxPool": _max_pool,
    "Pad": _pad,
    "Resize": _resize,
}
