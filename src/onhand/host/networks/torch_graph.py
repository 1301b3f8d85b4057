"""A graph as a module of torch, so that its constants can be trained. Import it when needed.

It computes what ONNX Runtime computes, operator by operator, and is differentiable. Constants of
floating point are parameters; those that are no weights (bounds, exponents, scales, running
statistics) are parameters that ask for no gradient until somebody wants one.
"""

# Python has `typing.override` from 3.12 on.
# mypy: disable-error-code="explicit-override"

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from onhand.core.errors import EngineError, InputError
from onhand.host.networks.fusing.activations import fuse_gelu
from onhand.host.networks.graph import Array, Graph, Node
from onhand.host.networks.torch_call import Call
from onhand.host.networks.torch_ops import OPERATORS

__all__ = ["TorchGraph", "tensors_of", "weight_names"]

_ELEMENTWISE: Final = {"Add", "Div", "Max", "Min", "Mul", "Sub", "Sum", "Where"}
# Operator -> inputs that are numbers of its own, no weights.
_NUMBERS: Final[Mapping[str, frozenset[int]]] = {
    "BatchNormalization": frozenset({3, 4}),
    "Clip": frozenset({1, 2}),
    "DequantizeLinear": frozenset({1, 2}),
    "Dropout": frozenset({1}),
    "OneHot": frozenset({1, 2}),
    "Pad": frozenset({2}),
    "Pow": frozenset({1}),
    "QuantizeLinear": frozenset({1, 2}),
    "Range": frozenset({0, 1, 2}),
    "Resize": frozenset({1, 2}),
}
# From this opset on ONNX has Gelu; torch has it in any.
_GELU_OPSET: Final = 20
# Masks of attention hold such numbers, -10000 the least of them; a weight never does.
_MOST = 9999.0


def weight_names(graph: Graph) -> tuple[str, ...]:
    """Return the constants that training may change: the weights of a float graph.

    Left out are bounds, exponents, scales of codes, running statistics, single numbers in
    arithmetic, and masks.

    Args:
        graph: the graph.

    Returns:
        Names, in the order of the constants.
    """
    barred: set[str] = set()
    for node in graph.nodes:
        numbers = _NUMBERS.get(node.op, frozenset())
        for index, name in enumerate(node.inputs):
            array = graph.constants.get(name)
            if array is None:
                continue
            is_single = array.size == 1 and (node.op in _ELEMENTWISE or array.ndim == 0)
            if index in numbers or is_single:
                barred.add(name)
    return tuple(
        name
        for name, array in graph.constants.items()
        if name not in barred and array.dtype.kind == "f" and array.size and _is_moderate(array)
    )


def _is_moderate(array: Array) -> bool:
    peak = float(np.abs(array.astype(np.float64)).max())
    return np.isfinite(peak) and peak < _MOST


def tensors_of(feeds: Mapping[str, Array]) -> dict[str, Tensor]:
    """Return arrays as tensors; they share memory where the array may be written to."""
    return {name: _tensor(array) for name, array in feeds.items()}


class TorchGraph(torch.nn.Module):
    """A graph in torch; one thread at a time.

    Attributes:
        graph: what it was made of.
        names: name of a constant of floating point -> name of the parameter.
        batch_statistics: whether BatchNormalization takes its statistics from the batch and
            updates the running ones; only in the mode of training.
    """

    def __init__(self, graph: Graph, *, batch_statistics: bool = False) -> None:
        """Copy the constants.

        Args:
            graph: the graph; free of If, Loop and Scan.
            batch_statistics: see the class.

        Raises:
            InputError: if it has an operator that is not known here; it names all of them.
        """
        super().__init__()
        _check(graph)
        self.graph = graph
        self.batch_statistics = batch_statistics
        self.names: dict[str, str] = {}
        self._fixed: dict[str, Tensor] = {}
        trainable = set(weight_names(graph))
        for name, array in graph.constants.items():
            tensor = _tensor(array)
            if tensor.is_floating_point():
                self.names[name] = self._free_name(name)
                made = Parameter(tensor.clone(), requires_grad=name in trainable)
                self.register_parameter(self.names[name], made)
            else:
                self._fixed[name] = tensor
        # One step for a Gelu written as five takes a tenth off a transformer's training.
        exact = fuse_gelu(replace(graph, opset=max(graph.opset, _GELU_OPSET)), {}, microsoft=False)
        self._short, self._whole = _Plan(exact.graph.nodes), _Plan(graph.nodes)

    def weight(self, name: str) -> Parameter:
        """Return the parameter of a constant.

        Args:
            name: of the constant.

        Returns:
            The parameter itself: what is done to it is done to the module.

        Raises:
            InputError: if there is no such constant of floating point.
        """
        if name not in self.names:
            raise InputError(f"the graph has no constant {name!r} of floating point")
        return self.get_parameter(self.names[name])

    def train_only(self, names: Iterable[str]) -> None:
        """Ask for gradients of these constants and of no other.

        Raises:
            InputError: if there is no such constant of floating point.
        """
        wanted = set(names)
        for name in wanted:
            self.weight(name)
        for name in self.names:
            self.weight(name).requires_grad_(name in wanted)

    def constant(self, name: str) -> Tensor:
        """Return what stands for a constant when the module runs."""
        return self._fixed[name] if name in self._fixed else self.weight(name)

    def forward(self, feeds: Mapping[str, Tensor], also: Sequence[str] = ()) -> dict[str, Tensor]:
        """Run it.

        Args:
            feeds: name of an input -> tensor.
            also: values inside it that are wanted beside its outputs.

        Returns:
            Name -> tensor, of the outputs and of `also`.

        Raises:
            InputError: if an input or a value is missing.
            EngineError: if torch cannot compute an operator with such shapes.
        """
        if missing := [v.name for v in self.graph.inputs if v.name not in feeds]:
            raise InputError(f"nothing is fed to the input {missing[0]!r}")
        wanted = dict.fromkeys((*self.graph.output_names(), *also))
        values: dict[str, Tensor] = dict(feeds)
        plan = self._short if self._short.made.issuperset(also) else self._whole
        for index, node in enumerate(plan.nodes):
            given = tuple(self._find(name, values) for name in node.inputs)
            made = self._run(node, given)
            values.update(zip(node.outputs, made, strict=False))
            for name in plan.last.get(index, ()):
                if name not in wanted:
                    values.pop(name, None)
        found = {name: self._find(name, values) for name in wanted}
        if lost := [name for name, tensor in found.items() if tensor is None]:
            raise InputError(f"the graph makes no value {lost[0]!r}")
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def to_graph(self) -> Graph:
        """Return the graph with the constants as they are now.

        A constant that has not changed is the very same array.
        """
        changed: dict[str, Array] = {}
        for name in self.names:
            old = self.graph.constants[name]
            new = self.weight(name).detach().to(torch.float64).numpy().astype(old.dtype)
            if not np.array_equal(new, old, equal_nan=True):
                changed[name] = new
        return replace(self.graph, constants={**self.graph.constants, **changed})

    def _find(self, name: str, values: Mapping[str, Tensor]) -> Tensor | None:
        if name in values:
            return values[name]
        if name in self._fixed or name in self.names:
            return self.constant(name)
        return None

    def _run(self, node: Node, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        call = Call(
            node=node,
            inputs=given,
            opset=self.graph.opset,
            is_training=self.training,
            batch_statistics=self.training and self.batch_statistics,
        )
        try:
            made = OPERATORS[node.op](call)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            shapes = [None if tensor is None else tuple(tensor.shape) for tensor in given]
            raise EngineError(
                f"torch cannot compute {node.op} {node.name!r} of inputs {shapes}: {error}"
            ) from error
        return made if isinstance(made, tuple) else (made,)

    def _free_name(self, name: str) -> str:
        safe = name.replace(".", "_") or "_"
        while hasattr(self, safe):
            safe += "_"
        return safe


def _check(graph: Graph) -> None:
    unknown = {
        f"{node.domain}.{node.op}" if node.domain else node.op
        for node in graph.nodes
        if node.op not in OPERATORS or node.domain or node.bodies
    }
    for node in graph.nodes:
        # Four bits are kept as eight here: their ends would be those of eight.
        zero = graph.constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
        if node.op == "QuantizeLinear" and zero is not None and zero.dtype.name.endswith("int4"):
            unknown.add("QuantizeLinear to 4 bits")
    if unknown:
        raise InputError(f"torch here has no operator {', '.join(sorted(unknown))}: cannot train")


class _Plan:
    """Nodes to run, in order.

    Attributes:
        nodes: the nodes.
        made: names of all values that they make.
        last: number of a node -> the values that nobody reads after it.
    """

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        self.nodes, self.last = nodes, _last_uses(nodes)
        self.made = {name for node in nodes for name in node.outputs if name}


def _last_uses(nodes: tuple[Node, ...]) -> dict[int, list[str]]:
    """Return, for each node by its number, the values that nobody reads after it."""
    last = {name: i for i, node in enumerate(nodes) for name in node.outputs if name}
    last |= {name: i for i, node in enumerate(nodes) for name in node.inputs if name}
    found: dict[int, list[str]] = {}
    for name, index in last.items():
        found.setdefault(index, []).append(name)
    return found


def _tensor(array: Array) -> Tensor:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    # Codes of 4 bits are whole numbers like others here.
    if array.dtype.kind not in "fiub":
        array = array.astype(np.int8 if array.dtype.name == "int4" else np.uint8)
    whole = np.ascontiguousarray(array).reshape(array.shape)
    return torch.from_numpy(whole if whole.flags.writeable else whole.copy())
