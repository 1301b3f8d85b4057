"""Networks that no work is done on, and costs that cannot be told."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from tests.host.networks.graphs import Drawing

from onhand.core.errors import SourceError
from onhand.host.networks.checks import check_network
from onhand.host.networks.costs import count_operations
from onhand.host.networks.graph import Graph
from onhand.host.networks.observe import observe
from onhand.host.networks.onnx_files import graph_from_model
from onhand.host.networks.samples import Samples


def matrix(*numbers: float) -> Graph:
    """(B, 2) times a column, plus a mask."""
    d = Drawing(x=("B", 2))
    product = d.node("MatMul", "x", d.constant([[number] for number in numbers]))
    return d.graph(d.node("Add", product, d.constant([-np.inf])))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_damaged_weights_are_refused(number: float) -> None:
    """NaN anywhere, infinities in a layer; a mask may hold those."""
    check_network(matrix(1, 2))

    with pytest.raises(SourceError, match="'c0' holds 1 of 2 numbers that are NaN or infinite"):
        check_network(matrix(1, number))


def test_a_network_without_inputs_is_refused() -> None:
    """Nothing could be asked of it."""
    with pytest.raises(SourceError, match="has no input"):
        check_network(replace(matrix(1, 2), inputs=()))


def test_costs_behind_a_loop_count_as_nothing() -> None:
    """How many sizes its values have, no inference tells."""
    h = onnx.helper
    real, whole, truth = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
    body = h.make_graph(
        [h.make_node("Identity", ["on"], ["still"]), h.make_node("Tanh", ["v"], ["w"])],
        "body",
        [
            h.make_tensor_value_info("i", whole, []),
            h.make_tensor_value_info("on", truth, []),
            h.make_tensor_value_info("v", real, None),
        ],
        [h.make_tensor_value_info("still", truth, []), h.make_tensor_value_info("w", real, None)],
    )
    graph = h.make_graph(
        [
            h.make_node("Loop", ["n", "", "x"], ["l"], body=body),
            h.make_node("MatMul", ["l", "m"], ["y"]),
            h.make_node("MatMul", ["x", "m"], ["z"]),
        ],
        "loop",
        [h.make_tensor_value_info("x", real, ["B", 2])],
        [
            h.make_tensor_value_info("y", real, ["B", 3]),
            h.make_tensor_value_info("z", real, ["B", 3]),
        ],
        [
            onnx.numpy_helper.from_array(np.array(3, np.int64), "n"),
            onnx.numpy_helper.from_array(np.ones((2, 3), np.float32), "m"),
        ],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)])

    made = graph_from_model(model, where="loop")
    assert count_operations(made) == 6
    # A loop's condition is one for the whole batch.
    two = Samples(feeds=[{"x": np.full((1, 2), k, np.float32)} for k in (1, 2)])
    assert [len(values["y"]) for values in observe(made, two, threads=1)] == [1, 1]
    looked = list(observe(made, two, threads=1, names=["l", "y"]))
    np.testing.assert_allclose(looked[0]["l"], np.tanh(np.tanh(np.tanh(np.ones((1, 2))))), 1e-5)
    (both,) = observe(matrix(1, 2), two, threads=1)
    assert [len(array) for array in both.values()] == [2]
