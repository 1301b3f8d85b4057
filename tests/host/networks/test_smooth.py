"""Smoothing changes no function, and makes rounding to 8 bits cheaper."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.host.networks.graphs import Drawing, computed, ops

from onhand.core.errors import InputError
from onhand.host.networks.graph import Graph
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.passes.smooth import Smooth
from onhand.host.networks.samples import Samples

C = 8
Floats = NDArray[np.float32]


def draw(seed: int, shape: Sequence[int], *, peak: float = 1.0) -> Floats:
    """Random numbers; those of channel 3, on the last axis, are larger."""
    made = np.random.default_rng(seed).normal(size=tuple(shape)).astype(np.float32)
    made[..., 3 % shape[-1]] *= peak
    return made


def norm_then_layers(*, residual: bool, peak: float = 40.0) -> Graph:
    """A norm with an outlier channel, two matrices behind it and, perhaps, a sum around them."""
    d = Drawing(x=("batch", 3, C))
    scale = d.constant(1 + np.abs(draw(1, (C,), peak=peak)))
    y = d.node("LayerNormalization", "x", scale, d.constant(draw(2, (C,))), axis=-1, epsilon=1e-5)
    first = d.node("MatMul", y, d.constant(draw(3, (C, 5)) / 3))
    second = d.node("MatMul", y, d.constant(draw(4, (C, C)) / 3))
    if residual:
        second = d.node("Add", second, y)
    return d.graph(first, second, rank=3)


def attention() -> Graph:
    """Values that are mixed by chances, turned, joined and read by a matrix."""
    d = Drawing(x=("batch", 3, C), chances=("batch", 2, 3, 3))
    heads = d.constant([0, 0, 2, C // 2], np.int64)
    values = d.node("MatMul", "x", d.constant(draw(1, (C, C), peak=30)))
    values = d.node("Add", d.constant(draw(2, (C,), peak=30)), values)
    turned = d.node("Transpose", d.node("Reshape", values, heads), perm=(0, 2, 1, 3))
    back = d.node("Transpose", d.node("MatMul", "chances", turned), perm=(0, 2, 1, 3))
    joined = d.node("Reshape", back, d.constant([0, 0, C], np.int64))
    return d.graph(d.node("MatMul", joined, d.constant(draw(3, (C, 5)))), rank=3)


def gemm_chain() -> Graph:
    """A matrix, a Relu, a transposed Gemm."""
    d = Drawing(x=("batch", 4))
    first = d.node("Gemm", "x", d.constant(draw(1, (4, C), peak=30)), d.constant(draw(2, (C,))))
    second = d.node("Gemm", d.node("Relu", first), d.constant(draw(3, (5, C))), transB=1)
    return d.graph(second)


def examples(graph: Graph, n: int = 6) -> list[dict[str, Any]]:
    """Random examples."""
    feeds: list[dict[str, Any]] = []
    for i in range(n):
        shapes = {v.name: [s if isinstance(s, int) else 1 for s in v.shape] for v in graph.inputs}
        feeds.append({name: draw(100 + i, shape) for name, shape in shapes.items()})
    return feeds


def bench(graph: Graph, n: int = 6) -> Workbench:
    """A workbench with random examples."""
    return Workbench(
        original=graph, calibration=Samples(feeds=examples(graph, n)), task="features", threads=1
    )


def values(graph: Graph, feeds: dict[str, Any]) -> list[Floats]:
    """What a graph gives."""
    return [np.asarray(array, dtype=np.float32) for array in computed(graph, feeds)]


def error(graph: Graph, after: Graph) -> float:
    """How far the first output is from what it was, as a share."""
    pairs = [(values(graph, f)[0], values(after, f)[0]) for f in examples(graph, 12)[6:]]
    apart = sum(float(np.square(a - b).sum()) for a, b in pairs)
    whole = sum(float(np.square(a).sum()) for a, _ in pairs)
    return float(np.sqrt(apart / whole))


@pytest.mark.parametrize(
    ("graph", "where", "added"),
    [
        (norm_then_layers(residual=False), "the norm before it divides it", 0),
        (norm_then_layers(residual=True), "a product before it divides it", 1),
        (attention(), "the values of the attention divides it", 0),
        (gemm_chain(), "the layer before it divides it", 0),
    ],
    ids=["norm", "residual", "attention", "relu"],
)
def test_the_function_stays(graph: Graph, where: str, added: int) -> None:
    """The division goes where it costs nothing, if anywhere; every output is as before."""
    made = Smooth(alphas=(0.7,)).apply(graph, bench(graph))

    assert [text for text in made.changed.values() if where in text]
    assert len(made.graph.nodes) - len(graph.nodes) == added
    for feeds in examples(graph):
        for before, after in zip(values(graph, feeds), values(made.graph, feeds), strict=True):
            np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    weights = [graph.constants, made.graph.constants]
    assert any(not np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


@settings(max_examples=15)
@given(
    alpha=st.floats(0, 1), peak=st.floats(0.01, 300), residual=st.booleans(), shared=st.booleans()
)
def test_no_alpha_changes_the_function(
    alpha: float, peak: float, residual: bool, shared: bool
) -> None:
    """Whatever the power and the outlier, and whoever reads a constant as well."""
    graph = norm_then_layers(residual=residual, peak=peak)
    if shared:  # the second matrix has another reader, of another activation
        d = Drawing(x=("batch", 3, C))
        weight = d.constant(draw(9, (C, C)) / 3)
        ones = d.constant(np.ones(C) * peak)
        first = d.node("LayerNormalization", "x", ones, axis=-1)
        middle = d.node("Tanh", d.node("MatMul", first, weight))
        graph = d.graph(d.node("MatMul", d.node("Sub", middle, first), weight), rank=3)
    made = Smooth(alphas=(alpha,)).apply(graph, bench(graph, 2)).graph

    (feeds,) = examples(graph, 1)
    for before, after in zip(values(graph, feeds), values(made, feeds), strict=True):
        # Rounding goes with the largest number that was added up.
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-5 * np.abs(before).max())


@pytest.mark.parametrize("activations", ["asymmetric", "symmetric"])
def test_it_pays_for_outliers(activations: str) -> None:
    """Behind the quantiser of this project, the error falls to a third."""
    graph = norm_then_layers(residual=False)
    quantize = QuantizeNetwork(activations=activations, range="min-max", bias_correction="none")
    plain = quantize.apply(graph, bench(graph)).graph
    smoothed = Smooth().apply(graph, bench(graph)).graph
    after = quantize.apply(smoothed, bench(graph)).graph

    assert error(graph, after) < error(graph, plain) / 3


def test_a_product_that_does_not_pay_is_not_put_in() -> None:
    """Without outliers nothing is gained; the report says so, and the graph is the same."""
    graph = norm_then_layers(residual=True, peak=1.0)
    even = {n: np.ones_like(a) if a.ndim == 1 else a for n, a in graph.constants.items()}
    calm = Graph(
        nodes=graph.nodes, constants=even, inputs=graph.inputs, outputs=graph.outputs, opset=17
    )
    made = Smooth(alphas=(0.0, 0.1)).apply(calm, bench(calm))

    assert made.graph is calm
    assert "no alpha is better" in next(iter(made.kept.values()))
    refused = Smooth(insert=False).apply(graph, bench(graph))
    assert ops(refused.graph) == ops(graph)
    assert "no product may be put in" in next(iter(refused.kept.values()))


def test_what_it_cannot_do_has_a_reason() -> None:
    """Inputs of the network, products of two activations and transposed data stay."""
    d = Drawing(x=("batch", C), y=("batch", C))
    weight = d.constant(draw(1, (C, C)))
    first = d.node("Relu", d.node("MatMul", "x", weight))
    turned = d.node("Gemm", d.node("Relu", "y"), d.constant(draw(2, (2, 5))), transA=1)
    both = d.node("MatMul", first, d.node("Tanh", weight))
    graph = d.graph(d.node("MatMul", both, d.constant(draw(3, (C, 5)))), turned)
    made = Smooth(alphas=(0.5,)).apply(graph, bench(graph))

    assert sorted(made.kept.values()) == [
        "it has no constant float32 matrix",
        "it reads an input of the network",
        "its data are transposed",
    ]
    assert list(made.changed) == [both]


def test_wrong_options_are_refused() -> None:
    """Each message says what is expected."""
    for wrong in ((), (1.5,), ("0.5",), 0.5):
        with pytest.raises(InputError, match="numbers from 0 to 1"):
            Smooth(alphas=wrong)  # type: ignore[arg-type]  # as a recipe may have it
    with pytest.raises(InputError, match="true or false"):
        Smooth(insert=1)  # type: ignore[arg-type]  # as a recipe may have it
    graph = gemm_chain()
    with pytest.raises(InputError, match="give --data"):
        Smooth().apply(graph, bench(graph, 0))
    d = Drawing(x=("batch", C))
    bare = d.graph(d.node("Relu", "x"))
    with pytest.raises(InputError, match="nothing to smooth"):
        Smooth().apply(bare, bench(bare))
