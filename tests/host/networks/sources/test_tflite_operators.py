"""Every LiteRT operator that is read computes what LiteRT's interpreter computes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from tests.host.networks.graphs import computed
from tests.host.networks.sources.tflite_models import TinyFile, interpreted

from onhand.host.networks.graph import Array
from onhand.host.networks.sources.tflite_file import read_tflite
from onhand.host.networks.sources.tflite_graph import graph_from_tflite

PICTURE = (1, 5, 6, 4)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operator: what it reads beside x, what it makes, its options."""

    op: str
    out: tuple[int, ...] = PICTURE
    x: tuple[int, ...] = PICTURE
    options: str = ""
    fields: dict[str, object] = field(default_factory=dict)
    rest: tuple[object, ...] = ()
    dtype: str = "float32"
    n_out: int = 1
    x_at: int = 0
    version: int = 1
    name: str = ""
    is_positive: bool = False


def weights(*shape: int) -> Array:
    """Some float weights."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def ints(*numbers: int) -> Array:
    """A list of sizes or axes."""
    return np.asarray(numbers, dtype=np.int32)


def conv(name: str, out: tuple[int, ...], **fields: object) -> Case:
    """A convolution to 3 channels."""
    shown = {"strideW": 1, "strideH": 1, **fields}
    rest = (weights(3, 3, 2, 4), weights(3))
    return Case(op="CONV_2D", name=name, out=out, options="Conv2DOptions", fields=shown, rest=rest)


def unary(op: str, *, options: str = "", is_positive: bool = False, **fields: object) -> Case:
    """An operator of one value."""
    return Case(op=op, options=options, fields=fields, is_positive=is_positive)


def reduced(op: str, out: tuple[int, ...], *axes: int, keep: bool = False) -> Case:
    """A reduction over axes."""
    return Case(op=op, name=f"{op}{axes}", out=out, rest=(ints(*axes),), options="ReducerOptions",
                fields={"keepDims": keep})  # fmt: skip


def pool(op: str, out: tuple[int, ...], **fields: object) -> Case:
    """A pool of 3 by 2."""
    shown = {"strideW": 1, "strideH": 1, "filterWidth": 2, "filterHeight": 3, **fields}
    return Case(op=op, name=f"{op}-{fields}", out=out, options="Pool2DOptions", fields=shown)


def resize(op: str, *, aligned: bool = False, half: bool = False) -> Case:
    """A resize to 7 by 9."""
    options = "ResizeBilinearOptions" if op == "RESIZE_BILINEAR" else "ResizeNearestNeighborOptions"
    return Case(op=op, name=f"{op}-{aligned}-{half}", out=(1, 7, 9, 4), rest=(ints(7, 9),),
                options=options, fields={"alignCorners": aligned, "halfPixelCenters": half},
                version=3)  # fmt: skip


def cut(begins: Array, ends: Array, steps: Array, out: tuple[int, ...], **masks: int) -> Case:
    """A slice with steps."""
    return Case(op="STRIDED_SLICE", name=f"STRIDED_SLICE{out}", out=out, rest=(begins, ends, steps),
                options="StridedSliceOptions", fields=dict(masks))  # fmt: skip


CASES = [
    conv("CONV_2D-same", (1, 5, 6, 3)),
    conv("CONV_2D-valid", (1, 3, 5, 3), padding=1, fusedActivationFunction=1),
    conv("CONV_2D-strides", (1, 3, 2, 3), strideH=2, strideW=3, fusedActivationFunction=3),
    conv("CONV_2D-dilated", (1, 5, 6, 3), dilationHFactor=2, dilationWFactor=3,
         fusedActivationFunction=2),
    Case(op="CONV_2D", name="CONV_2D-groups", out=(1, 5, 6, 6), options="Conv2DOptions",
         fields={"strideW": 1, "strideH": 1},
         rest=(weights(6, 1, 1, 2), weights(6))),
    Case(op="DEPTHWISE_CONV_2D", out=(1, 3, 3, 8), options="DepthwiseConv2DOptions",
         fields={"strideW": 2, "strideH": 2, "depthMultiplier": 2},
         rest=(weights(1, 3, 3, 8), weights(8))),
    Case(op="TRANSPOSE_CONV", out=(1, 10, 12, 3), x_at=2, options="TransposeConvOptions",
         fields={"strideW": 2, "strideH": 2},
         rest=(ints(1, 10, 12, 3), weights(3, 3, 3, 4))),
    Case(op="TRANSPOSE_CONV", name="TRANSPOSE_CONV-valid", out=(1, 11, 13, 3), x_at=2,
         options="TransposeConvOptions", fields={"strideW": 2, "strideH": 2, "padding": 1},
         rest=(ints(1, 11, 13, 3), weights(3, 3, 3, 4))),
    Case(op="FULLY_CONNECTED", out=(1, 7), x=(1, 12), options="FullyConnectedOptions",
         fields={"fusedActivationFunction": 1}, rest=(weights(7, 12), weights(7))),
    Case(op="FULLY_CONNECTED", name="FULLY_CONNECTED-flattens", out=(1, 7),
         options="FullyConnectedOptions", rest=(weights(7, 120), weights(7))),
    Case(op="FULLY_CONNECTED", name="FULLY_CONNECTED-keeps", out=(1, 5, 7), x=(1, 5, 12),
         options="FullyConnectedOptions", fields={"keepNumDims": True},
         rest=(weights(7, 12), weights(7))),
    pool("AVERAGE_POOL_2D", (1, 5, 6, 4)),
    pool("AVERAGE_POOL_2D", (1, 2, 3, 4), padding=1, strideH=2, strideW=2),
    pool("MAX_POOL_2D", (1, 3, 3, 4), strideH=2, strideW=2),
    *(Case(op=op, name=f"{op}{np.shape(other)}", rest=(other,), options=options)
      for op, options in (("ADD", "AddOptions"), ("MUL", "MulOptions"), ("SUB", "SubOptions"),
                          ("DIV", "DivOptions"), ("MAXIMUM", "MaximumMinimumOptions"),
                          ("MINIMUM", "MaximumMinimumOptions"),
                          ("SQUARED_DIFFERENCE", "SquaredDifferenceOptions"))
      for other in (weights(4), weights(1, 5, 6, 4), weights(1))),
    Case(op="POW", options="PowOptions", rest=(weights(4),), is_positive=True),
    *(unary(op) for op in ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "TANH", "LOGISTIC",
                           "FLOOR", "CEIL", "ROUND", "SIN")),
    unary("ABS", options="AbsOptions"), unary("NEG", options="NegOptions"), unary("ELU"),
    unary("EXP", options="ExpOptions"), unary("COS", options="CosOptions"),
    unary("SIGN", options="SignOptions"), unary("SQUARE", options="SquareOptions"),
    unary("HARD_SWISH", options="HardSwishOptions"),
    unary("GELU", options="GeluOptions"), unary("GELU", options="GeluOptions", approximate=True),
    unary("LEAKY_RELU", options="LeakyReluOptions", alpha=0.3),
    *(unary(op, is_positive=True) for op in ("LOG", "SQRT", "RSQRT")),
    Case(op="PRELU", rest=(weights(1, 1, 4),)),
    unary("SOFTMAX", options="SoftmaxOptions", beta=0.5),
    unary("LOG_SOFTMAX", options="LogSoftmaxOptions"),
    unary("L2_NORMALIZATION", options="L2NormOptions"),
    reduced("MEAN", (1, 4), 1, 2), reduced("MEAN", (1, 1, 1, 4), 1, 2, keep=True),
    reduced("MEAN", (1, 5, 6), -1), reduced("SUM", (1, 6, 4), 1),
    reduced("REDUCE_MAX", (1, 4), 2, 1),
    reduced("REDUCE_MIN", (1, 5, 1, 4), 2, keep=True), reduced("REDUCE_PROD", (1, 5, 6), 3),
    *(resize(op, aligned=a, half=h) for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
      for a, h in ((False, False), (True, False), (False, True))),
    Case(op="RESHAPE", out=(1, 120), rest=(ints(1, 120),), options="ReshapeOptions",
         fields={"newShape": [1, 120]}),
    Case(op="SQUEEZE", x=(1, 1, 1, 4), out=(1, 4), options="SqueezeOptions",
         fields={"squeezeDims": [1, 2]}),
    Case(op="EXPAND_DIMS", out=(1, 5, 6, 1, 4), rest=(ints(3),), options="ExpandDimsOptions"),
    Case(op="TRANSPOSE", out=(1, 4, 6, 5), rest=(ints(0, 3, 2, 1),), options="TransposeOptions"),
    Case(op="CONCATENATION", out=(1, 5, 6, 7), rest=(weights(1, 5, 6, 3),),
         options="ConcatenationOptions", fields={"axis": -1}),
    Case(op="PACK", out=(1, 5, 2, 6, 4), rest=(weights(1, 5, 6, 4),), options="PackOptions",
         fields={"axis": 2, "valuesCount": 2}),
    Case(op="UNPACK", out=(1, 5, 6), n_out=4, options="UnpackOptions",
         fields={"axis": 3, "num": 4}),
    Case(op="SPLIT", out=(1, 5, 6, 2), n_out=2, x_at=1, rest=(np.int32(3),),
         options="SplitOptions", fields={"numSplits": 2}),
    Case(op="SPLIT_V", out=(1, 5, 3, 4), n_out=2, rest=(ints(3, -1), np.int32(2)),
         options="SplitVOptions", fields={"numSplits": 2}),
    Case(op="SLICE", out=(1, 2, 6, 3), rest=(ints(0, 1, 0, 1), ints(1, 2, -1, 3)),
         options="SliceOptions"),
    cut(ints(0, 4, 1, 0), ints(1, -9, 6, 0), ints(1, -2, 2, 1), (1, 3, 3, 4), endMask=8),
    cut(ints(0, 1, -1), ints(0, 2, 0), ints(1, 1, 1), (1, 1, 4), beginMask=1, endMask=1,
        shrinkAxisMask=4),
    Case(op="PAD", out=(1, 8, 6, 5), rest=(np.asarray([[0, 0], [1, 2], [0, 0], [0, 1]], np.int32),),
         options="PadOptions"),
    Case(op="PADV2", out=(1, 8, 6, 4), options="PadV2Options",
         rest=(np.asarray([[0, 0], [1, 2], [0, 0], [0, 0]], np.int32), np.float32(-1.5))),
    Case(op="MIRROR_PAD", out=(1, 8, 6, 4), options="MirrorPadOptions", fields={"mode": 0},
         rest=(np.asarray([[0, 0], [1, 2], [0, 0], [0, 0]], np.int32),)),
    Case(op="GATHER", out=(1, 5, 3, 4), rest=(ints(5, 0, 2),), options="GatherOptions",
         fields={"axis": 2}),
    Case(op="TILE", out=(1, 10, 6, 12), rest=(ints(1, 2, 1, 3),), options="TileOptions"),
    Case(op="ARG_MAX", out=(1, 5, 6), rest=(np.int32(3),), dtype="int32",
         options="ArgMaxOptions", fields={"outputType": 2}),
    Case(op="ARG_MIN", out=(1, 5, 6), rest=(np.int32(-1),), dtype="int32",
         options="ArgMinOptions", fields={"outputType": 2}),
    Case(op="CAST", dtype="int32", options="CastOptions",
         fields={"inDataType": 0, "outDataType": 2}),
    Case(op="SPACE_TO_DEPTH", x=(1, 4, 6, 3), out=(1, 2, 3, 12), options="SpaceToDepthOptions",
         fields={"blockSize": 2}),
    Case(op="DEPTH_TO_SPACE", x=(1, 2, 3, 12), out=(1, 4, 6, 3), options="DepthToSpaceOptions",
         fields={"blockSize": 2}),
    Case(op="BATCH_MATMUL", x=(1, 3, 4), out=(1, 3, 5), rest=(weights(1, 5, 4),),
         options="BatchMatMulOptions", fields={"adjY": True}),
]  # fmt: skip


def written(case: Case, *, behind: Callable[[TinyFile, int], int] | None) -> tuple[bytes, int]:
    """The file of a case, and the index of x; another operator may come before it."""
    file = TinyFile()
    x = file.value(case.x, signature=(-1, *case.x[1:]))
    read = x if behind is None else behind(file, x)
    rest = [file.constant(array, str(np.asarray(array).dtype)) for array in case.rest]
    inputs = [*rest[: case.x_at], read, *rest[case.x_at :]]
    outputs = [file.value(case.out, dtype=case.dtype) for _ in range(case.n_out)]
    file.operator(
        case.op,
        inputs,
        outputs,
        options=case.options,
        version=case.version,
        **case.fields,  # type: ignore[arg-type]
    )
    return file.content([x], outputs), x


def convolved(file: TinyFile, x: int) -> int:
    """A convolution that leaves its result with channels first."""
    shape = [int(size) for size in file.shape(x)]
    out = file.value(shape)
    channels = shape[-1]
    eye = file.constant(np.eye(channels).reshape(channels, 1, 1, channels) * 0.5)
    zero = file.constant(np.full(channels, 0.01))
    file.operator("CONV_2D", [x, eye, zero], [out], options="Conv2DOptions", strideW=1, strideH=1)
    return out


@pytest.mark.parametrize("layout", ["last", "first"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name or case.op)
def test_an_operator_computes_what_litert_computes(
    case: Case, layout: str, rng: np.random.Generator
) -> None:
    """On values in the file's order, and on those that a convolution left with channels first."""
    if layout == "first" and len(case.x) != 4:
        pytest.skip("no picture")
    content, x = written(case, behind=convolved if layout == "first" else None)
    fed = rng.standard_normal(case.x).astype(np.float32)
    if case.is_positive:
        fed = np.abs(fed) + np.float32(0.1)

    graph = graph_from_tflite(read_tflite(content, where="tiny"), where="tiny")

    name = graph.inputs[0].name
    expected = interpreted(content, {x: fed})
    found = computed(graph, {name: fed})
    for left, right in zip(expected, found, strict=True):
        assert right.dtype == left.dtype
        # Sums run in another order.
        np.testing.assert_allclose(right, left, rtol=1e-4, atol=1e-5)
    # A constant of one example joins one example.
    if case.op in {"CONCATENATION", "PACK"}:
        assert graph.inputs[0].shape[0] == 1
    else:
        both = computed(graph, {name: np.concatenate([fed, fed])})
        assert all(right.shape[0] == 2 for right in both)
