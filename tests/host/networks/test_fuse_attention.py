"""Attention in one operator of ONNX Runtime, and the answers stay."""

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.host.networks.graphs import Drawing, ops

from onhand.host.networks.graph import Array, Graph, Node
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.passes.fuse import Fuse
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.samples import Samples

D, H = 24, 3


def attention(*, keys: str = "at once", scaled: str = "scores", mask: str = "") -> Graph:
    """Two layers of attention of (B, T, 24), as exporters write them."""
    draw = Drawing(x=("B", "T", D))
    random = np.random.default_rng(3)
    value = "x"
    for _ in range(2):
        parts = []
        for name in "qkv":
            wide = draw.constant(random.normal(0, 0.3, (D, D)).astype(np.float32))
            linear = draw.node("MatMul", value, wide)
            split = draw.node("Reshape", linear, draw.constant([0, 0, H, D // H], np.int64))
            perm = (0, 2, 3, 1) if name == "k" and keys == "at once" else (0, 2, 1, 3)
            parts.append(draw.node("Transpose", split, perm=perm))
        query, key, values = parts
        root = np.float32(math.sqrt(D // H))
        if scaled == "both":
            part = draw.constant(np.float32(1 / math.sqrt(root)).reshape(()))
            query, key = draw.node("Mul", query, part), draw.node("Mul", part, key)
        if keys == "twice":
            key = draw.node("Transpose", key, perm=(0, 1, 3, 2))
        scores = draw.node("MatMul", query, key)
        if scaled == "scores":
            scores = draw.node("Div", scores, draw.constant(root.reshape(())))
        if mask:
            hidden = np.where(np.arange(5) < 4, 0.0, -1e4).astype(np.float32)
            scores = draw.node(mask, scores, draw.constant(hidden))
        chances = draw.node("Softmax", scores, axis=-1)
        mixed = draw.node("Transpose", draw.node("MatMul", chances, values), perm=(0, 2, 1, 3))
        value = draw.node("Reshape", mixed, draw.constant([0, 0, D], np.int64))
    return draw.graph(value, rank=3)


def feeds(n: int = 2, length: int = 5) -> dict[str, Array]:
    """Some sequences."""
    return {"x": np.random.default_rng(9).normal(0, 1, (n, length, D)).astype(np.float32)}


def run(graph: Graph, given: dict[str, Array]) -> Array:
    """What ONNX Runtime computes."""
    return GraphRunner(graph, threads=1).run(given)[graph.output_names()[0]]


def fused(graph: Graph) -> PassResult:
    """The graph with ONNX Runtime's operators."""
    bench = Workbench(original=graph, calibration=Samples(feeds=[]), task="features", threads=1)
    return Fuse(operators="onnxruntime").apply(graph, bench)


@pytest.mark.parametrize("keys", ["at once", "twice"])
@pytest.mark.parametrize("scaled", ["scores", "both", "never"])
def test_heads_are_attended_to_in_one_operator(keys: str, scaled: str) -> None:
    """However keys are turned and scores are scaled, for any number and length of sequences."""
    graph = attention(keys=keys, scaled=scaled)
    made = fused(graph)

    assert ops(made.graph) == ["MatMul", "MatMul", "MatMul", "MultiHeadAttention"] * 2
    assert made.kept == {}
    for given in (feeds(), feeds(1, 40)):
        np.testing.assert_allclose(run(made.graph, given), run(graph, given), atol=1e-4)


def test_a_quantised_network_is_fused_as_well() -> None:
    """What stays in float between layers of integers."""
    graph = attention()
    samples = Samples(feeds=[feeds(1)] * 4)
    bench = Workbench(original=graph, calibration=samples, task="features", threads=1)
    integers = QuantizeNetwork(bias_correction="none").apply(graph, bench).graph
    made = fused(integers)

    assert ops(made.graph).count("MultiHeadAttention") == 2
    assert "Softmax" not in ops(made.graph)
    np.testing.assert_allclose(run(made.graph, feeds()), run(integers, feeds()), atol=0.05)


def test_a_mask_leaves_attention_as_it_is() -> None:
    """The operator is no faster then, and the report says so."""
    made = fused(attention(mask="Add"))

    assert "MultiHeadAttention" not in ops(made.graph)
    assert set(made.kept.values()) == {"with a mask ONNX Runtime's operator is not faster"}


def changed(graph: Graph, op: str, **attributes: tuple[int, ...] | int) -> Graph:
    """The graph with other attributes of its last node of an operator."""
    last = [node for node in graph.nodes if node.op == op][-1]
    other = replace(last, attributes={**last.attributes, **attributes})
    return graph.rebuilt(lambda node: (other if node.name == last.name else node,))


def shown(graph: Graph) -> Graph:
    """The graph that gives the last softmax as well."""
    last = [node for node in graph.nodes if node.op == "Softmax"][-1]
    value = replace(graph.outputs[0], name=last.name, shape=("B", H, "T", "T"))
    return replace(graph, outputs=(*graph.outputs, value))


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        (changed(attention(), "Softmax", axis=2), "not over the last of four axes"),
        (changed(attention(), "Transpose", perm=(0, 2, 3, 1)), "is read by others, or is not"),
        (shown(attention()), "is read by others"),
    ],
)
def test_other_products_around_a_softmax_stay(graph: Graph, found: str) -> None:
    """Each with a reason, and the layer before is fused all the same."""
    made = fused(graph)
    softmaxes = [node for node in made.graph.nodes if node.op == "Softmax"]

    assert ops(made.graph).count("MultiHeadAttention") == 1
    assert found in made.kept[softmaxes[0].name]


def test_standard_operators_have_no_attention() -> None:
    """Other engines would not know it."""
    graph = attention()
    bench = Workbench(original=graph, calibration=Samples(feeds=[]), task="features", threads=1)
    softmax = Node(op="Softmax", inputs=("x",), outputs=("y",))
    alone = replace(graph, nodes=(softmax,), outputs=(replace(graph.outputs[0], name="y"),))

    assert ops(Fuse().apply(graph, bench).graph) == ops(graph)
    assert fused(alone.live()).kept == {}
