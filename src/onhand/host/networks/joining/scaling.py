"""Scaling of pictures as products with small matrices, which any opset and any engine can do.

Pillow's bilinear filter widens with the factor and rounds to whole levels after each direction;
so does this. It scales down first and across second, which leaves less to do; Pillow does the
other first, or what its version likes, so that a level may differ by one. `Resize` of ONNX has
such a filter from opset 18 on; ONNX Runtime's differs from Pillow's by up to five levels.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.feed import PictureFeed
from onhand.host.networks.joining.growing import Growth, float64

__all__ = ["GROUP", "Frame", "Scale", "framed", "scaled", "sizes_of", "triangles"]

GROUP: Final = 16
"""Outputs that are computed together; more waste products with zeros, fewer make them small."""


Frame = tuple["Scale", "Scale", str]


def sizes_of(g: Growth, pixels: str) -> tuple[str, str]:
    """Add the height and the width of pixels (H, W, 3), float64 (1,) each."""
    shape = g.cast(g.op("Shape", pixels), np.float64)
    return g.op("Gather", shape, np.array([0])), g.op("Gather", shape, np.array([1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Names of what scales one direction.

    Attributes:
        pixels: int64 (C, L), the L pixels that C groups of outputs look at.
        weights: float32 (C, GROUP, L), of each of them.
        count: int64 (1,), how many outputs there are; the last group may have some too many.
    """

    pixels: str
    weights: str
    count: str


def triangles(g: Growth, *, first: str, count: str, step: str, size: str) -> Scale:
    """Add the weights of a triangle filter.

    An output looks at few pixels, so a matrix of all outputs and all pixels would be zeros but
    for a band along its diagonal. Groups of outputs cut small blocks out of that band.

    Args:
        g: where to.
        first: float64 (1,), which output is the first to compute.
        count: float64 (1,), how many to compute.
        step: float64 (1,), pixels for each output.
        size: float64 (1,), how many pixels there are.

    Returns:
        The scale.

    Source:
        Pillow, `src/libImaging/Resample.c`: bilinear, its support widened with the factor.
    """
    support = g.op("Max", step, float64(1))
    groups = _counted(g, g.op("Ceil", g.op("Div", count, float64(GROUP))))  # (C,)
    starts = g.op("Add", g.op("Mul", groups, float64(GROUP)), first)
    starts = g.op("Unsqueeze", g.op("Add", starts, float64(0.5)), np.array([1]))  # (C, 1)
    begins = g.op("Floor", g.op("Sub", g.op("Mul", starts, step), support))
    spans = g.op("Add", g.op("Mul", step, float64(GROUP - 1)), g.op("Mul", support, float64(2)))
    length = g.op("Add", g.op("Ceil", spans), float64(2))
    places = g.op("Add", begins, _counted(g, length))  # (C, L)
    inside = g.op("And", g.op("Greater", places, float64(-0.5)), g.op("Less", places, size))
    last = g.op("Sub", size, float64(1))
    pixels = g.cast(g.op("Max", g.op("Min", places, last), float64(0)), np.int64)
    outputs = g.op("Add", starts, np.arange(GROUP, dtype=np.float64))  # (C, GROUP)
    middles = g.op("Unsqueeze", g.op("Mul", outputs, step), np.array([2]))  # (C, GROUP, 1)
    centres = g.op("Unsqueeze", g.op("Add", places, float64(0.5)), np.array([1]))  # (C, 1, L)
    shares = g.op("Div", g.op("Abs", g.op("Sub", centres, middles)), support)
    near = g.op("Max", g.op("Sub", float64(1), shares), float64(0))  # (C, GROUP, L)
    seen = g.op("Unsqueeze", g.cast(inside, np.float64), np.array([1]))  # (C, 1, L)
    weights = g.op("Mul", near, seen)
    # Outputs too many may see nothing.
    sums = g.op("Max", g.op("ReduceSum", weights, np.array([2]), keepdims=1), float64(1e-9))
    return Scale(
        pixels=pixels,
        weights=g.cast(g.op("Div", weights, sums), np.float32),
        count=g.cast(count, np.int64),
    )


def framed(g: Growth, feed: PictureFeed, height: str, width: str) -> Frame:
    """Add what scales and cut a picture as a feed says.

    Args:
        g: where to.
        feed: any but with "none".
        height: H, float64 (1,).
        width: W, likewise.

    Returns:
        Rows, columns, and the name of int64 (6,) for `Pad` of (C, rows, columns); "" where nothing
        is beside the picture.
    """
    goals = float64(feed.height), float64(feed.width)
    sizes = height, width
    if feed.resize == "stretch":
        larger = tuple(g.constant(f"{g.prefix}.side", goal.reshape(1)) for goal in goals)
        return (*_both(g, sizes, larger, (feed.height, feed.width)), "")
    if feed.resize == "crop":
        short = float64(feed.short_side or max(feed.height, feed.width))
        factor = g.op("Div", short, g.op("Min", height, width))
        # A picture of the right size is taken as it is, whatever the short side should be.
        fits = g.op("And", g.op("Equal", height, goals[0]), g.op("Equal", width, goals[1]))
        larger = tuple(
            g.op("Where", fits, s, g.op("Max", g.op("Round", g.op("Mul", s, factor)), short))
            for s in sizes
        )
        return (*_both(g, sizes, larger, (feed.height, feed.width)), "")
    factor = g.op("Min", g.op("Div", goals[0], height), g.op("Div", goals[1], width))
    inner = tuple(g.op("Max", g.op("Round", g.op("Mul", s, factor)), float64(1)) for s in sizes)
    spare = [g.op("Sub", n, i) for n, i in zip(goals, inner, strict=True)]
    before = [g.op("Floor", g.op("Div", s, float64(2))) for s in spare]
    after = [g.op("Sub", s, b) for s, b in zip(spare, before, strict=True)]
    zero = np.zeros(1)
    edges = g.op("Concat", zero, *before, zero, *after, axis=0)
    pads = g.cast(edges, np.int64)
    return (*_both(g, sizes, inner, None), pads)


def _both(
    g: Growth,
    sizes: tuple[str, str],
    larger: tuple[str, ...],
    goals: tuple[int, int] | None,
) -> tuple[Scale, Scale]:
    """Add both directions; `goals` are cut out of the middle, None takes all."""
    made: list[Scale] = []
    for i, (size, side) in enumerate(zip(sizes, larger, strict=True)):
        count, first = side, g.constant(f"{g.prefix}.first", np.zeros(1))
        if goals is not None:
            count = g.constant(f"{g.prefix}.count", np.array([goals[i]], dtype=np.float64))
            first = g.op("Floor", g.op("Div", g.op("Sub", side, count), float64(2)))
        step = g.op("Div", size, side)
        made.append(triangles(g, first=first, count=count, step=step, size=size))
    return made[0], made[1]


def _counted(g: Growth, n: str) -> str:
    """Add the numbers from 0 to n - 1, float64 (n,)."""
    # In whole numbers: ONNX Runtime takes a size that it knows for int64, whatever it was cast to.
    whole = g.op("Squeeze", g.cast(n, np.int64))
    return g.cast(g.op("Range", np.array(0), whole, np.array(1)), np.float64)


def scaled(g: Growth, pixels: str, rows: Scale, columns: Scale) -> str:
    """Add the scaling of a picture.

    Args:
        g: where to.
        pixels: (H, W, 3) float32.
        rows: P of H.
        columns: Q of W.

    Returns:
        The name of (3, P, Q) float32 in whole levels.
    """
    width = g.op("Shape", pixels, start=1, end=2)
    flat = g.op("Reshape", pixels, np.array([0, -1]))  # (H, 3 W)
    down = _along(g, flat, rows)  # (P, 3 W)
    # A matrix is turned much faster than an array of more axes.
    turned = g.op("Transpose", down, perm=(1, 0))  # (3 W, P)
    wide = g.op("Reshape", turned, g.op("Concat", width, np.array([-1]), axis=0))  # (W, 3 P)
    across = _along(g, wide, columns)  # (Q, 3 P)
    whole = g.op("Concat", columns.count, np.array([3, -1]), axis=0)
    return g.op("Transpose", g.op("Reshape", across, whole), perm=(1, 2, 0))  # (3, P, Q)


def _along(g: Growth, pixels: str, scale: Scale) -> str:
    """Add the scaling of the first axis of (n, K), in whole levels."""
    windows = g.op("Gather", pixels, scale.pixels, axis=0)  # (C, L, K)
    groups = g.op("MatMul", scale.weights, windows)  # (C, GROUP, K)
    width = g.op("Shape", pixels, start=1, end=2)
    lined = g.op("Reshape", groups, g.op("Concat", np.array([-1]), width, axis=0))
    levels = g.op("Slice", lined, np.array([0]), scale.count, np.array([0]))
    return g.op("Floor", g.op("Add", levels, np.array(0.5, dtype=np.float32)))
