"""Operators that read the same input, side by side, put into one: products and convolutions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from onhand.host.networks.fusing.patterns import Rewritten
from onhand.host.networks.graph import Array, Graph, Node, fresh_name

__all__ = ["merge_convolutions", "merge_products"]

_ALONE: Final = frozenset({"Relu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "LeakyRelu"})
"""Activations of one input: done once for all siblings where all of them have it."""


@dataclass(slots=True)
class _Merging:
    """A graph while siblings are put together."""

    graph: Graph
    readers: dict[str, list[Node]]
    outputs: set[str]
    taken: set[str]
    placed: dict[str, list[Node]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    constants: dict[str, Array] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph) -> "_Merging":
        return cls(graph, graph.readers(), set(graph.output_names()), graph.names())

    def store(self, wanted: str, array: Array) -> str:
        name = fresh_name(self.taken, wanted)
        self.constants[name] = array
        return name

    def follower(self, node: Node) -> Node | None:
        """Return the one node that reads a node's output, which nobody else sees."""
        readers = self.readers.get(node.name, [])
        return readers[0] if len(readers) == 1 and node.name not in self.outputs else None

    def place(self, group: list[Node], made: list[Node], sizes: list[int], *, axis: int) -> None:
        """Put nodes, what follows all of a group, and a Split in the place of the group."""
        last = made[-1].name
        members = group
        while (following := self._common(members, sizes)) is not None:
            members, extra = following
            inputs = tuple(last if i == 0 else name for i, name in enumerate(extra.inputs))
            last = fresh_name(self.taken, f"{members[0].name}.all")
            made.append(replace(extra, inputs=inputs, outputs=(last,)))
            self.gone |= {node.name for node in members}
        parts = self.store(f"{last}.sizes", np.array(sizes, dtype=np.int64))
        names = tuple(node.name for node in members)
        made.append(
            Node(op="Split", inputs=(last, parts), outputs=names, attributes={"axis": axis})
        )
        self.gone |= {node.name for node in group}
        self.placed[group[0].name] = made
        first = group[0]
        for node in group:
            self.changed[node.name] = f"one of {len(group)} {first.op} of {first.inputs[0]!r}"

    def _common(self, members: list[Node], sizes: list[int]) -> tuple[list[Node], Node] | None:
        """Return what follows each of them, and the one node that does it for all; or None."""
        found = [self.follower(node) for node in members]
        followers = [node for node in found if node is not None]
        if len(followers) < len(members):
            return None
        first = followers[0]
        alike = all(
            f.op == first.op and f.domain == first.domain and _same(f.attributes, first.attributes)
            for f in followers
        )
        if not alike:
            return None
        if first.op in _ALONE and not first.domain:
            return followers, first
        clipped = first.op == "Clip" and all(f.inputs[1:] == first.inputs[1:] for f in followers)
        if clipped and all(f.inputs[0] == m.name for f, m in zip(followers, members, strict=True)):
            return followers, first
        return self._biased(members, followers, sizes)

    def _biased(
        self, members: list[Node], followers: list[Node], sizes: list[int]
    ) -> tuple[list[Node], Node] | None:
        """The same for sums with a vector for the last axis, after products."""
        if followers[0].op != "Add" or members[0].op not in {"MatMul"}:
            return None
        vectors: list[Array] = []
        for follower, member, size in zip(followers, members, sizes, strict=True):
            other = [name for name in follower.inputs if name != member.name]
            array = self.graph.constants.get(other[0]) if len(other) == 1 else None
            if array is None or array.shape != (size,):
                return None
            vectors.append(array)
        bias = self.store(f"{followers[0].name}.bias", np.concatenate(vectors))
        return followers, replace(followers[0], inputs=(members[0].name, bias))

    def done(self) -> Rewritten:
        def change(node: Node) -> list[Node]:
            if node.name in self.placed:
                return self.placed[node.name]
            return [] if node.name in self.gone else [node]

        if not self.placed:
            return Rewritten(graph=self.graph, kept=self.kept)
        constants = {**self.graph.constants, **self.constants}
        graph = replace(self.graph.rebuilt(change), constants=constants).live()
        return Rewritten(graph=graph, changed=self.changed, kept=self.kept)


def merge_products(graph: Graph) -> Rewritten:
    """Put products of the same input with constant matrices into one product and a Split.

    Args:
        graph: the graph; products are MatMul of a value with a constant matrix, with the sums and
            activations that follow each of them.

    Returns:
        The graph; queries, keys and values of attention are the common case.
    """
    state = _Merging.of(graph)

    def key(node: Node) -> tuple[object, ...] | None:
        matrix = graph.constants.get(node.inputs[1]) if len(node.inputs) == 2 else None
        if node.op != "MatMul" or node.domain or matrix is None or matrix.ndim != 2:
            return None
        return node.inputs[0], matrix.dtype, matrix.shape[0]

    for group in _groups(state, key):
        matrices = [graph.constants[node.inputs[1]] for node in group]  # (K, N) each
        weight = state.store(f"{group[0].inputs[1]}.all", np.concatenate(matrices, axis=1))
        made = Node(
            op="MatMul",
            inputs=(group[0].inputs[0], weight),
            outputs=(fresh_name(state.taken, f"{group[0].name}.all"),),
        )
        state.place(group, [made], [m.shape[1] for m in matrices], axis=-1)
    return state.done()


def merge_convolutions(graph: Graph) -> Rewritten:
    """Put convolutions of the same input, kernel size, strides and padding into one and a Split.

    Args:
        graph: the graph; convolutions of one group with constant weights, with the activations
            that follow each of them.

    Returns:
        The graph.
    """
    state = _Merging.of(graph)

    def key(node: Node) -> tuple[object, ...] | None:
        if node.op != "Conv" or node.domain or node.whole("group", 1) != 1:
            return None
        parts = [graph.constants.get(name) for name in node.inputs[1:] if name]
        if any(part is None for part in parts) or not parts or parts[0] is None:
            return None
        settings = tuple(
            node.wholes(name) for name in ("strides", "pads", "dilations", "kernel_shape")
        )
        kind = node.text("auto_pad", "NOTSET")
        return (node.inputs[0], parts[0].dtype, parts[0].shape[1:], kind, *settings)

    for group in _groups(state, key):
        kernels = [graph.constants[node.inputs[1]] for node in group]  # (N, K, ...) each
        inputs = [group[0].inputs[0]]
        inputs.append(state.store(f"{group[0].inputs[1]}.all", np.concatenate(kernels)))
        if any(len(node.inputs) > 2 and node.inputs[2] for node in group):
            biases = [
                graph.constants[node.inputs[2]]
                if len(node.inputs) > 2 and node.inputs[2]
                else np.zeros(len(kernel), dtype=kernel.dtype)
                for node, kernel in zip(group, kernels, strict=True)
            ]
            inputs.append(state.store(f"{group[0].name}.bias", np.concatenate(biases)))
        made = replace(
            group[0],
            inputs=tuple(inputs),
            outputs=(fresh_name(state.taken, f"{group[0].name}.all"),),
        )
        state.place(group, [made], [len(kernel) for kernel in kernels], axis=1)
    return state.done()


def _groups(state: _Merging, key: Callable[[Node], tuple[object, ...] | None]) -> list[list[Node]]:
    """Return two or more nodes of one key each, whose weights are theirs alone."""
    found: dict[tuple[object, ...], list[Node]] = {}
    for node in state.graph.nodes:
        if (of := key(node)) is not None:
            found.setdefault(of, []).append(node)
    groups: list[list[Node]] = []
    for nodes in found.values():
        own: list[Node] = []
        for node in nodes:
            if len(nodes) > 1 and len(state.readers[node.inputs[1]]) > 1:
                state.kept[node.name] = "its weight is read by others as well"
            else:
                own.append(node)
        if len(own) > 1:
            groups.append(own)
    return groups


def _same(left: Mapping[str, object], right: Mapping[str, object]) -> bool:
    if left.keys() != right.keys():
        return False
    return all(np.array_equal(np.asarray(left[k]), np.asarray(right[k])) for k in left)
