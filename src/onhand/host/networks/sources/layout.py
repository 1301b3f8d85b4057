"""Graphs for sources that keep channels last, written with channels first.

TensorFlow and Keras keep pictures as (B, H, W, C), ONNX as (B, C, H, W). Each value is held in
either order, or both, and turned only where somebody asks for the order that is not there: between
convolutions nobody does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import SourceError
from onhand.host.networks.graph import Array, Attribute, Graph, Node, Value, fresh_name

__all__ = ["BATCH", "Shape", "Tensor", "Weaver", "first_axis", "turned"]

OPSET: Final = 17
BATCH: Final = "batch"
Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tensor:
    """A value as the source has it.

    Attributes:
        shape: channels last; None for a size that is open: the batch.
        array: of a constant, else None.
    """

    shape: Shape
    array: Array | None = None

    @property
    def rank(self) -> int:
        """How many dimensions it has."""
        return len(self.shape)

    def size(self, axis: int) -> int:
        """Return the size along an axis.

        Raises:
            SourceError: if it is open.
        """
        found = self.shape[axis]
        if found is None:
            raise SourceError(f"size {axis} of a value {self.shape} is open, must be known")
        return found


def turned(shape: Sequence[int]) -> tuple[int, ...]:
    """Return (B, ..., C) as (B, C, ...); shorter ones as they are."""
    return (shape[0], shape[-1], *shape[1:-1]) if len(shape) > 2 else tuple(shape)


def first_axis(axis: int, rank: int) -> int:
    """Return where an axis of channels-last lies with channels first."""
    axis %= rank
    return axis if rank < 3 or axis == 0 else 1 if axis == rank - 1 else axis + 1


class Weaver:
    """A graph that grows node by node; of one thread."""

    def __init__(self) -> None:
        self.hint = "value"
        self._nodes: list[Node] = []
        self._constants: dict[str, Array] = {}
        self._inputs: list[Value] = []
        self._taken: set[str] = set()
        self._first: dict[Tensor, str] = {}
        self._last: dict[Tensor, str] = {}
        self._flat: dict[Tensor, tuple[str, NDArray[np.int64]]] = {}

    def reserve(self, names: Sequence[str]) -> None:
        """Keep names for the graph's inputs and outputs."""
        self._taken |= set(names)

    def input(self, name: str, dtype: np.dtype[np.generic], shape: Shape) -> Tensor:
        """Add an input of the graph; its name was reserved."""
        sizes = tuple(BATCH if s is None and i == 0 else s for i, s in enumerate(shape))
        self._inputs.append(Value(name=name, dtype=dtype, shape=sizes))
        return self.as_last(name, shape)

    def constant(self, array: Array) -> Tensor:
        """Hold a constant; it enters the graph when it is read."""
        return Tensor(shape=array.shape, array=array)

    def as_last(self, name: str, shape: Shape) -> Tensor:
        """Hold a value of the graph as the source has it."""
        tensor = Tensor(shape=shape)
        self._last[tensor] = name
        return tensor

    def as_first(self, name: str, shape: Shape) -> Tensor:
        """Hold a value of the graph that has channels first; `shape` has them last."""
        if len(shape) < 3:
            return self.as_last(name, shape)
        tensor = Tensor(shape=shape)
        self._first[tensor] = name
        return tensor

    def weight(self, array: Array, role: str) -> str:
        """Add a constant to the graph; its name."""
        name = fresh_name(self._taken, f"{self.hint}.{role}")
        self._constants[name] = np.ascontiguousarray(array).reshape(array.shape)
        return name

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        n_outputs: int = 1,
    ) -> list[str]:
        """Add a node; the names of its outputs."""
        names = [fresh_name(self._taken, f"{self.hint}.{op}") for _ in range(n_outputs)]
        self._nodes.append(
            Node(op=op, inputs=tuple(inputs), outputs=tuple(names), attributes=attributes or {})
        )
        return names

    def one(
        self, op: str, inputs: Sequence[str], attributes: Mapping[str, Attribute] | None = None
    ) -> str:
        """Add a node of one output; its name."""
        return self.emit(op, inputs, attributes)[0]

    def last(self, tensor: Tensor) -> str:
        """Return the name of a value in the source's order, turned if need be."""
        if tensor not in self._last:
            rank = tensor.rank
            if tensor.array is not None:
                self._last[tensor] = self.weight(tensor.array, "constant")
            elif tensor in self._flat:
                self._last[tensor] = self._sorted(tensor)
            else:
                perm = (0, *range(2, rank), 1)
                name = self.one("Transpose", [self._first[tensor]], {"perm": perm})
                self._last[tensor] = name
        return self._last[tensor]

    def first(self, tensor: Tensor) -> str:
        """Return the name of a value with channels first, turned if need be."""
        rank = tensor.rank
        if rank < 3:
            return self.last(tensor)
        if tensor not in self._first:
            perm = (0, rank - 1, *range(1, rank - 1))
            if tensor.array is not None:
                self._first[tensor] = self.weight(tensor.array.transpose(perm), "constant")
            else:
                name = self.one("Transpose", [self.last(tensor)], {"perm": perm})
                self._first[tensor] = name
        return self._first[tensor]

    def is_first(self, *tensors: Tensor) -> bool:
        """Whether one of some values has channels first, and only so."""
        return any(tensor in self._first and tensor not in self._last for tensor in tensors)

    def flattened(self, tensor: Tensor, shape: Shape) -> Tensor:
        """Return (B, H, W, C) as (B, H * W * C) without turning it, for a dense layer to sort.

        Args:
            tensor: with channels first.
            shape: of the result: two sizes.

        Returns:
            The value; `dense_input` gives what is there, `last` sorts it.
        """
        inner = [tensor.size(axis) for axis in range(1, tensor.rank)]
        channels = inner[-1]
        places = np.arange(int(np.prod(inner)), dtype=np.int64)
        # Where the element that the source has at i lies: (H W, C) is stored as (C, H W).
        order = places.reshape(channels, -1).T.reshape(-1)
        target = np.asarray([-1, len(order)], dtype=np.int64)
        name = self.one("Reshape", [self._first[tensor], self.weight(target, "shape")])
        flat = Tensor(shape=shape)
        self._flat[flat] = (name, order)
        return flat

    def dense_input(self, tensor: Tensor) -> tuple[str, NDArray[np.int64] | None]:
        """Return a matrix as it is, and which of its columns the source has at each place."""
        if tensor in self._flat and tensor not in self._last:
            return self._flat[tensor]
        return self.last(tensor), None

    def _sorted(self, tensor: Tensor) -> str:
        name, order = self._flat[tensor]
        return self.one("Gather", [name, self.weight(order, "order")], {"axis": 1})

    def elementwise(
        self,
        op: str,
        tensors: Sequence[Tensor],
        shape: Shape,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Tensor:
        """Add an operator that works number by number, sizes of 1 stretched.

        Args:
            op: its name in ONNX.
            tensors: what it reads.
            shape: of its result.
            attributes: of the node.

        Returns:
            The result, in the order in which the inputs are.
        """
        rank = len(shape)
        movable = all(t.array is not None or t.rank in {0, rank} for t in tensors)
        if rank > 2 and movable and self.is_first(*tensors):
            names = [self._operand(t, rank, first=True) for t in tensors]
            return self.as_first(self.one(op, names, attributes), shape)
        names = [self._operand(t, rank, first=False) for t in tensors]
        return self.as_last(self.one(op, names, attributes), shape)

    def _operand(self, tensor: Tensor, rank: int, *, first: bool) -> str:
        if tensor.array is not None and tensor.array.size == 1 and tensor.rank <= rank:
            return self.weight(tensor.array.reshape(()), "number")
        if tensor.array is not None and first:
            sizes = (1,) * (rank - tensor.rank) + tensor.array.shape
            return self.first(self.constant(tensor.array.reshape(sizes)))
        return self.first(tensor) if first else self.last(tensor)

    def output(self, name: str, tensor: Tensor) -> None:
        """Let a value be the graph's output, in the source's order; its name was reserved."""
        node = Node(op="Identity", inputs=(self.last(tensor),), outputs=(name,))
        self._nodes.append(node)

    def graph(self, outputs: Sequence[tuple[str, np.dtype[np.generic], Shape]]) -> Graph:
        """Return the graph.

        Args:
            outputs: name, dtype and shape of each, all given to `output` before.

        Returns:
            The graph without what no output needs.
        """
        values = tuple(
            Value(
                name=name,
                dtype=dtype,
                shape=tuple(BATCH if s is None and i == 0 else s for i, s in enumerate(shape)),
            )
            for name, dtype, shape in outputs
        )
        return Graph(
            nodes=tuple(self._nodes),
            constants=dict(self._constants),
            inputs=tuple(self._inputs),
            outputs=values,
            opset=OPSET,
        ).live()
