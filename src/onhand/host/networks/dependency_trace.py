"""Which channels of a graph go together: elements of axes, followed through it and joined.

Source:
    DepGraph, arXiv:2301.12900, has edges between layers; here every element of every axis of a
    constant is followed through the graph, so that concatenations, slices, shuffles and heads need
    no special case: what meets element by element is one unit.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onhand.host.networks.graph import Array, Graph, Node, Value

__all__ = ["Axes", "Consumer", "Cutting", "Edit", "IntArray", "Labels", "Place", "Trace", "Units"]

IntArray = NDArray[np.int64]
Labels = IntArray | None
"""The elements along one axis; None where the axis has none that could be removed."""
Axes = tuple[Labels, ...]


class Cutting(Protocol):
    """What an edit may ask when channels are removed."""

    def count(self, labels: IntArray) -> int:
        """Return how many of these elements stay."""
        ...

    def constant(self, wanted: str, array: Array) -> str:
        """Add a constant; return its name."""
        ...

    def name(self, wanted: str) -> str:
        """Return a name that nothing has yet."""
        ...


Edit = Callable[[Node, Cutting], Iterable[Node]]
"""Makes a node fit its smaller inputs, beyond what its constants lose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where channels are made, or cut out of others.

    Attributes:
        name: the weight, or the value that is cut out.
        labels: elements along it.
        makes: whether a weight makes them; if not, at least one must stay all the same.
    """

    name: str
    labels: IntArray
    makes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """A layer that sums over channels.

    Attributes:
        node: the layer.
        data: the value it reads.
        axis: of `data`, counted from the end or from the front; the one summed over.
        labels: elements along it.
        weight: the constant.
        weight_axis: of `weight`, the one that goes with `labels`.
        groups: of a convolution; the elements of all groups in turn meet the same axis.
    """

    node: Node
    data: str
    axis: int
    labels: IntArray
    weight: str
    weight_axis: int
    groups: int = 1


class Units:
    """A forest of elements: two that were joined are one unit."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._reasons: dict[int, str] = {}

    def fresh(self, size: int) -> IntArray:
        """Return new elements, each a unit of its own."""
        start = len(self._parents)
        self._parents.extend(range(start, start + size))
        return np.arange(start, start + size, dtype=np.int64)

    def join(self, left: IntArray, right: IntArray) -> None:
        """Make one unit of each pair."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            first, second = self._root(a), self._root(b)
            self._parents[max(first, second)] = min(first, second)

    def freeze(self, labels: Labels, why: str) -> None:
        """Keep elements, and whatever they are or will be joined with."""
        if labels is not None:
            for element in dict.fromkeys(labels.tolist()):
                self._reasons.setdefault(element, why)

    def roots(self) -> IntArray:
        """Return each element's unit: the lowest of its elements."""
        found = (self._root(element) for element in range(len(self._parents)))
        return np.fromiter(found, np.int64, len(self._parents))

    def frozen(self) -> dict[int, str]:
        """Return unit -> why it is kept."""
        return {self._root(element): why for element, why in reversed(self._reasons.items())}

    def _root(self, element: int) -> int:
        while (parent := self._parents[element]) != element:
            self._parents[element] = self._parents[parent]
            element = parent
        return element


@dataclass(slots=True)
class Trace:
    """What is known while a graph is walked from its inputs to its outputs; rules add to it."""

    graph: Graph
    shapes: dict[str, Value]
    units: Units = field(default_factory=Units)
    axes: dict[str, Axes] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    edits: dict[str, tuple[IntArray, Edit]] = field(default_factory=dict)
    producers: dict[str, Node] = field(default_factory=dict)
    readers: dict[str, list[Node]] = field(default_factory=dict)

    def of(self, name: str) -> Axes | None:
        """Return the elements of a value; of a constant, new ones; None where its rank is unknown.

        An axis of one element has none: it meets axes of any size.
        """
        if name not in self.axes:
            if name not in self.graph.constants:
                return None
            shape = self.graph.constants[name].shape
            self.axes[name] = tuple(self.units.fresh(n) if n > 1 else None for n in shape)
        return self.axes[name]

    def dims(self, name: str) -> tuple[int | str | None, ...] | None:
        """Return the sizes of a value as they are known; None where not even the rank is."""
        if name in self.graph.constants:
            return self.graph.constants[name].shape
        found = self.shapes.get(name)
        # A shape that nothing could tell looks like that of a single number.
        return None if found is None or not found.shape else found.shape

    def size(self, name: str, axis: int) -> int | str | None:
        """Return the size of one axis of a value, if it is known."""
        dims = self.dims(name)
        return dims[axis] if dims is not None and -len(dims) <= axis < len(dims) else None

    def rank(self, name: str) -> int | None:
        """Return the number of axes of a value, if it is known."""
        axes = self.of(name)
        return None if axes is None else len(axes)

    def is_constant(self, name: str) -> bool:
        """Say whether a name is a constant's."""
        return name in self.graph.constants

    def put(self, name: str, axes: Sequence[Labels]) -> None:
        """Say what the elements of a value are."""
        self.axes[name] = tuple(axes)

    def opaque(self, node: Node, why: str) -> None:
        """Keep all that a node reads, and let nothing through it."""
        for name in node.reads():
            for labels in self.of(name) or ():
                self.units.freeze(labels, why)
        for name in node.outputs:
            dims = self.dims(name) if name else None
            if dims is not None:
                self.put(name, (None,) * len(dims))

    def meet(self, parts: Sequence[tuple[str, int]], node: Node) -> Labels:
        """Join axes that meet element by element; those of one element stretch.

        Args:
            parts: a value and the number of its axis, from the end or from the front.
            node: where they meet.

        Returns:
            The elements of the result.
        """
        labelled: list[IntArray] = []
        others = ""
        for name, axis in parts:
            labels = (self.of(name) or ())[axis]
            if labels is not None:
                labelled.append(labels)
            elif self.size(name, axis) != 1:
                others = others or name
        if not labelled:
            return None
        fits = all(len(labels) == len(labelled[0]) for labels in labelled)
        if others or not fits:
            why = f"meets {others or 'another size'!r} at {node.op} {node.name!r}, which stays"
            for labels in labelled:
                self.units.freeze(labels, why)
            return None
        for labels in labelled[1:]:
            self.units.join(labelled[0], labels)
        return labelled[0]

    def still(self, axes: Iterable[Labels], node: Node) -> None:
        """Keep the elements of axes along which a node does more than pass on each for itself."""
        for labels in axes:
            self.units.freeze(labels, f"{node.op} {node.name!r} works along that axis")

    def edit(self, node: Node, labels: IntArray, how: Edit) -> None:
        """Say how a node is made to fit when some of these elements go."""
        self.edits[node.name] = (labels, how)

    def make(self, name: str, labels: Labels) -> None:
        """Say that a weight makes channels."""
        if labels is not None:
            self.places.append(Place(name=name, labels=labels, makes=True))
