"""Weights as integers without examples: stored small, and computed as ONNX Runtime does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.host.networks.graphs import Drawing, computed, ops
from tests.host.networks.quantized_nets import (
    Floats,
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
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.onnx_files import model_bytes
from onhand.host.networks.passes.base import PassResult
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.samples import Samples


def made_without_examples(graph: Graph, **options: object) -> PassResult:
    """What the pass makes, with nothing to calibrate by."""
    transform = QuantizeNetwork(**options)  # type: ignore[arg-type]
    return transform.apply(graph, bench(graph, Samples(feeds=[])))


def made_static(graph: Graph) -> Graph:
    """The graph on integers."""
    return QuantizeNetwork(bias_correction="none").apply(graph, bench(graph)).graph


@pytest.mark.parametrize(("bits", "most"), [(8, 0.02), (4, 0.25)])
def test_stored_weights_keep_what_a_network_computes(bits: int, most: float) -> None:
    """Convolutions, channel by channel; the error is as great as the bits allow."""
    graph = residual_net()
    result = made_without_examples(graph, scheme="weights", bits=bits)
    feeds = stacked(examples(graph))

    assert 0 < relative_error(computed(result.graph, feeds)[0], computed(graph, feeds)[0]) < most
    assert result.graph.inputs == graph.inputs
    assert result.kept == {}


@pytest.mark.parametrize("transposed", [False, True])
def test_4_bits_of_matrices_have_a_scale_for_each_group(
    *, transposed: bool, tmp_path: Path
) -> None:
    """MatMulNBits, for either layout of the weight; groups that the width does not fill."""
    draw = Drawing(x=("N", 72))
    w = weight(40, 72)
    constant = draw.constant(w if transposed else w.T)
    first = draw.node("Gemm", "x", constant, draw.constant(bias(40)), transB=int(transposed))
    graph = draw.graph(draw.node("MatMul", first, draw.constant(weight(40, 24))))
    result = made_without_examples(graph, scheme="weights", bits=4)
    found, session = optimised(result.graph, tmp_path)
    feeds = stacked(examples(graph))

    assert found["MatMulNBits"] == 2
    # The last group of either has 8 inputs in the room of 32.
    assert result.graph.size_bytes() < graph.size_bytes() / 4
    assert relative_error(session.run(None, dict(feeds))[0], computed(graph, feeds)[0]) < 0.2
    groups = result.changed.values()
    assert set(groups) == {"4 bits, a scale for 32 inputs"}


def correlated_net() -> tuple[Graph, Samples]:
    """A Gemm and a MatMul, and inputs that lie near 6 of 48 directions."""
    draw = Drawing(x=("N", 48))
    first = draw.node("Gemm", "x", draw.constant(weight(64, 48)), draw.constant(bias(64)), transB=1)
    last = draw.node("MatMul", draw.node("Relu", first), draw.constant(weight(64, 24)))
    random = np.random.default_rng(5)
    basis = random.normal(0, 1, (6, 48))
    rows = random.normal(0, 1, (48, 1, 6)) @ basis + random.normal(0, 0.05, (48, 1, 48))
    return draw.graph(last), Samples(feeds=[{"x": row.astype(np.float32)} for row in rows])


def run(graph: Graph, samples: Samples) -> Floats:
    """The first output for all examples, in ONNX Runtime as devices open it.

    Without its optimiser MatMulNBits takes scales that a Cast makes for zeros.
    """
    made = GraphRunner(graph, threads=1).run(dict(stacked(samples)))
    return np.asarray(made[graph.output_names()[0]], np.float32)


def test_a_thin_product_beside_the_codes_makes_good_for_rounding() -> None:
    """The error falls with it, most where examples tell the inputs."""
    graph, samples = correlated_net()
    right = run(graph, samples)
    errors = []
    for rank, known in ((0, samples), (6, Samples(feeds=[])), (6, samples)):
        transform = QuantizeNetwork(scheme="weights", bits=4, correction_rank=rank)
        made = transform.apply(graph, bench(graph, known))
        errors.append(relative_error(run(made.graph, samples), right))

    assert errors[1] < errors[0]
    assert errors[2] < 0.4 * errors[1]


def test_what_is_added_is_the_product_of_the_factors() -> None:
    """In either layout of a weight, with a bias and without, and of the matrix's rank at most."""
    graph, samples = correlated_net()
    transform = QuantizeNetwork(scheme="weights", bits=4, correction_rank=32)
    made = transform.apply(graph, bench(graph, samples))
    halves = [
        next(array for name, array in made.graph.constants.items() if f"c2.{part}" in name)
        for part in ("right", "left")
    ]
    producers, (last,) = made.graph.producers(), made.graph.output_names()
    values = [*producers[last].inputs, "n1.Relu", last]
    shown = replace(made.graph, outputs=tuple(replace(graph.outputs[0], name=n) for n in values))
    found = GraphRunner(shown, threads=1).run(dict(stacked(samples)))
    product = found["n1.Relu"] @ halves[0].astype(np.float32) @ halves[1].astype(np.float32)

    assert [text.split("rank ")[1] for text in made.changed.values()] == [
        "32 beside it",
        "24 beside it",
    ]
    np.testing.assert_allclose(found[values[1]], product, atol=1e-4)
    np.testing.assert_allclose(found[last], found[values[0]] + product, atol=1e-4)
    assert relative_error(found[last], run(graph, samples)) < 0.02


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"correction_rank": -1}, "correction_rank is -1"),
        ({"correction_rank": 8}, "needs scheme 'weights' with bits = 4"),
        ({"correction_rank": 8, "scheme": "weights"}, "needs scheme 'weights' with bits = 4"),
    ],
)
def test_corrections_are_for_4_bits_alone(options: dict[str, object], found: str) -> None:
    """With more bits there is nothing to make good for."""
    with pytest.raises(InputError, match=found):
        QuantizeNetwork(**options)  # type: ignore[arg-type]


def test_4_bits_take_half_a_byte_in_the_file() -> None:
    """Beside 8 bits, half; beside float, an eighth, but for scales and the head's groups."""
    draw = Drawing(x=("N", 64, 4, 4))
    graph = draw.graph(draw.node("Conv", "x", draw.constant(weight(128, 64, 3, 3))), rank=4)
    sizes = [
        len(model_bytes(made_without_examples(graph, scheme="weights", bits=bits).graph))
        for bits in (8, 4)
    ]

    assert sizes[1] < 0.53 * sizes[0]
    assert sizes[0] < 0.27 * len(model_bytes(graph))


def test_long_names_of_a_source_are_not_repeated_over_and_over() -> None:
    """Frameworks give names of hundreds of letters; a small network's file would be names."""
    graph = residual_net()
    long = {node.name: f"{node.name}/{'x' * 200}" for node in graph.nodes[:-1]}
    named = replace(
        graph,
        nodes=tuple(
            replace(node, outputs=tuple(long.get(name, name) for name in node.outputs))
            for node in graph.renamed(long).nodes
        ),
    )
    sizes = [len(model_bytes(made_static(one))) for one in (graph, named)]

    # As output of a node, as the node's name, and where it is rounded.
    assert sizes[1] - sizes[0] < 3.2 * 200 * len(long)


def test_4_bits_are_computed_on_integers(tmp_path: Path) -> None:
    """ONNX Runtime widens the codes as it opens the network, and fuses as with 8 bits."""
    graph = residual_net()
    made = QuantizeNetwork(bits=4).apply(graph, bench(graph)).graph
    found, session = optimised(made, tmp_path)
    feeds = stacked(examples(graph))

    assert found["QLinearConv"] == 6
    assert found["QGemm"] == 1
    assert not {"Conv", "Gemm", "Cast"} & found.keys()
    assert relative_error(session.run(None, dict(feeds))[0], computed(graph, feeds)[0]) < 0.3


def test_a_weight_that_two_layers_share_is_stored_once() -> None:
    """And unpacked once."""
    draw = Drawing(x=("N", 8, 4, 4))
    w = draw.constant(weight(8, 8, 1, 1))
    graph = draw.graph(draw.node("Conv", draw.node("Conv", "x", w), w), rank=4)
    made = made_without_examples(graph, scheme="weights").graph

    assert ops(made) == ["Cast", "Mul", "Conv", "Conv"]
    assert [a.dtype.name for a in made.constants.values() if a.ndim == 4].count("int8") == 1


def test_dynamic_products_round_what_they_are_fed() -> None:
    """Each activation once, however many read it; nothing but rounding is lost."""
    draw = Drawing(x=("N", 16))
    b = draw.constant(bias(24))
    parts = [
        draw.node("Gemm", "x", draw.constant(weight(24, 16, seed=1)), b, transB=1),
        draw.node("MatMul", "x", draw.constant(weight(16, 24, seed=2))),
    ]
    graph = draw.graph(draw.node("Add", *parts))
    result = made_without_examples(graph, scheme="dynamic")
    feeds = stacked(examples(graph))

    assert ops(result.graph).count("DynamicQuantizeLinear") == 1
    assert ops(result.graph).count("MatMulInteger") == 2
    assert relative_error(computed(result.graph, feeds)[0], computed(graph, feeds)[0]) < 0.02
    assert "ONNX Runtime" in result.notes[0]


def test_convolutions_are_not_for_the_dynamic_scheme() -> None:
    """They stay, and say what they want; where there is nothing else, that is an error."""
    draw = Drawing(x=("N", 4, 6, 6))
    conv = draw.node("Conv", "x", draw.constant(weight(8, 4, 1, 1)))
    flat = draw.node("Flatten", conv)
    graph = draw.graph(draw.node("MatMul", flat, draw.constant(weight(288, 4))))

    assert "'static'" in made_without_examples(graph, scheme="dynamic").kept[conv]
    with pytest.raises(InputError, match="nothing to quantize"):
        made_without_examples(residual_net(), scheme="dynamic")


@pytest.mark.parametrize("scheme", ["static", "dynamic", "weights"])
def test_tables_are_unpacked_row_by_row(scheme: str) -> None:
    """An embedding is a quarter as large, and only rows that are asked for are in float."""
    draw = Drawing(x=("N", 16))
    table = weight(1024, 16)
    index = draw.node("Cast", draw.node("ArgMax", "x", axis=1, keepdims=0), to=7)
    rows = draw.node("Gather", draw.constant(table), index)
    graph = draw.graph(draw.node("MatMul", rows, draw.constant(weight(16, 8))))
    result = QuantizeNetwork(scheme=scheme).apply(graph, bench(graph))
    feeds = stacked(examples(graph))

    assert result.graph.size_bytes() < 0.4 * graph.size_bytes()
    assert "scale for each row" in result.changed["c0"]
    assert ops(result.graph).count("Gather") == 2
    assert relative_error(computed(result.graph, feeds)[0], computed(graph, feeds)[0]) < 0.03


def test_a_table_that_others_read_stays() -> None:
    """As the head of a language model does, tied to its embedding."""
    draw = Drawing(x=("N", 16))
    table = draw.constant(weight(1024, 16))
    index = draw.node("Cast", draw.node("ArgMax", "x", axis=1, keepdims=0), to=7)
    rows = draw.node("Gather", table, index)
    graph = draw.graph(draw.node("Gemm", rows, table, transB=1))
    result = made_without_examples(graph, scheme="dynamic")

    assert np.dtype(np.float32) == result.graph.constants[table].dtype


def test_what_is_quantised_already_says_so() -> None:
    """Its weights are integers: there is nothing to round again."""
    graph = dense_net(6, 5, 4)
    made = QuantizeNetwork().apply(graph, bench(graph)).graph

    with pytest.raises(InputError, match="computes on integers already; give --bits 32"):
        QuantizeNetwork().apply(made, bench(made))
