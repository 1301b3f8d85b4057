"""How each operator passes channels on: one rule for each, by its name."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import numpy as np

from onhand.host.networks.dependency_shapes import SHAPE_RULES
from onhand.host.networks.dependency_trace import Consumer, Cutting, Edit, IntArray, Labels, Trace
from onhand.host.networks.graph import Node

__all__ = ["RULES", "Rule"]

Rule = Callable[[Trace, Node], None]

_UNARY = (
    "Abs Cast Ceil Clip Cos Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsNaN "
    "LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt "
    "Swish Tanh ThresholdedRelu"
)
_BROADCAST = (
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu Pow "
    "Sub Sum Where Xor"
)
_POOLS = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool"
_REDUCTIONS = (
    "ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
    "ReduceProd ReduceSum ReduceSumSquare"
)


def _unary(trace: Trace, node: Node) -> None:
    axes = trace.of(node.inputs[0])
    # What else it reads are numbers: the bounds of a Clip, the ratio of a Dropout.
    if axes is None or any(trace.dims(name) not in {(), (1,)} for name in node.inputs[1:] if name):
        trace.opaque(node, f"{node.op} {node.name!r} has inputs of an unknown shape")
        return
    for name in node.outputs:
        if name:
            trace.put(name, axes)


def _broadcast(trace: Trace, node: Node) -> None:
    names = node.reads()
    ranks = [trace.rank(name) for name in names]
    rank = max((r for r in ranks if r is not None), default=0)
    if None in ranks:
        trace.opaque(node, f"{node.op} {node.name!r} has inputs of an unknown shape")
        return
    found: list[Labels] = []
    for axis in range(-rank, 0):
        parts = [
            (n, axis) for n, r in zip(names, ranks, strict=True) if r is not None and r >= -axis
        ]
        found.append(trace.meet(parts, node))
    trace.put(node.outputs[0], found)


def _conv(trace: Trace, node: Node) -> None:
    data, weight = trace.of(node.inputs[0]), trace.of(node.inputs[1])
    if data is None or weight is None or not trace.is_constant(node.inputs[1]) or len(data) < 3:
        trace.opaque(node, f"{node.op} {node.name!r} has no constant weights")
        return
    trace.still((data[0], *data[2:]), node)
    group, shape = node.whole("group", 1), trace.graph.constants[node.inputs[1]].shape
    outputs = weight[0]
    if group == 1:
        _sums_over(trace, node, 1, 1)
        trace.make(node.inputs[1], outputs)
    elif data[1] is None or outputs is None:
        trace.units.freeze(outputs, f"{node.op} {node.name!r} works on channels that stay")
        trace.units.freeze(weight[1], f"{node.op} {node.name!r} works on channels that stay")
    elif shape[1] == 1:
        trace.units.join(outputs, np.repeat(data[1], shape[0] // group))
        trace.edit(node, data[1], _fewer_groups(data[1]))
    else:
        _grouped(trace, data[1], weight[1], outputs.reshape(group, -1))
        _consumes(trace, node, 1, data[1], 1, groups=group)
        trace.make(node.inputs[1], outputs)
    _bias(trace, node, outputs)
    trace.put(node.outputs[0], (data[0], outputs, *(None for _ in data[2:])))


def _grouped(trace: Trace, data: IntArray, inside: Labels, outputs: IntArray) -> None:
    """All groups lose the same places, so that they stay equal in size."""
    for row in data.reshape(len(outputs), -1):
        if inside is not None:
            trace.units.join(inside, row)
    for row in outputs[1:]:
        trace.units.join(outputs[0], row)


def _fewer_groups(labels: IntArray) -> Edit:
    def edit(node: Node, cutting: Cutting) -> Iterable[Node]:
        yield replace(node, attributes={**node.attributes, "group": cutting.count(labels)})

    return edit


def _conv_transpose(trace: Trace, node: Node) -> None:
    data, weight = trace.of(node.inputs[0]), trace.of(node.inputs[1])
    constant = trace.is_constant(node.inputs[1])
    if data is None or weight is None or not constant or node.whole("group", 1) != 1:
        trace.opaque(node, f"{node.op} {node.name!r} has groups, or no constant weights")
        return
    trace.still((data[0], *data[2:]), node)
    _sums_over(trace, node, 1, 0)
    trace.make(node.inputs[1], weight[1])
    _bias(trace, node, weight[1])
    trace.put(node.outputs[0], (data[0], weight[1], *(None for _ in data[2:])))


def _bias(trace: Trace, node: Node, outputs: Labels) -> None:
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = trace.of(node.inputs[2])
        if bias is not None and bias[0] is not None and outputs is not None:
            trace.units.join(outputs, bias[0])
        else:
            trace.units.freeze(outputs, f"the bias of {node.name!r} is computed")


def _sums_over(trace: Trace, node: Node, axis: int, weight_axis: int) -> None:
    """Join the axis of the first input with that of the constant second, and note the consumer."""
    data, weight = node.inputs[:2]
    labels = trace.meet([(data, axis), (weight, weight_axis)], node)
    if labels is not None:
        _consumes(trace, node, axis, labels, weight_axis)


def _consumes(
    trace: Trace, node: Node, axis: int, labels: IntArray, weight_axis: int, *, groups: int = 1
) -> None:
    data, weight = node.inputs[:2]
    trace.consumers.append(
        Consumer(
            node=node, data=data, axis=axis, labels=labels, weight=weight, weight_axis=weight_axis,
            groups=groups,
        )
    )  # fmt: skip


def _matmul(trace: Trace, node: Node) -> None:
    left, right = (trace.of(name) for name in node.inputs)
    if left is None or right is None or len(left) < 2 or len(right) < 2:
        trace.opaque(node, f"{node.op} {node.name!r} multiplies vectors, or an unknown shape")
        return
    if trace.is_constant(node.inputs[1]) and len(right) == 2:
        _sums_over(trace, node, -1, -2)
        trace.make(node.inputs[1], right[-1])
    else:
        trace.meet([(node.inputs[0], -1), (node.inputs[1], -2)], node)
    rank = max(len(left), len(right))
    batch: list[Labels] = []
    for axis in range(-rank, -2):
        parts = [(n, axis) for n, a in zip(node.inputs, (left, right), strict=True)
                 if len(a) >= -axis]  # fmt: skip
        batch.append(trace.meet(parts, node))
    trace.put(node.outputs[0], (*batch, left[-2], right[-1]))


def _gemm(trace: Trace, node: Node) -> None:
    left, right = trace.of(node.inputs[0]), trace.of(node.inputs[1])
    if left is None or right is None or not trace.is_constant(node.inputs[1]):
        trace.opaque(node, f"{node.op} {node.name!r} has no constant weights")
        return
    turned, inner = node.whole("transA", 0), 1 if node.whole("transB", 0) else 0
    outputs = right[1 - inner]
    _sums_over(trace, node, 0 if turned else 1, inner)
    trace.make(node.inputs[1], outputs)
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = trace.of(node.inputs[2])
        if bias is None:
            trace.units.freeze(outputs, f"the bias of {node.name!r} is computed")
        elif bias:
            trace.still(bias[:-1], node)
            trace.meet([(node.inputs[1], 1 - inner), (node.inputs[2], -1)], node)
    trace.put(node.outputs[0], (left[1 if turned else 0], outputs))


def _normalized(trace: Trace, node: Node) -> None:
    """Scale and shift each channel for itself: numbers for each channel along axis 1."""
    data = trace.of(node.inputs[0])
    if data is None or len(data) < 2:
        trace.opaque(node, f"{node.op} {node.name!r} has inputs of an unknown shape")
        return
    trace.still((data[0], *data[2:]), node)
    labels = trace.meet([(node.inputs[0], 1), *((name, 0) for name in node.inputs[1:])], node)
    trace.put(node.outputs[0], (data[0], labels, *(None for _ in data[2:])))


def _layer_norm(trace: Trace, node: Node) -> None:
    data = trace.of(node.inputs[0])
    if not data:
        trace.opaque(node, f"{node.op} {node.name!r} has inputs of an unknown shape")
        return
    axis = node.whole("axis", -1) % len(data)
    trace.still(data[axis:], node)
    for name in node.inputs[1:]:
        trace.still(trace.of(name) or (), node)
    trace.put(node.outputs[0], (*data[:axis], *(None for _ in data[axis:])))


def _softmax(trace: Trace, node: Node) -> None:
    data = trace.of(node.inputs[0])
    if not data:
        return
    axis = node.whole("axis", -1) % len(data)
    trace.still((data[axis],), node)
    trace.put(node.outputs[0], (*data[:axis], None, *data[axis + 1 :]))


def _pool(trace: Trace, node: Node) -> None:
    data = trace.of(node.inputs[0])
    if data is None or len(data) < 3:
        trace.opaque(node, f"{node.op} {node.name!r} has inputs of an unknown shape")
        return
    trace.still((data[0], *data[2:]), node)
    for name in node.outputs:
        if name:
            trace.put(name, (data[0], data[1], *(None for _ in data[2:])))


def _reduced_axes(trace: Trace, node: Node) -> tuple[int, ...] | None:
    if node.op.startswith("Arg"):
        return (node.whole("axis", 0),)
    if len(node.inputs) > 1 and node.inputs[1]:
        given = trace.graph.constants.get(node.inputs[1])
        return None if given is None else tuple(int(axis) for axis in given.reshape(-1))
    return node.wholes("axes") or None


def _reduce(trace: Trace, node: Node) -> None:
    data, dims = trace.of(node.inputs[0]), trace.dims(node.outputs[0])
    axes = _reduced_axes(trace, node)
    if not data or axes is None or dims is None:
        trace.opaque(node, f"{node.op} {node.name!r} works along all axes")
        if data is not None and axes is None and not node.whole("keepdims", 1):
            trace.put(node.outputs[0], ())
        return
    gone = {axis % len(data) for axis in axes}
    trace.still((labels for i, labels in enumerate(data) if i in gone), node)
    keeps = len(dims) == len(data)
    kept = [
        None if i in gone else labels for i, labels in enumerate(data) if keeps or i not in gone
    ]
    trace.put(node.outputs[0], kept)


def _resize(trace: Trace, node: Node) -> None:
    """Only with factors, and one of 1 along axes that pass channels on."""
    data = trace.of(node.inputs[0])
    scales = trace.graph.constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
    if data is None or scales is None or scales.size != len(data):
        trace.opaque(node, f"{node.op} {node.name!r} is given sizes, not factors")
        return
    moved = [factor != 1 for factor in scales.reshape(-1).tolist()]
    trace.still((a for a, is_moved in zip(data, moved, strict=True) if is_moved), node)
    trace.put(node.outputs[0], [None if m else a for a, m in zip(data, moved, strict=True)])


RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(_UNARY.split(), _unary),
    **dict.fromkeys(_BROADCAST.split(), _broadcast),
    **dict.fromkeys(_POOLS.split(), _pool),
    **dict.fromkeys(_REDUCTIONS.split(), _reduce),
    "BatchNormalization": _normalized,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "InstanceNormalization": _normalized,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "RMSNormalization": _layer_norm,
    "Resize": _resize,
    "Softmax": _softmax,
    **SHAPE_RULES,
}
"""ONNX's operators that pass channels on; any other keeps all that it reads."""
