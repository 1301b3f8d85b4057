"""Small graphs of one operator each, by which an execution provider is tried."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.onnxwrite import WrittenNode, model_of

__all__ = ["Trial", "trials"]

_WIDTH: Final = 64
_FLOAT32: Final = 1  # as ONNX numbers types


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One operator on known numbers.

    Attributes:
        operator: its name.
        model: an ONNX file's content; its input is "x", its only output the answer.
        x: float32.
    """

    operator: str
    model: bytes = field(repr=False)
    x: FloatArray = field(repr=False)


def trials() -> tuple[Trial, ...]:
    """Return what language models and networks are mostly made of, what counts most first."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((8, _WIDTH)).astype(np.float32)
    picture = random.standard_normal((1, 8, 16, 16)).astype(np.float32)
    square = (random.standard_normal((_WIDTH, _WIDTH)) / 8).astype(np.float32)
    kernel = (random.standard_normal((8, 8, 3, 3)) / 8).astype(np.float32)
    ones = np.ones(_WIDTH, dtype=np.float32)
    places = np.array([5, 0, 3], dtype=np.int64)
    return (
        _trial("MatMul", rows, {"w": square}),
        _low_bits(rows, random),
        _trial("Conv", picture, {"w": kernel}, {"pads": [1, 1, 1, 1]}),
        _scaled(rows, random),
        _trial("LayerNormalization", rows, {"w": ones}),
        _trial("SimplifiedLayerNormalization", rows, {"w": ones}),
        _trial("Softmax", rows, {}),
        _trial("Gelu", rows, {}),
        _trial("Gemm", rows, {"w": square, "b": ones}),
        _trial("MaxPool", picture, {}, {"kernel_shape": [2, 2], "strides": [2, 2]}),
        _trial("GlobalAveragePool", picture, {}),
        _trial("Add", rows, {"w": ones}),
        _trial("Mul", rows, {"w": ones * 3}),
        _trial("Relu", rows, {}),
        _trial("Sigmoid", rows, {}),
        _trial("Transpose", rows, {}, {"perm": [1, 0]}),
        _trial("Gather", rows, {"i": places}),
        _whole_numbers(rows, random),
    )


def _trial(
    operator: str,
    x: FloatArray,
    tensors: Mapping[str, NDArray[np.generic]],
    attributes: dict[str, int | list[int]] | None = None,
) -> Trial:
    node = WrittenNode(
        kind=operator, inputs=["x", *tensors], output="y", attributes=attributes or {}
    )
    return Trial(
        operator=operator, model=model_of([node], inputs={"x": x.shape}, tensors=tensors), x=x
    )


def _low_bits(x: FloatArray, random: np.random.Generator) -> Trial:
    codes = random.integers(0, 256, (_WIDTH, _WIDTH // 32, 16), dtype=np.uint8)
    scales = np.full(_WIDTH * _WIDTH // 32, 0.02, dtype=np.float32)
    node = WrittenNode(
        kind="MatMulNBits",
        inputs=["x", "w", "s"],
        output="y",
        attributes={"K": _WIDTH, "N": _WIDTH, "bits": 4, "block_size": 32},
        domain="com.microsoft",
    )
    model = model_of([node], inputs={"x": x.shape}, tensors={"w": codes, "s": scales})
    return Trial(operator="MatMulNBits", model=model, x=x)


def _scaled(x: FloatArray, random: np.random.Generator) -> Trial:
    """Return a product of whole numbers as quantised networks write it, in four nodes."""
    tensors: dict[str, NDArray[np.generic]] = {
        "w": random.integers(-127, 128, (_WIDTH, _WIDTH), dtype=np.int8),
        "s": np.array(0.02, dtype=np.float32),
        "z": np.array(0, dtype=np.int8),
    }
    nodes = [
        WrittenNode(kind="QuantizeLinear", inputs=["x", "s", "z"], output="q"),
        WrittenNode(kind="DequantizeLinear", inputs=["q", "s", "z"], output="f"),
        WrittenNode(kind="DequantizeLinear", inputs=["w", "s", "z"], output="v"),
        WrittenNode(kind="MatMul", inputs=["f", "v"], output="y"),
    ]
    model = model_of(nodes, inputs={"x": x.shape}, tensors=tensors)
    return Trial(operator="QuantizeLinear", model=model, x=x)


def _whole_numbers(x: FloatArray, random: np.random.Generator) -> Trial:
    """Return a product of integers, between two steps that every provider should know."""
    tensors: dict[str, NDArray[np.generic]] = {
        "w": random.integers(-127, 128, (_WIDTH, _WIDTH), dtype=np.int8),
        "s": np.array(0.02, dtype=np.float32),
        "z": np.array(0, dtype=np.int8),
    }
    nodes = [
        WrittenNode(kind="QuantizeLinear", inputs=["x", "s", "z"], output="q"),
        WrittenNode(kind="MatMulInteger", inputs=["q", "w"], output="n"),
        WrittenNode(kind="Cast", inputs=["n"], output="y", attributes={"to": _FLOAT32}),
    ]
    model = model_of(nodes, inputs={"x": x.shape}, tensors=tensors)
    return Trial(operator="MatMulInteger", model=model, x=x)
