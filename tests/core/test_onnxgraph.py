"""ONNX graphs read as plain data, whatever their bytes are."""

import struct
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.network_bundles import (
    Drawing,
    Op,
    classifier,
    info,
    model,
    tensor,
    text,
    value_info,
    whole,
)

from onhand.core.errors import BundleCorrupt, InputError, OnhandError
from onhand.core.onnxgraph import OnnxNode, declared_arrays, parse_graph

Array = NDArray[np.generic]
TINY = Drawing(
    ops=[
        Op(
            kind="Conv",
            inputs=["x", "w", ""],
            outputs=["y"],
            attributes={
                "group": -3,
                "alpha": 0.5,
                "auto_pad": "VALID",
                "pads": [1, -(2**40), 0],
                "scales": [0.25, -1.5],
                "value": np.array([[1, 2]], dtype=np.int64),
            },
            domain="ai.onnx",
        )
    ],
    constants={"w": np.arange(6, dtype=np.float32).reshape(2, 3)},
    inputs=(info("x", None, 3), info("w", 2, 3)),
    outputs=(info("y", 2, dtype="uint8"),),
    opset=19,
    domains={"com.microsoft": 1},
)


def test_everything_is_read() -> None:
    """Nodes, attributes of every kind, constants, inputs that are none, outputs, versions."""
    graph = parse_graph(model(TINY), {})

    (node,) = graph.nodes
    assert (node.op, node.inputs, node.outputs, node.domain) == ("Conv", ("x", "w", ""), ("y",), "")
    assert node.whole("group", 1) == -3
    assert node.number("alpha", 1.0) == 0.5
    assert node.text("auto_pad", "") == "VALID"
    assert node.wholes("pads") == (1, -(2**40), 0)
    assert node.attributes["scales"] == (0.25, -1.5)
    np.testing.assert_array_equal(node.attributes["value"], np.array([[1, 2]]))
    np.testing.assert_array_equal(graph.constants["w"], TINY.constants["w"])
    assert [(d.name, d.dtype, d.shape) for d in graph.inputs] == [("x", "float32", (None, 3))]
    assert [(d.name, d.dtype, d.shape) for d in graph.outputs] == [("y", "uint8", (2,))]
    assert (graph.opset, graph.domains) == (19, {"com.microsoft": 1})
    assert not graph.constants["w"].flags.writeable


def test_defaults_stand_in_for_missing_attributes() -> None:
    """And an attribute of another kind is an error by name."""
    node = OnnxNode(op="Conv", inputs=(), outputs=("y",), attributes={"group": "two"})

    assert node.wholes("pads", (1,)) == (1,)
    assert node.text("auto_pad", "NOTSET") == "NOTSET"
    assert node.number("alpha", 2.0) == 2.0
    for read in (
        lambda: node.whole("group", 1),
        lambda: node.wholes("group"),
        lambda: node.number("group", 1.0),
    ):
        with pytest.raises(InputError, match="Conv 'y': group must be"):
            read()
    wrong = OnnxNode(op="Conv", inputs=(), outputs=("y",), attributes={"pads": (1.5,), "mode": 1})
    with pytest.raises(InputError, match="pads must be whole numbers"):
        wrong.wholes("pads")
    with pytest.raises(InputError, match="mode must be a text"):
        wrong.text("mode", "")


def typed(element: int, dims: list[int], number: int, content: bytes) -> bytes:
    """A tensor whose numbers stand in a field of their own."""
    sizes = b"".join(whole(1, size) for size in dims)
    return sizes + whole(2, element) + text(8, "c") + text(number, content)


def one(message: bytes, files: Mapping[str, Array] | None = None) -> Array:
    """The constant of a graph that has nothing else."""
    graph = text(5, message) + text(12, value_info(info("c", 1)))
    return parse_graph(text(7, graph), files or {}).constants["c"]


@pytest.mark.parametrize(
    ("element", "number", "content", "expected"),
    [
        (1, 4, struct.pack("<2f", 0.5, -2), np.array([0.5, -2], np.float32)),
        (11, 10, struct.pack("<2d", 0.5, -2), np.array([0.5, -2], np.float64)),
        (6, 5, bytes([7, *[255] * 9, 1]), np.array([7, -1], np.int32)),
        (7, 7, bytes([128, 1, 5]), np.array([128, 5], np.int64)),
        (2, 5, bytes([200, 1, 0]), np.array([200, 0], np.uint8)),
        (9, 5, bytes([1, 0]), np.array([True, False])),
        (10, 5, bytes([128, 120, 0]), np.array([1, 0], np.float16)),
        (13, 11, bytes([3, 4]), np.array([3, 4], np.uint64)),
    ],
)  # fmt: skip
def test_numbers_in_fields_of_their_own_are_read(
    element: int, number: int, content: bytes, expected: Array
) -> None:
    """Half floats stand there as the whole numbers of their bits."""
    found = one(typed(element, [2], number, content))

    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("element", "expected"),
    [(21, [1, 15, 8], ), (22, [1, -1, -8])],
)  # fmt: skip
def test_four_bits_become_bytes(element: int, expected: list[int]) -> None:
    """The lower half of a byte is the first of two; the graph says which ones they were."""
    message = typed(element, [3], 9, bytes([0xF1, 0x08]))
    graph = parse_graph(text(7, text(5, message)), {})

    assert graph.constants["c"].tolist() == expected
    assert graph.four_bits == {"c"}


def test_tensors_lie_in_files() -> None:
    """As views of them."""
    file = np.arange(40, dtype=np.uint8)
    message = tensor("c", np.zeros(3, np.float32), ("w", 8, 12))

    found = one(message, {"w": file})

    assert found.tobytes() == file[8:20].tobytes()
    assert np.shares_memory(found, file)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (tensor("c", np.zeros(3, np.float32), ("v", 8, 12)), "lies in 'v'"),
        (tensor("c", np.zeros(3, np.float32), ("w", 32, 12)), "8 bytes"),
        (tensor("c", np.zeros(3, np.float32), ("w", -1, 12)), "lies in 'w' at '-1'"),
        (typed(1, [3], 9, bytes(11)), "11 bytes"),
        (typed(1, [3], 4, bytes(8)), "2 numbers"),
        (typed(1, [3], 4, bytes(7)), "7 bytes for numbers of 4"),
        (typed(7, [1], 7, bytes([128])), "cut short"),
        (typed(7, [1], 7, bytes([255] * 11)), "too long"),
        (typed(22, [3], 9, bytes(3)), "3 bytes for 3 halves"),
        (typed(1, [2**40, 2**40], 9, b""), "has the shape"),
        (typed(1, [0] * 9, 9, b""), "has the shape"),
        (whole(1, 1) + whole(2, 1) + text(8, b"\xff"), "not UTF-8"),
        (whole(1, 1) + whole(2, 1) + whole(9, 4), "field 9 is a number"),
    ],
)
def test_attack_tensors_that_do_not_match_their_bytes(message: bytes, said: str) -> None:
    """Nothing is read beyond what is there."""
    with pytest.raises(BundleCorrupt, match=said):
        one(message, {"w": np.zeros(40, np.uint8)})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (text(7, text(15, b"")), "sparse"),
        (text(7, b"") + text(25, b""), "functions"),
        (text(7, text(5, typed(8, [1], 6, b"x"))), "elements of type 8"),
    ],
)
def test_what_is_not_read_is_refused_by_name(content: bytes, said: str) -> None:
    """Not skipped."""
    with pytest.raises(InputError, match=said):
        parse_graph(content, {})


@pytest.mark.parametrize("content", [b"", text(7, b"") * 2, b"\xff", b"not a graph"])
def test_attack_what_is_no_model(content: bytes) -> None:
    """Two graphs would be merged by some readers, and one be taken by others."""
    with pytest.raises(BundleCorrupt, match="not an ONNX"):
        declared_arrays(content)
    with pytest.raises(BundleCorrupt, match="not an ONNX"):
        parse_graph(content, {})


def test_graphs_inside_of_nodes_are_seen_and_not_read() -> None:
    """As are kinds of attributes that nobody knows."""
    inner = text(1, "body") + text(6, b"\xff\xff") + whole(20, 5)
    odd = text(1, "odd") + whole(20, 99)
    tensorless = text(1, "tensorless") + whole(20, 4)
    texts = text(1, "texts") + text(9, "a") + text(9, "b") + whole(20, 8)
    node = (
        text(2, "y")
        + text(4, "If")
        + b"".join(text(5, part) for part in (inner, odd, tensorless, texts))
    )

    (read,) = parse_graph(text(7, text(1, node)), {}).nodes

    assert read.attributes == {"body": None, "odd": None, "tensorless": None, "texts": ("a", "b")}


def test_arrays_may_be_declared_without_a_type() -> None:
    """Then nothing is known of them but their names."""
    graph = text(11, text(1, "x")) + text(12, text(1, "y") + text(2, text(1, whole(1, 16))))

    (x,), (y,) = declared_arrays(text(7, graph))

    assert (x.name, x.dtype, x.shape) == ("x", "", None)
    assert (y.name, y.dtype, y.shape) == ("y", "", None)


@given(place=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.booleans())
def test_attack_any_changed_byte_is_read_or_refused(place: int, value: int, *, cut: bool) -> None:
    """By an error of ours, never by another."""
    content = bytearray(model(TINY))
    place %= len(content)
    content[place] = value
    if cut:
        del content[place:]

    try:
        parse_graph(bytes(content), {"w": np.zeros(64, np.uint8)})
    except OnhandError:
        return


def test_a_real_graph_is_whole() -> None:
    """The classifier that the engines' tests use."""
    graph = parse_graph(model(classifier(np.random.default_rng(0))), {})

    assert [node.op for node in graph.nodes][:3] == ["Conv", "Clip", "Conv"]
    assert graph.constants["low"].shape == ()
