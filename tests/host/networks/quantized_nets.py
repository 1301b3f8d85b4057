"""Small random networks for tests of quantisation, and what runs them."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from tests.host.networks.graphs import Drawing

from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.onnx_files import model_bytes
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.samples import Samples

Floats = NDArray[np.float32]
SIDE = 8


def weight(*shape: int, seed: int = 0) -> Floats:
    """A random weight that keeps the size of what goes through it."""
    scale = 1.5 / np.sqrt(np.prod(shape[1:]))
    made: Floats = np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)
    return made


def bias(n: int, *, seed: int = 0) -> Floats:
    """A random bias."""
    made: Floats = np.random.default_rng(1000 + seed).normal(0, 0.3, n).astype(np.float32)
    return made


def residual_net() -> Graph:
    """A small MobileNetV2: stem, an inverted residual block, pool, and a 1 x 1 head."""
    draw = Drawing(x=("N", 3, SIDE, SIDE))
    low, high = draw.constant(0.0), draw.constant(6.0)

    def conv(data: str, n: int, k: int, size: int, *, group: int = 1, seed: int) -> str:
        w = draw.constant(weight(n, k // group, size, size, seed=seed))
        pads = (size // 2,) * 4
        b = draw.constant(bias(n, seed=seed))
        return draw.node("Conv", data, w, b, pads=pads, group=group, kernel_shape=(size, size))

    stem = draw.node("Clip", conv("x", 16, 3, 3, seed=1), low, high)
    narrow = conv(stem, 8, 16, 1, seed=2)
    wide = draw.node("Clip", conv(narrow, 32, 8, 1, seed=3), low, high)
    deep = draw.node("Clip", conv(wide, 32, 32, 3, group=32, seed=4), low, high)
    added = draw.node("Add", narrow, conv(deep, 8, 32, 1, seed=5))
    last = draw.node("Relu", conv(added, 64, 8, 1, seed=6))
    head = conv(draw.node("GlobalAveragePool", last), 10, 64, 1, seed=7)
    return draw.graph(draw.node("Flatten", head))


def dense_net(*sizes: int) -> Graph:
    """Gemms with Relus between them."""
    draw = Drawing(x=("N", sizes[0]))
    data = "x"
    for i, (k, n) in enumerate(pairwise(sizes)):
        if i:
            data = draw.node("Relu", data)
        w, b = draw.constant(weight(n, k, seed=i)), draw.constant(bias(n, seed=i))
        data = draw.node("Gemm", data, w, b, transB=1)
    return draw.graph(data)


def examples(graph: Graph, n: int = 24, *, seed: int = 0) -> Samples:
    """Random inputs."""
    random = np.random.default_rng(seed)
    (value,) = graph.inputs
    shape = tuple(size if isinstance(size, int) else 1 for size in value.shape)
    return Samples(
        feeds=[{value.name: random.normal(0, 1, shape).astype(np.float32)} for _ in range(n)]
    )


def bench(graph: Graph, samples: Samples | None = None) -> Workbench:
    """What a pass may use."""
    return Workbench(
        original=graph,
        calibration=examples(graph) if samples is None else samples,
        task="image-classification",
        threads=1,
    )


def optimised(graph: Graph, folder: Path) -> tuple[Counter[str], ort.InferenceSession]:
    """The operators that ONNX Runtime makes of a graph, and a session."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    session = ort.InferenceSession(model_bytes(graph), options, ["CPUExecutionProvider"])
    made = onnx.load(options.optimized_model_filepath).graph.node
    return Counter(node.op_type for node in made), session


def relative_error(found: Array, wanted: Array) -> float:
    """Size of the difference, as a share of the size of what is wanted."""
    right = np.asarray(wanted, np.float64)
    return float(np.linalg.norm(np.asarray(found, np.float64) - right) / np.linalg.norm(right))


def stacked(samples: Samples) -> Mapping[str, Array]:
    """All examples as one batch."""
    return samples.batch(range(len(samples)))
