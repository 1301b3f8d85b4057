"""Where a network's scores come from: its head, and how it becomes something that is learned."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from onhand.core.errors import InputError
from onhand.host.learning.network_edit import CLASSES, GraphEdit
from onhand.host.learning.network_graph import few_bit_matrix, folded, known_shapes
from onhand.host.networks.graph import Array, Graph, Node, Value, fresh_name

__all__ = [
    "PRODUCTS",
    "Head",
    "find_head",
    "open_head",
    "open_scores",
    "stored_name",
    "with_new_head",
]

PRODUCTS: Final = {"Conv": 1, "Gemm": 1, "MatMul": 1, "MatMulNBits": 1}
"""Operator -> which input is the weight."""
_ENDS: Final = {"LogSoftmax", "Sigmoid", "Softmax"}
# What may stand between the head and the scores, whatever the number of classes.
_BEHIND: Final = {
    "AveragePool",
    "Cast",
    "Clip",
    "DequantizeLinear",
    "Dropout",
    "Flatten",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "MaxPool",
    "QuantizeLinear",
    "ReduceMean",
    "ReduceMax",
    "Relu",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
_SCALES: Final = {"Div", "Mul"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last product before the scores.

    Attributes:
        node: the product.
        data: the value that it reads.
        weight: the value that is its weight.
        added: the Add of a bias behind it, and which of its inputs is the bias; None for none.
        behind: nodes between the product and the scores, the last one first.
        logits: the value that softmax would read.
        n_classes: C.
        shape: of the logits, as far as it is known.
    """

    node: Node
    data: str
    weight: str
    added: tuple[Node, int] | None
    behind: tuple[Node, ...]
    logits: str
    n_classes: int
    shape: tuple[int | str | None, ...]


def with_new_head(graph: Graph, n_classes: int) -> Graph:
    """Return a graph whose first output are scores of classes, by a new head on its vector.

    Args:
        graph: its first output is a vector (B, D) for each example.
        n_classes: to begin with; their weights are zeros.

    Returns:
        The graph: scores, and all outputs that it had.

    Raises:
        InputError: if the first output is no vector of a known width.
    """
    vector = known_shapes(graph).get(graph.outputs[0].name, graph.outputs[0])
    D = vector.shape[-1] if len(vector.shape) == 2 else None
    if not isinstance(D, int) or vector.dtype != np.dtype(np.float32):
        raise InputError(
            f"a new head needs a vector (B, D) of floats for each example; {vector.name!r} is "
            f"{vector.shape} of {vector.dtype}"
        )
    names = graph.names()
    scores, weight, bias = (
        fresh_name(names, wanted) for wanted in ("scores", "new_head.weight", "new_head.bias")
    )
    made = Node(
        op="Gemm", inputs=(vector.name, weight, bias), outputs=(scores,), attributes={"transB": 1}
    )
    zeros = {
        weight: np.zeros((n_classes, D), np.float32),
        bias: np.zeros(n_classes, np.float32),
    }
    value = Value(name=scores, dtype=np.dtype(np.float32), shape=(vector.shape[0], n_classes))
    return replace(
        graph,
        nodes=(*graph.nodes, made),
        constants={**graph.constants, **zeros},
        outputs=(value, *graph.outputs),
    )


def find_head(graph: Graph, fixed: Collection[str]) -> Head:
    """Find the last product before the scores.

    Args:
        graph: its first output are the scores.
        fixed: values that no input changes.

    Returns:
        The head.

    Raises:
        InputError: if the scores do not come from one product with a weight of its own.
    """
    producers, shapes = graph.producers(), known_shapes(graph)
    name = graph.outputs[0].name
    logits, behind = name, list[Node]()
    added: tuple[Node, int] | None = None
    while True:
        node = producers.get(name)
        if node is None:
            raise InputError(f"the scores {graph.outputs[0].name!r} come from no product")
        moving = [i for i, read in enumerate(node.inputs) if read and read not in fixed]
        index = PRODUCTS.get(node.op)
        if index is not None and moving == [0] and _is_known(node):
            break
        name = _before(node, moving, graph)
        if node.op in _ENDS:
            logits = name
        elif node.op == "Add" and added is None:
            added = (node, 1 - moving[0])
        behind.append(node)
    weight = folded(graph, [node.inputs[1]])[node.inputs[1]]
    n_classes = _n_classes(node, weight)
    shape = shapes[logits].shape if logits in shapes else ()
    return Head(
        node=node,
        data=node.inputs[0],
        weight=node.inputs[1],
        added=added,
        behind=tuple(behind),
        logits=logits,
        n_classes=n_classes,
        shape=shape,
    )


def _is_known(node: Node) -> bool:
    return not node.domain or node.op == "MatMulNBits"


def _before(node: Node, moving: list[int], graph: Graph) -> str:
    """Return the value that a node behind the head reads.

    Raises:
        InputError: if it mixes several, or nobody knows what it does to scores.
    """
    passes = node.op in _BEHIND or node.op in _ENDS or node.op == "Add"
    if node.op in _SCALES:
        other = graph.constants.get(node.inputs[1 - moving[0]]) if len(moving) == 1 else None
        passes = other is not None and other.size == 1
    if node.domain or not passes or len(moving) != 1:
        raise InputError(
            f"the scores {graph.outputs[0].name!r} come from {node.shown}, and not from one "
            "product with a weight of its own: this network has no head that could be learned"
        )
    return node.inputs[moving[0]]


def _n_classes(node: Node, weight: Array) -> int:
    if node.op == "MatMulNBits":
        return node.whole("N", 0)
    if node.op == "MatMul" or (node.op == "Gemm" and not node.whole("transB", 0)):
        return int(weight.shape[-1])
    return int(weight.shape[0])


def open_scores(edit: GraphEdit, graph: Graph, head: Head) -> str:
    """Let scores pass as they are, unrounded and of any number of classes; (B, C) logits.

    Args:
        edit: of the graph.
        graph: the graph.
        head: its head.

    Returns:
        The name of the logits.
    """
    made_by = graph.producers()
    for node in head.behind:
        before = made_by.get(node.inputs[0])
        if node.op == "DequantizeLinear" and before is not None and before in head.behind:
            # Rounding made for the old classes' scores would bound those of new ones.
            plain = Node(op="Identity", inputs=before.inputs[:1], outputs=node.outputs)
            edit.replace_node(node.name, plain)
    logits = head.logits
    if len(head.shape) != 2:
        logits = edit.node("Flatten", [logits], f"{logits}.rows", axis=1)  # (B, C)
    return logits


def open_head(edit: GraphEdit, graph: Graph, head: Head) -> bool:
    """Make weight and bias of a head trainables.

    Args:
        edit: of the graph.
        graph: the graph.
        head: its head.

    Returns:
        Whether classes may be added.
    """
    grows = _open_shapes(edit, graph, head) and _one_of_each_class(head)
    node, C = head.node, head.n_classes
    weight = _weight(graph, head)
    stored = stored_name(graph, head.weight)
    if node.op == "Conv" and _is_pointwise(node, weight):
        _open_pointwise(edit, graph, head, weight.reshape(C, -1), grows=grows)
    elif node.op == "Conv":
        grows = False  # what its gradient is needs the number of its kernels
        name = edit.trainable("head.weight", tensor=stored, start=weight)
        edit.read_instead(node.name, 1, name)
    else:
        name = edit.trainable("head.weight", tensor=stored, start=weight.T, grows=grows)
        if node.op != "Gemm" or not node.whole("transB", 0):
            name = edit.node("Transpose", [name], "head.weight.crosswise", perm=(1, 0))
        if node.op == "MatMulNBits":
            new = Node(op="MatMul", inputs=(head.data, name), outputs=node.outputs)
            edit.replace_node(node.name, new)
        else:
            edit.read_instead(node.name, 1, name)
    pointwise = node.op == "Conv" and _is_pointwise(node, weight)
    own_bias = node.op in {"Conv", "Gemm"} and not pointwise and _has(node, 2)
    places = [(node.name, 2)] if own_bias else []
    places += [] if head.added is None else [(head.added[0].name, head.added[1])]
    for place, index in places:
        _open_bias(edit, graph, place, index, n_classes=C, grows=grows)
    if grows:
        first = edit.outputs[0]
        edit.outputs = (replace(first, shape=(*_open_sizes(first, C),)), *edit.outputs[1:])
    return grows


def _is_pointwise(node: Node, weight: Array) -> bool:
    """Say whether a convolution is the same product at every place."""
    plain = all(size == 1 for size in (*weight.shape[2:], *node.wholes("strides")))
    pads = node.text("auto_pad", "NOTSET") != "NOTSET" or any(node.wholes("pads"))
    return plain and not pads and node.whole("group", 1) == 1


def _open_pointwise(
    edit: GraphEdit, graph: Graph, head: Head, weight: Array, *, grows: bool
) -> None:
    """Write a convolution of one place as a product, which takes any number of classes."""
    node = head.node
    rank = len(folded(graph, [head.weight])[head.weight].shape)
    stored = stored_name(graph, head.weight)
    name = edit.trainable("head.weight", tensor=stored, start=weight, grows=grows)
    name = edit.node("Transpose", [name], "head.weight.crosswise", perm=(1, 0))
    last = (0, *range(2, rank), 1)
    rows = edit.node("Transpose", [head.data], "head.places", perm=last)  # (B, ..., K)
    made = edit.node("MatMul", [rows, name], "head.products")  # (B, ..., C)
    if _has(node, 2):
        bias = folded(graph, [node.inputs[2]])[node.inputs[2]]
        tensor = stored_name(graph, node.inputs[2])
        added = edit.trainable("head.bias", tensor=tensor, start=bias, grows=grows)
        made = edit.node("Add", [made, added], "head.sums")
    back = (0, rank - 1, *range(1, rank - 1))
    again = Node(op="Transpose", inputs=(made,), outputs=node.outputs, attributes={"perm": back})
    edit.replace_node(node.name, again)


def _open_sizes(value: Value, n_classes: int) -> tuple[int | str | None, ...]:
    return tuple(
        CLASSES if place and size == n_classes else size for place, size in enumerate(value.shape)
    )


def _weight(graph: Graph, head: Head) -> Array:
    """Return a head's weight: (K, C), or as it is of a convolution."""
    node = head.node
    if node.op == "MatMulNBits":
        return few_bit_matrix(graph, node)
    weight = folded(graph, [head.weight])[head.weight]
    return weight.T if node.op == "Gemm" and node.whole("transB", 0) else weight


def _one_of_each_class(head: Head) -> bool:
    """Say whether the rows of the weight are the classes, no more and no less."""
    sizes = head.shape[1:]
    known = all(isinstance(size, int) for size in sizes)
    count = int(np.prod([size for size in sizes if isinstance(size, int)])) if known else 0
    return head.node.whole("group", 1) == 1 and (not known or count == head.n_classes)


def _open_shapes(edit: GraphEdit, graph: Graph, head: Head) -> bool:
    """Let what stands behind a head take any number of classes; say whether all of it does."""
    for node in head.behind:
        if node.op == "Reshape":
            sizes = graph.constants.get(node.inputs[1])
            if sizes is None or sizes.size != 2 or int(sizes[1]) not in {head.n_classes, -1}:
                return False
            new = edit.constant(f"{node.name}.sizes", np.array([0, -1], dtype=np.int64))
            edit.read_instead(node.name, 1, new)
        elif node.op in {"DequantizeLinear", "QuantizeLinear"}:
            scale = graph.constants.get(node.inputs[1])
            if scale is not None and scale.size != 1:
                return False
        elif node.op == "Add" and (head.added is None or node is not head.added[0]):
            return False
    return True


def _open_bias(
    edit: GraphEdit, graph: Graph, place: str, index: int, *, n_classes: int, grows: bool
) -> None:
    old = graph.producers()[place].inputs[index]
    array = folded(graph, [old])[old]
    if array.size != n_classes:  # one number for all classes, say: no class has its own
        return
    wanted = "head.bias" if "head.bias" not in edit.trainables else "head.bias.2"
    name = edit.trainable(
        wanted, tensor=stored_name(graph, old), start=array.reshape(-1), grows=grows
    )
    if array.shape != (n_classes,):
        shape = np.array([-1 if size == n_classes else size for size in array.shape], np.int64)
        if int((shape == -1).sum()) > 1:
            shape = np.array(array.shape, np.int64)
        sizes = edit.constant(f"{wanted}.sizes", shape)
        name = edit.node("Reshape", [name, sizes], f"{wanted}.shaped")
    edit.read_instead(place, index, name)


def _has(node: Node, index: int) -> bool:
    return len(node.inputs) > index and bool(node.inputs[index])


def stored_name(graph: Graph, value: str) -> str:
    """Return the constant that a fixed value is made of: its codes, where it is dequantised."""
    producers = graph.producers()
    while value not in graph.constants and value in producers:
        value = producers[value].inputs[0]
    return value
