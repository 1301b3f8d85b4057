"""Operators with small inputs: what they compute in torch is compared with ONNX Runtime."""

from dataclasses import dataclass, field, replace

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.host.networks.graph import Array, Attribute, Graph, Node, Value
from onhand.host.networks.onnx_files import infer_shapes

__all__ = ["CASES", "Case", "graph_of", "title"]

RNG = np.random.default_rng(5)


def real(*shape: int) -> FloatArray:
    """Random numbers of the normal distribution."""
    return RNG.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> FloatArray:
    """Random numbers from 0.2 to 2."""
    return RNG.uniform(0.2, 2.0, size=shape).astype(np.float32)


def whole(*numbers: int) -> Array:
    """A list of whole numbers, as shapes and axes are."""
    return np.array(numbers, dtype=np.int64)


def f32(*numbers: float) -> Array:
    """A list of numbers."""
    return np.array(numbers, dtype=np.float32)


def scalar(number: float) -> Array:
    """A single number."""
    return np.array(number, dtype=np.float32)


@dataclass(frozen=True)
class Case:
    """One operator: its fed inputs, the constants behind them (None: left out), attributes."""

    op: str
    fed: tuple[Array, ...]
    constants: tuple[Array | None, ...] = ()
    attributes: dict[str, Attribute] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 17


def title(case: Case) -> str:
    """Name the test of a case."""
    shown = ",".join(f"{k}={v}" for k, v in case.attributes.items() if not hasattr(v, "dtype"))
    return f"{case.op}({shown})"


def graph_of(case: Case) -> Graph:
    """Return a graph of the one operator: inputs x0, x1 ...; constants c0 ...; outputs y0 ..."""
    inputs = tuple(
        Value(name=f"x{i}", dtype=array.dtype, shape=array.shape)
        for i, array in enumerate(case.fed)
    )
    constants = {f"c{i}": array for i, array in enumerate(case.constants) if array is not None}
    names = [f"c{i}" if f"c{i}" in constants else "" for i in range(len(case.constants))]
    node = Node(
        op=case.op,
        inputs=(*(value.name for value in inputs), *names),
        outputs=tuple(f"y{i}" for i in range(case.outputs)),
        attributes=case.attributes,
    )
    graph = Graph(nodes=(node,), constants=constants, inputs=inputs, outputs=(), opset=case.opset)
    known = infer_shapes(graph)
    first = Value(name="", dtype=case.fed[0].dtype, shape=case.fed[0].shape)
    # Of a few operators nothing is told: those give what they are fed.
    outputs = tuple(known.get(name, replace(first, name=name)) for name in node.outputs)
    return replace(graph, outputs=outputs)


PICTURE = real(2, 4, 7, 6)
VECTOR = real(3, 5)
_UNARY = "Abs Ceil Cos Elu Erf Exp Floor HardSigmoid HardSwish IsNaN LeakyRelu Neg Reciprocal Relu"
_UNARY += " Round Selu Shape Sigmoid Sign Sin Size Softmax Softplus Softsign Tanh LogSoftmax Celu"
_BINARY = "Add Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mul Sub Sum Mean"
_REDUCE = "L1 L2 LogSumExp Max Mean Min Prod SumSquare"
TRUTH = (RNG.random((3, 5)) > 0.5, RNG.random((1, 5)) > 0.5)
CODES = RNG.integers(-128, 128, size=(3, 4, 2)).astype(np.int8)
GRID = real(1, 2, 4, 5)

_ARITHMETIC = [
    *(Case(op, (VECTOR,)) for op in _UNARY.split()),
    *(Case(op, (VECTOR, real(1, 5))) for op in _BINARY.split()),
    *(Case(op, TRUTH) for op in ("And", "Or", "Xor", "Equal")),
    Case("Log", (positive(4),)),
    Case("Sqrt", (positive(4),)),
    Case("Not", (TRUTH[0],)),
    Case("Where", (TRUTH[0], VECTOR, real(1, 5))),
    Case("Div", (whole(7, -7, 9), whole(2, 2, -4))),
    Case("Mod", (whole(7, -7, 9), whole(2, 3, -4))),
    Case("Mod", (real(4), positive(4)), attributes={"fmod": 1}),
    Case("Pow", (positive(3, 4),), (scalar(2.5),)),
    Case("Pow", (positive(3, 4), real(3, 4))),
    Case("Pow", (whole(2, 3),), (whole(3),)),
    Case("Clip", (VECTOR,), (scalar(-0.5), scalar(0.7))),
    Case("Clip", (VECTOR,), (None, scalar(0.1))),
    Case("PRelu", (PICTURE,), (real(4, 1, 1),)),
    Case("LeakyRelu", (VECTOR,), attributes={"alpha": 0.3}),
    Case("HardSigmoid", (VECTOR,), attributes={"alpha": 0.3, "beta": 0.4}),
    Case("Gelu", (VECTOR,), opset=20),
    Case("Gelu", (VECTOR,), attributes={"approximate": "tanh"}, opset=20),
    Case("Mish", (VECTOR,), opset=18),
    Case("CumSum", (VECTOR,), (np.array(1),)),
    Case("CumSum", (VECTOR,), (np.array(0),), {"reverse": 1}),
    Case("Softmax", (VECTOR,), attributes={"axis": 0}),
    Case("ArgMax", (VECTOR,), attributes={"axis": 1, "keepdims": 0}),
    Case("Einsum", (VECTOR, real(5, 2)), attributes={"equation": "ab,bc->ca"}),
]
_REDUCTIONS = [
    *(Case(f"Reduce{op}", (PICTURE,), attributes={"axes": (1, -1)}) for op in _REDUCE.split()),
    *(Case(f"Reduce{op}", (VECTOR,), attributes={"keepdims": 0}) for op in _REDUCE.split()),
    Case("ReduceSum", (PICTURE,), (whole(1, 3),), {"keepdims": 0}),
    Case("ReduceSum", (PICTURE,), attributes={"noop_with_empty_axes": 1}),
    Case("ReduceLogSum", (positive(3, 4),), attributes={"axes": (1,)}),
    Case("ReduceMean", (PICTURE,), (whole(2, 3),), opset=18),
]
_NORMS = [
    Case("BatchNormalization", (PICTURE,), (real(4), real(4), real(4), positive(4))),
    Case("LayerNormalization", (VECTOR,), (real(5), real(5)), {"epsilon": 1e-3}),
    Case("LayerNormalization", (PICTURE,), (real(7, 6),), {"axis": 2}),
    Case("InstanceNormalization", (PICTURE,), (real(4), real(4))),
    Case("GroupNormalization", (PICTURE,), (real(4), real(4)), {"num_groups": 2}, opset=21),
    Case("GroupNormalization", (PICTURE,), (real(2), real(2)), {"num_groups": 2}, opset=18),
    Case("LRN", (PICTURE,), attributes={"size": 3, "alpha": 0.1}),
    Case("Gemm", (VECTOR,), (real(4, 5), real(4)), {"transB": 1}),
    Case("Gemm", (VECTOR,), (real(3, 2), real(5, 1)), {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    Case("MatMul", (real(2, 3, 5),), (real(5, 4),)),
    Case("MatMul", (real(2, 1, 3, 5), real(4, 5, 2))),
    Case("Dropout", (VECTOR,)),
]
_KERNEL, _BIAS = real(6, 2, 3, 3), real(6)
_CONVOLUTIONS = [
    Case("Conv", (PICTURE,), (_KERNEL, _BIAS), {"group": 2, "pads": (1, 1, 1, 1)}),
    Case("Conv", (PICTURE,), (_KERNEL,), {"group": 2, "pads": (0, 1, 2, 0), "strides": (2, 1)}),
    Case("Conv", (PICTURE,), (_KERNEL,), {"group": 2, "dilations": (2, 2)}),
    *(
        Case("Conv", (PICTURE,), (_KERNEL,), {"group": 2, "auto_pad": kind, "strides": (2, 2)})
        for kind in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case("Conv", (real(2, 3, 9),), (real(4, 3, 4), real(4)), {"pads": (1, 2)}),
    Case("Conv", (PICTURE,), (real(4, 1, 3, 3),), {"group": 4, "pads": (1, 1, 1, 1)}),
    Case("ConvTranspose", (PICTURE,), (real(4, 3, 3, 3), real(3)), {"strides": (2, 2)}),
    Case(
        "ConvTranspose",
        (PICTURE,),
        (real(4, 2, 3, 3),),
        {"strides": (2, 2), "pads": (1, 0, 2, 1), "output_padding": (1, 1), "group": 2},
    ),
    Case(
        "ConvTranspose",
        (PICTURE,),
        (real(4, 2, 3, 3),),
        {"strides": (2, 2), "output_shape": (15, 12)},
    ),
    Case("ConvTranspose", (real(2, 4, 5),), (real(4, 2, 3),), {"auto_pad": "SAME_UPPER"}),
]
_SQUARE: dict[str, Attribute] = {"kernel_shape": (3, 3), "strides": (2, 2)}
_BORDERS: list[dict[str, Attribute]] = [
    {},
    {"pads": (1, 1, 1, 1)},
    {"pads": (0, 1, 1, 0), "ceil_mode": 1},
    {"ceil_mode": 1},
    {"auto_pad": "SAME_UPPER"},
]
_POOLS = [
    Case("GlobalAveragePool", (PICTURE,)),
    Case("GlobalMaxPool", (PICTURE,)),
    *(
        Case(op, (PICTURE,), attributes=_SQUARE | more)
        for op in ("MaxPool", "AveragePool")
        for more in _BORDERS
    ),
    Case("MaxPool", (PICTURE,), attributes={**_SQUARE, "dilations": (2, 1)}),
    Case(
        "AveragePool", (PICTURE,), attributes={**_SQUARE, "pads": (1,) * 4, "count_include_pad": 1}
    ),
    Case("MaxPool", (real(2, 3, 8),), attributes={"kernel_shape": (2,), "strides": (2,)}),
]
_PADS = [
    Case("Pad", (VECTOR,), (whole(1, 0, 0, 2), scalar(0.5))),
    Case("Pad", (VECTOR,), (whole(0, -1, 0, -2),)),
    *(Case("Pad", (VECTOR,), (whole(1, 2, 0, 1),), {"mode": mode}) for mode in ("reflect", "edge")),
    Case("Pad", (VECTOR,), (whole(1, 2), None, whole(1)), {"mode": "edge"}, opset=18),
    Case("Pad", (VECTOR,), (whole(1, 2, 3, 1),), {"mode": "wrap"}, opset=19),
]
_TO_SIZE = (None, None, whole(1, 2, 9, 3))
_RESIZES = [
    Case("Resize", (GRID,), (None, f32(1, 1, 2, 1.5)), {"mode": "nearest"}),
    *(
        Case("Resize", (GRID,), _TO_SIZE, {"mode": mode, "coordinate_transformation_mode": kind})
        for mode in ("linear", "cubic")
        for kind in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    ),
    *(
        Case(
            "Resize",
            (GRID,),
            _TO_SIZE,
            {"mode": "nearest", "nearest_mode": kind, "coordinate_transformation_mode": places},
        )
        for kind in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for places in ("half_pixel", "asymmetric")
    ),
    Case("Resize", (GRID,), _TO_SIZE, {"mode": "cubic", "exclude_outside": 1}),
]
_SHAPES = [
    Case("Concat", (VECTOR, real(3, 2)), attributes={"axis": -1}),
    Case("Split", (VECTOR,), (whole(2, 3),), {"axis": 1}, outputs=2),
    Case("Split", (VECTOR,), attributes={"axis": 1, "num_outputs": 2}, outputs=2, opset=18),
    Case("Slice", (PICTURE,), (whole(1, -5), whole(3, 2**40), whole(1, 2))),
    Case("Slice", (PICTURE,), (whole(-1, 5), whole(-(2**40), 1), whole(1, -1), whole(-1, -2))),
    Case("Slice", (VECTOR,), (whole(3), whole(1))),
    Case("Reshape", (PICTURE,), (whole(0, -1, 3),)),
    Case("Flatten", (PICTURE,), attributes={"axis": 2}),
    Case("Flatten", (PICTURE,), attributes={"axis": -1}),
    Case("Squeeze", (real(1, 3, 1),), (whole(-1),)),
    Case("Squeeze", (real(1, 3, 1),)),
    Case("Unsqueeze", (VECTOR,), (whole(0, -1),)),
    Case("Transpose", (PICTURE,), attributes={"perm": (0, 2, 3, 1)}),
    Case("Transpose", (VECTOR,)),
    Case("Expand", (real(3, 1),), (whole(2, 1, 4),)),
    Case("Tile", (VECTOR,), (whole(2, 1),)),
    Case("Gather", (VECTOR,), (np.array([[0, -1], [2, 1]]),), {"axis": 1}),
    Case("Gather", (VECTOR,), (np.array(1),)),
    Case("GatherElements", (VECTOR,), (np.array([[0, -1], [2, 1]]),), {"axis": 1}),
    Case("GatherND", (PICTURE,), (np.array([[0, 1], [1, 3]]),)),
    Case("OneHot", (whole(1, 0, 2),), (np.array(4), f32(-1, 2)), {"axis": 0}),
    Case("TopK", (VECTOR,), (whole(2),), {"axis": 1, "largest": 0}, outputs=2),
    Case("Trilu", (VECTOR,), (np.array(1),), {"upper": 0}),
    Case("Cast", (VECTOR,), attributes={"to": 7}),
    Case("Identity", (VECTOR,)),
    Case("Shape", (PICTURE,), attributes={"start": 1, "end": -1}),
    Case("ConstantOfShape", (whole(2, 3),), attributes={"value": np.array([7], dtype=np.int64)}),
    Case("ConstantOfShape", (whole(2, 3),)),
    Case("Range", (np.array(1), np.array(9), np.array(3))),
    Case("DepthToSpace", (real(1, 8, 2, 3),), attributes={"blocksize": 2}),
    Case("DepthToSpace", (real(1, 8, 2, 3),), attributes={"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", (real(1, 2, 4, 6),), attributes={"blocksize": 2}),
]
_EACH = positive(4) / 10
_QUANTIZE = [
    Case("QuantizeLinear", (real(3, 4, 2),), (scalar(0.03),)),
    Case("QuantizeLinear", (real(3, 4, 2),), (scalar(0.01), np.array(-7, dtype=np.int8))),
    Case("QuantizeLinear", (real(3, 4, 2),), (_EACH, np.zeros(4, dtype=np.int8)), {"axis": 1}),
    Case("QuantizeLinear", (real(3, 4),), (_EACH, np.full(4, 3, dtype=np.uint8)), {"axis": -1}),
    Case("DequantizeLinear", (CODES,), (scalar(0.03),)),
    Case("DequantizeLinear", (CODES,), (_EACH, RNG.integers(-9, 9, 4).astype(np.int8))),
    Case(
        "DequantizeLinear",
        (CODES,),
        (real(3, 2, 2),),
        {"axis": 1, "block_size": 2},
        opset=21,
    ),
    Case("DynamicQuantizeLinear", (real(3, 4),), outputs=3),
]
CASES = [
    *_ARITHMETIC,
    *_REDUCTIONS,
    *_NORMS,
    *_CONVOLUTIONS,
    *_POOLS,
    *_PADS,
    *_RESIZES,
    *_SHAPES,
    *_QUANTIZE,
]
