"""Small questions and changes that the rules share."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onhand.host.networks.graph import Array, Graph, Node, Value

__all__ = ["Surroundings", "bypassed", "is_float", "static_shape"]


class Surroundings:
    """Who makes and who reads each value of one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self.readers = graph.readers()
        self.outputs = set(graph.output_names())
        self.captured = {name for node in graph.nodes for name in node.captured}

    def constant(self, name: str) -> Array | None:
        """Return a constant's array, None for anything else."""
        return self.graph.constants.get(name) if name else None

    def floats(self, name: str) -> NDArray[np.float64] | None:
        """Return a float constant in float64, None for anything else."""
        array = self.constant(name)
        if array is None or not is_float(array.dtype):
            return None
        # A damaged file may hold numbers that signal when they are touched.
        with np.errstate(invalid="ignore"):
            return np.asarray(array, dtype=np.float64)

    def only_reader(self, name: str) -> Node | None:
        """Return the one node that reads a value, if it is the only use of it."""
        readers = self.readers.get(name, [])
        if len(readers) != 1 or name in self.outputs or name in self.captured:
            return None
        # A node that reads it twice has two uses of it.
        return readers[0] if readers[0].inputs.count(name) == 1 else None

    def is_private(self, name: str) -> bool:
        """Whether one node alone uses a value."""
        return self.only_reader(name) is not None


def is_float(dtype: np.dtype[np.generic]) -> bool:
    """Whether a dtype is float16, float32 or float64."""
    return dtype.kind == "f"


def static_shape(value: Value | None) -> tuple[int, ...] | None:
    """Return a value's shape where every size is known; None for numbers.

    Shape inference gives () for a number, and also where it knows nothing.
    """
    if value is None or not value.shape or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(size for size in value.shape if isinstance(size, int))


def bypassed(graph: Graph, same: Mapping[str, str]) -> Graph:
    """Return the graph without nodes whose one output equals another value.

    Args:
        graph: the graph.
        same: output of such a node -> the value that it equals, which comes before it.

    Returns:
        The graph; a node stays where its output is one of the graph's and its input cannot take
        that name: an input, a constant, another output, or a name that a body reads.
    """
    around = Surroundings(graph)
    fixed = around.outputs | around.captured | {value.name for value in graph.inputs}
    fixed |= set(graph.constants)
    names: dict[str, str] = {}
    gone: set[str] = set()
    for node in graph.nodes:
        out = node.name
        if out not in same or out in around.captured:
            continue
        source = same[out]
        while source in names:
            source = names[source]
        if out not in around.outputs:
            names[out] = source
        elif source in fixed:
            continue
        else:
            # The value takes the output's name, and whoever had its old one reads the new.
            names[source] = out
            fixed.add(out)
        gone.add(out)
    final = {name: _end(name, names) for name in names}
    nodes = tuple(
        replace(
            node,
            inputs=tuple(final.get(name, name) for name in node.inputs),
            outputs=tuple(final.get(name, name) for name in node.outputs),
        )
        if final.keys() & {*node.inputs, *node.outputs}
        else node
        for node in graph.nodes
        if node.name not in gone
    )
    return replace(graph, nodes=nodes)


def _end(name: str, names: Mapping[str, str]) -> str:
    while name in names:
        name = names[name]
    return name
