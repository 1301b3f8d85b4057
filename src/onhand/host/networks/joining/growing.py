"""Nodes and constants added to a graph, and graphs put beside each other."""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from onhand.core.errors import InputError
from onhand.host.networks.graph import Array, Attribute, Graph, Node, Value, fresh_name

__all__ = ["Growth", "beside", "check_versions", "float64"]


# ONNX's numbers of dtypes.
_NUMBERS: Final = {
    "float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11,
}  # fmt: skip


@dataclass(slots=True)
class Growth:
    """Nodes in the making; names never clash with those in use.

    Attributes:
        taken: names in use.
        nodes: made so far, in order.
        constants: that they read.
        prefix: of names that nobody chose.
    """

    taken: set[str]
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    prefix: str = "join"

    def op(self, op: str, *inputs: str | Array, called: str = "", **attributes: Attribute) -> str:
        """Add a node of one output.

        Args:
            op: its operator.
            inputs: names, or arrays, which become constants.
            called: what to call its output; a number is added where that is taken.
            attributes: by name.

        Returns:
            The output's name.
        """
        output = fresh_name(self.taken, called or f"{self.prefix}.{op}")
        names = tuple(
            given if isinstance(given, str) else self.constant(f"{output}.{i}", given)
            for i, given in enumerate(inputs)
        )
        self.nodes.append(Node(op=op, inputs=names, outputs=(output,), attributes=attributes))
        return output

    def cast(
        self, value: str, dtype: type[np.generic] | np.dtype[np.generic], *, called: str = ""
    ) -> str:
        """Add a change of dtype and return the output's name."""
        return self.op("Cast", value, called=called, to=_NUMBERS[np.dtype(dtype).name])

    def constant(self, wanted: str, array: Array) -> str:
        """Add a constant and return its name."""
        name = fresh_name(self.taken, wanted)
        self.constants[name] = array
        return name

    def before(self, graph: Graph, inputs: tuple[Value, ...]) -> Graph:
        """Return a graph with these nodes before it, and its new inputs."""
        constants = {**graph.constants, **self.constants}
        nodes = (*self.nodes, *graph.nodes)
        return replace(graph, nodes=nodes, constants=constants, inputs=inputs)

    def behind(self, graph: Graph, outputs: tuple[Value, ...]) -> Graph:
        """Return a graph with these nodes behind it, and its new outputs."""
        constants = {**graph.constants, **self.constants}
        nodes = (*graph.nodes, *self.nodes)
        return replace(graph, nodes=nodes, constants=constants, outputs=outputs).live()


def beside(graph: Graph, taken: set[str], *, prefix: str, shared: frozenset[str]) -> Graph:
    """Return a graph none of whose names clash with those taken, and take them.

    Args:
        graph: the graph.
        taken: names in use; those of the result are added.
        prefix: of a name that clashes.
        shared: names that stay though they are taken: inputs of both.

    Raises:
        InputError: if a graph inside of it reads a name that clashes.
    """
    fixed = {name for node in graph.nodes for name in node.captured}
    new: dict[str, str] = {"": ""}
    for name in sorted(graph.names()):
        if name in shared or name not in taken:
            new[name] = name
            taken.add(name)
        elif name in fixed:
            raise InputError(f"{name!r} is in both graphs, and a graph inside one of them reads it")
        else:
            new[name] = fresh_name(taken, f"{prefix}{name}")
    nodes = tuple(
        replace(
            node,
            inputs=tuple(new[name] for name in node.inputs),
            outputs=tuple(new[name] for name in node.outputs),
        )
        for node in graph.nodes
    )
    return replace(
        graph,
        nodes=nodes,
        constants={new[name]: array for name, array in graph.constants.items()},
        inputs=tuple(replace(value, name=new[value.name]) for value in graph.inputs),
        outputs=tuple(replace(value, name=new[value.name]) for value in graph.outputs),
    )


def check_versions(graphs: list[Graph]) -> dict[str, int]:
    """Return the versions of other domains' operators in graphs of one opset.

    Raises:
        InputError: if versions differ.
    """
    opsets = sorted({graph.opset for graph in graphs})
    if len(opsets) > 1:
        raise InputError(f"graphs of opsets {opsets} cannot be one; export them with the same")
    domains: dict[str, int] = {}
    for graph in graphs:
        for domain, version in graph.domains.items():
            if domains.setdefault(domain, version) != version:
                raise InputError(f"graphs use versions {domains[domain]} and {version} of {domain}")
    return domains


def float64(value: float) -> Array:
    """A number of no dimensions, for arithmetic with sizes."""
    return np.array(value, dtype=np.float64)
