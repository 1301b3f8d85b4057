"""Matrices of a few bits and rounding: gradients against the matrices that the codes stand for."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper
from tests.host.learning.gradients import agree, compare, graph, kinds, normal

from onhand.core.errors import SourceError
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.host.learning.differentiate import differentiate


def stored(n_outputs: int, n_inputs: int, form: GroupFormat) -> QuantTensor:
    """Return a matrix of random codes; those beyond the last input stand for zero."""
    made = np.random.default_rng(0)
    groups = form.n_groups(n_inputs)
    zeros = None
    if not form.symmetric:
        zeros = made.integers(0, form.top + 1, (n_outputs, groups), dtype=np.uint8)
    codes = made.integers(0, form.top + 1, (n_outputs, groups, form.group_size), dtype=np.uint8)
    scales = made.uniform(0.01, 0.1, (n_outputs, groups)).astype(np.float16)
    return QuantTensor.pack(codes, scales, zeros, n_inputs=n_inputs, format=form)


def product(tensor: QuantTensor, *, biased: bool) -> tuple[NodeProto, dict[str, np.ndarray]]:
    """Return a MatMulNBits and its constants."""
    form = tensor.format
    constants: dict[str, np.ndarray] = {
        "codes": tensor.codes,
        "scales": tensor.scales.astype(np.float32),
    }
    if tensor.zeros is not None:
        constants["zeros"] = tensor.zeros
    inputs = ["x", "codes", "scales", "zeros" if "zeros" in constants else ""]
    node = helper.make_node(
        "MatMulNBits",
        [*inputs, "", "bias"] if biased else inputs[: 4 if inputs[3] else 3],
        ["y"],
        domain="com.microsoft",
        K=tensor.shape[1],
        N=tensor.shape[0],
        bits=form.bits,
        block_size=form.group_size,
        accuracy_level=0,
    )
    return node, constants


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("shape", "group_size"), [((8, 64), 32), ((5, 200), 64), ((3, 130), 128)])
def test_product_with_codes(
    bits: int, symmetric: bool, shape: tuple[int, int], group_size: int
) -> None:
    """The gradient reads the very codes, with zero points and a last group that is not full."""
    tensor = stored(*shape, GroupFormat(bits=bits, group_size=group_size, symmetric=symmetric))
    node, constants = product(tensor, biased=True)
    matrix = torch.from_numpy(tensor.dequantize())

    for batch in ([2, 3], ["B", "T"]):
        compare(
            [node],
            {"x": normal(2, 3, shape[1]), "bias": normal(shape[0])},
            lambda x, bias: x @ matrix.T + bias,
            constants=constants,
            stated={"x": [*batch, shape[1]], "bias": [shape[0]]},
        )


def outside(folder: Path) -> tuple[ModelProto, np.ndarray]:
    """Return two products in a row whose codes lie in a file, and their matrix."""
    tensor = stored(64, 64, GroupFormat(bits=4, group_size=32, symmetric=True))
    node, constants = product(tensor, biased=False)
    second = NodeProto()
    second.CopyFrom(node)
    second.input[0], second.output[0] = "y", "z"
    forward = graph(
        [node, second], {"x": ["B", "T", 64]}, {"scales": constants["scales"]}, outputs=["z"]
    )
    (folder / "weights").write_bytes(b"before" * 4 + tensor.codes.tobytes())
    codes = TensorProto(
        name="codes",
        data_type=TensorProto.UINT8,
        dims=tensor.codes.shape,
        data_location=TensorProto.EXTERNAL,
    )
    place = {"location": "weights", "offset": "24", "length": str(tensor.codes.nbytes)}
    for key, value in place.items():
        codes.external_data.add(key=key, value=value)
    forward.graph.initializer.append(codes)
    return forward, tensor.dequantize()


def test_codes_in_a_file_are_read_where_they_lie(tmp_path: Path) -> None:
    """Forward and backward pass read the same place of the same file."""
    forward, matrix = outside(tmp_path)
    model = differentiate(forward, loss="z", wrt=["x"], starts={"z": "x"})
    path = tmp_path / "learn.onnx"
    path.write_bytes(model.SerializeToString())
    x = normal(1, 2, 64)

    found = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["grad.x"], {"x": x})

    agree(found[0], x @ matrix @ matrix)
    places = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.external_data
    ]
    assert [place["offset"] for place in places] == ["24"]


def test_a_large_matrix_is_read_in_pieces() -> None:
    """A head becomes floats some rows at a time; the products are summed."""
    tensor = stored(70000, 64, GroupFormat(bits=4, group_size=32, symmetric=False))
    node, constants = product(tensor, biased=False)
    matrix = torch.from_numpy(tensor.dequantize())

    model = compare(
        [node],
        {"x": normal(2, 64)},
        lambda x: x @ matrix.T,
        constants=constants,
        stated={"x": ["R", 64]},
    )

    assert kinds(model).count("DequantizeLinear") == 4


@pytest.mark.parametrize("batch", [[2, 3], ["B", "T"]])
def test_no_matrix_is_expanded_at_load(batch: list[int | str], tmp_path: Path) -> None:
    """Codes become floats when the gradient that needs them is there."""
    tensor = stored(8, 64, GroupFormat(bits=4, group_size=32, symmetric=True))
    node, constants = product(tensor, biased=False)
    forward = graph([node], {"x": [*batch, 64], "up": [*batch, 8]}, constants)
    model = differentiate(forward, loss="y", wrt=["x"], starts={"y": "up"})
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3

    ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])

    optimised = onnx.load(tmp_path / "optimised.onnx")
    assert "DequantizeLinear" in kinds(optimised)
    assert max(np.prod(tensor.dims) for tensor in optimised.graph.initializer) <= 8 * 64 / 2


def test_learned_scales_are_refused() -> None:
    """Only what goes in and the bias can be learned."""
    node, constants = product(stored(8, 64, GroupFormat()), biased=False)
    scales = constants.pop("scales")
    forward = graph([node], {"x": [1, 64], "scales": scales.shape}, constants)

    with pytest.raises(SourceError, match=r"MatMulNBits\): only its input and its bias"):
        differentiate(forward, loss="y", wrt=["scales"], starts={"y": "x"})


def rounding(axis: int | None, zero: np.ndarray, scale: np.ndarray) -> tuple[list[NodeProto], Any]:
    """Return a pair of QuantizeLinear and DequantizeLinear with a move between, and constants."""
    options: dict[str, Any] = {} if axis is None else {"axis": axis}
    inputs = ["scale", "zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *inputs], ["q"], **options),
        helper.make_node("DequantizeLinear", ["q", *inputs], ["y"], **options),
    ]
    return nodes, {"scale": scale, "zero": zero}


@pytest.mark.parametrize("zero", [np.int8(3), np.uint8(120)])
def test_rounding_lets_gradients_through_but_where_it_clips(zero: np.generic) -> None:
    """As PyTorch's fake quantisation."""
    nodes, constants = rounding(None, np.array(zero), np.array(0.02, dtype=np.float32))
    low, high = (-128, 127) if zero.dtype == np.int8 else (0, 255)

    model = compare(
        nodes,
        {"x": 2 * normal(50)},
        lambda x: torch.fake_quantize_per_tensor_affine(x, 0.02, int(zero), low, high),
        constants=constants,
    )

    assert "Where" in kinds(model)


def test_rounding_with_a_scale_for_each_channel() -> None:
    """Scales lie along their axis, and codes may be moved before they are numbers again."""
    scale = np.array([0.01, 0.03, 0.02], dtype=np.float32)
    nodes, constants = rounding(1, np.zeros(3, dtype=np.int8), scale)
    nodes.insert(1, helper.make_node("Transpose", ["q"], ["t"], perm=[0, 1, 3, 2]))
    nodes[2].input[0] = "t"

    def expected(x: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(3, dtype=torch.int32)
        rounded = torch.fake_quantize_per_channel_affine(
            x, torch.from_numpy(scale), zeros, 1, -128, 127
        )
        return rounded.mT

    compare(nodes, {"x": 2 * normal(2, 3, 4, 5)}, expected, constants=constants)


def test_codes_that_are_computed_with_are_refused() -> None:
    """An operator on integers has no rule, rather than a gradient that lacks a part."""
    nodes, constants = rounding(None, np.array(np.uint8(0)), np.array(0.1, dtype=np.float32))
    nodes.insert(1, helper.make_node("MatMulInteger", ["q", "w"], ["p"], name="whole"))
    nodes[2:] = [
        helper.make_node("Cast", ["p"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f"], ["s"], keepdims=0),
        helper.make_node("ReduceSum", ["x"], ["r"], keepdims=0),
        helper.make_node("Add", ["s", "r"], ["y"]),
    ]
    forward = graph(nodes, {"x": [2, 3]}, constants | {"w": np.ones((3, 2), np.uint8)})

    with pytest.raises(SourceError, match=r"'whole' \(MatMulInteger\): this operator has no rule"):
        differentiate(forward, loss="y", wrt=["x"])


def test_a_frozen_matrix_of_bytes_is_a_matrix() -> None:
    """What DequantizeLinear makes of stored codes is multiplied like any other matrix."""
    codes = np.random.default_rng(0).integers(-128, 128, (4, 5)).astype(np.int8)
    scale = np.array(0.01, dtype=np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    matrix = torch.from_numpy(codes.astype(np.float32) * scale)

    compare(
        nodes,
        {"x": normal(3, 4)},
        lambda x: x @ matrix,
        constants={"codes": codes, "scale": scale},
    )
