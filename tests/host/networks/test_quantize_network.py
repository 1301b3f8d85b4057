"""Networks on integers: beside a simulation in numpy, fused by engines, and what stays in float."""

from pathlib import Path

import numpy as np
import pytest
from tests.host.networks.graphs import Drawing, computed, ops
from tests.host.networks.quantized_nets import (
    bench,
    bias,
    dense_net,
    examples,
    optimised,
    relative_error,
    residual_net,
    stacked,
    weight,
)

from onhand.core.errors import InputError
from onhand.host.networks.graph import Graph
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.quantization.gemm_forms import dense_to_gemm, pooled_to_gemm
from onhand.host.networks.quantization.grid import Grid, round_weight
from onhand.host.networks.quantization.plan import make_plan
from onhand.host.networks.samples import Samples


def quantised(graph: Graph, samples: Samples | None = None, **options: object) -> Graph:
    """The graph that the pass makes."""
    settings = {"bias_correction": "none", "range": "min-max"} | options
    return QuantizeNetwork(**settings).apply(graph, bench(graph, samples)).graph  # type: ignore[arg-type]


def test_two_products_beside_a_simulation_in_numpy() -> None:
    """Each step, by hand: input, weights and biases rounded, Relu inside the middle's grid."""
    graph = dense_net(6, 5, 4)
    samples = examples(graph, 50)
    x = np.asarray(stacked(samples)["x"], np.float32)
    w = [np.asarray(graph.constants[f"c{i}"], np.float32) for i in range(4)]
    middle = np.maximum(x @ w[0].T + w[1], 0)
    first = Grid.of(float(x.min()), float(x.max()), symmetric=False)
    second = Grid.of(0.0, float(middle.max()), symmetric=False)
    codes = [round_weight(w[i], axis=0, bits=8, per_channel=True) for i in (0, 2)]

    data, grid = x, first
    for i, one in enumerate(codes):
        unit = one.scales * np.float32(grid.scale)
        rounded = np.rint(w[2 * i + 1] / unit) * unit
        data = grid.rounded(data) @ one.values().T + rounded
        grid = second
    found = computed(quantised(graph, samples), {"x": x})[0]

    assert relative_error(found, data) < 1e-5
    assert 0 < relative_error(found, computed(graph, {"x": x})[0]) < 0.02


@pytest.mark.parametrize("name", ["min-max", "percentile", "mse", "entropy"])
def test_a_residual_network_stays_near_the_original(name: str) -> None:
    """With any range, on examples that it was not calibrated with."""
    graph = residual_net()
    feeds = stacked(examples(graph, 40, seed=9))
    made = quantised(graph, range=name, percentile=99.99)

    wanted = computed(graph, feeds)[0]
    assert relative_error(computed(made, feeds)[0], wanted) < 0.08
    assert made.inputs == graph.inputs
    assert made.outputs == graph.outputs


def test_onnx_runtime_turns_all_of_it_into_integers(tmp_path: Path) -> None:
    """Convolutions, addition, pool and head; scores come out in float; values are the same."""
    graph = residual_net()
    made = quantised(graph)
    found, session = optimised(made, tmp_path)
    feeds = stacked(examples(graph, 8, seed=9))

    assert found["QLinearConv"] == 6
    assert found["QLinearAdd"] == found["QLinearGlobalAveragePool"] == found["QGemm"] == 1
    assert found["QuantizeLinear"] == 1
    assert not {"Conv", "Gemm", "Add", "Clip", "Relu", "DequantizeLinear"} & found.keys()
    plain = computed(made, feeds)[0]
    assert relative_error(session.run(None, dict(feeds))[0], plain) < 0.02


def test_openvino_takes_it_as_int8() -> None:
    """It computes all layers on uint8, and gives what ONNX Runtime gives."""
    openvino = pytest.importorskip("openvino")
    from onhand.host.networks.onnx_files import model_bytes

    graph = residual_net()
    made = quantised(graph)
    feeds = examples(graph, 1, seed=9).batch([0])
    core = openvino.Core()
    model = core.read_model(model_bytes(made))
    model.reshape({"x": list(feeds["x"].shape)})
    network = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = [
        str(node.get_rt_info()["runtimePrecision"].astype(str))
        for node in network.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) in {"Convolution", "FullyConnected"}
    ]

    assert kinds == ["u8"] * 7
    found = network(dict(feeds))[0]
    assert relative_error(found, computed(made, feeds)[0]) < 0.03


def test_weights_are_stored_as_integers() -> None:
    """A quarter of the bytes and small change; no weight is left in float."""
    graph = dense_net(256, 256, 256)
    made = quantised(graph)

    assert made.size_bytes() < 0.28 * graph.size_bytes()
    assert all(a.dtype != np.float32 or a.ndim < 2 for a in made.constants.values())


def test_concatenated_values_share_a_grid() -> None:
    """What only moves values has one scale before and behind it; nothing is rounded twice."""
    draw = Drawing(x=("N", 4, 6, 6))
    parts = [
        draw.node("Conv", "x", draw.constant(scale * weight(4, 4, 1, 1, seed=i)))
        for i, scale in enumerate((1.0, 3.0))
    ]
    joined = draw.node("MaxPool", draw.node("Concat", *parts, axis=1), kernel_shape=(2, 2))
    graph = draw.graph(draw.node("Conv", joined, draw.constant(weight(2, 8, 1, 1))), rank=4)
    plan = make_plan(graph)

    roots = {plan.grids[name] for name in (*parts, joined)}
    assert len(roots) == 1
    assert len(set(plan.grids.values())) == 3
    feeds = stacked(examples(graph, 10, seed=3))
    assert relative_error(computed(quantised(graph), feeds)[0], computed(graph, feeds)[0]) < 0.05


def test_a_detector_is_on_integers_throughout(tmp_path: Path) -> None:
    """Leaky Relus, a picture enlarged, and what is joined to it; the last sums come out rounded."""
    draw = Drawing(x=("N", 3, 8, 8))

    def conv(data: str, n: int, k: int, *, stride: int = 1, seed: int) -> str:
        w = draw.constant(weight(n, k, 3, 3, seed=seed))
        b = draw.constant(bias(n, seed=seed))
        return draw.node("Conv", data, w, b, pads=(1, 1, 1, 1), strides=(stride, stride))

    high = draw.node("LeakyRelu", conv("x", 8, 3, seed=1), alpha=0.1)
    low = draw.node("LeakyRelu", conv(high, 8, 8, stride=2, seed=2), alpha=0.1)
    scales = draw.constant([1.0, 1.0, 2.0, 2.0])
    large = draw.node("Resize", low, "", scales, mode="nearest")
    joined = draw.node("Concat", large, high, axis=1)
    graph = draw.graph(conv(joined, 4, 16, seed=3), rank=4)
    made = quantised(graph)
    found, session = optimised(made, tmp_path)
    feeds = stacked(examples(graph))

    assert found["QLinearConv"] == 3
    assert found["QLinearLeakyRelu"] == 2
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1
    assert found["QLinearConcat"] == 1
    assert relative_error(session.run(None, dict(feeds))[0], computed(graph, feeds)[0]) < 0.03


def test_an_encoder_multiplies_on_integers_and_adds_in_float(tmp_path: Path) -> None:
    """What feeds several products is rounded once; norms, attention and sums are in float."""
    draw = Drawing(x=("N", 6, 16))
    shape = draw.constant([0, 6, 2, 8], np.int64)

    def dense(data: str, k: int, n: int, *, seed: int) -> str:
        product = draw.node("MatMul", data, draw.constant(weight(n, k, seed=seed).T))
        return draw.node("Add", product, draw.constant(bias(n, seed=seed)))

    q, k, v = (
        draw.node("Transpose", draw.node("Reshape", dense("x", 16, 16, seed=i), shape), perm=perm)
        for i, perm in enumerate(((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)))
    )
    shares = draw.node("Softmax", draw.node("MatMul", q, k), axis=-1)
    mixed = draw.node("Transpose", draw.node("MatMul", shares, v), perm=(0, 2, 1, 3))
    joined = draw.node("Reshape", mixed, draw.constant([0, 6, 16], np.int64))
    added = draw.node("Add", dense(joined, 16, 16, seed=4), "x")
    normal = draw.node(
        "LayerNormalization", added, draw.constant(np.ones(16)), draw.constant(np.zeros(16))
    )
    graph = draw.graph(dense(normal, 16, 8, seed=5), rank=3)
    made = quantised(graph)
    found, session = optimised(made, tmp_path)
    feeds = stacked(examples(graph))

    assert found["MatMulIntegerToFloat"] == 5
    assert found["QuantizeLinear"] == 3
    assert relative_error(session.run(None, dict(feeds))[0], computed(graph, feeds)[0]) < 0.04


def test_shuffled_channels_stay_integers(tmp_path: Path) -> None:
    """ShuffleNet's halves: reshaped, swapped and taken by index, all with one grid."""
    draw = Drawing(x=("N", 4, 6, 6))
    both = [
        draw.node("Relu", draw.node("Conv", "x", draw.constant(weight(4, 4, 1, 1, seed=i))))
        for i in range(2)
    ]
    joined = draw.node("Concat", *both, axis=1)
    split = draw.node("Reshape", joined, draw.constant([-1, 4, 2, 6, 6], np.int64))
    turned = draw.node("Transpose", split, perm=(2, 0, 1, 3, 4))
    half = draw.node("Gather", turned, draw.constant(1, np.int64))
    graph = draw.graph(draw.node("Conv", half, draw.constant(weight(2, 4, 1, 1))), rank=4)
    made = quantised(graph)
    found, session = optimised(made, tmp_path)
    feeds = stacked(examples(graph))

    assert found["QLinearConv"] == 3
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1
    assert relative_error(session.run(None, dict(feeds))[0], computed(graph, feeds)[0]) < 0.03


def test_weights_that_no_engine_multiplies_on_integers_say_so() -> None:
    """A product by a constant of more axes stays, and is not passed over in silence."""
    draw = Drawing(x=("N", 2, 4, 32))
    first = draw.node("Einsum", "x", draw.constant(weight(32, 32)), equation="bhtk,kn->bhtn")
    last = draw.node("MatMul", first, draw.constant(weight(32, 32)))
    graph = draw.graph(last, rank=4)

    kept = QuantizeNetwork().apply(graph, bench(graph)).kept
    assert kept == {first: "engines know no Einsum on integers"}


def test_gates_stay_in_float_where_that_is_asked_for() -> None:
    """A sigmoid between convolutions, and the product behind it; what reads them says so."""
    draw = Drawing(x=("N", 4, 6, 6))
    first = draw.node("Conv", "x", draw.constant(weight(8, 4, 1, 1)))
    gate = draw.node("Mul", first, draw.node("Sigmoid", first))
    skip = draw.node("Add", gate, first)
    graph = draw.graph(draw.node("Conv", skip, draw.constant(weight(2, 8, 1, 1))), rank=4)
    result = QuantizeNetwork(gates="float").apply(graph, bench(graph))

    assert [op for op in ops(result.graph) if "Linear" not in op] == ops(graph)
    assert "in float" in result.kept[skip]
    feeds = stacked(examples(graph, 10, seed=3))
    assert relative_error(computed(result.graph, feeds)[0], computed(graph, feeds)[0]) < 0.05


def test_gates_are_on_integers(tmp_path: Path) -> None:
    """A sigmoid is looked up, products are of integers, and the network is still near."""
    draw = Drawing(x=("N", 4, 6, 6))
    first = draw.node("Conv", "x", draw.constant(weight(8, 4, 1, 1)))
    gate = draw.node("Mul", first, draw.node("Sigmoid", first))
    last = draw.node("Conv", gate, draw.constant(weight(2, 8, 1, 1)))
    graph = draw.graph(draw.node("Sigmoid", last), rank=4)
    made = quantised(graph)
    found, session = optimised(made, tmp_path)
    feeds = stacked(examples(graph))

    assert found["QLinearSigmoid"] == found["QLinearMul"] == found["Sigmoid"] == 1
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1
    assert relative_error(session.run(None, dict(feeds))[0], computed(graph, feeds)[0]) < 0.03


def test_a_clip_that_the_grid_does_not_do_stays() -> None:
    """A symmetric grid reaches below zero, so the Relu is needed."""
    graph = dense_net(6, 5, 4)

    assert "Relu" not in ops(quantised(graph))
    assert "Relu" in ops(quantised(graph, activations="symmetric"))
    feeds = stacked(examples(graph))
    made = quantised(graph, activations="symmetric")
    assert relative_error(computed(made, feeds)[0], computed(graph, feeds)[0]) < 0.03


def test_an_inner_value_that_is_an_output_keeps_its_name() -> None:
    """A convolution's result, asked for from outside, and read by another one as well."""
    draw = Drawing(x=("N", 4, 6, 6))
    first = draw.node("Conv", "x", draw.constant(weight(8, 4, 1, 1)), draw.constant(bias(8)))
    clipped = draw.node("Relu", first)
    last = draw.node("Conv", clipped, draw.constant(weight(2, 8, 1, 1)))
    graph = draw.graph(first, clipped, last, rank=4)
    made = quantised(graph)
    feeds = stacked(examples(graph, 10, seed=3))

    assert made.output_names() == (first, clipped, last)
    for found, wanted in zip(computed(made, feeds), computed(graph, feeds), strict=True):
        assert 0 < relative_error(found, wanted) < 0.05


def test_scores_of_a_pooled_convolution_are_not_rounded() -> None:
    """As a Gemm its sums come out in float: far more than 256 different values."""
    graph = residual_net()
    made = pooled_to_gemm(graph)
    feeds = stacked(examples(graph, 10))

    assert ops(made)[-1] == "Gemm"
    assert "Flatten" in ops(made)
    assert relative_error(computed(made, feeds)[0], computed(graph, feeds)[0]) < 1e-5


@pytest.mark.parametrize("bias_shape", [(5,), (1, 5)])
def test_a_product_and_its_bias_are_one_gemm_of_integers(
    bias_shape: tuple[int, ...], tmp_path: Path
) -> None:
    """ONNX Runtime would join the two itself, too early, and compute in float."""
    draw = Drawing(x=("N", 6))
    first = draw.node("MatMul", "x", draw.constant(weight(6, 5)))
    hidden = draw.node("Relu", draw.node("Add", draw.constant(bias(5).reshape(bias_shape)), first))
    last = draw.node("MatMul", hidden, draw.constant(weight(5, 4)))
    graph = draw.graph(draw.node("Add", last, draw.constant(bias(4))))
    made = quantised(graph)
    found, session = optimised(made, tmp_path)
    feeds = stacked(examples(graph))

    assert found["QGemm"] == 2
    assert ops(dense_to_gemm(graph)) == ["Gemm", "Relu", "Gemm"]
    assert relative_error(session.run(None, dict(feeds))[0], computed(graph, feeds)[0]) < 0.03


def test_a_product_stays_one_where_no_bias_is_added() -> None:
    """Of three axes, read twice, asked for from outside, or added to something else."""
    draw = Drawing(x=("N", 3, 6), y=("N", 6))
    w = draw.constant(weight(6, 6))
    deep = draw.node("Add", draw.node("MatMul", "x", w), draw.constant(bias(6)))
    twice = draw.node("MatMul", "y", w)
    doubled = draw.node("Add", twice, twice)
    plain = draw.node("Add", draw.node("MatMul", doubled, w), doubled)
    number = draw.node("Add", draw.node("MatMul", plain, w), draw.constant([1.0]))
    graph = draw.graph(deep, number)

    assert ops(dense_to_gemm(graph)) == ops(graph)


def test_nodes_kept_in_float_say_why() -> None:
    """By name and by operator; a pattern that fits nothing is a slip."""
    graph = dense_net(6, 5, 4)
    result = QuantizeNetwork(keep=("n0.*",)).apply(graph, bench(graph))

    assert result.kept == {"n0.Gemm": "kept in float by 'n0.*'"}
    assert "c0" in result.graph.constants
    assert "c2" not in result.graph.constants
    assert result.changed["c2"] == "8 bits, 4 scales"
    with pytest.raises(InputError, match="'convv' fits no node"):
        QuantizeNetwork(keep=("convv",)).apply(graph, bench(graph))
    with pytest.raises(InputError, match="nothing to quantize"):
        QuantizeNetwork(keep=("Gemm",)).apply(graph, bench(graph))


@pytest.mark.parametrize(
    "options",
    [
        {"range": "guess"},
        {"activations": "float"},
        {"bias_correction": "some"},
        {"reduce_range": "maybe"},
        {"percentile": 0.5},
        {"scheme": "guess"},
        {"gates": "some"},
        {"bits": 3},
        {"bits": 4, "scheme": "dynamic"},
        {"group_size": 48},
        {"adaround": -1},
        {"accuracy": 1.5},
        {"keep": "Conv"},
    ],
)
def test_attack_options_out_of_bounds_are_refused(options: dict[str, object]) -> None:
    """Each names itself, before anything is computed."""
    with pytest.raises(InputError, match=next(iter(options))):
        QuantizeNetwork(**options)  # type: ignore[arg-type]


def test_no_examples_are_an_error() -> None:
    """Ranges cannot be guessed."""
    graph = dense_net(6, 5, 4)
    with pytest.raises(InputError, match="needs examples"):
        quantised(graph, Samples(feeds=[]))
