"""Appends the nodes of a backward pass to an ONNX graph."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onhand.core.errors import SourceError
from onhand.host.learning.graph_shapes import MICROSOFT, attributes_of, kinds_of

__all__ = ["FLOATS", "Shape", "Tape", "called"]

Shape = tuple[int | str, ...]
"""A number for each known size, a name for each other; equal names are equal sizes."""
FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
"""Element types that carry gradients."""
_PREFIX = "backward/"


def called(node: NodeProto) -> str:
    """Return a node's name and operator, for messages."""
    name = node.name or next((out for out in node.output if out), "")
    domain = f"{node.domain}." if node.domain else ""
    return f"node {name!r} ({domain}{node.op_type})"


class Tape:
    """A graph to which nodes are added; equal nodes and constants are added once.

    For one thread. Gradients have the shape and the element type of what they belong to.
    """

    def __init__(self, model: ModelProto) -> None:
        """Copy a model and infer its shapes.

        Args:
            model: the forward graph; external weights stay where they are.
        """
        self.model = ModelProto()
        self.model.CopyFrom(model)
        self.kinds = kinds_of(model)
        self._nodes: list[NodeProto] = []
        self._found: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._constants: dict[tuple[object, ...], TensorProto] = {}
        graph = self.model.graph
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {out: node for node in graph.node for out in node.output if out}
        self._taken = {*self._initializers, *self._producers, *(v.name for v in graph.input)}

    def add(self, kind: str, *inputs: str, domain: str = "", **attributes: object) -> str:
        """Add a node with one result, or find the one that does the same.

        Args:
            kind: the operator.
            *inputs: names of tensors; "" for one that is left out.
            domain: of the operator.
            **attributes: of the node.

        Returns:
            The result's name.
        """
        return self.add_many(kind, inputs, 1, domain=domain, **attributes)[0]

    def add_many(
        self,
        kind: str,
        inputs: Sequence[str],
        n_outputs: int,
        *,
        domain: str = "",
        **attributes: object,
    ) -> tuple[str, ...]:
        """Add a node with several results, or find the one that does the same.

        Args:
            kind: the operator.
            inputs: names of tensors.
            n_outputs: how many results it has.
            domain: of the operator.
            **attributes: of the node.

        Returns:
            The results' names.
        """
        key = (kind, domain, tuple(inputs), n_outputs, repr(sorted(attributes.items())))
        if key not in self._found:
            name = self._name(kind)
            outputs = [name] if n_outputs == 1 else [f"{name}/{i}" for i in range(n_outputs)]
            node = helper.make_node(kind, list(inputs), outputs, name=name, domain=domain)
            given = sorted(attributes.items())
            node.attribute.extend(helper.make_attribute(key, value) for key, value in given)
            self._nodes.append(node)
            self._found[key] = tuple(outputs)
        return self._found[key]

    def fused_matmul(
        self,
        left: str,
        right: str,
        *,
        trans_a: bool = False,
        trans_b: bool = False,
        alpha: float = 1.0,
    ) -> str:
        """Multiply matrices, the last two axes of either read crosswise where asked.

        Args:
            left: (..., M, K), or (..., K, M) if crosswise.
            right: (..., K, N), or (..., N, K) if crosswise.
            trans_a: whether `left` is read crosswise.
            trans_b: whether `right` is.
            alpha: a factor.

        Returns:
            The name of alpha times the product.
        """
        if not trans_a and not trans_b and alpha == 1.0:
            return self.add("MatMul", left, right)
        options = {"transA": int(trans_a), "transB": int(trans_b), "alpha": float(alpha)}
        return self.add("FusedMatMul", left, right, domain=MICROSOFT, **options)

    def constant(self, value: np.ndarray) -> str:
        """Return the name of a constant array."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            name = self._name("constant")
            self._constants[key] = numpy_helper.from_array(
                np.ascontiguousarray(value).reshape(value.shape), name
            )
        return str(self._constants[key].name)

    def integers(self, values: Sequence[int]) -> str:
        """Return the name of a constant of int64 numbers: sizes, axes."""
        return self.constant(np.array(values, dtype=np.int64))

    def number(self, value: float, *, like: str) -> str:
        """Return the name of a constant number of the element type of `like`."""
        return self.constant(np.array(value, dtype=self.dtype(like)))

    def dtype(self, name: str) -> np.dtype[np.generic]:
        """Return the numpy type of a tensor's gradient; float32 where nothing is known.

        Codes of quantised numbers stand for float32.
        """
        kind = self.kinds.get(name)
        element = kind.element if kind is not None else TensorProto.FLOAT
        if element not in FLOATS:
            element = TensorProto.FLOAT
        return np.dtype(helper.tensor_dtype_to_np_dtype(element))

    def shape(self, name: str) -> Shape:
        """Return what is known of a tensor's shape.

        Raises:
            SourceError: if not even its rank is known.
        """
        kind = self.kinds.get(name)
        if kind is None or kind.shape is None:
            raise SourceError(
                f"tensor {name!r}: its rank cannot be inferred, and its gradient needs it; "
                "state its shape in the graph's value_info"
            )
        return kind.shape

    def shape_of(self, name: str) -> str:
        """Return the name of a tensor's shape as it is when the graph runs."""
        shape = self.shape(name)
        known = [size for size in shape if isinstance(size, int)]
        return self.integers(known) if len(known) == len(shape) else self.add("Shape", name)

    def value(self, name: str) -> np.ndarray | None:
        """Return a constant of the graph, None if it is none or is stored outside."""
        tensor = self._initializers.get(name)
        if tensor is None and (node := self._producers.get(name)) is not None:
            if node.op_type == "Identity":
                return self.value(node.input[0])
            if node.op_type == "Constant":
                return _constant_of(node)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return np.asarray(numpy_helper.to_array(tensor))

    def needed_value(self, node: NodeProto, index: int) -> np.ndarray | None:
        """Return an optional input of a node that has to be a constant.

        Raises:
            SourceError: if it is there, but computed when the graph runs.
        """
        if index >= len(node.input) or not node.input[index]:
            return None
        found = self.value(node.input[index])
        if found is None:
            raise SourceError(
                f"{called(node)}: its input {node.input[index]!r} must be a constant of the graph "
                "to be differentiated"
            )
        return found

    def axes(self, node: NodeProto, index: int = 1) -> list[int] | None:
        """Return axes that are an attribute in old opsets and an input in new ones.

        Args:
            node: the node.
            index: which input they are.

        Returns:
            The axes as they are written; None if there are none.

        Raises:
            SourceError: if they are computed when the graph runs.
        """
        options = attributes_of(node)
        if isinstance(given := options.get("axes"), Sequence):
            return [int(axis) for axis in given]
        found = self.needed_value(node, index)
        return None if found is None else [int(axis) for axis in found.reshape(-1)]

    def extra_output(self, node: NodeProto, index: int, *, kind: str) -> str:
        """Return one of a forward node's results, asking for it if nobody did.

        Args:
            node: a node of the forward graph.
            index: which result.
            kind: what it is, for its name.
        """
        while len(node.output) <= index:
            node.output.append("")
        if not node.output[index]:
            node.output[index] = f"{node.output[0]}/{kind}"
            self._taken.add(node.output[index])
        return str(node.output[index])

    def sum_to(self, gradient: str, shape: Shape, target: str) -> str:
        """Undo a broadcast.

        Args:
            gradient: of the broadcast result.
            shape: of `gradient`.
            target: what was broadcast to that shape.

        Returns:
            The gradient, summed to the shape of `target`.
        """
        wanted = self.shape(target)
        lead = len(shape) - len(wanted)
        pairs = list(zip(shape[lead:], wanted, strict=True))
        if any(a not in (b, 1) and isinstance(b, str) for a, b in pairs):
            return self._sum_to_unsure(gradient, lead, target)
        ones = [lead + i for i, (a, b) in enumerate(pairs) if b == 1 and a != 1]
        first = list(range(lead))
        if not first and not ones:
            return gradient
        axes = self.integers([*first, *ones])
        summed = self.add("ReduceSum", gradient, axes, keepdims=int(bool(ones)))
        return self.add("Squeeze", summed, self.integers(first)) if first and ones else summed

    def _sum_to_unsure(self, gradient: str, lead: int, target: str) -> str:
        """Undo a broadcast whose axes are known only when the graph runs."""
        sizes = self.shape_of(target)
        single = self.add("NonZero", self.add("Equal", sizes, self.integers([1])))
        axes = self.add("Reshape", single, self.integers([-1]))
        if lead:
            axes = self.add("Add", axes, self.integers([lead]))
            axes = self.add("Concat", self.integers(range(lead)), axes, axis=0)
        summed = self.add("ReduceSum", gradient, axes, keepdims=1, noop_with_empty_axes=1)
        return self.add("Reshape", summed, sizes)

    def reshape_like(self, gradient: str, shape: Shape | None, target: str) -> str:
        """Reshape to another tensor's shape, by constants where that can be.

        Args:
            gradient: what is reshaped.
            shape: what is known of its shape; None if nothing.
            target: the tensor whose shape it gets.
        """
        wanted = self.shape(target)
        if shape == wanted:
            return gradient
        sizes: list[int] = []
        for i, size in enumerate(wanted):
            if isinstance(size, int) and size > 0:
                sizes.append(size)
            elif shape is not None and i < len(shape) and shape[i] == size:
                sizes.append(0)
            elif -1 not in sizes and isinstance(size, str):
                sizes.append(-1)
            else:
                return self.add("Reshape", gradient, self.shape_of(target))
        return self.add("Reshape", gradient, self.integers(sizes))

    def zeros(self, target: str) -> str:
        """Return the name of zeros of a tensor's shape and type."""
        zero = numpy_helper.from_array(np.zeros(1, self.dtype(target)))
        return self.add("ConstantOfShape", self.shape_of(target), value=zero)

    def finish(self, outputs: Mapping[str, str], *, like: Mapping[str, str]) -> ModelProto:
        """Append what was added.

        Args:
            outputs: name of an output of the graph -> the added or given tensor that it is.
            like: name of an output -> a tensor of its type and shape.

        Returns:
            The model; this object must not be used after that.
        """
        graph = self.model.graph
        used = set(outputs.values())
        kept: list[NodeProto] = []
        for node in reversed(self._nodes):
            if used.intersection(node.output):
                kept.append(node)
                used.update(node.input)
        kept.reverse()
        self._rename(kept, outputs)
        graph.node.extend(kept)
        graph.initializer.extend(t for t in self._constants.values() if t.name in used)
        for name in outputs:
            element = helper.np_dtype_to_tensor_dtype(self.dtype(like[name]))
            shape = [None if "?" in str(size) else size for size in self.shape(like[name])]
            graph.output.append(helper.make_tensor_value_info(name, element, shape))
        if any(node.domain == MICROSOFT for node in kept) and not any(
            entry.domain == MICROSOFT for entry in self.model.opset_import
        ):
            self.model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        return self.model

    def _rename(self, nodes: list[NodeProto], outputs: Mapping[str, str]) -> None:
        """Call results by the names of the outputs; a copy where one is two of them."""
        added = {out for node in nodes for out in node.output}
        names: dict[str, str] = {}
        copies: list[NodeProto] = []
        for name, tensor in outputs.items():
            if tensor in added and tensor not in names:
                names[tensor] = name
            else:
                source = names.get(tensor, tensor)
                copies.append(helper.make_node("Identity", [source], [name], name=name))
        for node in nodes:
            for names_of in (node.input, node.output):
                for i, tensor in enumerate(names_of):
                    names_of[i] = names.get(tensor, tensor)
        nodes.extend(copies)

    def _name(self, kind: str) -> str:
        number = len(self._nodes) + len(self._constants)
        name = f"{_PREFIX}{kind}.{number}"
        while name in self._taken:
            number += 1
            name = f"{_PREFIX}{kind}.{number}"
        self._taken.add(name)
        return name


def _constant_of(node: NodeProto) -> np.ndarray | None:
    """Return the value of a Constant node."""
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return np.asarray(numpy_helper.to_array(value))
        if attribute.name in {"value_int", "value_ints"}:
            return np.array(value, dtype=np.int64)
        if attribute.name in {"value_float", "value_floats"}:
            return np.array(value, dtype=np.float32)
    return None
