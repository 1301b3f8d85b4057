"""Products of low rank put into a graph: what stays, what is added, and bytes that lie."""

from pathlib import Path

import numpy as np
import pytest

from onhand.core.errors import BundleCorrupt
from onhand.core.onnxedit import LowRank, add_low_rank
from onhand.core.onnxfile import walk_fields

onnx = pytest.importorskip("onnx", reason="makes graphs: needs onhand[host]")
TINY = Path(__file__).parents[1] / "data" / "tiny-bundle" / "model.onnx"


def added(rank: int = 2, n: int = 3, k: int = 5) -> LowRank:
    """A x by rows of 5, B of 3 rows."""
    random = np.random.default_rng(1)
    return LowRank(
        weights=("w", "w.codes"),
        first=random.standard_normal((rank, k), dtype=np.float32),
        second=random.standard_normal((n, rank), dtype=np.float32),
    )


def product() -> bytes:
    """Two nodes: y = x w, and what reads y."""
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"], name="first"),
            helper.make_node("Relu", ["y"], ["z"], name="second"),
        ],
        "graph",
        [helper.make_tensor_value_info("x", 1, ["T", 5])],
        [helper.make_tensor_value_info("z", 1, ["T", 3])],
        [helper.make_tensor("w", 1, (5, 3), np.arange(15, dtype=np.float32))],
    )
    opset = helper.make_opsetid("", 21)
    model = helper.make_model(graph, ir_version=10, opset_imports=[opset])
    content: bytes = model.SerializeToString()
    return content


def test_by_hand() -> None:
    """Y = x w becomes y = x w + (x A^T) B^T, and its reader sees the sum."""
    import onnxruntime

    low = added()
    content = add_low_rank(product(), {"y": low})

    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    x = np.random.default_rng(2).standard_normal((4, 5), dtype=np.float32)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    weight = np.arange(15, dtype=np.float32).reshape(5, 3)
    expected = np.maximum(x @ weight + x @ low.first.T @ low.second.T, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)  # float32 rounding


def test_the_rest_is_copied_as_it_stands() -> None:
    """Nothing to add: the same bytes, of a real graph and of fields of every width."""
    odd = b"\x99\x06" + bytes(8) + b"\x9d\x06" + bytes(4) + b"\x08\x0a"

    assert add_low_rank(TINY.read_bytes(), {}) == TINY.read_bytes()
    assert add_low_rank(odd, {}) == odd


def test_only_what_is_asked_for_changes() -> None:
    """All other nodes, tensors and inputs of a real graph stay, in their order."""
    plain = onnx.load_from_string(TINY.read_bytes())
    name = "layers.1.gate_up"
    low = LowRank(
        weights=(name, f"{name}.codes"),
        first=np.ones((2, 32), np.float32),
        second=np.ones((128, 2), np.float32),
    )

    edited = onnx.load_from_string(add_low_rank(TINY.read_bytes(), {f"{name}.result": low}))

    graph = edited.graph
    kept = [node for node in graph.node if ".adapter." not in node.name]
    assert [node.name for node in kept] == [node.name for node in plain.graph.node]
    changed = [a for a, b in zip(kept, plain.graph.node, strict=True) if a != b]
    assert [list(node.output) for node in changed] == [[f"{name}.result.plain"]]
    stored = [tensor for tensor in graph.initializer if ".adapter." not in tensor.name]
    assert stored == list(plain.graph.initializer)
    assert len(graph.initializer) == len(stored) + 2
    assert (graph.input, graph.output) == (plain.graph.input, plain.graph.output)


@pytest.mark.parametrize(
    ("name", "weights"),
    [("other", ("w",)), ("y", ("other",)), ("x", ("w",)), ("w", ("w",)), ("z", ("w",))],
)
def test_a_product_that_is_not_there(name: str, weights: tuple[str, ...]) -> None:
    """Another tensor, another weight, an input, an initializer: the message names it."""
    low = LowRank(weights=weights, first=added().first, second=added().second)
    if name == "z":  # made by a node, though not by one that reads the weight: it is added to
        assert add_low_rank(product(), {name: low}) != product()
        return

    with pytest.raises(BundleCorrupt, match=f"no product '{name}'"):
        add_low_rank(product(), {name: low})


@pytest.mark.parametrize("end", range(1, 40, 3))
def test_attack_a_graph_cut_short(end: int) -> None:
    """Refused as by the check before it."""
    with pytest.raises(BundleCorrupt):
        add_low_rank(product()[:-end], {"y": added()})


def test_attack_numbers_where_bytes_belong() -> None:
    """A graph, a node or a name that is a number holds nothing to add to."""
    number_for_node = b"\x3a\x02\x08\x01"
    number_for_output = b"\x3a\x04\x0a\x02\x10\x01"

    for content in (b"\x38\x01", number_for_node, number_for_output):
        assert add_low_rank(content, {}) == content
    for content in (number_for_node, number_for_output):
        with pytest.raises(BundleCorrupt, match="no product 'y'"):
            add_low_rank(content, {"y": added()})


def test_fields_of_every_width() -> None:
    """A number, eight bytes, a byte string, four bytes; each with its own bytes."""
    content = b"\x08\x96\x01" + b"\x11" + bytes(8) + b"\x1a\x02ab" + b"\x25" + bytes(4)

    fields = list(walk_fields(memoryview(content)))

    assert [field.number for field in fields] == [1, 2, 3, 4]
    assert [field.value for field in fields] == [150, None, b"ab", None]
    assert b"".join(field.raw for field in fields) == content
