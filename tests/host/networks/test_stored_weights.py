"""Weights of what computes in float, in 8 bits: transposed convolutions and recurrent layers."""

from pathlib import Path

import numpy as np
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

from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.onnx_files import infer_shapes
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.quantization.grid import round_weight
from onhand.host.networks.samples import Samples


def hourglass() -> Graph:
    """A small U-Net: down by a pool, up by a transposed convolution, and both joined."""
    draw = Drawing(x=("N", 3, 8, 8))

    def conv(data: str, n: int, k: int, *, seed: int) -> str:
        w, b = draw.constant(weight(n, k, 3, 3, seed=seed)), draw.constant(bias(n, seed=seed))
        return draw.node("Relu", draw.node("Conv", data, w, b, pads=(1, 1, 1, 1)))

    high = conv("x", 16, 3, seed=1)
    low = conv(draw.node("MaxPool", high, kernel_shape=(2, 2), strides=(2, 2)), 32, 16, seed=2)
    up = draw.constant(3 * weight(32, 16, 2, 2, seed=3))
    large = draw.node("ConvTranspose", low, up, draw.constant(bias(16)), strides=(2, 2))
    joined = draw.node("Concat", draw.node("Relu", large), high, axis=1)
    return draw.graph(conv(joined, 4, 32, seed=4), rank=4)


def recurrent(op: str, *, gates: int) -> Graph:
    """Both directions of a recurrent layer; (T, 1, K) comes in."""
    draw = Drawing(x=(6, 1, 24))
    n = 40
    forward, back = (
        draw.constant(np.stack([weight(gates * n, k, seed=i) for i in (1, 2)])) for k in (24, n)
    )
    made = draw.node(op, "x", forward, back, hidden_size=n, direction="bidirectional")
    return draw.graph(made, rank=4)


def stored(graph: Graph, name: str) -> Array:
    """A weight as the graph unpacks it, in numpy."""
    (product,) = (node for node in graph.nodes if node.op == "Mul" and name in node.name)
    cast = graph.producers()[product.inputs[0]]
    codes, scales = graph.constants[cast.inputs[0]], graph.constants[product.inputs[1]]
    return np.asarray(codes.astype(np.float32) * scales)


@pytest.mark.parametrize("scheme", ["static", "weights"])
def test_a_network_that_goes_down_and_up_is_small(scheme: str, tmp_path: Path) -> None:
    """A quarter of its bytes; what is stored of the transposed convolution is what numpy rounds."""
    graph = hourglass()
    made = QuantizeNetwork(scheme=scheme, bias_correction="none").apply(graph, bench(graph))
    (up,) = (node for node in graph.nodes if node.op == "ConvTranspose")
    found, session = optimised(made.graph, tmp_path)
    feeds = stacked(examples(graph, 4, seed=5))

    assert made.graph.size_bytes() < 0.32 * graph.size_bytes()
    assert made.changed[up.inputs[1]] == (
        "stored in 8 bits; engines compute ConvTranspose in float"
    )
    wanted = round_weight(graph.constants[up.inputs[1]], axis=1, bits=8, per_channel=True)
    np.testing.assert_array_equal(stored(made.graph, up.inputs[1]), wanted.values())
    # Unpacked once, when it is opened.
    assert found["ConvTranspose"] == 1
    assert not {"Cast", "Mul"} & found.keys()
    assert relative_error(session.run(None, dict(feeds))[0], computed(graph, feeds)[0]) < 0.04


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_are_stored_in_a_quarter(op: str, gates: int) -> None:
    """Both of their weights, a scale for each row, and the answers stay near."""
    graph = recurrent(op, gates=gates)
    bare = bench(graph, Samples(feeds=[]))
    made = QuantizeNetwork(scheme="weights").apply(graph, bare)
    feeds = {"x": np.random.default_rng(1).normal(0, 1, (6, 1, 24)).astype(np.float32)}

    assert set(made.changed) == set(graph.constants)
    assert made.graph.size_bytes() < 0.3 * graph.size_bytes()
    assert relative_error(computed(made.graph, feeds)[0], computed(graph, feeds)[0]) < 0.02
    assert infer_shapes(made.graph)[graph.outputs[0].name].dtype == np.float32


def test_what_is_kept_stays_in_float() -> None:
    """By its operator's name, and small or shared weights by themselves."""
    graph = hourglass()
    made = QuantizeNetwork(bias_correction="none", keep=("ConvTranspose",)).apply(
        graph, bench(graph)
    )
    (up,) = (node for node in made.graph.nodes if node.op == "ConvTranspose")

    assert up.inputs[1] in made.graph.constants
    assert "kept in float" in made.kept[up.name]
    assert up.inputs[1] not in made.changed
