"""Convolutions and pools, in any number of dimensions."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from onhand.core.errors import InputError
from onhand.core.onnxgraph import OnnxNode
from onhand.device.networks.operators.kinds import Array, Operator

__all__ = ["WINDOWS", "Windows", "conv_shape", "convolve", "place_windows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Where the windows of a kernel lie, one number for each dimension of space.

    Attributes:
        kernel: sizes of the kernel.
        strides: from window to window.
        dilations: from element to element within a window.
        before: padding before the first element.
        after: padding after the last one that counts as padding.
        sizes: windows.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """Elements that the windows span, from the first padded one."""
        places = zip(self.sizes, self.strides, self.kernel, self.dilations, strict=True)
        return tuple((n - 1) * step + (k - 1) * d + 1 for n, step, k, d in places)

    def padded(self, x: Array, value: float) -> Array:
        """Return (B, C, space) with all that the windows reach."""
        space = x.shape[2:]
        after = (
            max(0, reach - size - low)
            for reach, size, low in zip(self.reach, space, self.before, strict=True)
        )
        widths = [(0, 0), (0, 0), *zip(self.before, after, strict=True)]
        return x if not np.any(widths) else np.pad(x, widths, constant_values=value)

    def slices(self, padded: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
        """Yield each place of the kernel, and the element at it of every window."""
        for place in product(*map(range, self.kernel)):
            low = [at * d for at, d in zip(place, self.dilations, strict=True)]
            inside = tuple(
                slice(first, first + (n - 1) * step + 1, step)
                for first, n, step in zip(low, self.sizes, self.strides, strict=True)
            )
            yield place, padded[(slice(None), slice(None), *inside)]


def place_windows(node: OnnxNode, space: tuple[int, ...], kernel: tuple[int, ...]) -> Windows:
    """Place the windows of a convolution or a pool.

    Args:
        node: its attributes tell strides, paddings and dilations.
        space: sizes of the input.
        kernel: sizes of the kernel.

    Returns:
        The windows.

    Raises:
        InputError: if there is none, or the padding is of an unknown kind.
    """
    n = len(space)
    ones, zeros = (1,) * n, (0,) * (2 * n)
    strides = node.wholes("strides", ones) or ones
    dilations = node.wholes("dilations", ones) or ones
    pads = node.wholes("pads", zeros) or zeros
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    mode = node.text("auto_pad", "NOTSET")
    if mode in {"SAME_UPPER", "SAME_LOWER"}:
        wanted = [-(-size // step) for size, step in zip(space, strides, strict=True)]
        totals = [
            max(0, (count - 1) * step + span - size)
            for count, step, span, size in zip(wanted, strides, spans, space, strict=True)
        ]
        more = [total - total // 2 for total in totals]
        less = [total // 2 for total in totals]
        pads = tuple(less + more if mode == "SAME_UPPER" else more + less)
    elif mode == "VALID":
        pads = zeros
    elif mode != "NOTSET":
        raise InputError(f"{node.op} {node.outputs[0]!r}: auto_pad {mode!r} is not known")
    before, after = pads[:n], pads[n:]
    sizes = tuple(
        _count(size, low, high, span, step, ceil=node.whole("ceil_mode", 0) != 0)
        for size, low, high, span, step in zip(space, before, after, spans, strides, strict=True)
    )
    if min(sizes) < 1 or min(pads) < 0:
        raise InputError(f"{node.op} {node.outputs[0]!r}: no window fits into {space}")
    return Windows(kernel=kernel, strides=strides, dilations=dilations, before=before,
                   after=after, sizes=sizes)  # fmt: skip


def _count(size: int, before: int, after: int, span: int, step: int, *, ceil: bool) -> int:
    room = size + before + after - span
    count = (-(-room // step) if ceil else room // step) + 1
    # A window that would begin in the padding after the last element is none.
    return count - 1 if ceil and (count - 1) * step >= size + before else count


def conv_shape(node: OnnxNode, x: Array, w: Array) -> tuple[int, ...]:
    """Return the shape (B, M, space) that a convolution gives.

    Raises:
        InputError: as `convolve` does.
    """
    _check_channels(node, x, w)
    windows = place_windows(node, x.shape[2:], node.wholes("kernel_shape") or w.shape[2:])
    return (x.shape[0], w.shape[0], *windows.sizes)


def convolve(node: OnnxNode, x: Array, w: Array) -> Array:
    """Convolve without a bias.

    Args:
        node: Conv or one with its attributes.
        x: (B, C, space).
        w: (M, C / groups, kernel), of the same dtype.

    Returns:
        (B, M, windows).

    Raises:
        InputError: if no window fits, or channels and groups do not match.
    """
    _check_channels(node, x, w)
    G = node.whole("group", 1)
    B, C = x.shape[:2]
    M = w.shape[0]
    windows = place_windows(node, x.shape[2:], w.shape[2:])
    padded = windows.padded(x, 0)
    n_places = int(np.prod(windows.sizes))
    total = np.zeros((B, M, *windows.sizes), dtype=x.dtype)
    by_group = total.reshape(B, G, M // G, n_places)
    # One product for each place of the kernel: needs no copy of every window.
    for place, seen in windows.slices(padded):
        taps = w[(slice(None), slice(None), *place)]  # (M, C / G)
        if C == G == M:  # depthwise: products of matrices of one element would be slow
            total += seen * taps.reshape(C, *(1,) * len(windows.sizes))
        else:
            flat = seen.reshape(B, G, C // G, n_places)
            by_group += taps.reshape(G, M // G, C // G) @ flat
    return total


def _check_channels(node: OnnxNode, x: Array, w: Array) -> None:
    G, C = node.whole("group", 1), x.shape[1]
    if x.ndim != w.ndim or w.shape[1] * G != C or w.shape[0] % G:
        raise InputError(
            f"{node.op} {node.outputs[0]!r}: {C} channels and weights {w.shape} in {G} groups"
        )


def _conv(node: OnnxNode, x: Array, w: Array, bias: Array | None = None) -> Array:
    wide = np.float32 if x.dtype == np.float16 else x.dtype
    total = convolve(node, x.astype(wide, copy=False), w.astype(wide, copy=False))
    if bias is not None:
        total += bias.reshape(-1, *(1,) * (x.ndim - 2))
    return total.astype(x.dtype, copy=False)


def _conv_transpose(node: OnnxNode, x: Array, w: Array, bias: Array | None = None) -> Array:
    n, G = x.ndim - 2, node.whole("group", 1)
    B, C = x.shape[:2]
    M, kernel = w.shape[1] * G, w.shape[2:]
    strides = node.wholes("strides", (1,) * n)
    dilations = node.wholes("dilations", (1,) * n)
    extra = node.wholes("output_padding", (0,) * n)
    pads = node.wholes("pads", (0,) * (2 * n))
    if node.text("auto_pad", "NOTSET") != "NOTSET" or node.wholes("output_shape"):
        raise InputError(f"ConvTranspose {node.outputs[0]!r}: sizes must be given by pads")
    full = [
        (size - 1) * step + (k - 1) * d + 1 + more
        for size, step, k, d, more in zip(
            x.shape[2:], strides, kernel, dilations, extra, strict=True
        )
    ]
    total = np.zeros((B, M, *full), dtype=x.dtype)
    flat = x.reshape(B, G, C // G, -1)
    for place in product(*map(range, kernel)):
        taps = w[(slice(None), slice(None), *place)].reshape(G, C // G, M // G)
        part = (taps.transpose(0, 2, 1) @ flat).reshape(B, M, *x.shape[2:])
        inside = tuple(
            slice(at * d, at * d + (size - 1) * step + 1, step)
            for at, d, size, step in zip(place, dilations, x.shape[2:], strides, strict=True)
        )
        total[(slice(None), slice(None), *inside)] += part
    cut = tuple(slice(pads[i], full[i] - pads[n + i]) for i in range(n))
    kept = total[(slice(None), slice(None), *cut)]
    return kept if bias is None else kept + bias.reshape(-1, *(1,) * n)


def _max_pool(node: OnnxNode, x: Array) -> Array:
    if len(node.outputs) > 1:
        raise InputError(f"MaxPool {node.outputs[0]!r}: places of the largest are not known")
    windows = place_windows(node, x.shape[2:], node.wholes("kernel_shape"))
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    best = np.full((*x.shape[:2], *windows.sizes), lowest, dtype=x.dtype)
    for _, seen in windows.slices(windows.padded(x, lowest)):
        np.maximum(best, seen, out=best)
    return best


def _average_pool(node: OnnxNode, x: Array) -> Array:
    windows = place_windows(node, x.shape[2:], node.wholes("kernel_shape"))
    # What counts is 1: the elements, and the padding that the graph asks for where it says so.
    ones = np.ones((1, 1, *x.shape[2:]), dtype=x.dtype)
    if node.whole("count_include_pad", 0):
        asked = zip(windows.before, windows.after, strict=True)
        ones = np.pad(ones, [(0, 0), (0, 0), *asked], constant_values=1)
        reach = zip(windows.reach, ones.shape[2:], strict=True)
        ones = np.pad(ones, [(0, 0), (0, 0), *((0, max(0, a - b)) for a, b in reach)])
    else:
        ones = windows.padded(ones, 0)
    total = sum(seen for _, seen in windows.slices(windows.padded(x, 0)))
    counted = sum(seen for _, seen in windows.slices(ones))
    return np.asarray(total / counted, dtype=x.dtype)


def _global(function: Callable[..., Array]) -> Operator:
    return lambda node, x: np.asarray(
        function(x, axis=tuple(range(2, x.ndim)), keepdims=True), dtype=x.dtype
    )


WINDOWS: Final[Mapping[str, Operator]] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": _global(np.mean),
    "GlobalMaxPool": _global(np.max),
    "MaxPool": _max_pool,
}
