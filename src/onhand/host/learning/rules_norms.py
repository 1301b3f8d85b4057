"""Gradients of normalisations, from the means and deviations that the forward pass computed."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from onnx import NodeProto

from onhand.core.errors import SourceError
from onhand.host.learning.graph_shapes import MICROSOFT
from onhand.host.learning.rules import Gradients, Rules, number_of, only, whole_of
from onhand.host.learning.tape import Tape, called

__all__ = ["RULES"]


def _layer_norm(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    x, passed = node.input[0], only(node, given)
    rank = len(tape.shape(x))
    axes = list(range(whole_of(node, "axis", -1) % rank, rank))
    mean = tape.extra_output(node, 1, kind="mean")
    inverse = tape.extra_output(node, 2, kind="inverse")
    scaled = tape.add("Mul", tape.add("Sub", x, mean), inverse)
    found: list[str | None] = [None] * len(node.input)
    if needs[0]:
        found[0] = _of_normed(tape, passed, node.input[1], scaled, inverse, axes=axes, mean=True)
    return _of_weights(tape, node, passed, scaled, needs, found)


def _rms_norm(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    x, passed = node.input[0], only(node, given)
    rank = len(tape.shape(x))
    axes = list(range(whole_of(node, "axis", -1) % rank, rank))
    inverse = tape.extra_output(node, 1, kind="inverse")
    scaled = tape.add("Mul", x, inverse)
    found: list[str | None] = [None] * len(node.input)
    if needs[0]:
        found[0] = _of_normed(tape, passed, node.input[1], scaled, inverse, axes=axes, mean=False)
    return _of_weights(tape, node, passed, scaled, needs, found)


def _of_normed(
    tape: Tape, passed: str, weight: str, scaled: str, inverse: str, *, axes: list[int], mean: bool
) -> str:
    """Return the gradient of what was normed.

    With n = (x - mean) / deviation and g = dy * weight: (g - mean(g) - n mean(g n)) / deviation;
    without the mean where none was taken off, and without a weight where its name is "".
    """
    g = tape.add("Mul", passed, weight) if weight else passed
    reduced = tape.integers(axes)
    along = tape.add("Mul", scaled, tape.add("ReduceMean", tape.add("Mul", g, scaled), reduced))
    if mean:
        g = tape.add("Sub", g, tape.add("ReduceMean", g, reduced))
    return tape.add("Mul", tape.add("Sub", g, along), inverse)


def _of_weights(
    tape: Tape,
    node: NodeProto,
    passed: str,
    scaled: str,
    needs: Sequence[bool],
    found: list[str | None],
) -> Gradients:
    """Add the gradients of weight and bias, inputs 1 and 2."""
    shape = tape.shape(node.input[0])
    if needs[1]:
        found[1] = tape.sum_to(tape.add("Mul", passed, scaled), shape, node.input[1])
    if len(needs) > 2 and needs[2]:
        found[2] = tape.sum_to(passed, shape, node.input[2])
    return found


def _skip_norm(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """SkipLayerNormalization and its form without a mean: a norm of a sum, and the sum.

    The runtime gives no means and deviations for these; the sum is normed once more for them.

    Raises:
        SourceError: if the loss depends on its means or deviations.
    """
    passed, _, _, of_sum = [*given, None, None, None][:4]
    if any(gradient is not None for gradient in list(given)[1:3]):
        raise SourceError(f"{called(node)}: its means and deviations cannot be differentiated")
    simple = node.op_type == "SkipSimplifiedLayerNormalization"
    shape, weight = tape.shape(node.input[0]), node.input[2]
    found: list[str | None] = [None] * len(node.input)
    if passed is not None:
        total = tape.extra_output(node, 3, kind="sum")
        scaled, inverse = _normed_again(tape, node, total, weight, simple=simple)
        last = [len(shape) - 1]
        own = _of_normed(tape, passed, weight, scaled, inverse, axes=last, mean=not simple)
        of_sum = own if of_sum is None else tape.add("Add", of_sum, own)
        if needs[2]:
            found[2] = tape.sum_to(tape.add("Mul", passed, scaled), shape, weight)
        if not simple and len(needs) > 3 and needs[3]:
            found[3] = tape.sum_to(passed, shape, node.input[3])
    for i in (0, 1, 3 if simple else 4):
        if of_sum is not None and i < len(needs) and needs[i]:
            found[i] = tape.sum_to(of_sum, shape, node.input[i])
    return found


def _normed_again(
    tape: Tape, node: NodeProto, total: str, weight: str, *, simple: bool
) -> tuple[str, str]:
    """Return a sum, normed with no weight, and one over its deviation.

    Raises:
        SourceError: if the size of its weight is not known.
    """
    width = tape.shape(weight)[0]
    if not isinstance(width, int):
        raise SourceError(f"{called(node)}: the size of its weight must be known")
    ones = tape.constant(np.ones(width, tape.dtype(weight)))
    epsilon = number_of(node, "epsilon", 1e-12)
    if simple:
        outputs = tape.add_many(
            "SimplifiedLayerNormalization", [total, ones], 2, axis=-1, epsilon=epsilon
        )
        return outputs[0], outputs[1]
    outputs = tape.add_many("LayerNormalization", [total, ones], 3, axis=-1, epsilon=epsilon)
    return outputs[0], outputs[2]


def _batch_norm(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """BatchNormalization as it stands when a network answers: mean and variance are fixed.

    Raises:
        SourceError: if it takes statistics of the batch, or they are to be learned.
    """
    if whole_of(node, "training_mode", 0) or any(needs[3:]):
        raise SourceError(f"{called(node)}: statistics of a batch cannot be differentiated")
    x, scale, _, mean, variance = node.input
    passed, shape = only(node, given), tape.shape(x)
    channels = tape.integers([-1, *[1] * (len(shape) - 2)])
    epsilon = tape.number(number_of(node, "epsilon", 1e-5), like=variance)
    inverse = tape.add("Reciprocal", tape.add("Sqrt", tape.add("Add", variance, epsilon)))
    others = tape.integers([axis for axis in range(len(shape)) if axis != 1])
    found: list[str | None] = [None] * 5
    if needs[0]:
        factor = tape.add("Reshape", tape.add("Mul", scale, inverse), channels)
        found[0] = tape.add("Mul", passed, factor)
    if needs[1]:
        centred = tape.add("Sub", x, tape.add("Reshape", mean, channels))
        summed = tape.add("ReduceSum", tape.add("Mul", passed, centred), others, keepdims=0)
        found[1] = tape.add("Mul", summed, inverse)
    if needs[2]:
        found[2] = tape.add("ReduceSum", passed, others, keepdims=0)
    return found


def _group_norm(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
    """GroupNormalization, and InstanceNormalization: groups of one channel.

    Raises:
        SourceError: if the number of channels is not known, or weights belong to groups, as
            before opset 21.
    """
    x, weight, _ = node.input
    passed, shape, n_channels = only(node, given), tape.shape(x), tape.shape(x)[1]
    if not isinstance(n_channels, int) or tape.shape(weight) != (n_channels,):
        raise SourceError(f"{called(node)}: needs a known number of channels, one weight for each")
    grouped = tape.integers([0, whole_of(node, "num_groups", n_channels), -1])
    numbers = tape.add("Reshape", x, grouped)  # (B, groups, ...)
    epsilon = tape.number(number_of(node, "epsilon", 1e-5), like=x)
    last = tape.integers([2])
    centred = tape.add("Sub", numbers, tape.add("ReduceMean", numbers, last))
    variance = tape.add("ReduceMean", tape.add("Mul", centred, centred), last)
    inverse = tape.add("Reciprocal", tape.add("Sqrt", tape.add("Add", variance, epsilon)))
    scaled = tape.add("Mul", centred, inverse)
    found: list[str | None] = [None] * 3
    if needs[0]:
        upright = tape.add("Reshape", weight, tape.integers([-1, *[1] * (len(shape) - 2)]))
        g = tape.add("Reshape", tape.add("Mul", passed, upright), grouped)
        normed = _of_normed(tape, g, "", scaled, inverse, axes=[2], mean=True)
        found[0] = tape.add("Reshape", normed, tape.shape_of(x))
    others = tape.integers([axis for axis in range(len(shape)) if axis != 1])
    if needs[1]:
        met = tape.add("Mul", passed, tape.add("Reshape", scaled, tape.shape_of(x)))
        found[1] = tape.add("ReduceSum", met, others, keepdims=0)
    if needs[2]:
        found[2] = tape.add("ReduceSum", passed, others, keepdims=0)
    return found


RULES: Final[Rules] = {
    ("", "BatchNormalization"): _batch_norm,
    ("", "GroupNormalization"): _group_norm,
    ("", "InstanceNormalization"): _group_norm,
    ("", "LayerNormalization"): _layer_norm,
    ("", "SimplifiedLayerNormalization"): _rms_norm,
    (MICROSOFT, "SkipLayerNormalization"): _skip_norm,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _skip_norm,
}
