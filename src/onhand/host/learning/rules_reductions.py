"""Gradients of softmax, sums, means and extremes over axes."""

import math
from collections.abc import Sequence
from typing import Final

from onnx import NodeProto, TensorProto

from onhand.host.learning.graph_shapes import attributes_of
from onhand.host.learning.rules import Gradients, Rules, only, whole_of
from onhand.host.learning.tape import Tape

__all__ = ["RULES"]


def _softmax(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Of y = softmax(x): y (dy - sum(y dy))."""
    y, passed = node.output[0], only(node, given)
    axis = tape.integers([whole_of(node, "axis", -1)])
    summed = tape.add("ReduceSum", tape.add("Mul", passed, y), axis)
    return [tape.add("Mul", tape.add("Sub", passed, summed), y)]


def _log_softmax(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Of y = log softmax(x): dy - e^y sum(dy)."""
    y, passed = node.output[0], only(node, given)
    summed = tape.add("ReduceSum", passed, tape.integers([whole_of(node, "axis", -1)]))
    return [tape.add("Sub", passed, tape.add("Mul", tape.add("Exp", y), summed))]


def _upright(tape: Tape, node: NodeProto, gradient: str) -> str:
    """Give what a reduction left, or its gradient, its axes of size one again."""
    if whole_of(node, "keepdims", 1):
        return gradient
    axes = _axes(tape, node)
    return tape.add("Unsqueeze", gradient, tape.integers(axes)) if axes else gradient


def _axes(tape: Tape, node: NodeProto) -> list[int]:
    """Return the axes that a node reduces, none if it leaves its input as it is."""
    rank = len(tape.shape(node.input[0]))
    axes = tape.axes(node)
    if not axes:
        return [] if attributes_of(node).get("noop_with_empty_axes") else list(range(rank))
    return sorted(axis % rank for axis in axes)


def _spread(tape: Tape, node: NodeProto, gradient: str) -> str:
    """Repeat a gradient over the axes that were reduced."""
    shape = tape.shape_of(node.input[0])
    return tape.add("Expand", _upright(tape, node, gradient), shape)


def _sum(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    return [_spread(tape, node, only(node, given)), *[None] * (len(node.input) - 1)]


def _mean(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    x = node.input[0]
    shape, axes = tape.shape(x), _axes(tape, node)
    sizes = [shape[axis] for axis in axes]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) == len(sizes):
        scaled = tape.add("Mul", only(node, given), tape.number(1 / math.prod(known), like=x))
    else:
        lengths = tape.add("Gather", tape.shape_of(x), tape.integers(axes))
        count = tape.add("ReduceProd", lengths, keepdims=0)
        element = tape.kinds[x].element or TensorProto.FLOAT
        scaled = tape.add("Div", only(node, given), tape.add("Cast", count, to=element))
    return [_spread(tape, node, scaled), *[None] * (len(node.input) - 1)]


def _extreme(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """ReduceMax and ReduceMin: equals share the gradient, as in PyTorch's amax."""
    x = node.input[0]
    taken = tape.add("Equal", x, _upright(tape, node, node.output[0]))
    element = tape.kinds[x].element or TensorProto.FLOAT
    mask = tape.add("Cast", taken, to=element)
    count = tape.add("ReduceSum", mask, tape.integers(_axes(tape, node)))
    share = tape.add("Div", _upright(tape, node, only(node, given)), count)
    return [tape.add("Mul", mask, share), *[None] * (len(node.input) - 1)]


def _log_sum_exp(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    x = node.input[0]
    shifted = tape.add("Sub", x, _upright(tape, node, node.output[0]))
    passed = _upright(tape, node, only(node, given))
    found = tape.add("Mul", tape.add("Exp", shifted), passed)
    return [found, *[None] * (len(node.input) - 1)]


def _norm(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """ReduceL2: the gradient at zero is not defined, and is not a number."""
    x = node.input[0]
    share = tape.add("Div", only(node, given), node.output[0])
    found = tape.add("Mul", x, _upright(tape, node, share))
    return [found, *[None] * (len(node.input) - 1)]


def _sum_of_squares(
    tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]
) -> Gradients:
    x = node.input[0]
    doubled = tape.add("Mul", only(node, given), tape.number(2.0, like=x))
    found = tape.add("Mul", x, _upright(tape, node, doubled))
    return [found, *[None] * (len(node.input) - 1)]


def _absolute_sum(
    tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]
) -> Gradients:
    sign = tape.add("Sign", node.input[0])
    found = tape.add("Mul", sign, _upright(tape, node, only(node, given)))
    return [found, *[None] * (len(node.input) - 1)]


def _running_sum(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """CumSum: a number counts in all sums after it, so the gradient is summed from the end."""
    backwards = 1 - whole_of(node, "reverse", 0)
    exclusive = whole_of(node, "exclusive", 0)
    inputs = (only(node, given), node.input[1])
    return [tape.add("CumSum", *inputs, reverse=backwards, exclusive=exclusive), None]


RULES: Final[Rules] = {
    ("", "CumSum"): _running_sum,
    ("", "LogSoftmax"): _log_softmax,
    ("", "ReduceL1"): _absolute_sum,
    ("", "ReduceL2"): _norm,
    ("", "ReduceLogSumExp"): _log_sum_exp,
    ("", "ReduceMax"): _extreme,
    ("", "ReduceMean"): _mean,
    ("", "ReduceMin"): _extreme,
    ("", "ReduceSum"): _sum,
    ("", "ReduceSumSquare"): _sum_of_squares,
    ("", "Softmax"): _softmax,
}
