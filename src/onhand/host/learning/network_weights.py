"""Which weights of a network are learned: its last block, its biases, products of low rank."""

from collections.abc import Collection, Iterator
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.lesson import Codes
from onhand.host.learning.network_edit import GraphEdit
from onhand.host.learning.network_graph import few_bit_matrix, folded
from onhand.host.learning.network_head import Head, stored_name
from onhand.host.learning.wanted import Learnable
from onhand.host.networks.graph import Array, Graph, Node

__all__ = ["matrices", "open_biases", "open_low_rank", "open_weights", "stored_codes"]

# Operator -> inputs that are weights.
_WEIGHTS: Final = {
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "MatMul": (1,),
    "PRelu": (1,),
    "RMSNormalization": (1,),
}
# Of those, the one that is added.
_SHIFTS: Final = {
    "BatchNormalization": 2,
    "Conv": 2,
    "ConvTranspose": 2,
    "Gemm": 2,
    "GroupNormalization": 2,
    "InstanceNormalization": 2,
    "LayerNormalization": 2,
}
_ARITHMETIC: Final = {"Add", "Mul", "Sub"}
# Masks of attention hold such numbers, -10000 the least of them; a weight never does.
_MOST: Final = 9999.0
_SEED: Final = 0


def open_weights(
    edit: GraphEdit, graph: Graph, fixed: Collection[str], behind: Collection[str], head: Head
) -> None:
    """Make every weight that lies behind a cut a trainable, but the head's.

    Args:
        edit: of the graph.
        graph: the graph.
        fixed: values that no input changes.
        behind: values behind the cut.
        head: the head, which is opened apart.
    """
    places = [
        (node, index)
        for node, index in _places(graph, fixed, head)
        if not set(behind).isdisjoint(node.outputs)
    ]
    _open(edit, graph, places)
    for node in graph.nodes:
        if node.op != "MatMulNBits" or node is head.node or node.name not in behind:
            continue
        tensor = stored_name(graph, node.inputs[1])
        matrix = edit.trainable(
            f"learned.{tensor}", tensor=tensor, start=few_bit_matrix(graph, node)
        )
        if len(node.inputs) > 5 and node.inputs[5]:
            product = edit.node("MatMul", [node.inputs[0], matrix], f"{node.name}.product")
            inputs = (product, node.inputs[5])
            edit.replace_node(node.name, Node(op="Add", inputs=inputs, outputs=node.outputs))
        else:
            inputs = (node.inputs[0], matrix)
            edit.replace_node(node.name, Node(op="MatMul", inputs=inputs, outputs=node.outputs))


def open_biases(edit: GraphEdit, graph: Graph, fixed: Collection[str], head: Head) -> None:
    """Make every bias, and every norm's shift, a trainable; the head's as well.

    Args:
        edit: of the graph.
        graph: the graph.
        fixed: values that no input changes.
        head: the head.
    """
    places = [
        (node, index)
        for node, index in _places(graph, fixed, None)
        if _SHIFTS.get(node.op) == index or node.op == "Add"
    ]
    new = not np.any(graph.constants.get(head.weight, np.ones(1)))
    _open(edit, graph, [place for place in places if not (new and place[0] is head.node)])


def open_low_rank(
    edit: GraphEdit, graph: Graph, fixed: Collection[str], head: Head, learnable: Learnable
) -> None:
    """Add a product of low rank to every product of a matrix, but the head.

    Args:
        edit: of the graph.
        graph: the graph.
        fixed: values that no input changes.
        head: the head, which is opened apart.
        learnable: rank, scale, and which matrices.

    Raises:
        InputError: if the network has no such matrix.
    """
    random = np.random.default_rng(_SEED)
    scale = np.array(learnable.scale() / learnable.rank, dtype=np.float32)
    factor = edit.constant("lora.scale", scale)
    known: dict[str, tuple[str, str]] = {}
    for node, sizes in matrices(graph, fixed):
        tensor = stored_name(graph, node.inputs[1])
        targets = learnable.targets
        # By the node's own name as well: exporters number weights, and name what they make.
        names = (_plain(tensor), _plain(node.name))
        if node is head.node or (targets and not any(n.endswith(targets) for n in names)):
            continue
        if tensor not in known:  # layers may share a weight, and then share what is learned of it
            known[tensor] = _factors(edit, tensor, sizes, learnable.rank, random)
        first, second = known[tensor]
        narrow = edit.node("MatMul", [node.inputs[0], first], f"{node.name}.narrow")
        wide = edit.node("MatMul", [narrow, second], f"{node.name}.wide")
        added = edit.node("Mul", [wide, factor], f"{node.name}.added")
        edit.add_behind(node.name, "Add", added)
    if not known:
        said = f" called {' or '.join(learnable.targets)}" if learnable.targets else ""
        raise InputError(
            f"the network has no product of a matrix{said} before its head: take --learnable "
            "last-block or head"
        )


def _factors(
    edit: GraphEdit, tensor: str, sizes: tuple[int, int], rank: int, random: np.random.Generator
) -> tuple[str, str]:
    """Add the two factors of a matrix; the names of A (K, R) and B (R, N), crosswise."""
    K, N = sizes
    # As PyTorch begins a Linear, and PEFT the first factor; the second is zero.
    bound = 1.0 / np.sqrt(K)
    first = random.uniform(-bound, bound, (rank, K)).astype(np.float32)
    second = np.zeros((N, rank), dtype=np.float32)
    made = [
        edit.trainable(f"{_plain(tensor)}.{part}", tensor=tensor, start=start, part=part)
        for part, start in (("lora_A", first), ("lora_B", second))
    ]
    a, b = (edit.node("Transpose", [name], f"{name}.crosswise", perm=(1, 0)) for name in made)
    return a, b


def matrices(graph: Graph, fixed: Collection[str]) -> Iterator[tuple[Node, tuple[int, int]]]:
    """Yield products of a matrix, and (K, N).

    Args:
        graph: the graph.
        fixed: values that no input changes.
    """
    weights = [
        node.inputs[1]
        for node in graph.nodes
        if node.op in {"Gemm", "MatMul"} and not node.domain and node.inputs[1] in fixed
    ]
    shapes = {name: array.shape for name, array in folded(graph, weights).items()}
    for node in graph.nodes:
        if node.op == "MatMulNBits":
            yield node, (node.whole("K", 0), node.whole("N", 0))
        elif node.op in {"Gemm", "MatMul"} and not node.domain and node.inputs[0] not in fixed:
            shape = shapes.get(node.inputs[1], ())
            if len(shape) == 2 and not node.whole("transA", 0):
                yield (
                    node,
                    (shape[1], shape[0]) if node.whole("transB", 0) else (shape[0], shape[1]),
                )


def _places(graph: Graph, fixed: Collection[str], head: Head | None) -> Iterator[tuple[Node, int]]:
    """Yield nodes, and which of their inputs is a weight."""
    barred = set() if head is None else {head.node.name}
    if head is not None and head.added is not None:
        barred.add(head.added[0].name)
    for node in graph.nodes:
        if node.domain or node.name in barred or node.name in fixed:
            continue
        indices = _WEIGHTS.get(node.op, ())
        if node.op in _ARITHMETIC:
            indices = (0, 1)
        for index in indices:
            if len(node.inputs) > index and node.inputs[index] in fixed:
                yield node, index


def _open(edit: GraphEdit, graph: Graph, places: list[tuple[Node, int]]) -> None:
    values = folded(graph, list(dict.fromkeys(node.inputs[index] for node, index in places)))
    known: dict[str, str] = {}
    for node, index in places:
        name = node.inputs[index]
        if not _is_weight(node, values[name]):
            continue
        if name not in known:
            tensor = stored_name(graph, name)
            known[name] = edit.trainable(
                f"learned.{tensor}",
                tensor=tensor,
                start=values[name],
                stored=stored_codes(graph, name),
            )
        edit.read_instead(node.name, index, known[name])


def stored_codes(graph: Graph, value: str) -> tuple[Codes, FloatArray] | None:
    """Return how a weight is stored as integers around zero.

    Args:
        graph: the graph.
        value: what reads the weight reads.

    Returns:
        How, and its scales (C,) or (); None where it is stored as floats, or as other integers:
        of blocks, of fewer bits, or around another number.
    """
    node = graph.producers().get(value)
    if node is None or node.op != "DequantizeLinear" or node.domain or node.whole("block_size", 0):
        return None
    parts = [graph.constants.get(name) for name in node.inputs if name]
    codes, scales = parts[0], parts[1]
    if codes is None or scales is None or codes.dtype != np.int8 or codes.ndim < 2:
        return None
    if len(parts) > 2 and (parts[2] is None or parts[2].any()):
        return None
    if scales.size == 1:
        return Codes(bits=8, axis=None), scales.astype(np.float32).reshape(())
    return Codes(bits=8, axis=node.whole("axis", 1) % codes.ndim), scales.astype(np.float32)


def _is_weight(node: Node, array: Array) -> bool:
    if array.dtype != np.dtype(np.float32) or array.size < 1:
        return False
    if node.op in _ARITHMETIC and sum(size > 1 for size in array.shape) != 1:
        return False
    peak = float(np.abs(array).max())
    return bool(np.isfinite(peak)) and peak < _MOST


def _plain(name: str) -> str:
    for end in ("_quantized", ".codes"):
        name = name.removesuffix(end)
    return name.removesuffix(".weight")
