"""Layers as matrices: what they see, and its moments, against ONNX Runtime."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.host.networks.prunable_nets import FLOAT, encoder_net, samples

from onhand.core.errors import InputError, SourceError
from onhand.host.networks.graph import Graph, Node, Value
from onhand.host.networks.moments import find_layers, measure_moments, own_layers
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.samples import Samples


def conv_graph(shape: tuple[int, ...], **attributes: int | str | tuple[int, ...]) -> Graph:
    """One convolution of 4 channels to 4 (or more) on pictures, signals or volumes."""
    rng = np.random.default_rng(3)
    node = Node(op="Conv", inputs=("x", "w"), outputs=("y",), attributes=attributes)
    size: tuple[int | str | None, ...] = ("batch", 4, *(9 for _ in shape[2:]))
    return Graph(
        nodes=(node,),
        constants={"w": rng.normal(size=shape).astype(np.float32)},
        inputs=(Value(name="x", dtype=FLOAT, shape=size),),
        outputs=(Value(name="y", dtype=FLOAT, shape=(None,) * len(shape)),),
        opset=17,
    )


@settings(max_examples=20, deadline=None)
@given(
    rank=st.integers(1, 2),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    step=st.integers(1, 2),
    pad=st.integers(0, 2),
    group=st.sampled_from([1, 2, 4]),
    how=st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
)
def test_columns_times_matrices_are_the_convolution(
    *, rank: int, kernel: int, stride: int, step: int, pad: int, group: int, how: str
) -> None:
    """With any stride, dilation, padding and grouping."""
    given_pads = {"pads": (pad, pad) * rank} if how == "NOTSET" else {"auto_pad": how}
    # ONNX Runtime cannot dilate with paddings of its own choice.
    steps = (step if how in {"NOTSET", "VALID"} else 1,) * rank
    graph = conv_graph(
        (8, 4 // group, *(kernel,) * rank),
        group=group, strides=(stride,) * rank, dilations=steps, **given_pads,
    )  # fmt: skip
    (layer,) = find_layers(graph)
    x = np.random.default_rng(4).normal(size=(2, 4, *(9,) * rank)).astype(np.float32)
    expected = GraphRunner(graph, threads=1).run({"x": x})["y"].astype(np.float32)
    weights = graph.constants["w"]

    products = layer.columns(x, most=10**6) @ layer.matrices(weights).transpose(0, 2, 1)
    made = products.transpose(1, 0, 2).reshape(2, -1, 8).transpose(0, 2, 1).reshape(expected.shape)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)


def test_matrices_and_back_again() -> None:
    """Every layout of weights returns to itself."""
    graph = encoder_net()
    turned = replace(graph.nodes[0], op="Gemm", attributes={"transB": 1}, inputs=("flat", "v", "b"))
    constants = {**graph.constants, "v": np.ones((3, 16), np.float32), "b": np.ones(3, np.float32)}
    for layer in find_layers(replace(graph, nodes=(*graph.nodes, turned), constants=constants)):
        weight = constants[layer.weight]

        np.testing.assert_array_equal(layer.constant(layer.matrices(weight)), weight)


def test_moments_are_means_over_examples_and_positions() -> None:
    """Of the first layer of an encoder they can be told by hand."""
    graph = encoder_net()
    layer = find_layers(graph)[0]
    examples = samples(graph, 5)
    x = examples.batch(range(5))["x"].reshape(-1, 16)

    found = measure_moments(graph, [layer], examples, threads=1)[layer.name]

    assert found.second is not None
    np.testing.assert_allclose(found.second[0], x.T @ x / len(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.mean[0], x.mean(axis=0), rtol=1e-4, atol=1e-5)


def test_weights_that_two_layers_read_are_told_apart() -> None:
    """What suits one reader need not suit the other."""
    graph = conv_graph((4, 4, 1, 1))
    again = Node(op="Conv", inputs=("y", "w"), outputs=("z",))
    outputs = (replace(graph.outputs[0], name="z"),)

    both = replace(graph, nodes=(*graph.nodes, again), outputs=outputs)

    assert own_layers(both) == ()
    assert len(find_layers(both)) == 2


def test_examples_are_needed_and_must_be_finite() -> None:
    """No examples, or ones that overflow, are an error in words."""
    graph = conv_graph((4, 4, 1, 1))
    layers = find_layers(graph)
    broken = Samples(feeds=[{"x": np.full((1, 4, 9, 9), np.inf, dtype=np.float32)}])

    with pytest.raises(InputError, match="without examples"):
        measure_moments(graph, layers, Samples(feeds=[]), threads=1)
    with pytest.raises(SourceError, match="'y' are not finite"):
        measure_moments(graph, layers, broken, threads=1)


@pytest.mark.parametrize("pairs", [True, False])
def test_texts_of_few_rows_add_up(monkeypatch: pytest.MonkeyPatch, *, pairs: bool) -> None:
    """Rows that wait for others count as those that do not, down to the last."""
    graph = encoder_net()
    rng = np.random.default_rng(5)
    feeds = [{"x": rng.normal(size=(1, 1 + i % 4, 16)).astype(np.float32)} for i in range(19)]
    layers, given = find_layers(graph), Samples(feeds=feeds)

    together = measure_moments(graph, layers, given, threads=1, pairs=pairs)
    monkeypatch.setattr("onhand.host.networks.moments._ROWS", 1)
    alone = measure_moments(graph, layers, given, threads=1, pairs=pairs)

    rows = np.concatenate([one["x"][0] for one in feeds])
    first = layers[0].name
    np.testing.assert_allclose(together[first].mean[0], rows.mean(axis=0), atol=1e-5)
    for name, moments in together.items():
        np.testing.assert_allclose(moments.square, alone[name].square, rtol=1e-4)
        if pairs:
            np.testing.assert_allclose(moments.second, alone[name].second, rtol=1e-3, atol=1e-5)  # type: ignore[arg-type]
        else:
            assert moments.second is None
