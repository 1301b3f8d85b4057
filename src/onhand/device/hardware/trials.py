"""Small graphs of one operator each, by which an execution provider is tried."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.onnxwrite import WrittenNode, model_of

__all__ = ["Trial", "trials"]

_WIDTH: Final = 64


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
    """Return what language models and networks are mostly made of."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((8, _WIDTH)).astype(np.float32)
    picture = random.standard_normal((1, 8, 16, 16)).astype(np.float32)
    square = (random.standard_normal((_WIDTH, _WIDTH)) / 8).astype(np.float32)
    kernel = (random.standard_normal((8, 8, 3, 3)) / 8).astype(np.float32)
    return (
        _trial("MatMul", rows, {"w": square}),
        _trial("Conv", picture, {"w": kernel}, {"pads": [1, 1, 1, 1]}),
        _trial("LayerNormalization", rows, {"w": np.ones(_WIDTH, dtype=np.float32)}),
        _trial("Softmax", rows, {}),
        _low_bits(rows, random),
        _dynamic(rows, random),
    )


def _trial(
    operator: str,
    x: FloatArray,
    tensors: dict[str, FloatArray],
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


def _dynamic(x: FloatArray, random: np.random.Generator) -> Trial:
    """Return a product of whole numbers between two steps that every provider should know."""
    codes = random.integers(-127, 128, (_WIDTH, _WIDTH), dtype=np.int8)
    tensors: dict[str, NDArray[np.generic]] = {
        "w": codes,
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
