"""Gradients through matrices that are stored as codes, and through rotary positions.

The backward pass of y = x W^T with W (N, K) is dx = dy W: it runs along the other axis of W than
the forward pass, across the groups that share a scale, so it needs W as floats. One matrix at a
time is turned into floats, when the gradient for its results is there: ONNX Runtime would
otherwise do so for all of them at the beginning.

Codes of less than a byte are not put in order again. Each byte of a row holds `8 / bits` inputs;
the lowest bits of all bytes are one matrix, the next bits another one, and what is put in order
is their products with dy, which are small. `DequantizeLinear` with a scale for each group as its
own row is several times as fast as its blocked form, which goes through codes one by one.

Source:
    The product of what is stored in low precision: QLoRA, arXiv:2305.14314, equation 5.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from onnx import NodeProto, TensorProto, helper

from onhand.core.errors import SourceError
from onhand.host.learning.graph_shapes import MICROSOFT, attributes_of
from onhand.host.learning.rules import Gradients, Rules, only, whole_of
from onhand.host.learning.tape import Tape, called

__all__ = ["RULES"]

_MOST_FLOATS: Final = 2**22
"""Weights that are floats at a time: the head of a small model would take 100 MB at once."""


def _matmul_bits(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """The gradients of what is multiplied and of a bias; codes, scales and zero points are frozen.

    Raises:
        SourceError: if another input is to be learned, columns are permuted, or the codes are of
            a width that does not divide a byte.
    """
    if any(needs[1:5]) or any(list(node.input)[4:5]):
        raise SourceError(f"{called(node)}: only its input and its bias can be learned")
    if 8 % whole_of(node, "bits", 4):
        raise SourceError(f"{called(node)}: codes of {whole_of(node, 'bits', 4)} bits have no rule")
    passed = only(node, given)
    found: list[str | None] = [None] * len(node.input)
    if needs[0]:
        found[0] = _by_stored_matrix(tape, node, passed)
    if len(needs) > 5 and needs[5]:
        found[5] = tape.sum_to(passed, tape.shape(node.output[0]), node.input[5])
    return found


def _by_stored_matrix(tape: Tape, node: NodeProto, passed: str) -> str:
    """Multiply (..., N) by the stored (N, K) matrix, some rows of it at a time."""
    N, K = whole_of(node, "N", 0), whole_of(node, "K", 0)
    rows = max(_MOST_FLOATS // K, 1)
    total = ""
    for first in range(0, N, rows):
        piece = _Piece(tape, node, passed, total or passed, (first, min(first + rows, N)))
        product = piece.product()
        total = tape.add("Add", total, product) if total else product
    return total


class _Piece:
    """The product of some columns of the gradient with the rows of a matrix that belong to them."""

    def __init__(
        self, tape: Tape, node: NodeProto, passed: str, after: str, rows: tuple[int, int]
    ) -> None:
        self.tape = tape
        self.node = node
        self.passed = passed
        self.bits = whole_of(node, "bits", 4)
        self.group = whole_of(node, "block_size", 32)
        self.K = whole_of(node, "K", 0)
        self.n_groups = -(-self.K // self.group)
        self.rows = rows
        self.whole = rows == (0, whole_of(node, "N", 0))
        # Constants that are known only when `after` is there: what reads them waits for it, and
        # is not folded into floats when the graph is loaded.
        self._size = tape.add("Shape", after, start=0, end=1)
        if isinstance(tape.shape(node.output[0])[0], int):
            # A size that is known is itself a constant; of a number nobody knows if it is one.
            number = tape.add("ReduceMax", after, keepdims=0)
            odd = tape.add("Cast", tape.add("IsNaN", number), to=TensorProto.INT64)
            self._size = tape.add("Reshape", odd, tape.integers([1]))

    def product(self) -> str:
        """Return the name of the product, (..., K)."""
        tape, n_rows = self.tape, self.rows[1] - self.rows[0]
        scales = tape.add("Reshape", self._cut(self.node.input[2]), self._held(-1))
        zeros = self._zeros(n_rows)
        codes = self._cut(self.node.input[1])  # (rows, G, bytes of a group)
        width = self.group * self.bits // 8
        sizes = tape.integers([n_rows * self.n_groups, width])
        passed = self.passed if self.whole else self._columns()
        found: list[str] = []
        for part in self._parts(codes):
            flat = tape.add("Reshape", part, sizes)
            floats = tape.add("DequantizeLinear", flat, scales, zeros, axis=0)
            matrix = tape.add("Reshape", floats, tape.integers([n_rows, self.n_groups * width]))
            found.append(tape.add("MatMul", passed, matrix))
        return self._in_order(found)

    def _held(self, value: int, element: int = TensorProto.INT64) -> str:
        """Return a constant (1,) that nobody knows before the gradient is there."""
        number = self.tape.constant(np.array(value, dtype=np.int64))
        held = self.tape.add("Clip", self._size, number, number)
        return held if element == TensorProto.INT64 else self.tape.add("Cast", held, to=element)

    def _cut(self, name: str) -> str:
        """Return some rows of a stored tensor."""
        if self.whole:
            return name
        first, last = self._held(self.rows[0]), self.tape.integers([self.rows[1]])
        return self.tape.add("Slice", name, first, last, self.tape.integers([0]))

    def _columns(self) -> str:
        """Return the columns of the gradient that belong to the rows."""
        ends = [self.tape.integers([end]) for end in self.rows]
        return self.tape.add("Slice", self.passed, *ends, self.tape.integers([-1]))

    def _parts(self, packed: str) -> list[str]:
        """Return the codes at each place within a byte, the lowest bits first."""
        if self.bits == 8:
            return [packed]
        mask = self._held((1 << self.bits) - 1, TensorProto.UINT8)
        found: list[str] = []
        for low in range(0, 8, self.bits):
            part = packed
            if low:
                by = self._held(low, TensorProto.UINT8)
                part = self.tape.add("BitShift", packed, by, direction="RIGHT")
            if low + self.bits < 8:
                part = self.tape.add("BitwiseAnd", part, mask)
            found.append(part)
        return found

    def _zeros(self, n_rows: int) -> str:
        """Return the zero point of each group, (rows * G,) uint8."""
        tape = self.tape
        stored = self.node.input[3] if len(self.node.input) > 3 else ""
        if not stored:
            middle = helper.make_tensor("", TensorProto.UINT8, [1], [1 << (self.bits - 1)])
            return tape.add("ConstantOfShape", self._held(n_rows * self.n_groups), value=middle)
        parts = self._parts(self._cut(stored))  # (rows, bytes) each
        if len(parts) == 1:
            return tape.add("Reshape", parts[0], self._held(-1))
        last = tape.integers([-1])
        stacked = [tape.add("Unsqueeze", part, last) for part in parts]
        joined = tape.add("Concat", *stacked, axis=-1)  # (rows, bytes, 8 / bits)
        flat = tape.add("Reshape", joined, tape.integers([n_rows, -1]))
        ends = [tape.integers([end]) for end in (0, self.n_groups)]
        used = tape.add("Slice", flat, *ends, tape.integers([1]))  # (rows, G)
        return tape.add("Reshape", used, self._held(-1))

    def _in_order(self, products: list[str]) -> str:
        """Put the inputs in their order, and leave out those that fill up the last group."""
        tape, result = self.tape, products[0]
        padded = self.n_groups * self.group
        rank = len(tape.shape(self.node.input[0]))
        if len(products) > 1:
            last = tape.integers([-1])
            columns = [tape.add("Unsqueeze", product, last) for product in products]
            joined = tape.add("Concat", *columns, axis=-1)  # (..., bytes, 8 / bits)
            result = tape.add("Reshape", joined, tape.integers([*[0] * (rank - 1), padded]))
        if padded == self.K:
            return result
        ends = [tape.integers([end]) for end in (0, self.K)]
        return tape.add("Slice", result, *ends, tape.integers([-1]))


def _rotary(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Turn back: a rotation's gradient is the rotation by the opposite angle.

    Raises:
        SourceError: if the tables are to be learned.
    """
    if any(needs[1:]):
        raise SourceError(f"{called(node)}: its tables cannot be differentiated")
    _, places, cosines, sines = node.input
    back = tape.add("Neg", sines)
    options = attributes_of(node)
    inputs = (only(node, given), places, cosines, back)
    turned = tape.add("RotaryEmbedding", *inputs, domain=MICROSOFT, **options)
    return [turned, None, None, None]


RULES: Final[Rules] = {
    (MICROSOFT, "MatMulNBits"): _matmul_bits,
    (MICROSOFT, "RotaryEmbedding"): _rotary,
}
