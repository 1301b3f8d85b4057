"""Sizes that a graph works out as it runs, though they are known before."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onhand.host.networks.graph import Array, Graph, Node, Value, fresh_name
from onhand.host.networks.onnx_files import infer_shapes

__all__ = ["write_sizes"]

_MOST_SIZES = 64
_Entries = Sequence[int | str | None] | None


def write_sizes(graph: Graph) -> Graph:
    """Return the graph with sizes that are known as constants: Shapes, and Reshapes' targets.

    Args:
        graph: the graph.

    Returns:
        The graph; sizes that a Reshape keeps are 0 in its target, one that it makes up is -1.
    """
    if not any(node.op in {"Shape", "Reshape"} for node in graph.nodes):
        return graph
    known = infer_shapes(graph)
    constants = dict(graph.constants)
    taken = graph.names()

    def settled(node: Node) -> tuple[Node, ...]:
        if node.op == "Reshape" and not node.domain and node.inputs[1] not in constants:
            target = _target(known.get(node.name))
            if target is None:
                target = _copied(node, known, producers, constants)
            if target is not None:
                name = fresh_name(taken, f"{node.name}.shape")
                constants[name] = target
                # In the new target 0 stands for a size as it was.
                rest = {k: v for k, v in node.attributes.items() if k != "allowzero"}
                return (replace(node, inputs=(node.inputs[0], name), attributes=rest),)
        if node.op in {"Gather", "Shape"} and not node.domain:
            value = _settled(node, _Sizes(known, producers, constants))
            if value is not None:
                name = fresh_name(taken, f"{node.name}.value")
                constants[name] = value
                return (Node(op="Identity", inputs=(name,), outputs=(node.name,)),)
        return (node,)

    producers = graph.producers()
    # `settled` fills `constants` while it runs.
    changed = graph.rebuilt(settled)
    return replace(changed, constants=constants)


def _target(value: Value | None) -> Array | None:
    """Return a Reshape's target where at most one size is open."""
    if value is None or not value.shape:
        return None
    if sum(not isinstance(size, int) for size in value.shape) > 1:
        return None
    return np.asarray(
        [size if isinstance(size, int) else -1 for size in value.shape], dtype=np.int64
    )


def _copied(
    node: Node, known: dict[str, Value], producers: dict[str, Node], constants: dict[str, Array]
) -> Array | None:
    """Return a Reshape's target in which sizes of its input that it keeps are 0: "as it was"."""
    value = known.get(node.inputs[0])
    sizes = _Sizes(known, producers, constants).of(node.inputs[1])
    if value is None or sizes is None:
        return None
    found: list[int] = []
    for i, size in enumerate(sizes):
        if isinstance(size, int):
            found.append(size)
        elif i < len(value.shape) and size is not None and size == value.shape[i]:
            found.append(0)
        else:
            found.append(-1)
    return np.asarray(found, dtype=np.int64) if found.count(-1) <= 1 else None


def _settled(node: Node, sizes: "_Sizes") -> Array | None:
    """Return what a Shape, or a Gather from one, gives where all of it is known."""
    index = sizes.constants.get(node.inputs[1]) if node.op == "Gather" else None
    entries = sizes.of(node.name)
    if entries is None or (node.op == "Gather" and index is None):
        return None
    whole = [size for size in entries if isinstance(size, int)]
    if len(whole) != len(entries):
        return None
    return np.asarray(whole, dtype=np.int64).reshape(-1 if index is None else index.shape)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Vectors of sizes: numbers, names of open sizes, None for what nobody knows."""

    known: dict[str, Value]
    producers: dict[str, Node]
    constants: dict[str, Array]

    def of(self, name: str) -> _Entries:
        """Return the entries of a vector, None if it is of another kind."""
        if name in self.constants:
            array = self.constants[name]
            # What is no vector of whole numbers is a table, not sizes.
            is_sizes = array.dtype.kind == "i" and array.size <= _MOST_SIZES
            return [int(size) for size in array.ravel()] if is_sizes else None
        node = self.producers.get(name)
        if node is None or node.domain:
            return None
        if node.op in {"Cast", "Identity", "Squeeze", "Unsqueeze"}:
            return self.of(node.inputs[0])
        rules = {
            "Concat": self._joined,
            "Gather": self._gathered,
            "Reshape": self._flat,
            "Shape": self._shape,
            "Slice": self._sliced,
        }
        return rules[node.op](node) if node.op in rules else None

    def _flat(self, node: Node) -> _Entries:
        return self.of(node.inputs[0]) if node.inputs[1] in self.constants else None

    def _joined(self, node: Node) -> _Entries:
        parts = [self.of(part) for part in node.inputs]
        if any(part is None for part in parts):
            return None
        return [size for part in parts if part is not None for size in part]

    def _shape(self, node: Node) -> _Entries:
        value = self.known.get(node.inputs[0])
        if value is None or not value.shape:
            return None
        return value.shape[slice(node.whole("start", 0), node.whole("end", len(value.shape)))]

    def _gathered(self, node: Node) -> _Entries:
        sizes, index = self.of(node.inputs[0]), self.constants.get(node.inputs[1])
        if sizes is None or index is None or not np.all(np.abs(index) < len(sizes)):
            return None
        return [sizes[int(i)] for i in index.ravel()]

    def _sliced(self, node: Node) -> _Entries:
        sizes = self.of(node.inputs[0])
        bounds = [self.constants.get(name) for name in node.inputs[1:]]
        if sizes is None or any(bound is None or bound.size != 1 for bound in bounds):
            return None
        begin, end, *rest = (int(bound.ravel()[0]) for bound in bounds if bound is not None)
        return sizes[begin : end : rest[1] if len(rest) > 1 else 1]
