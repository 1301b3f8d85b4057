"""Gates on integers: hard sigmoids, hard swishes, squeeze and excitation."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.host.networks.graphs import Drawing, computed, ops
from tests.host.networks.quantized_nets import (
    Floats,
    bench,
    bias,
    examples,
    optimised,
    relative_error,
    stacked,
    weight,
)

from onhand.host.networks.graph import Graph
from onhand.host.networks.passes.base import PassResult
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.quantization.gate_forms import spell_gates


def mobile_net() -> Graph:
    """A block of MobileNetV3: hard swishes, and channels weighed by a hard sigmoid."""
    draw = Drawing(x=("N", 3, 8, 8))

    def conv(data: str, n: int, k: int, *, size: int = 1, group: int = 1, seed: int) -> str:
        w = draw.constant(weight(n, k // group, size, size, seed=seed))
        b = draw.constant(bias(n, seed=seed))
        return draw.node("Conv", data, w, b, pads=(size // 2,) * 4, group=group)

    stem = draw.node("HardSwish", conv("x", 8, 3, size=3, seed=1))
    wide = draw.node("HardSwish", conv(stem, 16, 8, seed=2))
    deep = draw.node("HardSwish", conv(wide, 16, 16, size=3, group=16, seed=3))
    pooled = draw.node("GlobalAveragePool", deep)
    squeezed = draw.node("Relu", conv(pooled, 4, 16, seed=4))
    gate = draw.node("HardSigmoid", conv(squeezed, 16, 4, seed=5), alpha=1 / 6, beta=0.5)
    narrow = conv(draw.node("Mul", deep, gate), 8, 16, seed=6)
    last = draw.node("HardSwish", conv(draw.node("Add", narrow, stem), 10, 8, seed=7))
    return draw.graph(conv(last, 4, 10, seed=8), rank=4)


def made(graph: Graph, **options: object) -> PassResult:
    """The graph with gates on integers."""
    transform = QuantizeNetwork(gates="integers", bias_correction="none", **options)  # type: ignore[arg-type]
    return transform.apply(graph, bench(graph))


def test_hard_gates_are_on_integers_throughout(tmp_path: Path) -> None:
    """One sum and one product for each; nothing is left in float between input and output."""
    graph = mobile_net()
    found, session = optimised(made(graph).graph, tmp_path)
    feeds = stacked(examples(graph, 6, seed=7))

    assert found["QLinearConv"] == 8
    assert found["QLinearMul"] == 5
    assert found["QLinearAdd"] == 6
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1
    assert not {"HardSigmoid", "Mul", "Add", "Clip"} & found.keys()
    assert relative_error(session.run(None, dict(feeds))[0], computed(graph, feeds)[0]) < 0.06


def test_openvino_opens_hard_gates() -> None:
    """It fails on a sum with a number whose code an operator is left to find."""
    openvino = pytest.importorskip("openvino")
    from onhand.host.networks.onnx_files import model_bytes

    graph = mobile_net()
    whole = made(graph).graph
    feeds = examples(graph, 1, seed=7).batch([0])
    core = openvino.Core()
    model = core.read_model(model_bytes(whole))
    model.reshape({"x": list(feeds["x"].shape)})
    network = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    assert relative_error(network(dict(feeds))[0], computed(whole, feeds)[0]) < 0.05


@settings(max_examples=10, deadline=None)
@given(slope=st.floats(0.1, 1.0), start=st.floats(0.1, 1.0), seed=st.integers(0, 9))
def test_what_is_spelt_out_is_the_same_function(slope: float, start: float, seed: int) -> None:
    """Of any slope and start, for values on both sides of the cuts."""
    draw = Drawing(x=("N", 5))
    gate = draw.node("HardSigmoid", "x", alpha=slope, beta=start)
    graph = draw.graph(draw.node("Mul", gate, draw.node("HardSwish", "x")))
    feeds = {"x": np.random.default_rng(seed).normal(0, 5, (20, 5)).astype(np.float32)}
    spelt = spell_gates(graph, keep=())

    assert not {"HardSigmoid", "HardSwish"} & set(ops(spelt))
    np.testing.assert_allclose(computed(spelt, feeds)[0], computed(graph, feeds)[0], atol=1e-5)


def on(values: Floats, scale: Floats, zero: Floats) -> Floats:
    """Nearest neighbours on a grid of uint8, as ONNX defines them."""
    codes = np.clip(np.rint(values / scale) + zero.astype(np.float32), 0, 255)
    rounded: Floats = ((codes - zero.astype(np.float32)) * scale).astype(np.float32)
    return rounded


def test_a_hard_swish_is_what_numpy_computes_on_the_same_grids() -> None:
    """To the bit: the sum is cut by its range, and its codes stand for a sixth of it."""
    draw = Drawing(x=("N", 6, 4, 4))
    first = draw.node("Conv", "x", draw.constant(4 * weight(6, 6, 1, 1)))
    swish = draw.node("HardSwish", first)
    graph = draw.graph(draw.node("Conv", swish, draw.constant(weight(3, 6, 1, 1))), rank=4)
    whole = made(graph).graph
    inner = {node.name: node for node in whole.nodes}
    total = next(node for node in whole.nodes if node.op == "Add")
    product = next(node for node in whole.nodes if node.op == "Mul")
    value = total.inputs[0]
    shown = [value, product.inputs[1], product.name]
    feeds = stacked(examples(graph, 5, seed=2))
    outputs = tuple(graph.outputs[0].__class__(
        name=name, dtype=np.dtype(np.float32), shape=(None,) * 4) for name in shown)  # fmt: skip
    x, gate, found = computed(
        Graph(nodes=whole.nodes, constants=whole.constants, inputs=whole.inputs, outputs=outputs,
              opset=whole.opset),
        feeds,
    )  # fmt: skip

    (cut,) = (n for n in whole.nodes if n.op == "QuantizeLinear" and n.inputs[0] == total.name)
    scale, zero = (whole.constants[name] for name in cut.inputs[1:])
    summed = on(x + np.float32(3), scale, zero)
    sixth = whole.constants[inner[product.inputs[1]].inputs[1]]
    assert sixth == np.float32(scale * np.float32(1 / 6))
    codes = np.rint(summed / scale) + zero
    np.testing.assert_array_equal(gate, ((codes - zero) * sixth).astype(np.float32))
    np.testing.assert_array_equal(found, x * gate)
    assert (gate >= 0).all()
    assert np.isclose(gate.max(), 1.0, atol=0.01)


@pytest.mark.parametrize("pattern", ["HardSwish", "n1.HardSwish"])
def test_gates_that_are_kept_stay(pattern: str) -> None:
    """By operator or by name."""
    result = made(mobile_net(), keep=(pattern,))
    n_left = sum(node.op == "HardSwish" for node in result.graph.nodes)

    assert n_left == (4 if pattern == "HardSwish" else 1)


def test_gates_go_back_to_float_with_their_layers() -> None:
    """Where too much would be lost, what is judged is what is written."""
    graph = mobile_net()
    result = made(graph, accuracy=0.0)
    feeds = stacked(examples(graph, 4, seed=3))

    assert relative_error(computed(result.graph, feeds)[0], computed(graph, feeds)[0]) < 0.06
