"""Half precision brought to float32: what passes work on, and what processors compute fast."""

from dataclasses import replace
from typing import Final

import numpy as np

from onhand.host.networks.graph import Attribute, Graph, Node, fresh_name

__all__ = ["widened"]

_HALF, _FLOAT = np.dtype(np.float16), np.dtype(np.float32)
_HALF_CODE: Final = 10  # of ONNX's TensorProto
_FLOAT_CODE: Final = 1
_TYPES: Final = ("dtype", "output_dtype", "stash_type", "to")


def widened(graph: Graph) -> Graph:
    """Return a graph that computes in float32 where it computed in float16.

    Inputs and outputs keep their dtypes: a Cast stands behind each input and before each output.

    Args:
        graph: the graph.

    Returns:
        The new graph; the same one where it has no weights in float16, or nodes that hold graphs
        of their own, which would have to change as well.
    """
    halves = {name for name, array in graph.constants.items() if array.dtype == _HALF}
    if not any(graph.constants[name].ndim > 1 for name in halves):
        return graph
    if any(node.bodies for node in graph.nodes):
        return graph
    made = {name for node in graph.nodes for name in node.outputs}
    if any(value.name not in made for value in graph.outputs):
        return graph
    taken = graph.names()
    into = {
        value.name: fresh_name(taken, f"{value.name}.float32")
        for value in graph.inputs
        if value.dtype == _HALF
    }
    out_of = {
        value.name: fresh_name(taken, f"{value.name}.float32")
        for value in graph.outputs
        if value.dtype == _HALF
    }
    names = into | out_of
    inner = (
        replace(
            node,
            inputs=tuple(names.get(name, name) for name in node.inputs),
            outputs=tuple(out_of.get(name, name) for name in node.outputs),
            attributes={key: _wide(key, value) for key, value in node.attributes.items()},
        )
        for node in graph.nodes
    )
    return replace(
        graph,
        nodes=(
            *(_cast(name, wide, _FLOAT_CODE) for name, wide in into.items()),
            *inner,
            *(_cast(wide, name, _HALF_CODE) for name, wide in out_of.items()),
        ),
        constants={
            name: array.astype(_FLOAT) if name in halves else array
            for name, array in graph.constants.items()
        },
    )


def _cast(source: str, made: str, code: int) -> Node:
    return Node(op="Cast", inputs=(source,), outputs=(made,), attributes={"to": code})


def _wide(key: str, value: Attribute) -> Attribute:
    if isinstance(value, np.ndarray):
        return value.astype(_FLOAT) if value.dtype == _HALF else value
    if key in _TYPES and isinstance(value, int) and value == _HALF_CODE:
        return _FLOAT_CODE
    return value
