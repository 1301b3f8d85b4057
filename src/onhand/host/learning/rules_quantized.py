"""Gradients through matrices of a few bits, which stay as they are stored, and through rounding."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from onnx import NodeProto, TensorProto

from onhand.core.errors import SourceError
from onhand.host.learning.graph_shapes import MICROSOFT
from onhand.host.learning.rules import Gradients, Rules, only, whole_of
from onhand.host.learning.tape import Shape, Tape, called

__all__ = ["RULES"]

_RANGES: Final[Mapping[int, tuple[int, int]]] = {
    TensorProto.INT4: (-8, 7),
    TensorProto.INT8: (-128, 127),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT4: (0, 15),
    TensorProto.UINT8: (0, 255),
    TensorProto.UINT16: (0, 65535),
}


def _matmul_bits(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """MatMulNBits: dx = dy W with the codes of the forward pass, looked up as rows of a table.

    GatherBlockQuantized expands the codes that MatMulNBits reads, under another shape. Of a
    576 x 1536 matrix of 4 bits, product included, it takes 2.2 ms on one core; a DequantizeLinear
    in blocks takes 4.0 ms, bit operations 2.5 ms, a matrix of float32 1.1 ms.

    Raises:
        SourceError: if scales or codes are to be learned, or columns are permuted.
    """
    inputs = [*node.input, "", "", "", ""][:6]
    if any(needs[1:5]) or inputs[4]:
        raise SourceError(f"{called(node)}: only its input and its bias can be learned")
    passed = only(node, given)
    found: list[str | None] = [None] * len(node.input)
    if needs[0]:
        found[0] = _by_stored_rows(tape, node, passed, inputs)
    if len(needs) > 5 and needs[5]:
        found[5] = tape.sum_to(passed, tape.shape(node.output[0]), inputs[5])
    return found


def _by_stored_rows(tape: Tape, node: NodeProto, passed: str, inputs: list[str]) -> str:
    """Multiply (..., N) by the stored (N, K) matrix."""
    n_inputs, n_outputs = whole_of(node, "K", 0), whole_of(node, "N", 0)
    bits, block = whole_of(node, "bits", 4), whole_of(node, "block_size", 0)
    n_groups = -(-n_inputs // block)
    codes = tape.alias(inputs[1], (n_outputs, n_groups * block * bits // 8))
    table = [codes, _all_rows(tape, n_outputs, passed, tape.shape(node.output[0]))]
    table.append(tape.alias(inputs[2], (n_outputs, n_groups)))
    if inputs[3]:
        table.append(tape.alias(inputs[3], (n_outputs, -(-n_groups * bits // 8))))
    matrix = tape.add(
        "GatherBlockQuantized",
        *table,
        domain=MICROSOFT,
        gather_axis=0,
        quantize_axis=1,
        block_size=block,
        bits=bits,
    )  # (N, groups * block)
    product = tape.add("MatMul", passed, matrix)
    if n_groups * block == n_inputs:
        return product
    ends = [tape.integers([value]) for value in (0, n_inputs, -1)]
    return tape.add("Slice", product, *ends)  # (..., K)


def _all_rows(tape: Tape, n_rows: int, after: str, shape: Shape) -> str:
    """Return 0 to N - 1, known only once another tensor of a shape is.

    Without this the runtime would expand every matrix when it loads the graph, or before the
    first is needed, and hold all of them.
    """
    zero, one, end = (tape.constant(np.array(value, dtype=np.int64)) for value in (0, 1, n_rows))
    if all(isinstance(size, int) for size in shape):
        # Sizes that are known are folded into constants; a number never is, nor below itself.
        number = tape.add("ReduceMax", after, keepdims=0)
        start = tape.add("Cast", tape.add("Less", number, number), to=TensorProto.INT64)
    else:
        start = tape.add("Mul", tape.add("Size", after), zero)
    return tape.add("Range", start, end, one)


def _quantize(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Straight through, except where numbers were clipped.

    Raises:
        SourceError: if scales are to be learned or belong to blocks, or the type is not known.

    Source:
        Bengio et al., arXiv:1308.3432; the mask is that of PyTorch's fake_quantize.
    """
    x, scale = list(node.input)[:2]
    ends = _RANGES.get(tape.kinds[node.output[0]].element)
    if ends is None or any(needs[1:]) or whole_of(node, "block_size", 0):
        raise SourceError(f"{called(node)}: rounding has a rule for fixed scales of integers only")
    low, high = (tape.number(end, like=x) for end in (ends[0] - 0.5, ends[1] + 0.5))
    if len(node.input) > 2 and node.input[2]:
        element = tape.kinds[x].element or TensorProto.FLOAT
        zero = tape.add("Cast", node.input[2], to=element)
        low, high = (tape.add("Sub", end, zero) for end in (low, high))
    bounds = [_along(tape, node, tape.add("Mul", end, scale)) for end in (low, high)]
    above, below = tape.add("Greater", x, bounds[0]), tape.add("Less", x, bounds[1])
    inside = tape.add("And", above, below)
    zero = tape.number(0.0, like=x)
    found = tape.add("Where", inside, only(node, given), zero)
    return [found, *[None] * (len(node.input) - 1)]


def _along(tape: Tape, node: NodeProto, bound: str) -> str:
    """Lay one number for each slice along the node's axis."""
    rank, scales = len(tape.shape(node.input[0])), tape.shape(node.input[1])
    after = rank - 1 - whole_of(node, "axis", 1) % rank if rank else 0
    if not scales or scales == (1,) or not after:
        return bound
    return tape.add("Reshape", bound, tape.integers([-1, *[1] * after]))


def _dequantize(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Pass on: the gradient of codes is that of the numbers that they stand for.

    Raises:
        SourceError: if scales are to be learned.
    """
    if any(needs[1:]):
        raise SourceError(f"{called(node)}: its scales cannot be learned")
    return [only(node, given), *[None] * (len(node.input) - 1)]


RULES: Final[Rules] = {
    ("", "DequantizeLinear"): _dequantize,
    ("", "QuantizeLinear"): _quantize,
    (MICROSOFT, "MatMulNBits"): _matmul_bits,
}
