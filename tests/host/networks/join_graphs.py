"""Tiny networks that tests put together."""

import numpy as np
from numpy.typing import NDArray

from onhand.core.feed import PictureFeed
from onhand.core.network import ArrayInfo
from onhand.device.networks.pictures import feed_picture
from onhand.host.networks.graph import Array, Graph, Node, Value
from onhand.host.networks.observe import GraphRunner

FLOAT32 = np.dtype(np.float32)
Floats = NDArray[np.float32]


def run(graph: Graph, **feeds: Array) -> dict[str, Floats]:
    """What ONNX Runtime answers."""
    made = GraphRunner(graph, threads=1).run(feeds)
    return {name: array.astype(np.float32) for name, array in made.items()}


def value(name: str, *shape: int | str | None) -> Value:
    """A float32 input or output."""
    return Value(name=name, dtype=FLOAT32, shape=shape)


def seen(feed: PictureFeed) -> Graph:
    """A network that gives back what it is fed."""
    C = 1 if feed.channels == "gray" else 3
    sides = (None, None) if feed.resize == "none" else (feed.height, feed.width)
    shape = (1, C, *sides) if feed.layout == "nchw" else (1, *sides, C)
    return Graph(
        nodes=(Node(op="Identity", inputs=("x",), outputs=("y",)),),
        constants={},
        inputs=(value("x", *shape),),
        outputs=(value("y", *shape),),
        opset=17,
    )


def convolved(*, pads: int, n_outputs: int = 4, seed: int = 0, side: int = 8) -> Graph:
    """A convolution with a bias of (N, 3, side, side), its mean: (N, n_outputs)."""
    rng = np.random.default_rng(seed)
    attributes = {"pads": (pads,) * 4, "strides": (2, 2)}
    return Graph(
        nodes=(
            Node(op="Conv", inputs=("x", "w", "b"), outputs=("c",), attributes=attributes),
            Node(op="Relu", inputs=("c",), outputs=("r",)),
            Node(op="GlobalAveragePool", inputs=("r",), outputs=("p",)),
            Node(op="Flatten", inputs=("p",), outputs=("y",)),
        ),
        constants={
            "w": rng.normal(size=(n_outputs, 3, 3, 3)).astype(np.float32),
            "b": rng.normal(size=n_outputs).astype(np.float32),
        },
        inputs=(value("x", "N", 3, side, side),),
        outputs=(value("y", "N", n_outputs),),
        opset=17,
    )


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Pixels of a smooth pattern with noise."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def fed(feed: PictureFeed, pixels: NDArray[np.uint8]) -> Floats:
    """What the device's reader makes of a picture."""
    made = feed_picture(pixels, feed, ArrayInfo(name="x", dtype="float32", shape=()))
    return made.astype(np.float32)
