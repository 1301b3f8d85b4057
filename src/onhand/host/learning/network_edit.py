"""A network's graph in which some constants become inputs, so that they can be learned."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.lesson import Codes, Trainable
from onhand.host.networks.graph import Array, Attribute, Graph, Node, Value, fresh_name

__all__ = ["CLASSES", "GraphEdit", "Opened", "sorted_nodes"]

CLASSES: Final = "C"
"""Name of the size that grows with the classes."""
_LONGEST = 160
_ODD = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A network whose trainables are inputs.

    Attributes:
        graph: its inputs are the network's own, then the trainables; its outputs the network's.
        logits: a value of it, (B, C) float32.
        grows: whether classes may be added.
        trainables: by name.
        starts: their starting values.
        scales: of those that the network stores as integers.
    """

    graph: Graph
    logits: str
    grows: bool
    trainables: Mapping[str, Trainable]
    starts: Mapping[str, FloatArray]
    scales: Mapping[str, FloatArray]

    def own_inputs(self) -> tuple[Value, ...]:
        """Return the network's own inputs."""
        return tuple(value for value in self.graph.inputs if value.name not in self.trainables)


class GraphEdit:
    """A graph that is changed step by step; nodes are known by their first output."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._nodes = {node.name: node for node in graph.nodes}
        self._constants = dict(graph.constants)
        self._names = graph.names()
        self.outputs: tuple[Value, ...] = graph.outputs
        self.trainables: dict[str, Trainable] = {}
        self.starts: dict[str, FloatArray] = {}
        self.scales: dict[str, FloatArray] = {}

    def fresh(self, wanted: str) -> str:
        """Return a name that is not in use, and take it."""
        return fresh_name(self._names, wanted)

    def constant(self, wanted: str, array: Array) -> str:
        """Add a constant; its name."""
        name = self.fresh(wanted)
        self._constants[name] = array
        return name

    def node(self, op: str, inputs: Sequence[str], wanted: str, **attributes: Attribute) -> str:
        """Add a node of ONNX's own domain; the name of its output."""
        name = self.fresh(wanted)
        made = Node(op=op, inputs=tuple(inputs), outputs=(name,), attributes=attributes)
        self._nodes[name] = made
        return name

    def trainable(
        self,
        wanted: str,
        *,
        tensor: str,
        start: Array,
        part: str = "whole",
        grows: bool = False,
        stored: tuple[Codes, FloatArray] | None = None,
    ) -> str:
        """Add a trainable; the name of the input.

        Args:
            wanted: what it should be called.
            tensor: the weight that it changes.
            start: its starting value.
            part: as in `Trainable`.
            grows: likewise.
            stored: how the network stores it as integers, and their scales; None for floats.

        Returns:
            The name.
        """
        name = self.fresh(_short(wanted, len(self.trainables)))
        self.starts[name] = np.ascontiguousarray(start, dtype=np.float32).reshape(start.shape)
        self.trainables[name] = Trainable(
            shape=start.shape,
            tensor=_short(tensor, len(self.trainables) - 1),
            part=part,
            grows=grows,
            codes=None if stored is None else stored[0],
        )
        if stored is not None:
            self.scales[name] = stored[1]
        return name

    def read_instead(self, node: str, index: int, name: str) -> None:
        """Let a node read another value at one of its inputs, which may be left out so far."""
        old = self._nodes[node]
        inputs = [*old.inputs, *[""] * (index + 1 - len(old.inputs))]
        inputs[index] = name
        self._nodes[node] = replace(old, inputs=tuple(inputs))

    def replace_node(self, node: str, new: Node) -> None:
        """Put another node in the place of one; it makes the same value."""
        self._nodes[node] = new

    def add_behind(self, node: str, op: str, *others: str) -> None:
        """Let everybody read `op` of a node's value and of other values, in the value's place."""
        old = self._nodes.pop(node)
        plain = self.fresh(f"{node}.plain")
        self._nodes[plain] = replace(old, outputs=(plain, *old.outputs[1:]))
        self._nodes[node] = Node(op=op, inputs=(plain, *others), outputs=(node,))

    def finished(self, logits: str, *, grows: bool) -> Opened:
        """Return the network.

        Args:
            logits: a value of it.
            grows: whether classes may be added.
        """
        added = tuple(
            Value(
                name=name,
                dtype=np.dtype(np.float32),
                shape=(CLASSES, *made.shape[1:]) if made.grows else made.shape,
            )
            for name, made in self.trainables.items()
        )
        inputs = (*self._graph.inputs, *added)
        nodes = sorted_nodes(
            self._nodes.values(), {*self._constants, *(value.name for value in inputs)}
        )
        graph = replace(
            self._graph,
            nodes=nodes,
            constants=self._constants,
            inputs=inputs,
            outputs=self.outputs,
        ).live()
        return Opened(
            graph=graph,
            logits=logits,
            grows=grows,
            trainables=dict(self.trainables),
            starts=dict(self.starts),
            scales=dict(self.scales),
        )


def sorted_nodes(nodes: Iterable[Node], known: set[str]) -> tuple[Node, ...]:
    """Return nodes in an order in which they can run.

    Args:
        nodes: in any order.
        known: names of inputs and constants.

    Returns:
        The nodes.

    Raises:
        InputError: if one reads what nobody makes, or there is a circle.
    """
    waiting = list(nodes)
    ready, done = set(known), list[Node]()
    while waiting:
        later: list[Node] = []
        for node in waiting:
            if all(name in ready for name in node.reads()):
                ready.update(name for name in node.outputs if name)
                done.append(node)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise InputError(f"{later[0].shown} reads a value that nothing makes before it")
        waiting = later
    return tuple(done)


def _short(name: str, number: int) -> str:
    """Return a name as a lesson may have it."""
    plain = _ODD.sub("_", name) or "tensor"
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}.{number}"
