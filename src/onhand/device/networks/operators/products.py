"""How many multiplications a run takes, found without computing the large ones."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from onhand.core.errors import InputError
from onhand.core.onnxgraph import OnnxNode
from onhand.device.networks.operators.kinds import Array, Operator, Operators
from onhand.device.networks.operators.quantized import check_bits
from onhand.device.networks.operators.table import OPERATORS
from onhand.device.networks.operators.windows import conv_shape

__all__ = ["ProductCounter"]

Shape = tuple[int, ...]


class ProductCounter:
    """Operators that count multiplications where others compute, and give zeros.

    Attributes:
        operators: to evaluate a graph with; all other operators compute.
        total: multiplications so far.
    """

    def __init__(self, most: int) -> None:
        self.total = 0
        self._most = most
        counting = {("", name): self._counting(how) for name, how in _PLAIN.items()}
        counting["com.microsoft", "MatMulNBits"] = self._counting(_bits)
        # Their shapes are not told beforehand: they compute, once they are known to be small.
        counting["", "ConvTranspose"] = self._transposed
        counting["", "Einsum"] = self._einsum
        self.operators: Operators = {**OPERATORS, **counting}

    def _counting(self, how: Callable[..., tuple[Shape, int, object]]) -> Operator:
        def count(node: OnnxNode, *inputs: Array | None) -> Array:
            shape, products, dtype = how(node, *inputs)
            self._add(products)
            return np.zeros(shape, dtype=np.dtype(str(dtype)))

        return count

    def _add(self, products: int) -> None:
        self.total += products
        if self.total > self._most:
            raise InputError(f"over {self._most:.0e} multiplications: too large for numpy")

    def _transposed(self, node: OnnxNode, x: Array, w: Array, *rest: Array | None) -> Array:
        self._add(x.size * int(np.prod(w.shape[1:])))
        return OPERATORS["", "ConvTranspose"](node, x, w, *rest)

    def _einsum(self, node: OnnxNode, *inputs: Array) -> Array:
        letters = node.text("equation", "").replace(" ", "").split("->")[0].split(",")
        sizes = {
            letter: size
            for text, array in zip(letters, inputs, strict=False)
            for letter, size in zip(text, array.shape, strict=False)
        }
        self._add(int(np.prod(list(sizes.values()), dtype=np.float64)))
        return OPERATORS["", "Einsum"](node, *inputs)


def _conv(node: OnnxNode, x: Array, w: Array, *_: Array | None) -> tuple[Shape, int, object]:
    shape = conv_shape(node, x, w)
    return shape, int(np.prod(shape)) * int(np.prod(w.shape[1:])), x.dtype


def _conv_integer(
    node: OnnxNode, x: Array, w: Array, *_: Array | None
) -> tuple[Shape, int, object]:
    return (*_conv(node, x, w)[:2], "int32")


def _qlinear_conv(
    node: OnnxNode, x: Array, _s: Array, _z: Array, w: Array, *rest: Array
) -> tuple[Shape, int, object]:
    return (*_conv(node, x, w)[:2], rest[3].dtype)


def _matmul(node: OnnxNode, a: Array, b: Array, *_: Array | None) -> tuple[Shape, int, object]:
    if a.ndim == 1 or b.ndim == 1:
        shape = np.matmul(a, b).shape
    else:
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    return shape, int(np.prod(shape)) * a.shape[-1], a.dtype


def _matmul_integer(
    node: OnnxNode, a: Array, b: Array, *_: Array | None
) -> tuple[Shape, int, object]:
    return (*_matmul(node, a, b)[:2], "int32")


def _gemm(node: OnnxNode, a: Array, b: Array, *_: Array | None) -> tuple[Shape, int, object]:
    left = a.T if node.whole("transA", 0) else a
    right = b.T if node.whole("transB", 0) else b
    return _matmul(node, left, right)


def _bits(node: OnnxNode, a: Array, *rest: Array | None) -> tuple[Shape, int, object]:
    check_bits(node, rest[3] if len(rest) > 3 else None)
    shape = (*a.shape[:-1], node.whole("N", 0))
    # The weights are unpacked in every run, which costs about as much as a row.
    return shape, (int(np.prod(shape)) + node.whole("N", 0)) * node.whole("K", 0), a.dtype


_PLAIN: Final[Mapping[str, Callable[..., tuple[Shape, int, object]]]] = {
    "Conv": _conv,
    "ConvInteger": _conv_integer,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _qlinear_conv,
}
