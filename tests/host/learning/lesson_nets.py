"""Small networks that learn, packed as bundles."""

from pathlib import Path

import numpy as np
from tests.host.networks.graphs import Drawing
from tests.host.networks.quantized_nets import bench, bias, residual_net, weight

from onhand.core.bundle import Bundle, read_bundle, stage_bundle
from onhand.core.feed import Feed, TextFeed
from onhand.host.learning.network_files import AddedLesson, add_network_lesson
from onhand.host.learning.wanted import parse_learnable
from onhand.host.networks.graph import Graph, Value
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.pack import describe, pack_network
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.samples import Samples

WIDTH, HEADS, N_IDS = 16, 2, 40
LABELS = tuple(f"class {i}" for i in range(10))


def plain_net() -> Graph:
    """Convolutions in a chain with a batch norm, and a head in Keras' way: MatMul, Add, Softmax."""
    draw = Drawing(x=("N", 3, 8, 8))
    data = "x"
    for i, (k, n) in enumerate([(3, 6), (6, 8), (8, 12)]):
        w, b = draw.constant(weight(n, k, 3, 3, seed=i)), draw.constant(bias(n, seed=i))
        data = draw.node("Relu", draw.node("Conv", data, w, b, pads=(1, 1, 1, 1)))
    numbers = [
        draw.constant(array)
        for array in (np.full(12, 1.1), bias(12, seed=5), bias(12, seed=6), np.full(12, 0.7))
    ]
    data = draw.node("BatchNormalization", data, *numbers)
    data = draw.node("Flatten", draw.node("GlobalAveragePool", data))
    w, b = draw.constant(weight(10, 12, seed=9).T.copy()), draw.constant(bias(10, seed=9))
    scores = draw.node("Add", draw.node("MatMul", data, w), b)
    return draw.graph(draw.node("Softmax", scores, axis=-1))


def encoder_net(*, n_classes: int = 0) -> Graph:
    """An encoder of one layer with a mask, and the mean of its tokens; perhaps with a head."""
    draw = Drawing(ids=("N", "T"), mask=("N", "T"))
    D, half = WIDTH, WIDTH // HEADS
    table = draw.constant(np.random.default_rng(3).normal(0, 1, (N_IDS, D)))
    first = draw.node("Gather", table, "ids")
    one, least = draw.constant(1.0), draw.constant(-10000.0)
    whole = draw.node("Cast", draw.node("Unsqueeze", "mask", axes(draw, 1, 2)), to=1)
    barred = draw.node("Mul", draw.node("Sub", one, whole), least)  # (N, 1, 1, T)

    def linear(data: str, n: int, k: int, seed: int) -> str:
        w, b = draw.constant(weight(n, k, seed=seed).T.copy()), draw.constant(bias(n, seed=seed))
        return draw.node("Add", draw.node("MatMul", data, w), b)

    def norm(data: str, seed: int) -> str:
        scale, shift = draw.constant(1 + bias(D, seed=seed)), draw.constant(bias(D, seed=seed + 1))
        return draw.node("LayerNormalization", data, scale, shift, axis=-1)

    def parted(data: str, *order: int) -> str:
        shape = draw.constant([0, 0, HEADS, half], np.int64)
        return draw.node("Transpose", draw.node("Reshape", data, shape), perm=order)

    x = norm(first, 20)
    q, k, v = (linear(x, D, D, seed) for seed in (30, 31, 32))
    marks = draw.node("MatMul", parted(q, 0, 2, 1, 3), parted(k, 0, 2, 3, 1))
    marks = draw.node("Add", draw.node("Mul", marks, draw.constant(half**-0.5)), barred)
    seen = draw.node("MatMul", draw.node("Softmax", marks, axis=-1), parted(v, 0, 2, 1, 3))
    joined = draw.node("Transpose", seen, perm=(0, 2, 1, 3))
    joined = draw.node("Reshape", joined, draw.constant([0, 0, D], np.int64))
    x = norm(draw.node("Add", x, linear(joined, D, D, 33)), 22)
    wide = draw.node("Tanh", linear(x, 24, D, 34))
    x = norm(draw.node("Add", x, linear(wide, D, 24, 35)), 24)
    counted = draw.node("Cast", draw.node("Unsqueeze", "mask", axes(draw, 2)), to=1)  # (N, T, 1)
    total = draw.node("ReduceSum", draw.node("Mul", x, counted), axes(draw, 1), keepdims=0)
    n = draw.node("ReduceSum", counted, axes(draw, 1), keepdims=0)
    vector = draw.node("Div", total, n)
    result = linear(vector, n_classes, D, 36) if n_classes else vector
    drawn = draw.graph(result)
    whole_numbers = tuple(
        Value(name=value.name, dtype=np.dtype(np.int64), shape=value.shape)
        for value in drawn.inputs
    )
    sized = Value(name=result, dtype=np.dtype(np.float32), shape=("N", n_classes or D))
    return Graph(
        nodes=drawn.nodes,
        constants=drawn.constants,
        inputs=whole_numbers,
        outputs=(sized,),
        opset=drawn.opset,
    )


def axes(draw: Drawing, *places: int) -> str:
    """A constant of axes."""
    return draw.constant(list(places), np.int64)


TEXTS = TextFeed(ids="ids", mask="mask", types="", max_tokens=12)


def int8(graph: Graph, samples: Samples | None = None) -> Graph:
    """The graph on integers."""
    return QuantizeNetwork().apply(graph, bench(graph, samples)).graph


def packed(
    graph: Graph,
    place: Path,
    *,
    task: str = "image-classification",
    feed: Feed | None = None,
    labels: tuple[str, ...] = LABELS,
) -> Bundle:
    """A bundle without a lesson."""
    model = NetworkModel(
        name="small",
        family="test",
        graph=graph,
        sha256="0" * 64,
        source_bytes=1,
        feed=feed,
        labels=labels,
    )
    with stage_bundle(place) as staged:
        pack_network(model, describe(model, task), {"only": graph}, staged, provenance={})
    return read_bundle(place)


def teaching(bundle: Bundle, learnable: str, *, steps: int = 3) -> AddedLesson:
    """The bundle with a lesson in it, checked for fewer steps than a build does."""
    empty, wanted = Samples(feeds=[]), parse_learnable(learnable)
    return add_network_lesson(bundle, wanted, samples=empty, threads=1, steps=steps)


__all__ = [
    "LABELS",
    "TEXTS",
    "encoder_net",
    "int8",
    "packed",
    "plain_net",
    "residual_net",
    "teaching",
]
