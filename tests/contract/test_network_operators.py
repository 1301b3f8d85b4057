"""Every operator of the reference engine, held against ONNX Runtime's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.network_bundles import Attribute, Drawing, Op, info, model

from onhand.core.onnxgraph import parse_graph
from onhand.device.networks.operators.table import OPERATORS
from onhand.device.networks.reference import evaluate

ort = pytest.importorskip("onnxruntime")
Array = NDArray[np.generic]
FloatArray = NDArray[np.float32]
RNG = np.random.default_rng(7)


def noise(*shape: int) -> FloatArray:
    """Normal numbers."""
    return RNG.standard_normal(shape, dtype=np.float32)


def bytes_(*shape: int, dtype: str = "uint8") -> Array:
    """Codes of the whole range."""
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def wholes(*numbers: int, dtype: str = "int64") -> Array:
    """A vector."""
    return np.array(numbers, dtype=dtype)


def number(value: float, dtype: str = "float32") -> Array:
    """An array without axes."""
    return np.array(value, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An operator on some inputs."""

    op: str
    inputs: Sequence[Array | None]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 17
    domain: str = ""
    codes: int = 0  # by how many codes whole numbers may differ

    def title(self) -> str:
        """The operator and its attributes in a short text."""
        words = [f"{key}={value}" for key, value in self.attributes.items()]
        return "-".join([self.op, *words])[:60].replace(" ", "")


def case(op: str, *inputs: Array | None, **attributes: Attribute) -> Case:
    """A case without more to say."""
    return Case(op=op, inputs=inputs, attributes=attributes)


X = noise(2, 3, 4)
PICTURE = noise(2, 4, 9, 8)
STEPS = np.array([0.02, 0.05, 0.01, 0.3], dtype=np.float32)
FLOATS = "Abs Ceil Cos Erf Exp Floor HardSwish Identity Neg Reciprocal Relu Round Selu Sigmoid"
FLOATS += " Sign Sin Softplus Softsign Tanh Elu LeakyRelu HardSigmoid Mish"
SUMMED = ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
REDUCTIONS = [f"Reduce{what}" for what in SUMMED]
CASES = [
    *(Case(op=op, inputs=[X * 3], opset=18) for op in FLOATS.split()),
    case("Round", np.array([0.5, 1.5, 2.5, -0.5, -2.5], np.float32)),
    case("Log", np.abs(X) + 1),
    case("Sqrt", np.abs(X)),
    case("IsNaN", np.array([0, np.nan, np.inf], np.float32)),
    case("Elu", X, alpha=0.5),
    case("LeakyRelu", X, alpha=0.2),
    case("HardSigmoid", X, alpha=0.3, beta=0.4),
    Case(op="Gelu", inputs=[X], opset=20),
    Case(op="Gelu", inputs=[X], attributes={"approximate": "tanh"}, opset=20),
    *(case(op, X, noise(3, 1)) for op in ("Add", "Div", "Mul", "PRelu", "Sub")),
    *(case(op, X, noise(3, 1), noise(4)) for op in ("Max", "Mean", "Min", "Sum")),
    *(case(op, np.rint(X), np.rint(noise(3, 1)))
      for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    *(case(op, X > 0, noise(3, 1) > 0) for op in ("And", "Or", "Xor")),
    case("Not", X > 0),
    case("Where", X > 0, noise(4), X),
    case("Pow", np.abs(X), number(1.7)),
    case("Div", wholes(7, -7, 7, -7), wholes(2, 2, -2, -2)),
    case("Mod", wholes(7, -7, 7, -7), wholes(3, 3, -3, -3)),
    case("Mod", X, noise(4), fmod=1),
    case("Clip", X, number(-0.5), number(0.5)),
    case("Clip", X, None, number(0.5)),
    case("Clip", X, number(-0.5)),
    case("Cast", X * 10, to=7),
    case("Cast", wholes(0, 3, -1), to=9),
    case("Cast", wholes(0, 3, -1), to=1),
    Case(op="CastLike", inputs=[X, wholes(1)], opset=19),
    case("Dropout", X),
    # matrices
    case("Gemm", noise(3, 5), noise(5, 2), noise(2), alpha=0.5, beta=2.0),
    case("Gemm", noise(5, 3), noise(2, 5), transA=1, transB=1),
    case("MatMul", noise(2, 3, 4), noise(4, 5)),
    case("MatMul", noise(4), noise(2, 4, 3)),
    case("Einsum", noise(2, 3, 4), noise(2, 5, 4), equation="bij,bkj->bik"),
    case("Softmax", X * 30), case("Softmax", X, axis=1),
    case("LogSoftmax", X * 30, axis=1),
    *(case(op, X, axes=[1], keepdims=0) for op in REDUCTIONS),
    *(Case(op=op, inputs=[X, wholes(-1, 0)], opset=18) for op in REDUCTIONS),
    case("ReduceMean", X), case("ReduceMax", wholes(3, 5, 1), keepdims=0),
    case("ReduceSum", X, wholes(1, 2)), case("ReduceSum", X, keepdims=0),
    case("ReduceSum", X, noop_with_empty_axes=1),
    case("ArgMax", np.rint(X), axis=2, select_last_index=1),
    case("ArgMin", np.rint(X), axis=1, keepdims=0),
    Case(op="TopK", inputs=[X, wholes(2)], attributes={"axis": 2}, outputs=2),
    Case(op="TopK", inputs=[X, wholes(1)], attributes={"axis": 1, "largest": 0}, outputs=2),
    case("CumSum", X, number(1, "int64")),
    case("CumSum", X, number(2, "int64"), exclusive=1, reverse=1),
    case("BatchNormalization", X, noise(3), noise(3), noise(3), np.abs(noise(3)), epsilon=0.01),
    case("InstanceNormalization", PICTURE, noise(4), noise(4)),
    case("LayerNormalization", X, noise(4), noise(4)),
    case("LayerNormalization", X, noise(3, 4), axis=1, epsilon=0.1),
    Case(op="GroupNormalization", inputs=[PICTURE, noise(4), noise(4)],
         attributes={"num_groups": 2}, opset=21),
    Case(op="RMSNormalization", inputs=[X, noise(4)], opset=23),
    case("LpNormalization", X, axis=1, p=1), case("LpNormalization", X),
    # shapes
    case("Reshape", X, wholes(0, -1)), case("Flatten", X, axis=2), case("Flatten", X, axis=-1),
    case("Squeeze", noise(1, 3, 1), wholes(0)), case("Squeeze", noise(1, 3, 1)),
    case("Unsqueeze", X, wholes(0, -1)), case("Transpose", X, perm=[2, 0, 1]),
    case("Transpose", X), case("Concat", X, noise(2, 1, 4), axis=1),
    Case(op="Split", inputs=[X, wholes(1, 3)], attributes={"axis": 2}, outputs=2),
    Case(op="Split", inputs=[noise(2, 5)], attributes={"axis": 1, "num_outputs": 3}, outputs=3,
         opset=18),
    case("Slice", X, wholes(1, -3), wholes(9, -1), wholes(1, 2)),
    case("Slice", X, wholes(-1), wholes(-100), wholes(2), wholes(-2)),
    case("Gather", X, np.array([[0, -1], [1, 1]]), axis=1),
    case("GatherElements", X, np.array([[[0, -1, 2, 1]]]), axis=1),
    case("Shape", X), case("Shape", X, start=1, end=-1), case("Size", X),
    case("Expand", noise(3, 1), wholes(2, 1, 4)), case("Tile", X, wholes(1, 2, 3)),
    case("Pad", X, wholes(0, 1, 0, 0, 0, 2), number(3.5)),
    case("Pad", X, wholes(0, -1, 1, 0, 0, -2)),
    case("Pad", X, wholes(0, 1, 1, 0, 1, 2), mode="reflect"),
    case("Pad", X, wholes(0, 1, 1, 0, 1, 2), mode="edge"),
    Case(op="Pad", inputs=[X, wholes(1, 2), None, wholes(2)], opset=18),
    case("ConstantOfShape", wholes(2, 3), value=wholes(7)), case("ConstantOfShape", wholes(2)),
    case("Constant", value=wholes(1, 2)), case("Constant", value_float=2.5),
    case("Range", number(3), number(-2), number(-1.5)),
    case("DepthToSpace", PICTURE, blocksize=2),
    case("DepthToSpace", PICTURE, blocksize=2, mode="CRD"),
    case("SpaceToDepth", noise(1, 2, 4, 6), blocksize=2),
    case("Trilu", noise(4, 4), number(1, "int64")), case("Trilu", noise(4, 4), upper=0),
    # windows
    case("Conv", PICTURE, noise(6, 4, 3, 3), noise(6), pads=[1, 0, 2, 1], strides=[2, 1]),
    case("Conv", PICTURE, noise(6, 2, 3, 2), group=2, dilations=[2, 3]),
    case("Conv", PICTURE, noise(8, 1, 3, 3), noise(8), group=4),
    case("Conv", PICTURE, noise(4, 1, 3, 3), noise(4), group=4, auto_pad="SAME_UPPER",
         strides=[2, 2]),
    case("Conv", PICTURE, noise(5, 4, 2, 2), auto_pad="SAME_LOWER", strides=[1, 3]),
    case("Conv", PICTURE, noise(5, 4, 2, 2), auto_pad="VALID"),
    case("Conv", noise(2, 3, 11), noise(4, 3, 5), pads=[2, 2], strides=[2]),
    case("Conv", noise(1, 2, 4, 5, 6), noise(3, 2, 2, 3, 2)),
    case("ConvTranspose", PICTURE, noise(4, 3, 3, 2), noise(3), strides=[2, 3], pads=[1, 0, 0, 1],
         output_padding=[1, 0], dilations=[2, 1]),
    case("ConvTranspose", PICTURE, noise(4, 3, 2, 2), group=2, strides=[2, 2]),
    case("MaxPool", PICTURE, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    case("MaxPool", PICTURE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("MaxPool", PICTURE, kernel_shape=[2, 2], dilations=[3, 2]),
    case("MaxPool", bytes_(1, 2, 5, 5), kernel_shape=[2, 2]),
    case("AveragePool", PICTURE, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    case("AveragePool", PICTURE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1],
         count_include_pad=1),
    Case(op="AveragePool", inputs=[PICTURE], opset=19,
         attributes={"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    case("GlobalAveragePool", PICTURE), case("GlobalMaxPool", PICTURE),
    case("Resize", PICTURE, None, np.array([1, 1, 2, 1.5], np.float32)),
    case("Resize", PICTURE, None, np.array([1, 1, 0.6, 2], np.float32), mode="linear"),
    case("Resize", PICTURE, None, None, wholes(2, 4, 5, 13), mode="linear",
         coordinate_transformation_mode="align_corners"),
    case("Resize", PICTURE, None, None, wholes(2, 4, 18, 1), mode="linear",
         coordinate_transformation_mode="pytorch_half_pixel"),
    *(case("Resize", PICTURE, None, None, wholes(2, 4, 18, 5), nearest_mode=how,
           coordinate_transformation_mode="asymmetric")
      for how in ("floor", "ceil", "round_prefer_ceil", "round_prefer_floor")),
    # quantised
    case("QuantizeLinear", PICTURE * 9, number(0.05), number(120, "uint8")),
    case("QuantizeLinear", PICTURE, STEPS, wholes(0, -3, 127, -128, dtype="int8"), axis=1),
    case("QuantizeLinear", np.array([0.5, 1.5, 2.5, -0.5, 300], np.float32), number(1)),
    Case(op="QuantizeLinear", inputs=[noise(6, 5), np.abs(noise(2, 5)), bytes_(2, 5)],
         attributes={"axis": 0, "block_size": 3}, opset=21),
    case("DequantizeLinear", bytes_(2, 4, 3), STEPS, bytes_(4), axis=1),
    case("DequantizeLinear", wholes(70000, -3, dtype="int32"), number(0.01)),
    Case(op="DequantizeLinear", inputs=[bytes_(6, 5, dtype="int8"), np.abs(noise(2, 5))],
         attributes={"axis": 0, "block_size": 3}, opset=21),
    Case(op="DynamicQuantizeLinear", inputs=[X * 5 + 2], outputs=3),
    Case(op="DynamicQuantizeLinear", inputs=[np.abs(X)], outputs=3),
    case("MatMulInteger", bytes_(3, 8), bytes_(8, 4, dtype="int8"), number(100, "uint8")),
    case("MatMulInteger", bytes_(3, 8), bytes_(8, 4), number(9, "uint8"), bytes_(4)),
    case("ConvInteger", bytes_(1, 3, 6, 6), bytes_(2, 3, 3, 3), number(7, "uint8"), pads=[1] * 4),
    Case(op="QLinearMatMul", inputs=[bytes_(3, 8), number(0.1), number(9, "uint8"),
         bytes_(8, 4, dtype="int8"), number(0.02), number(0, "int8"), number(2),
         number(128, "uint8")], codes=1),
    Case(op="QLinearConv", inputs=[bytes_(1, 3, 6, 6), number(0.1), number(9, "uint8"),
         bytes_(4, 3, 3, 3, dtype="int8"), STEPS, np.zeros(4, np.int8), number(9),
         number(128, "uint8"), wholes(5, 6, 7, 8, dtype="int32")], codes=1),
    *(Case(op="MatMulNBits", domain="com.microsoft",
           inputs=[noise(3, 40), bytes_(6, 3, 16 * bits // 8), np.abs(noise(6, 3)),
                   bytes_(6, -(-3 * bits // 8)) if zeros else None],
           attributes={"K": 40, "N": 6, "bits": bits, "block_size": 16})
      for bits in (4, 8) for zeros in (False, True)),
]  # fmt: skip


@pytest.mark.parametrize("tried", CASES, ids=Case.title)
def test_an_operator_gives_what_onnx_runtime_gives(tried: Case) -> None:
    """Floats within the rounding of sums, whole numbers exactly, where nothing else is said."""
    names = ["" if array is None else f"x{i}" for i, array in enumerate(tried.inputs)]
    feeds = {n: a for n, a in zip(names, tried.inputs, strict=True) if a is not None}
    outputs = [f"y{i}" for i in range(tried.outputs)]
    drawing = Drawing(
        ops=[Op(kind=tried.op, inputs=names, outputs=outputs, attributes=tried.attributes,
                domain=tried.domain)],
        constants={},
        inputs=tuple(info(n, *a.shape, dtype=a.dtype.name) for n, a in feeds.items()),
        outputs=(),
        opset=tried.opset,
        domains={"com.microsoft": 1} if tried.domain else {},
    )  # fmt: skip
    expected = run_onnx(drawing, outputs, feeds)
    content = model(drawing)

    found = evaluate(parse_graph(content, {}), feeds, wanted=outputs)

    for name, right in zip(outputs, expected, strict=True):
        there = found[name]
        assert (there.dtype, there.shape) == (right.dtype, right.shape)
        tolerance = 3e-5 if right.dtype.kind == "f" else tried.codes
        np.testing.assert_allclose(
            there.astype(np.float64), right.astype(np.float64), rtol=tolerance, atol=tolerance
        )


def run_onnx(drawing: Drawing, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    """Run a graph whose outputs are not declared yet in ONNX Runtime."""
    import onnx

    proto = onnx.load_from_string(model(drawing))
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    inferred = onnx.shape_inference.infer_shapes(proto)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        inferred.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    made: list[Array] = session.run(list(outputs), dict(feeds))
    return made


def test_every_operator_is_tried() -> None:
    """A new one needs a case; what only some domain calls otherwise counts once."""
    tried = {given.op for given in CASES}

    assert sorted({name for _, name in OPERATORS} - tried - {"Swish"}) == []
