"""Integers are trained as integers: the same form, codes in range, what engines will compute."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from tests.host.networks.test_distil import QUICK, bench, figures, pictures, same, teacher

from onhand.core.arrays import FloatArray
from onhand.host.networks.graph import Array, Graph, Node, Value
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.training.coded import coded_weights, trainable_form

pytest.importorskip("torch", reason="trains in torch")

from onhand.host.networks.torch_graph import TorchGraph, tensors_of


def quantized(*, bits: int = 8) -> Graph:
    """The teacher in integers; its codes are shaken and halved, so that training has work."""
    transform = QuantizeNetwork(
        bias_correction="none",
        bits=4 if bits == 4 else 8,
        reduce_range="on" if bits == 7 else "off",
    )
    graph = transform.apply(teacher(), bench()).graph
    rng = np.random.default_rng(4)
    shaken: dict[str, Array] = {}
    for name in coded_weights(graph):
        codes = graph.constants[name].astype(np.int32)
        top = int(np.abs(codes).max())
        noise = 1 if bits == 4 else 25
        weak = np.rint(0.5 * codes) + rng.integers(-noise, noise + 1, size=codes.shape)
        shaken[name] = np.clip(weak, -top, top).astype(graph.constants[name].dtype)
    return replace(graph, constants={**graph.constants, **shaken})


def scales(graph: Graph) -> list[str]:
    """The constants with the scales of the convolution's data, weight and bias."""
    makers = graph.producers()
    conv = next(node for node in graph.nodes if node.op == "Conv")
    return [makers[name].inputs[1] for name in conv.inputs]


def answers(graph: Graph) -> FloatArray:
    """What ONNX Runtime says to all pictures."""
    (made,) = (GraphRunner(graph, threads=1).run(feeds) for feeds in pictures().batches(24))
    result: FloatArray = made["y"].astype(np.float32)
    return result


def input_scale(graph: Graph) -> str:
    """The name of the scale that pictures are rounded by."""
    first = next(node for node in graph.nodes if node.op == "QuantizeLinear")
    assert first.inputs[0] == "x"
    return first.inputs[1]


@pytest.mark.parametrize("learn_scales", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_trained_form_computes_the_same(bits: int, *, learn_scales: bool) -> None:
    """Before training, and made integers again without any: nothing is lost."""
    graph = quantized(bits=bits)
    assert len(coded_weights(graph)) == sum(node.op in {"Conv", "Gemm"} for node in graph.nodes)
    form = trainable_form(graph, learn_scales=learn_scales)

    module = TorchGraph(form.graph).eval()
    made = module(tensors_of(pictures().batch(range(24))))["y"].detach().numpy()

    np.testing.assert_allclose(made, answers(graph).astype(float), atol=1e-4)
    assert same(form.back(module.to_graph()), graph)


@pytest.mark.parametrize("learn_scales", [False, True])
@pytest.mark.parametrize("bits", [4, 7, 8])
def test_training_in_integers_brings_answers_together(bits: int, *, learn_scales: bool) -> None:
    """The result has the same nodes and dtypes, codes within their bits, and answers better."""
    graph = quantized(bits=bits)
    transform = replace(QUICK, learn_scales=learn_scales, steps=30)

    made = transform.apply(graph, bench())

    before, after = figures(made.notes[0])
    assert after < before / 2
    assert made.graph.nodes == graph.nodes
    for name, array in graph.constants.items():
        assert made.graph.constants[name].dtype == array.dtype
        assert made.graph.constants[name].shape == array.shape
    weights = coded_weights(graph)
    assert all("codes changed" in made.changed[name] for name in weights)
    codes = [made.graph.constants[name].astype(int) for name in weights]
    assert max(one.max() for one in codes) < 2 ** (bits - 1)
    assert min(one.min() for one in codes) >= -(2 ** (bits - 1)) + (bits != 4)
    assert (scales(graph)[0] in made.changed) is learn_scales
    wanted, first, last = answers(teacher()), answers(graph), answers(made.graph)
    gain = 1.25 if bits == 4 else 1.5  # sixteen codes follow less closely
    assert np.abs(last - wanted).mean() < np.abs(first - wanted).mean() / gain


def test_biases_stay_in_units_of_both_scales() -> None:
    """Engines take that for granted, whatever the bias's own scale says."""
    graph = quantized()

    made = replace(QUICK, learn_scales=True).apply(graph, bench()).graph

    numbers = {name: array.astype(np.float32) for name, array in made.constants.items()}
    data, weight, bias = scales(graph)
    assert numbers[bias].shape == (6,)
    np.testing.assert_array_equal(numbers[bias], numbers[weight] * numbers[data])
    assert not np.array_equal(made.constants[data], graph.constants[data])


def test_integers_stay_where_they_are_not_to_be_trained() -> None:
    """With quantized = "off" only what is float is trained: here nothing is left."""
    graph = quantized()
    shifted = Node(op="Add", inputs=("y", "shift"), outputs=("z",))
    graph = replace(
        graph,
        nodes=(*graph.nodes, shifted),
        constants={**graph.constants, "shift": np.zeros(4, dtype=np.float32)},
        outputs=(replace(graph.outputs[0], name="z"),),
    )

    made = replace(QUICK, quantized="off").apply(graph, bench())

    assert set(made.changed) == {"shift"}
    assert made.kept == dict.fromkeys(coded_weights(graph), "integers stay with quantized = 'off'")


def test_blocks_of_four_bits_are_trained_within_them() -> None:
    """Codes of 4 bits stay codes of 4 bits, each block with its scale."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-8, 8, size=(8, 4)).astype(np.int8).astype(ml_dtypes.int4)
    scales = rng.uniform(0.05, 0.2, size=(2, 4)).astype(np.float32)
    fed = Value(name="x", dtype=np.dtype(np.float32), shape=("N", 8))
    given = Value(name="y", dtype=np.dtype(np.float32), shape=("N", 4))
    nodes = (
        Node(op="DequantizeLinear", inputs=("w", "s"), outputs=("d",),
             attributes={"axis": 0, "block_size": 4}),
        Node(op="MatMul", inputs=("x", "d"), outputs=("y",)),
    )  # fmt: skip
    graph = Graph(
        nodes=nodes, constants={"w": codes, "s": scales}, inputs=(fed,), outputs=(given,), opset=21
    )
    form = trainable_form(graph, learn_scales=False)
    module = TorchGraph(form.graph)
    (shadow,) = form.shadows
    x: dict[str, Array] = {"x": rng.normal(size=(3, 8)).astype(np.float32)}
    np.testing.assert_allclose(
        module(tensors_of(x))["y"].detach().numpy(),
        GraphRunner(graph, threads=1).run(x)["y"].astype(float),
        atol=1e-5,
    )

    module.weight(shadow).data.mul_(3.0)
    made = form.back(module.to_graph()).constants["w"]

    assert made.dtype == codes.dtype
    by_hand = np.clip(3 * codes.astype(int), -8, 7)
    np.testing.assert_array_equal(made.astype(int), by_hand)
