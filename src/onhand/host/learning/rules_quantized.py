"""Gradients through rounding, and through codes that are moved before they are numbers again."""

from collections.abc import Mapping, Sequence
from typing import Final

from onnx import NodeProto, TensorProto

from onhand.core.errors import SourceError
from onhand.host.learning.rules import Gradients, Rules, only, whole_of
from onhand.host.learning.tape import Tape, called

__all__ = ["RULES"]

_RANGES: Final[Mapping[int, tuple[int, int]]] = {
    TensorProto.INT4: (-8, 7),
    TensorProto.INT8: (-128, 127),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT4: (0, 15),
    TensorProto.UINT8: (0, 255),
    TensorProto.UINT16: (0, 65535),
}


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
}
