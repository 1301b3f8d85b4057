"""Gradients of what only moves numbers: reshapes, transposes, cuts and joins."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from onnx import NodeProto, helper

from onhand.core.errors import SourceError
from onhand.host.learning.rules import Gradients, Rules, only, whole_of, wholes_of
from onhand.host.learning.tape import Tape, called

__all__ = ["RULES"]


def _alone(node: NodeProto, gradient: str) -> Gradients:
    """Give the first input its gradient; the others are sizes and axes."""
    return [gradient, *[None] * (len(node.input) - 1)]


def _reshape(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Reshape, Flatten, Squeeze and Unsqueeze: the same numbers in the shape they had."""
    shape = tape.shape(node.output[0])
    return _alone(node, tape.reshape_like(only(node, given), shape, node.input[0]))


def _squeeze(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Squeeze and Unsqueeze undo each other, where the axes are said."""
    axes = tape.axes(node)
    if axes is None:
        return _reshape(tape, node, given, needs)
    back = "Unsqueeze" if node.op_type == "Squeeze" else "Squeeze"
    return _alone(node, tape.add(back, only(node, given), tape.integers(axes)))


def _transpose(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    rank = len(tape.shape(node.input[0]))
    order = wholes_of(node, "perm", range(rank)[::-1])
    back = [order.index(axis) for axis in range(rank)]
    return [tape.add("Transpose", only(node, given), perm=back)]


def _cast(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    x = node.input[0]
    if tape.dtype(x) == tape.dtype(node.output[0]):
        return _alone(node, only(node, given))
    element = helper.np_dtype_to_tensor_dtype(tape.dtype(x))
    return _alone(node, tape.add("Cast", only(node, given), to=element))


def _expand(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    shape = tape.shape(node.output[0])
    return _alone(node, tape.sum_to(only(node, given), shape, node.input[0]))


def _concat(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Split the gradient; or cut out one piece, where one is all that is needed."""
    passed, rank = only(node, given), len(tape.shape(node.output[0]))
    axis = whole_of(node, "axis", 0) % rank
    sizes = [tape.shape(name)[axis] for name in node.input]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) < len(sizes):
        lengths = [tape.add("Shape", name, start=axis, end=axis + 1) for name in node.input]
        split = tape.add("Concat", *lengths, axis=0) if len(lengths) > 1 else lengths[0]
    elif sum(needs) == 1:
        wanted = list(needs).index(True)
        start = sum(known[:wanted])
        ends = (tape.integers([start]), tape.integers([start + known[wanted]]))
        piece = tape.add("Slice", passed, *ends, tape.integers([axis]))
        return [piece if need else None for need in needs]
    else:
        split = tape.integers(known)
    pieces = tape.add_many("Split", [passed, split], len(sizes), axis=axis)
    return [piece if need else None for piece, need in zip(pieces, needs, strict=True)]


def _split(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Join the gradients; zeros for pieces that the loss does not depend on."""
    axis = whole_of(node, "axis", 0)
    pieces = [
        tape.zeros(name) if gradient is None else gradient
        for name, gradient in zip(node.output, given, strict=True)
    ]
    return _alone(node, tape.add("Concat", *pieces, axis=axis))


def _slice(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Pad with zeros where a block was cut out; scatter where the cut has steps."""
    x, y, passed = node.input[0], node.output[0], only(node, given)
    begins = _block_begins(tape, node)
    if begins is None:
        return _alone(node, _scattered_back(tape, node, passed))
    sizes, cut = tape.shape(x), tape.shape(y)
    ends: list[int] = []
    for begin, size, left in zip(begins, sizes, cut, strict=True):
        if size == left and begin == 0:
            ends.append(0)
        elif isinstance(size, int) and isinstance(left, int):
            ends.append(size - left - begin)
    if len(ends) == len(sizes):
        return _alone(node, tape.add("Pad", passed, tape.integers([*begins, *ends])))
    start = tape.integers(begins)
    rest = tape.add("Sub", tape.shape_of(x), tape.shape_of(y))
    pads = tape.add("Concat", start, tape.add("Sub", rest, start), axis=0)
    return _alone(node, tape.add("Pad", passed, pads))


def _block_begins(tape: Tape, node: NodeProto) -> list[int] | None:
    """Return where a cut begins on each axis, None if it is no block of known begin."""
    shape = tape.shape(node.input[0])
    inputs = [*node.input, "", ""]
    starts = tape.value(inputs[1])
    if starts is None:
        return None
    axes = tape.value(inputs[3]) if inputs[3] else np.arange(starts.size)
    steps = tape.value(inputs[4]) if inputs[4] else np.ones(starts.size)
    if axes is None or steps is None or np.any(steps != 1):
        return None
    begins = [0] * len(shape)
    for start, axis in zip(starts.reshape(-1).tolist(), axes.reshape(-1).tolist(), strict=True):
        size = shape[axis]
        if isinstance(size, int):
            begins[axis] = min(max(start + size if start < 0 else start, 0), size)
        elif start < 0:
            return None
        else:
            begins[axis] = start
    return begins


def _scattered_back(tape: Tape, node: NodeProto, passed: str) -> str:
    """Cut the numbers of all places in the same way, and scatter the gradient there."""
    x = node.input[0]
    shape = tape.shape_of(x)
    zero, one = (tape.constant(np.array(value, dtype=np.int64)) for value in (0, 1))
    count = tape.add("Size", x)
    places = tape.add("Reshape", tape.add("Range", zero, count, one), shape)
    cut = tape.add("Slice", places, *list(node.input)[1:])
    flat = tape.integers([-1])
    nothing = helper.make_tensor("", helper.np_dtype_to_tensor_dtype(tape.dtype(x)), [1], [0])
    zeros = tape.add("ConstantOfShape", tape.add("Reshape", count, flat), value=nothing)
    pieces = [tape.add("Reshape", name, flat) for name in (cut, passed)]
    scattered = tape.add("ScatterElements", zeros, *pieces, axis=0)
    return tape.add("Reshape", scattered, shape)


def _pad(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Cut off what was padded: padding by the negative widths.

    Raises:
        SourceError: if it pads with the tensor's own numbers, or some axes only.
    """
    mode = next((a.s for a in node.attribute if a.name == "mode"), b"constant")
    if mode != b"constant" or (len(node.input) > 3 and node.input[3]):
        raise SourceError(f"{called(node)}: padding has a rule for mode constant and all axes only")
    known = tape.value(node.input[1])
    widths = (
        tape.add("Neg", node.input[1])
        if known is None
        else tape.integers([-int(width) for width in known])
    )
    return _alone(node, tape.add("Pad", only(node, given), widths))


def _tile(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Give the repeats axes of their own, and sum over those.

    Raises:
        SourceError: if sizes or repeats are not known.
    """
    repeats = tape.needed_value(node, 1)
    shape = tape.shape(node.input[0])
    sizes = [size for size in shape if isinstance(size, int)]
    if repeats is None or len(sizes) < len(shape):
        raise SourceError(f"{called(node)}: Tile has a rule for known sizes and repeats only")
    pairs = [int(n) for pair in zip(repeats, sizes, strict=True) for n in pair]
    apart = tape.add("Reshape", only(node, given), tape.integers(pairs))
    axes = tape.integers(range(0, len(pairs), 2))
    return _alone(node, tape.add("ReduceSum", apart, axes, keepdims=0))


def _triangle(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    upper = whole_of(node, "upper", 1)
    inputs = [only(node, given), *list(node.input)[1:]]
    return _alone(node, tape.add("Trilu", *inputs, upper=upper))


def _depth(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """DepthToSpace and SpaceToDepth undo each other.

    Raises:
        SourceError: for an order of the columns first, which has no inverse operator.
    """
    mode = next((a.s for a in node.attribute if a.name == "mode"), b"DCR")
    if mode != b"DCR":
        raise SourceError(f"{called(node)}: mode {mode.decode()} has no rule, DCR has")
    back = "SpaceToDepth" if node.op_type == "DepthToSpace" else "DepthToSpace"
    size = whole_of(node, "blocksize", 1)
    return [tape.add(back, only(node, given), blocksize=size)]


RULES: Final[Rules] = {
    ("", "Cast"): _cast,
    ("", "CastLike"): _cast,
    ("", "Concat"): _concat,
    ("", "DepthToSpace"): _depth,
    ("", "Expand"): _expand,
    ("", "Flatten"): _reshape,
    ("", "Pad"): _pad,
    ("", "Reshape"): _reshape,
    ("", "Slice"): _slice,
    ("", "SpaceToDepth"): _depth,
    ("", "Split"): _split,
    ("", "Squeeze"): _squeeze,
    ("", "Tile"): _tile,
    ("", "Transpose"): _transpose,
    ("", "Trilu"): _triangle,
    ("", "Unsqueeze"): _squeeze,
}
