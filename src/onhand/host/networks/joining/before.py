"""The way from a picture's pixels to a network's input, as nodes of its graph."""

from dataclasses import replace

import numpy as np

from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed
from onhand.host.networks.graph import Array, Graph, Value, fresh_name
from onhand.host.networks.joining.growing import Growth
from onhand.host.networks.joining.scaling import Frame, Scale, framed, scaled, sizes_of
from onhand.host.networks.observe import GraphRunner

__all__ = ["prepared", "with_preprocessing"]

_PICTURE = "picture"
_GRAY = np.array(114, dtype=np.float32)  # of what is beside a padded picture
_BT601 = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def with_preprocessing(
    graph: Graph, feed: PictureFeed, *, size: tuple[int, int] | None = None
) -> Graph:
    """Put the scaling, cutting and normalising of a picture before a network.

    What is fed then is a picture as a camera gives it. The pixels that reach the network are those
    of Pillow's bilinear filter; a level may differ by one, see `scaling`.
    The division by `std` moves into the first convolution where it can, and so does the
    subtraction of `mean` where no zeros are put around the picture.

    Args:
        graph: the graph; its first input is the network's picture.
        feed: how a picture is fed.
        size: (H, W) of every picture, where that is known: matrices for scaling are constants
            then; None for any size, found out in every run.

    Returns:
        The graph; its first input is `picture`: (H, W, 3) uint8, RGB, without a batch.

    Raises:
        InputError: if the first input does not fit the feed.
    """
    _check(graph.inputs[0], feed)
    graph = _freed(graph)
    first = graph.inputs[0]
    g = Growth(graph.names())
    height, width = size or (None, None)
    picture = fresh_name(g.taken, _PICTURE)
    pixels = g.cast(picture, np.float32)
    frame: Frame | None = None
    if feed.resize != "none" and size != (feed.height, feed.width):
        frame = framed(g, feed, *sizes_of(g, pixels)) if size is None else _known(g, feed, size)
    graph, mean, std = _folded(graph, feed)
    levels = prepared(g, pixels, feed, frame=frame, mean=mean, std=std)
    whole = g.op("Unsqueeze", levels, np.array([0]))
    # From here on the network's own input is a value inside.
    g.taken.discard(first.name)
    _type(g, whole, first)
    fed = Value(name=picture, dtype=np.dtype(np.uint8), shape=(height, width, 3))
    return g.before(graph, (fed, *graph.inputs[1:])).live()


def _freed(graph: Graph) -> Graph:
    """Return the graph with another name for its first input, if that is the picture's."""
    first = graph.inputs[0]
    is_fixed = any(first.name in node.captured for node in graph.nodes)
    if first.name != _PICTURE or is_fixed or first.name in graph.output_names():
        return graph
    inner = fresh_name(graph.names(), f"{_PICTURE}.fed")
    inputs = (replace(first, name=inner), *graph.inputs[1:])
    return replace(graph.renamed({first.name: inner}), inputs=inputs)


def _check(first: Value, feed: PictureFeed) -> None:
    C = 1 if feed.channels == "gray" else 3
    sides = (None, None) if feed.resize == "none" else (feed.height, feed.width)
    wanted = (1, C, *sides) if feed.layout == "nchw" else (1, *sides, C)
    fits = len(first.shape) == len(wanted) and all(
        not isinstance(found, int) or size in {None, found}
        for found, size in zip(first.shape, wanted, strict=True)
    )
    if not fits:
        raise InputError(f"input {first.name!r} is of shape {first.shape}, the feed makes {wanted}")


def prepared(
    g: Growth,
    pixels: str,
    feed: PictureFeed,
    *,
    frame: Frame | None,
    mean: Array | None,
    std: Array | None,
) -> str:
    """Add the way from pixels to what a network is fed.

    Args:
        g: where to.
        pixels: (H, W, 3) float32, 0 to 255.
        feed: says in which order channels and axes are.
        frame: what `framed` made; None where nothing is to be scaled.
        mean: (C,) float32 to subtract; None for nothing.
        std: (C,) float32 to divide by; None for nothing.

    Returns:
        The name of (C, height, width) or (height, width, C) float32.
    """
    if frame is None:
        framed_pixels = g.op("Transpose", pixels, perm=(2, 0, 1))  # (3, height, width)
    else:
        rows, columns, pads = frame
        framed_pixels = scaled(g, pixels, rows, columns)
        if pads:
            framed_pixels = g.op("Pad", framed_pixels, pads, _GRAY)
    levels = _channels(g, framed_pixels, feed)  # (C, height, width)
    for op, values in (("Sub", mean), ("Div", std)):
        if values is not None:
            levels = g.op(op, levels, values.reshape(-1, 1, 1))
    return levels if feed.layout == "nchw" else g.op("Transpose", levels, perm=(1, 2, 0))


def _known(g: Growth, feed: PictureFeed, size: tuple[int, int]) -> Frame:
    """Add what scales pictures of one size as constants."""
    alone = Growth(set())
    sides = [alone.constant("size", np.array([n], dtype=np.float64)) for n in size]
    *scales, pads = framed(alone, feed, sides[0], sides[1])
    names = [name for s in scales for name in (s.pixels, s.weights, s.count)]
    wanted = [*names, pads] if pads else names
    graph = Graph(
        nodes=tuple(alone.nodes), constants=alone.constants, inputs=(), outputs=(), opset=17
    )
    made = GraphRunner(graph, threads=1, names=wanted).run({})
    stored = [g.constant(f"join.{i}", made[name]) for i, name in enumerate(wanted)]
    rows, columns = (
        Scale(pixels=stored[i], weights=stored[i + 1], count=stored[i + 2]) for i in (0, 3)
    )
    return rows, columns, stored[-1] if pads else ""


def _channels(g: Growth, levels: str, feed: PictureFeed) -> str:
    if feed.channels == "bgr":
        return g.op("Gather", levels, np.array([2, 1, 0]), axis=0)
    if feed.channels == "gray":
        weighted = g.op("Mul", levels, _BT601.reshape(3, 1, 1))
        return g.op("Round", g.op("ReduceSum", weighted, np.array([0]), keepdims=1))
    return levels


def _type(g: Growth, levels: str, first: Value) -> None:
    """Add what makes the network's input of numbers in its dtype."""
    if first.dtype.kind != "f":
        limits = np.iinfo(first.dtype.name)
        low, high = (np.array(n, dtype=np.float32) for n in (limits.min, limits.max))
        levels = g.op("Clip", g.op("Round", levels), low, high)
    g.cast(levels, first.dtype, called=first.name)


def _folded(graph: Graph, feed: PictureFeed) -> tuple[Graph, Array | None, Array | None]:
    """Return the graph with what fits moved into its first convolution, and what is left.

    Zeros around the picture stand for the mean colour. They still do if the mean alone is
    subtracted before the convolution; if it were not, they would stand for black.
    """
    mean, std = (np.asarray(values, dtype=np.float32) for values in (feed.mean, feed.std))
    first = graph.inputs[0]
    readers = graph.readers().get(first.name, [])
    conv = readers[0] if len(readers) == 1 else None
    if (
        conv is None
        or conv.op != "Conv"
        or conv.inputs[0] != first.name
        or conv.whole("group", 1) != 1
        or first.dtype != np.float32
        or first.name in graph.output_names()
        or any(name and name not in graph.constants for name in conv.inputs[1:])
    ):
        return graph, mean, std
    g = Growth(graph.names())
    weight = graph.constants[conv.inputs[1]].astype(np.float64)  # (N, C, ...)
    divided = weight / std.astype(np.float64).reshape(1, -1, *(1,) * (weight.ndim - 2))
    inputs = [first.name, g.constant(f"{conv.inputs[1]}.scaled", divided.astype(np.float32))]
    is_bare = conv.text("auto_pad", "NOTSET") in {"NOTSET", "VALID"} and not any(
        conv.wholes("pads")
    )
    rest: Array | None = mean
    if is_bare:
        sums = divided.reshape(*weight.shape[:2], -1).sum(axis=2)  # (N, C)
        bias = graph.constants[conv.inputs[2]] if len(conv.inputs) > 2 and conv.inputs[2] else 0.0
        moved = np.asarray(bias, dtype=np.float64) - sums @ mean.astype(np.float64)  # (N,)
        inputs.append(g.constant(f"{conv.name}.bias", moved.astype(np.float32)))
        rest = None
    else:
        inputs += conv.inputs[2:]
    made = replace(conv, inputs=tuple(inputs))
    changed = graph.rebuilt(lambda node: (made,) if node is conv else (node,))
    constants = {**graph.constants, **g.constants}
    zero = rest is not None and not rest.any()
    return replace(changed, constants=constants), None if zero else rest, None
