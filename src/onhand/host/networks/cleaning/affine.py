"""Products and sums with constants, batch normalisation first, move into the weights beside them.

y = W x + b followed by s y + t is (s W) x + (s b + t); preceded by s x + t it is
(W s) x + (b + W t), where no padding adds zeros between. Source: arXiv:1712.05877, section 3.2.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onhand.host.networks.cleaning.edit import Surroundings, is_float
from onhand.host.networks.graph import Graph, Node, Value, fresh_name
from onhand.host.networks.onnx_files import infer_shapes

__all__ = ["fold_affine"]

_Numbers = NDArray[np.float64]
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Affine:
    """s x + t along one axis: (C,) each, or (1,) for a number."""

    source: str
    scale: _Numbers
    shift: _Numbers


def fold_affine(graph: Graph) -> Graph:
    """Return the graph with products and sums of constants folded into the weights beside them.

    Args:
        graph: the graph.

    Returns:
        The graph; weights that two nodes share, and nodes with two readers between, stay.
    """
    with np.errstate(all="ignore"):
        while (changed := _fold_once(graph)) is not None:
            graph = changed.live()
    return graph


def _fold_once(graph: Graph) -> Graph | None:
    """Fold every pair that touches no other pair of this round."""
    around, known = Surroundings(graph), infer_shapes(graph)
    work = _Work(graph)
    for node in graph.nodes:
        if node.name in work.touched:
            continue
        affine = _affine_of(node, around, known)
        if affine is None or _ends_gelu(node, around):
            continue
        if not _fold_back(node, affine, around, known, work):
            _fold_forward(node, affine, around, known, work)
    return work.result()


def _ends_gelu(node: Node, around: Surroundings) -> bool:
    """Whether a product is the last of x * (1 + erf(...)) * 0.5, which engines know as a whole."""
    if node.op != "Mul":
        return False
    makers = [around.producers.get(name) for name in node.inputs]
    sums = [
        around.producers.get(name)
        for maker in makers
        if maker is not None and maker.op == "Mul"
        for name in maker.inputs
    ]
    terms = [
        around.producers.get(name)
        for one in sums
        if one is not None and one.op == "Add"
        for name in one.inputs
    ]
    return any(term is not None and term.op in {"Erf", "Tanh"} for term in terms)


class _Work:
    """Changes of one round."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._taken = graph.names()
        self._constants = dict(graph.constants)
        self._changed: dict[str, tuple[Node, ...]] = {}
        self.touched: set[str] = set()

    def constant(self, wanted: str, array: _Numbers, dtype: np.dtype[np.generic]) -> str:
        name = fresh_name(self._taken, wanted)
        self._constants[name] = np.asarray(array, dtype=dtype)
        return name

    def change(self, old: Node, *new: Node) -> None:
        self._changed[old.name] = new
        self.touched.add(old.name)

    def result(self) -> Graph | None:
        if not self._changed:
            return None
        changed = self._changed
        graph = self._graph.rebuilt(lambda node: changed.get(node.name, (node,)))
        return replace(graph, constants=self._constants)


def _affine_of(node: Node, around: Surroundings, known: dict[str, Value]) -> _Affine | None:
    value = known.get(node.inputs[0]) if node.inputs else None
    if node.domain or value is None or not is_float(value.dtype):
        return None
    if node.op == "BatchNormalization" and not node.whole("training_mode", 0):
        parts = [around.floats(name) for name in node.inputs[1:5]]
        if any(part is None for part in parts) or sum(map(bool, node.outputs)) != 1:
            return None
        gain, bias, mean, variance = (part for part in parts if part is not None)
        scale = gain / np.sqrt(variance + node.number("epsilon", 1e-5))
        return _Affine(source=node.inputs[0], scale=scale, shift=bias - mean * scale)
    rule = _RULES.get(node.op)
    if rule is None or len(node.inputs) != 2:
        return None
    for side in (1, 0):
        other = known.get(node.inputs[1 - side])
        array = around.floats(node.inputs[side])
        if array is None or other is None or (side == 0 and node.op == "Div"):
            continue
        numbers = _per_channel(array, other, around, node.inputs[1 - side])
        if numbers is not None:
            scale, shift = rule(numbers, side)
            return _Affine(source=node.inputs[1 - side], scale=scale, shift=shift)
    return None


_RULES: dict[str, Callable[[_Numbers, int], tuple[_Numbers, _Numbers]]] = {
    "Add": lambda c, _: (np.ones_like(c), c),
    "Div": lambda c, _: (1 / np.where(c == 0, np.nan, c), np.zeros_like(c)),
    "Mul": lambda c, _: (c, np.zeros_like(c)),
    "Sub": lambda c, side: (np.ones_like(c), -c) if side == 1 else (-np.ones_like(c), c),
}


def _per_channel(
    array: _Numbers, other: Value, around: Surroundings, source: str
) -> _Numbers | None:
    """Return a constant as one number, or one for each channel of what it meets."""
    rank = len(other.shape)
    if array.size == 1 and array.ndim <= rank:
        return array.reshape(1)
    maker = around.producers.get(source)
    axis = _axis(maker, rank)
    if axis is None or array.ndim > rank:
        axis = 1 if rank > 2 or maker is None else None
    if axis is None or array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    size = other.shape[axis] if axis < rank else None
    if size != shape[axis] or any(n != 1 for i, n in enumerate(shape) if i != axis):
        return None
    return array.reshape(-1)


def _axis(maker: Node | None, rank: int) -> int | None:
    """Return along which axis a node's outputs lie."""
    if maker is None or not rank:
        return None
    if maker.op in {"Conv", "ConvTranspose", "Gemm"}:
        return 1
    if maker.op in {"MatMul", "Add"}:
        return rank - 1
    return 1 if rank > 2 else None


def _weighted(node: Node | None, around: Surroundings) -> _Numbers | None:
    """Return the weight of a node that a product may move into."""
    if node is None or node.op not in _WEIGHTED or node.domain:
        return None
    name = node.inputs[1]
    if len(around.readers.get(name, [])) != 1 or name in around.captured:
        return None
    if node.op == "Gemm" and (node.number("alpha", 1) != 1 or node.whole("transA", 0)):
        return None
    weight = around.floats(name)
    if weight is None or (node.op in {"Gemm", "MatMul"} and weight.ndim != 2):
        return None
    return weight


def _fold_back(
    node: Node, affine: _Affine, around: Surroundings, known: dict[str, Value], work: _Work
) -> bool:
    """Move an affine step into the weights that make its input."""
    maker = around.producers.get(affine.source)
    if maker is None or not around.is_private(affine.source) or maker.name in work.touched:
        return False
    if not np.all(np.isfinite(affine.scale)):
        return False
    if maker.op == "Add" and node.op != "Add":
        return _fold_through_sum(node, maker, affine, around, known, work)
    weight = _weighted(maker, around)
    if weight is None or not _lies_along(node, maker, affine, known):
        return False
    # A product of matrices has no place for a sum, which stays then.
    if maker.op == "MatMul" and (np.any(affine.shift) or node.op in {"Add", "Sub"}):
        return False
    dtype = around.graph.constants[maker.inputs[1]].dtype
    n_outputs = _n_outputs(maker, weight)
    if affine.scale.size not in {1, n_outputs}:
        return False
    scaled = work.constant(maker.inputs[1], _scale_outputs(maker, weight, affine.scale), dtype)
    inputs: tuple[str, ...] = (maker.inputs[0], scaled)
    if maker.op != "MatMul":
        bias = _bias(maker, around, n_outputs)
        if bias is None:
            return False
        whole = bias * affine.scale + affine.shift
        inputs += (work.constant(f"{maker.name}.bias", whole, dtype),)
    attributes = {k: v for k, v in maker.attributes.items() if k != "beta"}
    work.change(maker)
    work.change(node, replace(maker, inputs=inputs, outputs=node.outputs, attributes=attributes))
    return True


def _lies_along(node: Node, maker: Node, affine: _Affine, known: dict[str, Value]) -> bool:
    """Whether the step's channels are the maker's outputs."""
    if maker.op != "MatMul" or affine.scale.size == 1:
        return True
    value = known.get(affine.source)
    return value is not None and (node.op != "BatchNormalization" or len(value.shape) == 2)


def _fold_through_sum(
    node: Node,
    add: Node,
    affine: _Affine,
    around: Surroundings,
    known: dict[str, Value],
    work: _Work,
) -> bool:
    """Move an affine step into a product of matrices and the sum behind it."""
    for side in (1, 0):
        term, maker = around.floats(add.inputs[side]), around.producers.get(add.inputs[1 - side])
        if term is None or maker is None or maker.op != "MatMul" or maker.name in work.touched:
            continue
        weight = _weighted(maker, around)
        if weight is None or not around.is_private(add.inputs[1 - side]):
            continue
        n_outputs = weight.shape[1]
        fits = affine.scale.size in {1, n_outputs} and term.size in {1, n_outputs}
        if not fits or not _lies_along(node, maker, affine, known) or term.ndim > 2:
            continue
        dtype = around.graph.constants[maker.inputs[1]].dtype
        scaled = work.constant(maker.inputs[1], weight * affine.scale, dtype)
        whole = np.broadcast_to(term.reshape(-1) * affine.scale + affine.shift, (n_outputs,))
        total = work.constant(f"{add.name}.bias", whole, dtype)
        work.change(maker, replace(maker, inputs=(maker.inputs[0], scaled)))
        work.change(add)
        work.change(
            node, Node(op="Add", inputs=(add.inputs[1 - side], total), outputs=node.outputs)
        )
        return True
    return False


def _n_outputs(node: Node, weight: _Numbers) -> int:
    if node.op == "Conv":
        return int(weight.shape[0])
    if node.op == "ConvTranspose":
        return int(weight.shape[1]) * node.whole("group", 1)
    return int(weight.shape[0 if node.op == "Gemm" and node.whole("transB", 0) else 1])


def _scale_outputs(node: Node, weight: _Numbers, scale: _Numbers) -> _Numbers:
    """Return the weight with each output's part multiplied."""
    if scale.size == 1:
        return weight * scale.reshape(())
    if node.op == "ConvTranspose":
        group = node.whole("group", 1)
        parts = weight.reshape(group, -1, *weight.shape[1:])  # (groups, K / groups, N / groups, ..)
        by_group = scale.reshape(group, 1, -1, *(1,) * (weight.ndim - 2))
        whole: _Numbers = (parts * by_group).reshape(weight.shape)
        return whole
    if node.op == "Conv" or (node.op == "Gemm" and node.whole("transB", 0)):
        return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return weight * scale


def _bias(node: Node, around: Surroundings, n_outputs: int) -> _Numbers | None:
    """Return a node's bias, (N,); zeros where it has none, None where it is no constant."""
    if len(node.inputs) < 3 or not node.inputs[2]:
        return np.zeros(n_outputs)
    bias = around.floats(node.inputs[2])
    if bias is None or bias.size not in {1, n_outputs} or (bias.ndim == 2 and bias.shape[0] != 1):
        return None
    return np.broadcast_to(bias.reshape(-1) * node.number("beta", 1), (n_outputs,))


def _fold_forward(
    node: Node, affine: _Affine, around: Surroundings, known: dict[str, Value], work: _Work
) -> bool:
    """Move an affine step into the weights that read its output."""
    reader = around.only_reader(node.name)
    weight = _weighted(reader, around)
    if reader is None or weight is None or reader.name in work.touched:
        return False
    if reader.inputs[0] != node.name or reader.op == "ConvTranspose":
        return False
    if not np.all(np.isfinite(affine.scale)) or not _has_no_padding(reader, affine):
        return False
    value = known[affine.source]
    by_channel = _channels_first(reader, weight, affine, len(value.shape))
    if by_channel is None:
        return False
    scaled, shift = by_channel
    n_outputs = _n_outputs(reader, weight)
    dtype = around.graph.constants[reader.inputs[1]].dtype
    if reader.op == "MatMul":
        if np.any(shift):
            return False
        inputs: tuple[str, ...] = (affine.source, work.constant(reader.inputs[1], scaled, dtype))
    else:
        bias = _bias(reader, around, n_outputs)
        if bias is None:
            return False
        total = work.constant(f"{reader.name}.bias", bias + shift, dtype)
        inputs = (affine.source, work.constant(reader.inputs[1], scaled, dtype), total)
    attributes = {k: v for k, v in reader.attributes.items() if k != "beta"}
    work.change(node)
    work.change(reader, replace(reader, inputs=inputs, attributes=attributes))
    return True


def _has_no_padding(node: Node, affine: _Affine) -> bool:
    """Whether no zeros come between the step and the weights, or the step leaves zeros zero."""
    if node.op != "Conv" or not np.any(affine.shift):
        return True
    return node.text("auto_pad", "NOTSET") in {"NOTSET", "VALID"} and not any(node.wholes("pads"))


def _channels_first(
    node: Node, weight: _Numbers, affine: _Affine, rank: int
) -> tuple[_Numbers, _Numbers] | None:
    """Return (the weight times s, W t): as W has it and (N,)."""
    matrix = weight
    if node.op == "Conv":
        group = node.whole("group", 1)
        n_inputs = weight.shape[1] * group
        spread = [np.broadcast_to(part, (n_inputs,)) if part.size in {1, n_inputs} else None
                  for part in (affine.scale, affine.shift)]  # fmt: skip
        scale, shift = spread
        if scale is None or shift is None:
            return None
        per_group = weight.shape[0] // group
        index = np.arange(weight.shape[0]) // per_group  # the group of each output
        s = scale.reshape(group, -1)[index]  # (N, K / groups)
        t = shift.reshape(group, -1)[index]
        ones = (1,) * (weight.ndim - 2)
        summed = (weight.reshape(*weight.shape[:2], -1).sum(axis=2) * t).sum(axis=1)
        return weight * s.reshape(*s.shape, *ones), summed
    if affine.scale.size != 1 and rank != 2:
        return None
    rows = node.op == "Gemm" and node.whole("transB", 0)
    matrix = weight.T if rows else weight  # (K, N)
    if affine.scale.size not in {1, matrix.shape[0]}:
        return None
    scale = np.broadcast_to(affine.scale, matrix.shape[:1])
    shift = np.broadcast_to(affine.shift, matrix.shape[:1])
    scaled = matrix * scale[:, None]
    return (scaled.T if rows else scaled), shift @ matrix
