"""Models written without the onnx package are read by ONNX Runtime."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onhand.core.onnxgraph import parse_graph
from onhand.core.onnxwrite import WrittenNode, model_of, number_field, varint


def test_a_model_is_read_back_and_computes() -> None:
    """Nodes, attributes of both kinds, tensors, and an operator of another domain."""
    ort = pytest.importorskip("onnxruntime")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    nodes = [
        WrittenNode(kind="Transpose", inputs=["x"], output="t", attributes={"perm": [1, 0]}),
        WrittenNode(kind="Add", inputs=["t", "b"], output="s"),
        WrittenNode(kind="Gather", inputs=["s", "i"], output="g", attributes={"axis": 0}),
        WrittenNode(kind="Gelu", inputs=["g"], output="y", domain="com.microsoft"),
    ]
    tensors: dict[str, NDArray[np.generic]] = {
        "b": np.ones((3, 2), dtype=np.float32),
        "i": np.array([2], dtype=np.int64),
    }
    model = model_of(nodes, inputs={"x": (2, 3)}, tensors=tensors)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})

    assert found.shape == (1, 2)
    assert found[0] == pytest.approx([3.0, 6.0], abs=0.01)  # what Gelu leaves of 3 and 6
    graph = parse_graph(model, {})
    assert [node.op for node in graph.nodes] == ["Transpose", "Add", "Gather", "Gelu"]


@given(st.integers(0, 2**63 - 1))
def test_numbers_take_seven_bits_a_byte(number: int) -> None:
    """The lowest come first, and all bytes but the last have their top bit set."""
    content = varint(number)

    assert sum((byte & 127) << 7 * place for place, byte in enumerate(content)) == number
    assert [byte >> 7 for byte in content] == [1] * (len(content) - 1) + [0]
    assert number_field(1, number) == b"\x08" + content
