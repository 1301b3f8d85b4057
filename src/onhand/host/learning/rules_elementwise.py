"""Gradients of sums, products and functions of single numbers."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from onnx import NodeProto

from onhand.core.errors import SourceError
from onhand.host.learning.rules import Gradients, Rule, Rules, only
from onhand.host.learning.tape import Tape, called

__all__ = ["RULES"]


def _add(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Sum and Add: each term gets the gradient."""
    shape = tape.shape(node.output[0])
    return [
        tape.sum_to(only(node, given), shape, name) if need else None
        for name, need in zip(node.input, needs, strict=True)
    ]


def _dropout(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Dropout as it stands when a network answers: nothing is dropped.

    Raises:
        SourceError: if it may drop something.
    """
    training = tape.needed_value(node, 2)
    if training is not None and training.any():
        raise SourceError(f"{called(node)}: it drops numbers at random; set training_mode to false")
    return [only(node, given), *[None] * (len(node.input) - 1)]


def _mean(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Mean: each of n terms gets one n-th of the gradient."""
    share = tape.number(1 / len(node.input), like=node.output[0])
    return _add(tape, node, [tape.add("Mul", only(node, given), share)], needs)


def _subtract(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    shape, (left, right) = tape.shape(node.output[0]), node.input
    return [
        tape.sum_to(only(node, given), shape, left) if needs[0] else None,
        tape.add("Neg", tape.sum_to(only(node, given), shape, right)) if needs[1] else None,
    ]


def _multiply(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    shape, (left, right) = tape.shape(node.output[0]), node.input
    if left == right:
        once = tape.add("Mul", only(node, given), left)
        return [tape.add("Mul", once, tape.number(2.0, like=left)), None]
    found: list[str | None] = [None, None]
    for i, (own, other) in enumerate(((left, right), (right, left))):
        if needs[i]:
            found[i] = tape.sum_to(tape.add("Mul", only(node, given), other), shape, own)
    return found


def _divide(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Of y = a / b: dy / b, and -y (dy / b)."""
    shape, (left, right) = tape.shape(node.output[0]), node.input
    over = tape.add("Div", only(node, given), right)
    found: list[str | None] = [None, None]
    if needs[0]:
        found[0] = tape.sum_to(over, shape, left)
    if needs[1]:
        whole = tape.sum_to(tape.add("Mul", over, node.output[0]), shape, right)
        found[1] = tape.add("Neg", whole)
    return found


def _power(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Of x^c: c x^(c - 1).

    Raises:
        SourceError: if the exponent needs a gradient.
    """
    if needs[1]:
        raise SourceError(f"{called(node)}: a gradient of an exponent has no rule; keep it frozen")
    base, exponent = node.input
    known = tape.value(exponent)
    shape = tape.shape(node.output[0])
    if known is not None and known.size == 1:
        power = float(known.reshape(-1)[0])
        number = tape.number(power, like=base)
        slope = base if power == 2.0 else tape.add("Pow", base, tape.number(power - 1, like=base))
    else:
        one = tape.number(1.0, like=exponent)
        number = exponent
        slope = tape.add("Pow", base, tape.add("Sub", exponent, one))
    inner = tape.add("Mul", only(node, given), tape.add("Mul", slope, number))
    return [tape.sum_to(inner, shape, base), None]


def _where(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    condition, left, right = node.input
    shape, zero = tape.shape(node.output[0]), tape.number(0.0, like=node.output[0])
    found: list[str | None] = [None, None, None]
    if needs[1]:
        found[1] = tape.sum_to(tape.add("Where", condition, only(node, given), zero), shape, left)
    if needs[2]:
        found[2] = tape.sum_to(tape.add("Where", condition, zero, only(node, given)), shape, right)
    return found


def _extreme(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """Max and Min of two: the gradient goes to the one that was taken, half to each of equals.

    Raises:
        SourceError: if there are more than two.
    """
    if len(node.input) == 1:
        return [only(node, given)]
    if len(node.input) > 2:
        raise SourceError(f"{called(node)}: of {len(node.input)} inputs, a rule is there for two")
    shape, (left, right) = tape.shape(node.output[0]), node.input
    order = "Greater" if node.op_type == "Max" else "Less"
    half = tape.add("Mul", only(node, given), tape.number(0.5, like=node.output[0]))
    zero = tape.number(0.0, like=node.output[0])
    equal = tape.add("Where", tape.add("Equal", left, right), half, zero)
    found: list[str | None] = [None, None]
    for i, (own, other) in enumerate(((left, right), (right, left))):
        if needs[i]:
            mine = tape.add("Where", tape.add(order, own, other), only(node, given), equal)
            found[i] = tape.sum_to(mine, shape, own)
    return found


def _unary(slope: Callable[[Tape, str, str, str], str]) -> Rule:
    """Make a rule of (tape, gradient, x, y) -> gradient of x, for y = f(x)."""

    def rule(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
        found = slope(tape, only(node, given), node.input[0], node.output[0])
        return [found, *[None] * (len(node.input) - 1)]

    return rule


def _square_root(tape: Tape, given: str, x: str, y: str) -> str:
    return tape.add("Div", tape.add("Mul", given, tape.number(0.5, like=y)), y)


def _reciprocal(tape: Tape, given: str, x: str, y: str) -> str:
    return tape.add("Neg", tape.add("Mul", given, tape.add("Mul", y, y)))


def _tanh(tape: Tape, given: str, x: str, y: str) -> str:
    rest = tape.add("Sub", tape.number(1.0, like=y), tape.add("Mul", y, y))
    return tape.add("Mul", given, rest)


def _sigmoid(tape: Tape, given: str, x: str, y: str) -> str:
    rest = tape.add("Sub", tape.number(1.0, like=y), y)
    return tape.add("Mul", given, tape.add("Mul", y, rest))


def _error_function(tape: Tape, given: str, x: str, y: str) -> str:
    bell = tape.add("Exp", tape.add("Neg", tape.add("Mul", x, x)))
    scale = tape.number(2.0 / np.sqrt(np.pi), like=y)
    return tape.add("Mul", given, tape.add("Mul", bell, scale))


def _cosine(tape: Tape, given: str, x: str, y: str) -> str:
    return tape.add("Neg", tape.add("Mul", given, tape.add("Sin", x)))


_UNARY: Final[dict[str, Callable[[Tape, str, str, str], str]]] = {
    "Abs": lambda tape, given, x, y: tape.add("Mul", given, tape.add("Sign", x)),
    "Cos": _cosine,
    "Erf": _error_function,
    "Exp": lambda tape, given, x, y: tape.add("Mul", given, y),
    "Identity": lambda tape, given, x, y: given,
    "Log": lambda tape, given, x, y: tape.add("Div", given, x),
    "Neg": lambda tape, given, x, y: tape.add("Neg", given),
    "Reciprocal": _reciprocal,
    "Sigmoid": _sigmoid,
    "Sin": lambda tape, given, x, y: tape.add("Mul", given, tape.add("Cos", x)),
    "Softplus": lambda tape, given, x, y: tape.add("Mul", given, tape.add("Sigmoid", x)),
    "Sqrt": _square_root,
    "Tanh": _tanh,
}

RULES: Final[Rules] = {("", name): _unary(slope) for name, slope in _UNARY.items()} | {
    ("", "Add"): _add,
    ("", "Div"): _divide,
    ("", "Dropout"): _dropout,
    ("", "Max"): _extreme,
    ("", "Mean"): _mean,
    ("", "Min"): _extreme,
    ("", "Mul"): _multiply,
    ("", "Pow"): _power,
    ("", "Sub"): _subtract,
    ("", "Sum"): _add,
    ("", "Where"): _where,
}
