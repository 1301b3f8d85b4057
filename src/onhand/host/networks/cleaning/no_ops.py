"""Operators that do nothing, alone or in pairs."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from onhand.host.networks.cleaning.edit import Surroundings, bypassed, static_shape
from onhand.host.networks.graph import Graph, Node, Value
from onhand.host.networks.onnx_files import infer_shapes

__all__ = ["drop_no_ops"]

_Known = Mapping[str, Value]


def drop_no_ops(graph: Graph) -> Graph:
    """Return the graph without Identity, Dropout and others that give what they get.

    Args:
        graph: the graph.

    Returns:
        The graph; pairs of Transpose, Reshape and Cast are made one first.
    """
    graph = _merge_pairs(graph)
    around, known = Surroundings(graph), infer_shapes(graph)
    same: dict[str, str] = {}
    for node in graph.nodes:
        rule = _RULES.get(node.op)
        if rule and not node.domain and sum(bool(name) for name in node.outputs) == 1:
            source = rule(node, around, known)
            if source is not None:
                same[node.name] = source
    return bypassed(graph, same) if same else graph


def _merge_pairs(graph: Graph) -> Graph:
    """Let the second of two Transposes, or two Reshapes, read what the first one reads."""
    producers = graph.producers()
    constants = graph.constants
    captured = {name for node in graph.nodes for name in node.captured}

    def merged(node: Node) -> tuple[Node]:
        first = producers.get(node.inputs[0]) if node.inputs else None
        if first is None or node.domain or first.domain:
            return (node,)
        if first.op != node.op and (first.op, node.op) != ("Flatten", "Reshape"):
            return (node,)
        if captured & {node.inputs[0], *first.inputs}:
            return (node,)
        if node.op == "Transpose" and "perm" in node.attributes and "perm" in first.attributes:
            inner, outer = first.wholes("perm"), node.wholes("perm")
            perm = tuple(inner[axis] for axis in outer)
            return (replace(node, inputs=first.inputs, attributes={"perm": perm}),)
        if node.op == "Reshape":
            target = constants.get(node.inputs[1])
            # A size of 0 stands for a size of what is read: the first Reshape's, not its input's.
            if target is not None and not np.any(np.asarray(target) == 0):
                return (replace(node, inputs=(first.inputs[0], node.inputs[1])),)
        return (node,)

    return graph.rebuilt(merged)


def _identity(node: Node, around: Surroundings, known: _Known) -> str | None:
    return node.inputs[0]


def _dropout(node: Node, around: Surroundings, known: _Known) -> str | None:
    training = node.inputs[2] if len(node.inputs) > 2 else ""
    if not training:
        return node.inputs[0]
    given = around.constant(training)
    return node.inputs[0] if given is not None and not np.any(given) else None


def _cast(node: Node, around: Surroundings, known: _Known) -> str | None:
    before, after = known.get(node.inputs[0]), known.get(node.name)
    # A graph's input or output says its dtype itself, all others are worked out.
    if before is None or after is None or before.dtype != after.dtype:
        return None
    from onnx import helper

    to = helper.tensor_dtype_to_np_dtype(node.whole("to", 0))
    return node.inputs[0] if to == before.dtype else None


def _transpose(node: Node, around: Surroundings, known: _Known) -> str | None:
    perm = node.wholes("perm")
    return node.inputs[0] if perm and perm == tuple(range(len(perm))) else None


def _same_shape(node: Node, around: Surroundings, known: _Known) -> str | None:
    before, after = known.get(node.inputs[0]), known.get(node.name)
    if before is None or after is None:
        return None
    if static_shape(before) is not None:
        return node.inputs[0] if static_shape(before) == static_shape(after) else None
    # One open size follows from the others, whatever it is called.
    if len(before.shape) != len(after.shape) or node.op not in {"Reshape", "Flatten"}:
        return None
    pairs = list(zip(before.shape, after.shape, strict=True))
    opened = [(a, b) for a, b in pairs if not isinstance(a, int) or not isinstance(b, int)]
    both = all(not isinstance(a, int) and not isinstance(b, int) for a, b in opened)
    alike = all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))
    return node.inputs[0] if len(opened) == 1 and both and alike else None


def _single(node: Node, around: Surroundings, known: _Known) -> str | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _pad(node: Node, around: Surroundings, known: _Known) -> str | None:
    pads = around.constant(node.inputs[1])
    return node.inputs[0] if pads is not None and not np.any(pads) else None


def _neutral(node: Node, around: Surroundings, known: _Known) -> str | None:
    """Sums with 0 and products with 1 that change no shape."""
    unit = 0 if node.op in {"Add", "Sub"} else 1
    sides = (1, 0) if node.op in {"Add", "Mul"} else (1,)
    after = known.get(node.name)
    for side in sides:
        array, other = around.constant(node.inputs[side]), node.inputs[1 - side]
        before = known.get(other)
        if array is None or before is None or after is None or not np.all(array == unit):
            continue
        if array.size == 1 and array.ndim <= len(before.shape):
            return other
        if static_shape(before) is not None and static_shape(before) == static_shape(after):
            return other
    return None


_RULES: dict[str, Callable[[Node, Surroundings, _Known], str | None]] = {
    "Add": _neutral,
    "Cast": _cast,
    "Concat": _single,
    "Div": _neutral,
    "Dropout": _dropout,
    "Expand": _same_shape,
    "Flatten": _same_shape,
    "Identity": _identity,
    "Max": _single,
    "Mean": _single,
    "Min": _single,
    "Mul": _neutral,
    "Pad": _pad,
    "Reshape": _same_shape,
    "Squeeze": _same_shape,
    "Sub": _neutral,
    "Sum": _single,
    "Tile": _same_shape,
    "Transpose": _transpose,
    "Unsqueeze": _same_shape,
}
