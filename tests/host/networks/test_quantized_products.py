"""Products of matrices in the forms that ONNX Runtime computes on integers."""

from pathlib import Path

import pytest
from tests.host.networks.graphs import Drawing, computed
from tests.host.networks.quantized_nets import (
    bench,
    bias,
    examples,
    optimised,
    relative_error,
    stacked,
    weight,
)

from onhand.host.networks.graph import Graph
from onhand.host.networks.passes.quantize import QuantizeNetwork


def quantised(graph: Graph) -> Graph:
    """The graph on integers."""
    return QuantizeNetwork(bias_correction="none").apply(graph, bench(graph)).graph


@pytest.mark.parametrize("n_texts", [1, "N"])
def test_products_of_more_axes_are_on_integers(n_texts: int | str, tmp_path: Path) -> None:
    """With a bias behind, and sizes that are known: ONNX Runtime would make a Gemm in float."""
    draw = Drawing(x=(n_texts, 5, 24))
    data = "x"
    for i in range(2):
        product = draw.node("MatMul", data, draw.constant(weight(24, 24, seed=i)))
        data = draw.node("Relu", draw.node("Add", draw.constant(bias(24, seed=i)), product))
    graph = draw.graph(data, rank=3)
    made = quantised(graph)
    found, session = optimised(made, tmp_path)
    feeds = examples(graph, 1, seed=4).batch([0])

    assert found["MatMulIntegerToFloat"] == 2
    assert not {"Gemm", "DequantizeLinear"} & found.keys()
    assert relative_error(session.run(None, dict(feeds))[0], computed(graph, feeds)[0]) < 0.03


@pytest.mark.parametrize("has_bias", [True, False])
def test_gemms_with_factors_are_on_integers(*, has_bias: bool, tmp_path: Path) -> None:
    """Alpha goes into the weight and beta into the bias; what others read of those stays."""
    draw = Drawing(x=("N", 24))
    shared = draw.constant(weight(24, 24))
    rest = (draw.constant(bias(24)),) if has_bias else ()
    first = draw.node("Gemm", "x", shared, *rest, alpha=0.5, beta=2.0, transB=1)
    graph = draw.graph(draw.node("Gemm", draw.node("Relu", first), shared))
    made = quantised(graph)
    found, session = optimised(made, tmp_path)
    feeds = stacked(examples(graph))

    assert found["QGemm"] == 2
    assert relative_error(session.run(None, dict(feeds))[0], computed(graph, feeds)[0]) < 0.03


def test_layers_with_a_computed_bias_stay_in_float() -> None:
    """Integer products know no bias that the network computes itself."""
    draw = Drawing(x=("N", 6))
    w = draw.constant(weight(6, 6))
    first = draw.node("Gemm", "x", w, alpha=0.5)
    second = draw.node("Gemm", "x", w, first)
    graph = draw.graph(draw.node("MatMul", second, w))
    result = QuantizeNetwork().apply(graph, bench(graph))

    assert set(result.kept) == {second}
    feeds = stacked(examples(graph, 10))
    assert relative_error(computed(result.graph, feeds)[0], computed(graph, feeds)[0]) < 0.03
