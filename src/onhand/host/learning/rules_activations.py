"""Gradients of activations, the runtime's own among them."""

import math
from collections.abc import Sequence
from typing import Final

from onnx import NodeProto

from onhand.host.learning.graph_shapes import MICROSOFT, attributes_of
from onhand.host.learning.rules import Gradients, Rules, number_of, only
from onhand.host.learning.tape import Tape

__all__ = ["RULES"]

_CUBE = 0.044715
"""Of the tanh form of GELU: arXiv:1606.08415."""


def _kept(tape: Tape, condition: str, given: str, x: str) -> str:
    """Return the gradient where a condition holds, else zero."""
    return tape.add("Where", condition, given, tape.number(0.0, like=x))


def _relu(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    y = node.output[0]
    above = tape.add("Greater", y, tape.number(0.0, like=y))
    return [_kept(tape, above, only(node, given), y)]


def _leaky_relu(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    x, passed = node.input[0], only(node, given)
    scaled = tape.add("Mul", passed, tape.number(number_of(node, "alpha", 0.01), like=x))
    above = tape.add("Greater", x, tape.number(0.0, like=x))
    return [tape.add("Where", above, passed, scaled)]


def _elu(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Below zero y = alpha (e^x - 1), so its slope is y + alpha."""
    x, y, passed = node.input[0], node.output[0], only(node, given)
    slope = tape.add("Add", y, tape.number(number_of(node, "alpha", 1.0), like=x))
    above = tape.add("Greater", x, tape.number(0.0, like=x))
    return [tape.add("Where", above, passed, tape.add("Mul", passed, slope))]


def _prelu(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    x, slope = node.input
    shape, passed = tape.shape(node.output[0]), only(node, given)
    above = tape.add("Greater", x, tape.number(0.0, like=x))
    found: list[str | None] = [None, None]
    if needs[0]:
        found[0] = tape.add("Where", above, passed, tape.add("Mul", passed, slope))
    if needs[1]:
        below = tape.add("Where", above, tape.number(0.0, like=x), tape.add("Mul", passed, x))
        found[1] = tape.sum_to(below, shape, slope)
    return found


def _clip(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Nothing passes at the bounds themselves, as in PyTorch's hardtanh and relu6."""
    x, passed = node.input[0], only(node, given)
    bounds = [*list(node.input)[1:], "", ""][:2]
    inside = [
        tape.add(order, x, bound)
        for order, bound in zip(("Greater", "Less"), bounds, strict=True)
        if bound
    ]
    if not inside:
        return [passed, *[None] * (len(node.input) - 1)]
    both = inside[0] if len(inside) == 1 else tape.add("And", *inside)
    return [_kept(tape, both, passed, x), *[None] * (len(node.input) - 1)]


def _within(tape: Tape, hard: str, *, like: str) -> str:
    """Tell where a hard sigmoid is between its ends."""
    above = tape.add("Greater", hard, tape.number(0.0, like=like))
    return tape.add("And", above, tape.add("Less", hard, tape.number(1.0, like=like)))


def _hard_sigmoid(
    tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]
) -> Gradients:
    y = node.output[0]
    slope = tape.number(number_of(node, "alpha", 0.2), like=y)
    return [_kept(tape, _within(tape, y, like=y), tape.add("Mul", only(node, given), slope), y)]


def _hard_swish(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Of x h(x), with h a hard sigmoid of slope 1/6: h, and x / 6 between its ends."""
    x, passed = node.input[0], only(node, given)
    hard = tape.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    between = tape.add("Mul", x, tape.number(1 / 6, like=x))
    slope = tape.add("Add", hard, _kept(tape, _within(tape, hard, like=x), between, x))
    return [tape.add("Mul", passed, slope)]


def _gelu(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    approximate = attributes_of(node).get("approximate", b"none")
    rule = _tanh_slope if approximate == b"tanh" else _exact_slope
    return [tape.add("Mul", only(node, given), rule(tape, node.input[0]))]


def _fast_gelu(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """FastGelu and BiasGelu: of x, or of x + bias."""
    x = node.input[0]
    biased = len(node.input) > 1 and bool(node.input[1])
    inner = tape.add("Add", x, node.input[1]) if biased else x
    rule = _tanh_slope if node.op_type == "FastGelu" else _exact_slope
    found = tape.add("Mul", only(node, given), rule(tape, inner, like=x))
    if not biased:
        return [found, *[None] * (len(node.input) - 1)]
    return [found, tape.sum_to(found, tape.shape(x), node.input[1]) if needs[1] else None]


def _exact_slope(tape: Tape, x: str, *, like: str = "") -> str:
    """Of x P(x), with P the normal distribution: P + x p, with p its density."""
    like = like or x
    erf = tape.add("Erf", tape.add("Mul", x, tape.number(math.sqrt(0.5), like=like)))
    doubled = tape.add("Add", erf, tape.number(1.0, like=like))
    below = tape.add("Mul", doubled, tape.number(0.5, like=like))
    square = tape.add("Mul", tape.add("Mul", x, x), tape.number(-0.5, like=like))
    bell = tape.add("Mul", tape.add("Exp", square), x)
    density = tape.add("Mul", bell, tape.number(1 / math.sqrt(2 * math.pi), like=like))
    return tape.add("Add", below, density)


def _tanh_slope(tape: Tape, x: str, *, like: str = "") -> str:
    """Of x (1 + t) / 2, t = tanh(u), u = c (x + b x^3): (1 + t + x (1 - t^2) u') / 2."""
    like = like or x
    c = math.sqrt(2 / math.pi)
    square = tape.add("Mul", x, x)
    one = tape.number(1.0, like=like)
    cubed = tape.add("Mul", square, tape.number(c * _CUBE, like=like))
    u = tape.add("Mul", x, tape.add("Add", cubed, tape.number(c, like=like)))
    t = tape.add("Tanh", u)
    steep = tape.add("Mul", square, tape.number(3 * c * _CUBE, like=like))
    steep = tape.add("Mul", x, tape.add("Add", steep, tape.number(c, like=like)))
    rest = tape.add("Mul", tape.add("Sub", one, tape.add("Mul", t, t)), steep)
    doubled = tape.add("Add", tape.add("Add", t, one), rest)
    return tape.add("Mul", doubled, tape.number(0.5, like=like))


def _quick_gelu(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Of y = x s, s = sigmoid(alpha x): s + alpha y (1 - s)."""
    x, y = node.input[0], node.output[0]
    alpha = number_of(node, "alpha", 1.702)
    inner = x if alpha == 1.0 else tape.add("Mul", x, tape.number(alpha, like=x))
    s = tape.add("Sigmoid", inner)
    rest = tape.add("Mul", y, tape.add("Sub", tape.number(1.0, like=x), s))
    if alpha != 1.0:
        rest = tape.add("Mul", rest, tape.number(alpha, like=x))
    return [tape.add("Mul", only(node, given), tape.add("Add", s, rest))]


def _selu(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Of y = gamma x, or gamma alpha (e^x - 1) below zero, where its slope is y + gamma alpha."""
    x, y, passed = node.input[0], node.output[0], only(node, given)
    alpha = number_of(node, "alpha", 1.67326319217681884765625)
    gamma = number_of(node, "gamma", 1.05070102214813232421875)
    below = tape.add("Add", y, tape.number(alpha * gamma, like=x))
    above = tape.add("Greater", x, tape.number(0.0, like=x))
    slope = tape.add("Where", above, tape.number(gamma, like=x), below)
    return [tape.add("Mul", passed, slope)]


def _celu(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Below zero y = alpha (e^(x / alpha) - 1), so its slope is y / alpha + 1."""
    x, y, passed = node.input[0], node.output[0], only(node, given)
    one, alpha = tape.number(1.0, like=x), tape.number(number_of(node, "alpha", 1.0), like=x)
    below = tape.add("Add", tape.add("Div", y, alpha), one)
    above = tape.add("Greater", x, tape.number(0.0, like=x))
    return [tape.add("Mul", passed, tape.add("Where", above, one, below))]


def _softsign(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Of y = x / (1 + |x|): (1 - |y|)^2."""
    y = node.output[0]
    rest = tape.add("Sub", tape.number(1.0, like=y), tape.add("Abs", y))
    return [tape.add("Mul", only(node, given), tape.add("Mul", rest, rest))]


def _mish(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Of y = x t, t = tanh(softplus(x)): t + x (1 - t^2) sigmoid(x)."""
    x = node.input[0]
    t = tape.add("Tanh", tape.add("Softplus", x))
    rest = tape.add("Sub", tape.number(1.0, like=x), tape.add("Mul", t, t))
    steep = tape.add("Mul", tape.add("Mul", x, rest), tape.add("Sigmoid", x))
    return [tape.add("Mul", only(node, given), tape.add("Add", t, steep))]


def _thresholded(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    x = node.input[0]
    limit = tape.number(number_of(node, "alpha", 1.0), like=x)
    return [_kept(tape, tape.add("Greater", x, limit), only(node, given), x)]


RULES: Final[Rules] = {
    ("", "Celu"): _celu,
    ("", "Clip"): _clip,
    ("", "Elu"): _elu,
    ("", "Gelu"): _gelu,
    ("", "HardSigmoid"): _hard_sigmoid,
    ("", "HardSwish"): _hard_swish,
    ("", "LeakyRelu"): _leaky_relu,
    ("", "Mish"): _mish,
    ("", "PRelu"): _prelu,
    ("", "Relu"): _relu,
    ("", "Selu"): _selu,
    ("", "Softsign"): _softsign,
    ("", "ThresholdedRelu"): _thresholded,
    (MICROSOFT, "BiasGelu"): _fast_gelu,
    (MICROSOFT, "FastGelu"): _fast_gelu,
    (MICROSOFT, "Gelu"): _gelu,
    (MICROSOFT, "QuickGelu"): _quick_gelu,
}
