"""A network's graph on the host, free of files and messages. Passes make another of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onhand.core.onnxattributes import number_of, text_attribute, whole_of, wholes_of

__all__ = ["Array", "Attribute", "Graph", "Node", "Value", "fresh_name"]

# Any: operators take arrays of every dtype.
Array = NDArray[Any]
Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator, as in ONNX.

    Attributes:
        op: its name there: "Conv".
        inputs: names of its inputs; "" for one that is left out.
        outputs: names of its outputs, likewise.
        attributes: by name.
        domain: "" for ONNX's own.
        bodies: name of an attribute -> a graph inside it (If, Loop, Scan), serialised.
        captured: names from outside that those graphs read.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict, hash=False)
    domain: str = ""
    bodies: Mapping[str, bytes] = field(default_factory=dict, hash=False)
    captured: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The first output, which names a node as well."""
        return next(name for name in self.outputs if name)

    def reads(self) -> tuple[str, ...]:
        """Return all names that it needs."""
        return tuple(name for name in (*self.inputs, *self.captured) if name)

    def whole(self, key: str, default: int) -> int:
        """Return an attribute that is a whole number; see `onhand.core.onnxattributes`."""
        return whole_of(self.attributes, key, default, where=self.shown)

    def wholes(self, key: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return an attribute that is a list of whole numbers."""
        return wholes_of(self.attributes, key, default, where=self.shown)

    def number(self, key: str, default: float) -> float:
        """Return an attribute that is a number."""
        return number_of(self.attributes, key, default, where=self.shown)

    def text(self, key: str, default: str) -> str:
        """Return an attribute that is a text."""
        return text_attribute(self.attributes, key, default, where=self.shown)

    @property
    def shown(self) -> str:
        """How messages call it."""
        return f"{self.op} {self.name!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """An input or an output: sizes are numbers, names of sizes, or None where nothing is known."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A network.

    Attributes:
        nodes: in an order in which they can run.
        constants: name -> array; never an input as well.
        inputs: what it is fed.
        outputs: what it gives.
        opset: version of ONNX's operators.
        domains: version of other domains' operators.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    opset: int
    domains: Mapping[str, int] = field(default_factory=dict)

    def producers(self) -> dict[str, Node]:
        """Return name -> the node that makes it."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def readers(self) -> dict[str, list[Node]]:
        """Return name -> the nodes that read it; a name that nobody reads is absent."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.reads()):
                found.setdefault(name, []).append(node)
        return found

    def output_names(self) -> tuple[str, ...]:
        """Return the outputs' names."""
        return tuple(value.name for value in self.outputs)

    def size_bytes(self) -> int:
        """Return the bytes of all constants."""
        return sum(array.nbytes for array in self.constants.values())

    def names(self) -> set[str]:
        """Return every name in use."""
        made = {name for node in self.nodes for name in (*node.outputs, *node.reads()) if name}
        return made | set(self.constants) | {value.name for value in (*self.inputs, *self.outputs)}

    def live(self) -> "Graph":
        """Return the graph without nodes and constants that no output needs."""
        wanted = set(self.output_names())
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs):
                kept.append(node)
                wanted.update(node.reads())
        constants = {name: array for name, array in self.constants.items() if name in wanted}
        return replace(self, nodes=tuple(reversed(kept)), constants=constants)

    def rebuilt(self, change: Callable[[Node], Iterable[Node]]) -> "Graph":
        """Return the graph with each node replaced by what `change` makes of it, in its place."""
        return replace(self, nodes=tuple(new for node in self.nodes for new in change(node)))

    def renamed(self, names: Mapping[str, str]) -> "Graph":
        """Return the graph whose nodes read other names: old -> new. Outputs keep their names."""
        return replace(
            self,
            nodes=tuple(
                replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))
                if names.keys() & set(node.inputs)
                else node
                for node in self.nodes
            ),
        )


def fresh_name(taken: set[str], wanted: str) -> str:
    """Return a name that is not taken yet, and take it.

    Args:
        taken: names in use; the new one is added.
        wanted: what it should be called.

    Returns:
        `wanted`, or the same with a number behind it.
    """
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}.{number}"
    taken.add(name)
    return name
