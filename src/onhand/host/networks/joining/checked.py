"""A graph that was put together beside its parts, one after the other, on the same inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed
from onhand.core.network import ArrayInfo
from onhand.device.networks.pictures import feed_picture
from onhand.host.networks.graph import Array, Graph, Node, Value
from onhand.host.networks.joining.before import with_preprocessing
from onhand.host.networks.observe import GraphRunner

__all__ = ["check_same", "noise", "passing", "pictures", "preparing"]

_SEED = 0
_OPEN = 4  # of a size that may be any
# Sums in another order, and integers that are rounded after them.
_MOST_APART = 1e-3
Feeds = dict[str, Array]


def check_same(
    whole: Graph,
    apart: Callable[[Feeds], Mapping[str, Array]],
    examples: Sequence[Feeds],
    *,
    threads: int,
    what: str,
) -> float:
    """Compare a graph's outputs with those of its parts.

    Args:
        whole: the graph.
        apart: gives what it should give.
        examples: inputs of both.
        threads: of one run.
        what: the graph in words.

    Returns:
        The largest difference, as a share of the largest number of its output.

    Raises:
        InputError: if an output differs by more than rounding explains.
        EngineError: if the graph does not run.
    """
    runner = GraphRunner(whole, threads=threads)
    most = 0.0
    for feeds in examples:
        found, wanted = runner.run(dict(feeds)), apart(feeds)
        for name, expected in wanted.items():
            distance = _distance(found[name], expected)
            if not distance <= _MOST_APART:
                raise InputError(
                    f"{what}: output {name!r} differs from that of the parts one after the other "
                    f"by {distance:.2g} of its largest number; nothing is written"
                )
            most = max(most, distance)
    return most


def _distance(found: Array, wanted: Array) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    if not wanted.size:
        return 0.0
    ours, theirs = found.astype(np.float64), wanted.astype(np.float64)
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-6))


def noise(graph: Graph, n: int = 2) -> list[Feeds]:
    """Make inputs: noise, and small numbers where whole ones are taken."""
    rng = np.random.default_rng(_SEED)

    def one(value: Value) -> Array:
        shape = [
            size if isinstance(size, int) else 1 if axis == 0 else _OPEN
            for axis, size in enumerate(value.shape)
        ]
        if value.dtype.kind == "f":
            return rng.standard_normal(shape).astype(value.dtype)
        return rng.integers(0, 2, shape).astype(value.dtype)

    return [{value.name: one(value) for value in graph.inputs} for _ in range(n)]


def pictures(feed: PictureFeed, size: tuple[int, int] | None) -> list[NDArray[np.uint8]]:
    """Make pictures (H, W, 3) with edges and slopes; of one size, or of several.

    Args:
        feed: whose own size is among them, and a larger and a smaller one.
        size: the only one; None for any.
    """
    rng = np.random.default_rng(_SEED)
    height, width = feed.height, feed.width
    sizes = [size] if size else [(height, width), (height * 2 + 3, width + 11), (height, width * 3)]
    if feed.resize == "none":
        sizes = [(height, width)]
    made: list[NDArray[np.uint8]] = []
    for rows, columns in sizes:
        blocks = rng.integers(0, 256, (rows // 8 + 1, columns // 8 + 1, 3))
        large = blocks.repeat(8, axis=0).repeat(8, axis=1)[:rows, :columns]
        slope = np.linspace(-40, 40, columns)[None, :, None]
        made.append(np.clip(large + slope, 0, 255).astype(np.uint8))
    return made


def passing(values: Sequence[Value], *, opset: int) -> Graph:
    """Return a graph that gives what it is fed: input "NAME.in" -> output "NAME"."""
    return Graph(
        nodes=tuple(
            Node(op="Identity", inputs=(f"{value.name}.in",), outputs=(value.name,))
            for value in values
        ),
        constants={},
        inputs=tuple(replace(value, name=f"{value.name}.in") for value in values),
        outputs=tuple(values),
        opset=opset,
    )


def preparing(
    feed: PictureFeed, first: Value, size: tuple[int, int] | None, *, opset: int, threads: int
) -> Callable[[Array], Array]:
    """Return the way from a picture to a network's input alone, checked against the device's.

    Args:
        feed: how pictures are fed.
        first: the network's input.
        size: of every picture; None for any.
        opset: of the network.
        threads: of one run.

    Returns:
        Pixels (H, W, 3) -> the input (1, ...).

    Raises:
        InputError: if a level differs from that of the device's own reader by more than rounding.
    """
    C = 1 if feed.channels == "gray" else 3
    sides = (None, None) if feed.resize == "none" else (feed.height, feed.width)
    shape = (1, C, *sides) if feed.layout == "nchw" else (1, *sides, C)
    value = Value(name="prepared", dtype=first.dtype, shape=shape)
    runner = GraphRunner(
        with_preprocessing(passing([value], opset=opset), feed, size=size), threads=threads
    )

    def prepare(pixels: Array) -> Array:
        return runner.run({"picture": pixels})["prepared"]

    info = ArrayInfo(name="prepared", dtype=first.dtype.name, shape=())
    # One level of each channel; of gray, of a rounded sum of three; of whole numbers, rounded.
    most = (1 + (C == 1)) / min(feed.std) + (first.dtype.kind != "f")
    for pixels in pictures(feed, size):
        found, wanted = prepare(pixels), feed_picture(pixels, feed, info)
        apart = float(np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max())
        if found.shape != wanted.shape or apart > most * 1.001:
            raise InputError(
                f"a picture of {pixels.shape[1]} x {pixels.shape[0]} pixels reaches the network "
                f"otherwise than on the device, by up to {apart:.3g}; nothing is written"
            )
    return prepare
