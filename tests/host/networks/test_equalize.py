"""Channels brought to one size: the same function, and what is left where it cannot be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.host.networks.graphs import Drawing, computed, ops
from tests.host.networks.quantized_nets import (
    bench,
    bias,
    dense_net,
    examples,
    relative_error,
    residual_net,
    stacked,
    weight,
)

from onhand.core.errors import InputError
from onhand.host.networks.graph import Graph
from onhand.host.networks.passes.equalize import Equalize
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.samples import Samples

Floats = NDArray[np.float32]


def uneven(n: int, *, seed: int = 0) -> Floats:
    """Sizes of channels that lie far apart."""
    made: Floats = np.exp(np.random.default_rng(seed).normal(0, 1.5, n)).astype(np.float32)
    return made


def triple(clip: str = "Relu", *, high: float = 6.0) -> Graph:
    """A convolution, a depthwise one and another, whose channels differ in size."""
    draw = Drawing(x=("N", 4, 6, 6))
    bounds = [draw.constant(0.0), draw.constant(high)] if clip == "Clip" else []
    sizes = [uneven(8, seed=i) for i in range(2)]
    first = weight(8, 4, 1, 1) * sizes[0].reshape(-1, 1, 1, 1)
    second = weight(8, 1, 3, 3) / sizes[0].reshape(-1, 1, 1, 1) * sizes[1].reshape(-1, 1, 1, 1)
    third = weight(5, 8, 1, 1) / sizes[1].reshape(1, -1, 1, 1)
    data = draw.node("Conv", "x", draw.constant(first), draw.constant(bias(8) * sizes[0]))
    data = draw.node(clip, data, *bounds)
    data = draw.node(
        "Conv", data, draw.constant(second), draw.constant(bias(8, seed=1) * sizes[1]),
        group=8, pads=(1, 1, 1, 1),
    )  # fmt: skip
    data = draw.node(clip, data, *bounds)
    return draw.graph(draw.node("Conv", data, draw.constant(third)), rank=4)


def constant(graph: Graph, name: str) -> Floats:
    """A constant of a graph."""
    return np.asarray(graph.constants[name], np.float32)


def error(made: Graph, graph: Graph, *, seed: int = 0) -> float:
    """Relative error on examples."""
    feeds = stacked(examples(graph, seed=seed))
    return relative_error(computed(made, feeds)[0], computed(graph, feeds)[0])


def test_two_products_by_hand() -> None:
    """sqrt(r1 r2) on both sides: 8 and 2 meet at 4, 1 and 1 stay."""
    draw = Drawing(x=("N", 2))
    first = draw.constant([[8.0, 0.0], [0.0, 1.0]])
    b = draw.constant([4.0, 3.0])
    second = draw.constant([[2.0, 1.0]])
    hidden = draw.node("Relu", draw.node("Gemm", "x", first, b, transB=1))
    graph = draw.graph(draw.node("Gemm", hidden, second, transB=1))
    made = Equalize().apply(graph, bench(graph)).graph

    np.testing.assert_allclose(constant(made, first), [[4, 0], [0, 1]], rtol=1e-3)
    np.testing.assert_allclose(constant(made, b), [2, 3], rtol=1e-3)
    np.testing.assert_allclose(constant(made, second), [[4, 1]], rtol=1e-3)


def test_a_depthwise_convolution_is_in_the_middle_of_three() -> None:
    """Both pairs settle, the function stays, and integers per weight lose far less."""
    graph = triple()
    result = Equalize().apply(graph, bench(graph))
    plain = QuantizeNetwork(per_channel=False, bias_correction="none")

    assert len(result.changed) == 2
    assert error(result.graph, graph) < 1e-5
    sizes = [np.abs(constant(result.graph, "c2")).max(axis=(1, 2, 3)),
             np.abs(constant(result.graph, "c4")).max(axis=(0, 2, 3))]  # fmt: skip
    np.testing.assert_allclose(sizes[0], sizes[1], rtol=0.01)
    before = error(plain.apply(graph, bench(graph)).graph, graph)
    after = error(plain.apply(result.graph, bench(graph)).graph, graph)
    assert after < 0.6 * before


@pytest.mark.parametrize("high", [0.5, 6.0, 1000.0])
def test_a_clip_keeps_its_meaning_with_a_bound_for_each_channel(high: float) -> None:
    """Whether all, some or no channels reach it, on any input."""
    graph = triple("Clip", high=high)
    made = Equalize(bounds="exact").apply(graph, bench(graph)).graph

    assert ops(made).count("Min") == 2
    assert error(made, graph, seed=77) < 1e-5


@pytest.mark.parametrize("high", [0.5, 6.0, 1000.0])
def test_a_clip_stays_one_where_examples_show_how_far_channels_reach(high: float) -> None:
    """Those that reach it are left alone; the function on the examples is the same."""
    graph = triple("Clip", high=high)
    result = Equalize().apply(graph, bench(graph))

    assert ops(result.graph) == ops(graph)
    assert error(result.graph, graph) < 1e-5
    if high == 1000.0:
        assert np.abs(constant(result.graph, "c2") - constant(graph, "c2")).max() > 0.01


def test_bounds_from_examples_want_examples() -> None:
    """Without any, "auto" is exact."""
    graph, none = triple("Clip"), Samples(feeds=[])

    assert "Min" in ops(Equalize().apply(graph, bench(graph, none)).graph)
    with pytest.raises(InputError, match="need examples"):
        Equalize(bounds="calibrated").apply(graph, bench(graph, none))
    with pytest.raises(InputError, match="bounds is 'all'"):
        Equalize(bounds="all")


def test_layers_that_cannot_be_paired_say_why() -> None:
    """A residual connection, the last layer, and what does not keep scales."""
    graph = residual_net()
    kept = Equalize().apply(graph, bench(graph)).kept

    assert "several read" in next(iter(kept.values()))
    draw = Drawing(x=("N", 4))
    first = draw.node("Gemm", "x", draw.constant(weight(4, 4)))
    middle = draw.node("Sigmoid", first)
    graph = draw.graph(draw.node("Gemm", middle, draw.constant(weight(4, 4))))
    assert "Sigmoid" in Equalize().apply(graph, bench(graph)).kept[first]


def test_a_residual_network_computes_the_same() -> None:
    """Pools and the flattening behind them keep scales as well."""
    graph = residual_net()
    result = Equalize().apply(graph, bench(graph))

    assert len(result.changed) == 4
    assert error(result.graph, graph) < 1e-5


def test_shared_weights_stay() -> None:
    """To scale one layer would scale the other."""
    draw = Drawing(x=("N", 4))
    w = draw.constant(weight(4, 4))
    graph = draw.graph(draw.node("Gemm", draw.node("Gemm", "x", w), w))
    result = Equalize().apply(graph, bench(graph))

    assert result.graph.constants[w] is graph.constants[w]
    assert "shared" in result.kept[graph.nodes[0].name]


def test_a_dead_channel_stays() -> None:
    """Nothing is divided by nothing."""
    graph = dense_net(4, 4, 4)
    w = np.array(graph.constants["c0"])
    w[1] = 0
    dead = Graph(
        nodes=graph.nodes, constants={**graph.constants, "c0": w}, inputs=graph.inputs,
        outputs=graph.outputs, opset=graph.opset,
    )  # fmt: skip
    made = Equalize().apply(dead, bench(dead)).graph

    assert all(np.isfinite(array).all() for array in made.constants.values())
    assert error(made, dead) < 1e-5


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), groups=st.sampled_from([1, 2, 4]), transposed=st.booleans())
def test_grouped_convolutions_and_products_keep_their_function(
    seed: int, groups: int, *, transposed: bool
) -> None:
    """Any groups, either layout, a pool between."""
    draw = Drawing(x=("N", 4, 5, 5))
    sizes = uneven(8, seed=seed).reshape(-1, 1, 1, 1)
    first = draw.node("Conv", "x", draw.constant(weight(8, 4, 1, 1, seed=seed) * sizes))
    pooled = draw.node("MaxPool", draw.node("Relu", first), kernel_shape=(2, 2))
    w = weight(8, 8 // groups, 2, 2, seed=seed + 1)
    second = draw.node("Conv", pooled, draw.constant(w), draw.constant(bias(8)), group=groups)
    flat = draw.node("Flatten", draw.node("GlobalAveragePool", second))
    last = weight(3, 8, seed=seed + 2)
    matrix = draw.constant(last if transposed else last.T)
    graph = draw.graph(draw.node("Gemm", flat, matrix, transB=int(transposed)))
    result = Equalize().apply(graph, bench(graph, examples(graph, 4)))

    assert len(result.changed) == 2
    assert error(result.graph, graph) < 1e-5
