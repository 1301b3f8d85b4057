"""What the reference engine refuses, and how it says so."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.network_bundles import Attribute, Drawing, Op, info, model, pack

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, EngineUnavailable
from onhand.core.network import ArrayInfo
from onhand.core.onnxgraph import parse_graph
from onhand.device.networks.operators.products import ProductCounter
from onhand.device.networks.reference import ReferenceNetworkEngine, evaluate
from onhand.device.probe import current_profile

Array = NDArray[np.generic]
ENGINE = ReferenceNetworkEngine()


def drawn(
    op: str,
    constants: Mapping[str, Array],
    *,
    x: ArrayInfo | None = None,
    y: ArrayInfo | None = None,
    opset: int = 17,
    domain: str = "",
    **attributes: Attribute,
) -> Drawing:
    """A graph of one operator on x and some constants."""
    return Drawing(
        ops=[Op(kind=op, inputs=["x", *constants], outputs=["y"], attributes=attributes,
                domain=domain)],
        constants=constants,
        inputs=(x or info("x", 1, 4),),
        outputs=(y or info("y", None, None),),
        opset=opset,
    )  # fmt: skip


def refused(bundle: Bundle) -> str:
    """Why it cannot open a bundle, which it says before and then."""
    reason = ENGINE.why_not(bundle, current_profile())
    assert reason is not None
    with pytest.raises(EngineUnavailable, match="tiny") as raised:
        ENGINE.open(bundle, threads=1)
    assert reason in str(raised.value)
    return reason


ONE = {"w": np.ones((4, 4), np.float32)}


@pytest.mark.parametrize(
    ("drawing", "said"),
    [
        (drawn("NonMaxSuppression", ONE), "has no operator NonMaxSuppression"),
        (drawn("Attention", ONE, domain="com.microsoft"), "no operator Attention of com.microsoft"),
        (drawn("MatMul", ONE, opset=12), "has opset 12, must be 13 to"),
        (drawn("MatMul", ONE, opset=99), "has opset 99, must be 13 to"),
        (drawn("Add", {"w": np.ones((3, 5), np.float32)}), "Add 'y': .*shape"),
        (drawn("Gather", {"w": np.array([9])}, axis=1), "Gather 'y': .*out of bounds"),
        (drawn("Cast", {}, to=16), "Cast 'y': to type 16"),
        (drawn("Expand", {"w": np.array([2**40, 4])}), "cannot make the shape"),
        (drawn("Pad", {"w": np.array([0, 0, 0, 2**40])}), "cannot make the shape"),
        (drawn("Tile", {"w": np.array([2**40, 4])}), "cannot make the shape"),
        (drawn("Pad", {"w": np.zeros(4, np.int64)}, mode="mirror"), "mode 'mirror'"),
        (drawn("BatchNormalization", {n: np.ones(4, np.float32) for n in "abcd"},
               training_mode=1), "training is not known"),
        (drawn("LeakyRelu", {}, alpha="much"), "alpha must be a number"),
        (drawn("Resize", {"r": np.ones(0, np.float32)}), "neither sizes nor scales"),
        (drawn("Resize", {"r": np.ones(0, np.float32), "s": np.full(2, 2.0, np.float32)},
               mode="cubic"), "mode 'cubic'"),
        (drawn("Resize", {"r": np.ones(0, np.float32), "s": np.full(2, 2.0, np.float32)},
               coordinate_transformation_mode="tf_crop_and_resize"), "coordinates"),
        (drawn("Resize", {"r": np.ones(0, np.float32), "s": np.full(2, 1e9, np.float32)}),
         "Resize 'y': to "),
        (drawn("QuantizeLinear", {"s": np.array(1, np.float32), "z": np.array(0, np.float32)}),
         "codes of float32"),
        (drawn("MatMulNBits", {"w": np.zeros((2, 1, 6), np.uint8), "s": np.ones(2, np.float32)},
               domain="com.microsoft", bits=3, K=4, N=2, block_size=16), "3 bits"),
        (drawn("MaxPool", {}, x=info("x", 1, 1, 2, 2), kernel_shape=[3, 3]), "no window fits"),
        (drawn("MaxPool", {}, x=info("x", 1, 1, 2, 2), kernel_shape=[1, 1], auto_pad="SAME"),
         "auto_pad 'SAME'"),
        (drawn("Conv", {"w": np.ones((2, 3, 1, 1), np.float32)}, x=info("x", 1, 4, 2, 2)),
         "4 channels and weights"),
    ],
)  # fmt: skip
def test_what_it_cannot_run_it_says(drawing: Drawing, said: str, tmp_path: Path) -> None:
    """By the operator and what is wrong with it, never with an error of numpy's own."""
    constants = dict(drawing.constants) or {"unread": np.zeros(1, np.float32)}
    whole = Drawing(
        ops=drawing.ops, constants=constants, inputs=drawing.inputs,
        outputs=(info("y", *[None] * len(drawing.inputs[0].shape)),), opset=drawing.opset,
    )  # fmt: skip

    reason = refused(pack(tmp_path / "tiny", {"v": whole}))

    assert re.search(said, reason)


def test_a_large_network_is_refused_before_it_is_computed(tmp_path: Path) -> None:
    """Its multiplications are counted; a small one of the same kind runs."""
    weights = {"w": np.ones((64, 64, 3, 3), np.float32)}
    large = drawn("Conv", weights, x=info("x", 1, 64, 400, 400), y=info("y", 1, 64, 398, 398))
    small = drawn("Conv", weights, x=info("x", 1, 64, 4, 4), y=info("y", 1, 64, 2, 2))

    reason = refused(pack(tmp_path / "tiny", {"v": large}))

    assert reason == "over 2e+09 multiplications: too large for numpy"
    loaded = ENGINE.open(pack(tmp_path / "tiny-2", {"v": small}), threads=1)
    ones = np.ones((1, 64, 4, 4), np.float32)
    np.testing.assert_array_equal(loaded.run({"x": ones})["y"], np.full((1, 64, 2, 2), 576))


B8 = np.zeros((6, 5), np.int8)
F = np.zeros((), np.float32)
Z = np.zeros((), np.uint8)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "products"),
    [
        ("Conv", [np.zeros((2, 4, 5, 5), np.float32), np.zeros((6, 2, 3, 3), np.float32)],
         {"group": 2}, 2 * 6 * 3 * 3 * 2 * 9),
        ("ConvInteger", [np.zeros((1, 4, 5, 5), np.uint8), np.zeros((6, 4, 1, 1), np.uint8)], {},
         6 * 25 * 4),
        ("QLinearConv", [np.zeros((1, 4, 5, 5), np.uint8), F, Z,
         np.zeros((6, 4, 1, 1), np.uint8), F, Z, F + 1, Z], {}, 6 * 25 * 4),
        ("MatMul", [np.zeros((2, 3, 4), np.float32), np.zeros((4, 5), np.float32)], {}, 120),
        ("MatMul", [np.zeros((3, 4), np.float32), np.zeros(4, np.float32)], {}, 12),
        ("MatMulInteger", [np.zeros((3, 6), np.uint8), B8], {}, 90),
        ("Gemm", [np.zeros((4, 3), np.float32), np.zeros((5, 4), np.float32)],
         {"transA": 1, "transB": 1}, 60),
        ("ConvTranspose", [np.zeros((1, 2, 4), np.float32), np.zeros((2, 3, 5), np.float32)], {},
         8 * 15),
        ("Einsum", [np.zeros((2, 3), np.float32), np.zeros((3, 4), np.float32)],
         {"equation": "ij, jk -> ik"}, 24),
    ],
)  # fmt: skip
def test_multiplications_are_counted(
    op: str, inputs: Sequence[Array], attributes: Mapping[str, Attribute], products: int
) -> None:
    """As many as the definition has, of results as they would be."""
    names = [f"x{i}" for i in range(len(inputs))]
    drawing = Drawing(
        ops=[Op(kind=op, inputs=names, outputs=["y"], attributes=attributes)],
        constants={},
        inputs=(),
        outputs=(info("y"),),
    )
    graph = parse_graph(model(drawing), {})
    counter, limited = ProductCounter(products), ProductCounter(products - 1)
    feeds = dict(zip(names, inputs, strict=True))

    counted = evaluate(graph, feeds, operators=counter.operators)["y"]

    assert counter.total == products
    if op != "QLinearConv":  # by a scale of nothing
        right = evaluate(graph, feeds)["y"]
        assert (counted.dtype, counted.shape) == (right.dtype, right.shape)
    with pytest.raises(EngineError, match="too large for numpy"):
        evaluate(graph, feeds, operators=limited.operators)


def test_an_output_of_another_dtype_is_an_error(tmp_path: Path) -> None:
    """What a graph declares and what it gives may differ."""
    drawing = drawn("Cast", {"unread": np.zeros(1, np.float32)}, y=info("y", 1, 4), to=7)
    loose = Drawing(
        ops=[Op(kind="Cast", inputs=["x"], outputs=["y"], attributes={"to": 7})],
        constants=drawing.constants, inputs=drawing.inputs, outputs=drawing.outputs,
    )  # fmt: skip
    loaded = ENGINE.open(pack(tmp_path / "tiny", {"v": loose}), threads=1)

    with pytest.raises(EngineError, match="output 'y' is int64, must be float32"):
        loaded.run({"x": np.zeros((1, 4), np.float32)})


def test_an_output_that_nothing_gives_is_an_error() -> None:
    """By its name, as is an input of a node that nobody made."""
    graph = parse_graph(model(drawn("Relu", {})), {})

    with pytest.raises(EngineError, match="nothing gives the output 'z'"):
        evaluate(graph, {"x": np.zeros(1, np.float32)}, wanted=["z"])
    with pytest.raises(EngineError, match="Relu 'y': there is no 'x'"):
        evaluate(graph, {})


def test_infinities_are_results(recwarn: pytest.WarningsRecorder) -> None:
    """As in other engines; numpy warns of nothing."""
    graph = parse_graph(model(drawn("Log", {})), {})

    found = evaluate(graph, {"x": np.array([[0, 1, -1, np.inf]], np.float32)})["y"]

    np.testing.assert_array_equal(found, np.array([[-np.inf, 0, np.nan, np.inf]], np.float32))
    assert not recwarn.list


def test_operators_do_not_change_what_they_are_given(rng: np.random.Generator) -> None:
    """A feed is the caller's."""
    graph = parse_graph(model(drawn("Clip", {"w": np.array(0, np.float32)})), {})
    x = rng.standard_normal((1, 4), dtype=np.float32)
    kept = x.copy()

    evaluate(graph, {"x": x})

    np.testing.assert_array_equal(x, kept)


def test_swish_is_what_its_definition_says() -> None:
    """By its formula: x / (1 + e^-ax)."""
    graph = parse_graph(model(drawn("Swish", {}, opset=24, alpha=0.5)), {})
    x = np.array([[-100.0, -1.0, 0.0, 2.0]], np.float32)

    found = evaluate(graph, {"x": x})["y"].astype(np.float64)

    np.testing.assert_allclose(found, x / (1 + np.exp(-0.5 * x.astype(np.float64))), atol=1e-6)


def test_codes_of_four_bits_are_not_made(tmp_path: Path) -> None:
    """Constants of 4 bits are read as bytes: what limits their codes have is lost then."""
    drawing = drawn(
        "QuantizeLinear",
        {"s": np.ones(1, np.float32), "z": np.zeros(1, np.uint8)},
        y=info("y", 1, 4, dtype="uint8"),
        opset=21,
    )
    bundle = pack(tmp_path / "tiny", {"v": drawing})
    graph = bundle.path("model.onnx")
    # The zero point's type, uint8, becomes uint4, of which one takes a byte as well.
    graph.write_bytes(graph.read_bytes().replace(b"\x10\x02\x42\x01z", b"\x10\x15\x42\x01z"))

    assert refused(bundle) == "has no QuantizeLinear to 4 bits"
