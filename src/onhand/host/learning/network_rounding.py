"""A graph without the rounding of its activations, on which gradients can be compared closely.

A pair of QuantizeLinear and DequantizeLinear becomes a Clip to the range of its codes, whose
gradient is that of the straight-through rule. With rounding, two computations that differ in the
last bit may differ by a whole code.

Source:
    Straight-through estimator: arXiv:1308.3432.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from onhand.host.learning.network_graph import folded
from onhand.host.networks.graph import Array, Graph, Node, fresh_name

__all__ = ["without_rounding"]

_RANGES: Final = {
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
}


def without_rounding(graph: Graph, fixed: Collection[str]) -> Graph:
    """Put bounds in the place of every pair that rounds a value.

    Args:
        graph: the graph.
        fixed: values that no input changes.

    Returns:
        The graph; the same one where nothing that moves is rounded.
    """
    makers, names = graph.producers(), graph.names()
    found: dict[str, tuple[Node, Node]] = {}
    for node in graph.nodes:
        before = makers.get(node.inputs[0]) if node.op == "DequantizeLinear" else None
        if before is not None and before.op == "QuantizeLinear" and node.name not in fixed:
            found[node.name] = (before, node)
    needed = {name for pair in found.values() for node in pair for name in node.inputs[1:] if name}
    numbers = folded(graph, sorted(name for name in needed if name in fixed))
    constants = dict(graph.constants)
    clips: dict[str, Node] = {}
    for value, (first, second) in found.items():
        bounds = _bounds(first, second, numbers)
        if bounds is None:
            continue
        low, high = (fresh_name(names, f"{value}.{end}") for end in ("low", "high"))
        constants |= {low: bounds[0], high: bounds[1]}
        clips[value] = Node(op="Clip", inputs=(first.inputs[0], low, high), outputs=(value,))

    if not clips:
        return graph

    def change(node: Node) -> Iterable[Node]:
        yield clips.get(node.name, node)

    return replace(graph.rebuilt(change), constants=constants).live()


def _bounds(first: Node, second: Node, numbers: Mapping[str, Array]) -> tuple[Array, Array] | None:
    """Return the ends of what is rounded to a code; None for a pair that is none of one number."""
    if first.inputs[1:] != second.inputs[1:] or first.inputs[1] not in numbers:
        return None
    scale = numbers[first.inputs[1]]
    has_zero = len(first.inputs) > 2 and bool(first.inputs[2])
    zero = numbers[first.inputs[2]] if has_zero else np.zeros((), np.uint8)
    limits = _RANGES.get(zero.dtype.name)
    if scale.size != 1 or zero.size != 1 or limits is None:
        return None
    step, middle = float(scale.reshape(())), float(zero.reshape(()).astype(np.int32))
    # Half a step further out is still rounded to the last code.
    ends = ((limits[0] - 0.5 - middle) * step, (limits[1] + 0.5 - middle) * step)
    return np.array(ends[0], np.float32), np.array(ends[1], np.float32)
