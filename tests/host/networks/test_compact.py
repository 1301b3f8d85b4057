"""The same answers from fewer bytes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.host.networks.graphs import computed, ops
from tests.host.networks.quantized_nets import bench, dense_net, examples, optimised, residual_net

from onhand.core.onnxgraph import parse_graph
from onhand.device.networks.reference import evaluate
from onhand.host.networks.clean import clean
from onhand.host.networks.compact import compact
from onhand.host.networks.graph import Graph
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.onnx_files import model_bytes, read_onnx
from onhand.host.networks.pack import describe, pack_network
from onhand.host.networks.passes.quantize import QuantizeNetwork


def quantised(graph: Graph) -> Graph:
    """The graph in integers."""
    step = QuantizeNetwork(bias_correction="none", range="min-max")
    return step.apply(graph, bench(graph)).graph


def packed(folder: Path, **variants: Graph) -> dict[str, int]:
    """The sizes of a bundle's files."""
    first = next(iter(variants.values()))
    model = NetworkModel(name="net", family="test", graph=first, sha256="0" * 64, source_bytes=1)
    folder.mkdir()
    bundle = pack_network(model, describe(model, "features"), variants, folder, provenance={})
    return {name: entry.size for name, entry in bundle.manifest.files.items()}


def test_a_bias_needs_no_scales_of_its_own(tmp_path: Path) -> None:
    """The product of its layer's scales is as good to the last bit, in every engine."""
    graph = quantised(residual_net())
    small = compact(graph)
    x = examples(graph, 1, seed=9).batch([0])

    # Four layers have 16 channels and more, the others 8 and 10.
    assert ops(small).count("Mul") == 4
    assert ops(small)[4:] == ops(graph)
    assert len(model_bytes(small)) < len(model_bytes(graph)) - 500
    wanted = computed(graph, x)[0]
    np.testing.assert_array_equal(computed(small, x)[0], wanted)
    np.testing.assert_array_equal(
        evaluate(parse_graph(model_bytes(small), {}), x)[small.output_names()[0]],
        evaluate(parse_graph(model_bytes(graph), {}), x)[graph.output_names()[0]],
    )
    runs = []
    for name, one in (("a", graph), ("b", small)):
        (tmp_path / name).mkdir()
        runs.append(optimised(one, tmp_path / name))
    assert {**runs[0][0]} == {**runs[1][0]}
    np.testing.assert_array_equal(*(session.run(None, dict(x))[0] for _, session in runs))


def test_openvino_gives_the_same_bits() -> None:
    """It computes the product when it opens the network."""
    openvino = pytest.importorskip("openvino")
    graph = quantised(residual_net())
    x = examples(graph, 1, seed=9).batch([0])
    core = openvino.Core()

    found = [
        core.compile_model(
            core.read_model(model_bytes(one)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )(dict(x))[0]
        for one in (graph, compact(graph))
    ]

    np.testing.assert_array_equal(*found)


@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_cleaning_brings_every_scale_back(sizes: list[int], seed: int) -> None:
    """What is read from a bundle is the graph that was packed."""
    graph = clean(quantised(dense_net(*sizes)))
    x = examples(graph, 3, seed=seed).batch([0, 1, 2])
    again = clean(compact(graph))

    assert ops(again) == ops(graph)
    np.testing.assert_array_equal(computed(again, x)[0], computed(graph, x)[0])


def test_equal_zero_points_are_one() -> None:
    """Of layers as wide as each other, and of activations; nothing else is shared."""
    graph = quantised(dense_net(20, 20, 20, 20))
    small = compact(graph)
    zeros = {n.inputs[2] for n in small.nodes if "quantize" in n.op.lower() and len(n.inputs) > 2}

    # Those of the weights, of the input, and of both values behind a Relu.
    assert len(zeros) == 3
    assert compact(small) == small


def test_scales_that_are_no_product_stay() -> None:
    """A bias whose units another tool chose keeps them; so does one whose units others read."""
    graph = quantised(dense_net(20, 20))
    (layer,) = (node for node in graph.nodes if node.op == "Gemm")
    units = graph.producers()[layer.inputs[2]].inputs[1]
    other = np.nextafter(graph.constants[units], np.float32(1))
    changed = replace(graph, constants={**graph.constants, units: other})

    assert ops(compact(graph)).count("Mul") == 1
    assert compact(changed).nodes == changed.nodes


def test_a_network_in_float_stays_as_it_is() -> None:
    """There is nothing to leave out."""
    graph = residual_net()

    assert compact(graph) == graph


def test_small_weights_of_one_variant_stay_in_its_graph(tmp_path: Path) -> None:
    """What several share lies in the file of weights; so does what is large."""
    graph = quantised(dense_net(40, 40, 200))
    alone = packed(tmp_path / "one", a=graph)
    shared = packed(tmp_path / "two", a=graph, b=graph)

    # The weight of 40 x 200 alone is above 4,096 bytes.
    assert 8_000 < alone["weights.safetensors"] < 8_300
    assert 9_600 < shared["weights.safetensors"] - 8 * 200 < 10_600
    (tmp_path / "x.onnx").write_bytes(model_bytes(compact(graph)))
    assert alone["model.onnx"] < (tmp_path / "x.onnx").stat().st_size - 7_500
    wanted = computed(graph, x := examples(graph, 1).batch([0]))[0]
    np.testing.assert_array_equal(
        computed(read_onnx(tmp_path / "one" / "model.onnx"), x)[0], wanted
    )
