"""Scaling of pictures as products with two matrices, which any opset and any engine can do.

Pillow's bilinear filter widens with the factor and rounds to whole levels after each direction;
so does this. Pillow 13 scales some forms down first and across second: a level may then differ by
one, as it may where a sum lies on the edge of rounding. `Resize` of ONNX has such a filter from
opset 18 on, and does not round in between.
"""

import numpy as np

from onhand.core.feed import PictureFeed
from onhand.host.networks.joining.growing import Growth, float64

__all__ = ["framed", "scaled", "scaled_crops", "sizes_of", "triangles"]


def sizes_of(g: Growth, picture: str) -> tuple[str, str]:
    """Add the height and the width of a picture (H, W, 3), float64 (1,)."""
    shape = g.cast(g.op("Shape", picture), np.float64)
    return g.op("Gather", shape, np.array([0])), g.op("Gather", shape, np.array([1]))


def triangles(g: Growth, *, places: str, step: str, begin: str, size: str, end: str = "") -> str:
    """Add the weights of a triangle filter.

    Args:
        g: where to.
        places: float64 (P, 1), which outputs to compute, counted from 0.
        step: float64 (..., 1, 1) or (1,), pixels for each output.
        begin: likewise, the pixel where output 0 begins.
        size: float64 (1,), how many pixels there are: n.
        end: like `begin`, the first pixel that no longer counts, as those before `begin` do not;
            "" where all count.

    Returns:
        The name of (..., P, n) float32; each row's sum is 1.

    Source:
        Pillow, `src/libImaging/Resample.c`: bilinear, its support widened with the factor.
    """
    count = g.op("Squeeze", size)
    pixels = g.op("Add", g.op("Range", float64(0), count, float64(1)), float64(0.5))  # (n,)
    middles = g.op("Mul", g.op("Add", places, float64(0.5)), step)  # (..., P, 1)
    distances = g.op("Abs", g.op("Sub", pixels, g.op("Add", middles, begin)))  # (..., P, n)
    shares = g.op("Div", distances, g.op("Max", step, float64(1)))
    weights = g.op("Max", g.op("Sub", float64(1), shares), float64(0))
    if end:
        inside = g.op("And", g.op("Greater", pixels, begin), g.op("Less", pixels, end))
        weights = g.op("Mul", weights, g.cast(inside, np.float64))
    sums = g.op("ReduceSum", weights, np.array([-1]), keepdims=1)  # (..., P, 1)
    return g.cast(g.op("Div", weights, sums), np.float32)


def framed(g: Growth, feed: PictureFeed, height: str, width: str) -> tuple[str, str, str]:
    """Add the matrices that scale and cut a picture as a feed says.

    Args:
        g: where to.
        feed: any but with "none".
        height: H, float64 (1,).
        width: W, likewise.

    Returns:
        Names of (rows, H) and (columns, W) float32, and of int64 (6,) for `Pad` of (C, rows,
        columns); "" where nothing is beside the picture.
    """
    goals = float64(feed.height), float64(feed.width)
    sizes = height, width
    if feed.resize == "stretch":
        larger = tuple(g.constant("join.side", goal.reshape(1)) for goal in goals)
        return (*_both(g, sizes, larger, (feed.height, feed.width), cut=True), "")
    if feed.resize == "crop":
        short = float64(feed.short_side or max(feed.height, feed.width))
        factor = g.op("Div", short, g.op("Min", height, width))
        # A picture of the right size is taken as it is, whatever the short side should be.
        fits = g.op("And", g.op("Equal", height, goals[0]), g.op("Equal", width, goals[1]))
        larger = tuple(
            g.op("Where", fits, s, g.op("Max", g.op("Round", g.op("Mul", s, factor)), short))
            for s in sizes
        )
        return (*_both(g, sizes, larger, (feed.height, feed.width), cut=True), "")
    factor = g.op("Min", g.op("Div", goals[0], height), g.op("Div", goals[1], width))
    inner = tuple(g.op("Max", g.op("Round", g.op("Mul", s, factor)), float64(1)) for s in sizes)
    spare = [g.op("Sub", n, i) for n, i in zip(goals, inner, strict=True)]
    before = [g.op("Floor", g.op("Div", s, float64(2))) for s in spare]
    after = [g.op("Sub", s, b) for s, b in zip(spare, before, strict=True)]
    zero = np.zeros(1)
    edges = g.op("Concat", zero, *before, zero, *after, axis=0)
    pads = g.cast(edges, np.int64)
    return (*_both(g, sizes, inner, (0, 0), cut=False), pads)


def _both(
    g: Growth,
    sizes: tuple[str, str],
    larger: tuple[str, ...],
    goals: tuple[int, int],
    *,
    cut: bool,
) -> tuple[str, str]:
    made: list[str] = []
    for size, scaled_to, goal in zip(sizes, larger, goals, strict=True):
        step = g.op("Div", size, scaled_to)  # (1,)
        if cut:
            spare = g.op("Floor", g.op("Div", g.op("Sub", scaled_to, float64(goal)), float64(2)))
            places = g.op("Add", spare, np.arange(goal, dtype=np.float64))  # (P,)
        else:
            places = g.op("Range", float64(0), g.op("Squeeze", scaled_to), float64(1))
        upright = g.op("Unsqueeze", places, np.array([1]))  # (P, 1)
        zero = g.constant("join.zero", float64(0))
        made.append(triangles(g, places=upright, step=step, begin=zero, size=size))
    return made[0], made[1]


def scaled(g: Growth, pixels: str, rows: str, columns: str) -> str:
    """Add the scaling of a picture.

    Args:
        g: where to.
        pixels: (3, H, W) float32.
        rows: (P, H) float32.
        columns: (Q, W) float32.

    Returns:
        The name of (3, P, Q) float32 in whole levels.
    """
    turned = g.op("Transpose", columns, perm=(1, 0))
    across = _rounded(g, g.op("MatMul", pixels, turned))  # (3, H, Q)
    return _rounded(g, g.op("MatMul", rows, across))  # (3, P, Q)


def scaled_crops(g: Growth, pixels: str, rows: str, columns: str, *, goal: tuple[int, int]) -> str:
    """Add the scaling of many crops of a picture; there may be none.

    Args:
        g: where to.
        pixels: (3, H, W) float32.
        rows: (M, P, H) float32.
        columns: (M, Q, W) float32.
        goal: P and Q.

    Returns:
        The name of (M, 3, P, Q) float32 in whole levels.
    """
    P, Q = goal
    # One product for all crops; a product of batches would not take an empty one.
    turned = g.op("Transpose", columns, perm=(2, 0, 1))  # (W, M, Q)
    crops = g.op("Shape", columns, start=0, end=1)  # (1,)
    width = g.op("Shape", columns, start=2, end=3)
    together = g.op("Concat", width, g.op("Mul", crops, np.array([Q])), axis=0)
    flat = g.op("Reshape", turned, together, allowzero=1)  # (W, M Q)
    across = _rounded(g, g.op("MatMul", pixels, flat))  # (3, H, M Q)
    height = g.op("Shape", pixels, start=1, end=2)
    apart = g.op("Concat", np.array([3]), height, crops, np.array([Q]), axis=0)
    split = g.op("Reshape", across, apart, allowzero=1)  # (3, H, M, Q)
    lined = g.op("Transpose", split, perm=(2, 1, 0, 3))  # (M, H, 3, Q)
    joined = g.op("Concat", crops, height, np.array([3 * Q]), axis=0)
    wide = g.op("Reshape", lined, joined, allowzero=1)  # (M, H, 3 Q)
    down = _rounded(g, g.op("MatMul", rows, wide))  # (M, P, 3 Q)
    last = g.op("Concat", crops, np.array([P, 3, Q]), axis=0)
    levels = g.op("Reshape", down, last, allowzero=1)  # (M, P, 3, Q)
    return g.op("Transpose", levels, perm=(0, 2, 1, 3))


def _rounded(g: Growth, levels: str) -> str:
    return g.op("Floor", g.op("Add", levels, np.array(0.5, dtype=np.float32)))
