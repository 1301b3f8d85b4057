"""Inputs of a graph become tensors in it."""

import numpy as np
import pytest

from onhand.core.errors import BundleCorrupt
from onhand.core.onnxbind import CodedTensor, bind_inputs
from onhand.core.onnxgraph import parse_graph
from onhand.core.onnxwrite import WrittenNode, bytes_field, model_of

CONTENT = model_of(
    [WrittenNode(kind="MatMul", inputs=["x", "w"], output="y")],
    inputs={"x": (1, 2), "w": (2, 3)},
    tensors={},
)
W = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_an_input_becomes_a_tensor() -> None:
    """Everything else stays as it stands."""
    graph = parse_graph(bind_inputs(CONTENT, {"w": W}), {})

    assert [info.name for info in graph.inputs] == ["x"]
    np.testing.assert_array_equal(graph.constants["w"], W)
    assert [node.op for node in graph.nodes] == ["MatMul"]


@pytest.mark.parametrize("axis", [None, 1])
def test_an_input_becomes_integers(axis: int | None) -> None:
    """A node before whoever reads it makes floats of them."""
    codes = np.arange(6, dtype=np.int8).reshape(2, 3)
    scales = np.ones(() if axis is None else 3, np.float32)

    graph = parse_graph(bind_inputs(CONTENT, {}, {"w": CodedTensor(codes, scales, axis)}), {})

    assert [(node.op, node.outputs) for node in graph.nodes] == [
        ("DequantizeLinear", ("w",)),
        ("MatMul", ("y",)),
    ]
    assert dict(graph.nodes[0].attributes) == ({} if axis is None else {"axis": 1})
    np.testing.assert_array_equal(graph.constants["w.codes"], codes)
    np.testing.assert_array_equal(graph.constants["w.scales"], scales)


def test_nothing_to_bind_changes_nothing() -> None:
    """Byte for byte."""
    assert bind_inputs(CONTENT, {}) == CONTENT


def test_an_input_that_is_missing_is_said() -> None:
    """By its name."""
    with pytest.raises(BundleCorrupt, match="no input 'v'"):
        bind_inputs(CONTENT, {"v": W})


def test_attack_an_input_that_is_there_twice() -> None:
    """It could be one thing for the check, and another for the engine."""
    name = bytes_field(1, b"w")
    twice = CONTENT + bytes_field(7, bytes_field(11, name) + bytes_field(11, name))

    with pytest.raises(BundleCorrupt, match="twice"):
        bind_inputs(twice, {"w": W})
