"""How fast this device multiplies, by the kind of weights and the shape, in the engines it has."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Final, NamedTuple

import numpy as np

from onhand.core.onnxwrite import WrittenNode, model_of
from onhand.core.profile_parts import MATRIX_KINDS, MatrixRate
from onhand.core.progress import Progress, Quiet
from onhand.device.telemetry import refuse_telemetry

__all__ = ["SHAPES", "Shape", "measure_rates"]

_GROUP: Final = 32
_LEAST_RUNS: Final = 5
_MOST_RUNS: Final = 200
_BUDGET_S: Final = 0.25


class Shape(NamedTuple):
    """One product: activations (rows, inputs) times weights (outputs, inputs)."""

    rows: int
    inputs: int
    outputs: int


SHAPES: Final = (
    Shape(1, 1024, 1024),
    Shape(1, 4096, 4096),
    Shape(16, 2048, 2048),
    Shape(256, 2048, 2048),
)
"""One token with few and with many weights; a few tokens at once; a prompt."""


def measure_rates(
    threads: int,
    *,
    shapes: Sequence[Shape] = SHAPES,
    kinds: Sequence[str] = MATRIX_KINDS,
    progress: Progress | None = None,
) -> tuple[MatrixRate, ...]:
    """Measure products of random matrices in fp32, int8 and int4.

    Integers are multiplied by the native engine where it is built, else by ONNX Runtime; floats by
    ONNX Runtime.

    Args:
        threads: that multiply.
        shapes: of the products.
        kinds: of the weights, of `MATRIX_KINDS`.
        progress: told how far it is.

    Returns:
        A rate for each kind and shape: operations per second at the median time.
    """
    from onhand.native import module

    ways: list[tuple[str, str, Callable[[Shape, int], float]]] = [("fp32", "onnx", _float_s)]
    for kind, bits in (("int8", 8), ("int4", 4)):
        if module is None:
            ways.append((kind, "onnx", partial(_integer_s, bits=bits)))
        else:
            ways.append((kind, "native", partial(_native_s, native=module, bits=bits)))
    ways = [way for way in ways if way[0] in kinds]
    shown = progress or Quiet()
    shown.start("multiplying matrices", len(ways) * len(shapes))
    found = []
    for kind, engine, seconds_of in ways:
        for shape in shapes:
            seconds = seconds_of(shape, threads)
            found.append(
                MatrixRate(
                    kind=kind,
                    rows=shape.rows,
                    inputs=shape.inputs,
                    outputs=shape.outputs,
                    threads=threads,
                    rate=2 * shape.rows * shape.inputs * shape.outputs / seconds,
                    engine=engine,
                )
            )
            shown.advance(1)
    return tuple(found)


def _native_s(shape: Shape, threads: int, *, native: ModuleType, bits: int) -> float:
    random = np.random.default_rng(0)
    groups = shape.inputs // _GROUP
    codes = random.integers(0, 256, shape.outputs * shape.inputs * bits // 8, dtype=np.uint8)
    scales = np.full((shape.outputs, groups), 0.01, dtype=np.float16).view(np.uint16)
    matrix = native.Matrix(
        bits, _GROUP, shape.outputs, shape.inputs, codes, scales, None, threads=threads
    )
    first = statistics.median(matrix.time_products(shape.rows, threads, _LEAST_RUNS))
    runs = int(min(_MOST_RUNS, max(_LEAST_RUNS, _BUDGET_S / first)))
    return float(statistics.median(matrix.time_products(shape.rows, threads, runs)))


def _float_s(shape: Shape, threads: int) -> float:
    weights = np.random.default_rng(0).standard_normal(
        (shape.inputs, shape.outputs), dtype=np.float32
    )
    model = model_of(
        [WrittenNode(kind="MatMul", inputs=["x", "w"], output="y")],
        inputs={"x": (shape.rows, shape.inputs)},
        tensors={"w": weights},
    )
    return _session_s(model, shape, threads)


def _integer_s(shape: Shape, threads: int, *, bits: int) -> float:
    random = np.random.default_rng(0)
    groups = shape.inputs // _GROUP
    codes = random.integers(0, 256, (shape.outputs, groups, _GROUP * bits // 8), dtype=np.uint8)
    scales = np.full((shape.outputs * groups,), 0.01, dtype=np.float32)
    node = WrittenNode(
        kind="MatMulNBits",
        inputs=["x", "w", "s"],
        output="y",
        attributes={
            "K": shape.inputs,
            "N": shape.outputs,
            "bits": bits,
            "block_size": _GROUP,
            "accuracy_level": 4,
        },
        domain="com.microsoft",
    )
    model = model_of(
        [node], inputs={"x": (shape.rows, shape.inputs)}, tensors={"w": codes, "s": scales}
    )
    return _session_s(model, shape, threads)


def _session_s(model: bytes, shape: Shape, threads: int) -> float:
    refuse_telemetry()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((shape.rows, shape.inputs), dtype=np.float32)}
    session.run(None, feeds)
    times: list[float] = []
    begun_s = time.perf_counter()
    while len(times) < _LEAST_RUNS or (
        time.perf_counter() - begun_s < _BUDGET_S and len(times) < _MOST_RUNS
    ):
        one_s = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - one_s)
    return statistics.median(times)
