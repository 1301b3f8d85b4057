"""Attention as torch exports it, in the form that engines know."""

from dataclasses import replace

import numpy as np

from onhand.host.networks.graph import Array, Graph, Node, fresh_name
from onhand.host.networks.onnx_files import infer_shapes

__all__ = ["plain_attention", "plain_transposes"]


def plain_attention(graph: Graph) -> tuple[Graph, int]:
    """Take the guard against rows that mask everything out of attention.

    torch writes softmax(q k + m), m = 0 or -inf, and zeros where that is not a number. Without
    the guard, and with a large finite number for -inf, rows that see anything are the same, and
    ONNX Runtime fuses the whole.

    Args:
        graph: as torch exported it.

    Returns:
        The graph, and how many guards were taken out.
    """
    producers = graph.producers()
    same = {node.name: node.inputs[2] for node in graph.nodes if _is_guard(node, producers, graph)}
    if not same:
        return graph, 0
    outputs = set(graph.output_names())
    same = {out: source for out, source in same.items() if out not in outputs}
    softened = graph.renamed(same)
    constants, taken = dict(graph.constants), graph.names()

    def bounded(node: Node) -> tuple[Node]:
        if node.op != "Where":
            return (node,)
        names = [_finite(name, constants, taken) for name in node.inputs[1:]]
        return (replace(node, inputs=(node.inputs[0], *names)),)

    changed = softened.rebuilt(bounded)
    # `bounded` fills `constants` while it runs.
    return replace(changed, constants=constants).live(), len(same)


def plain_transposes(graph: Graph) -> Graph:
    """Write the keys' transpose as one operator.

    torch turns (B, H, T, D) by way of (B H, T, D), (B H, D, T) and (B, H, D, T): two Reshapes
    whose targets are computed.

    Args:
        graph: cleaned, so that shapes are known as far as they can be.

    Returns:
        The graph.
    """
    known, producers = infer_shapes(graph), graph.producers()

    def merged(node: Node) -> tuple[Node]:
        turn = producers.get(node.inputs[0]) if node.op == "Reshape" else None
        flat = (
            producers.get(turn.inputs[0]) if turn is not None and turn.op == "Transpose" else None
        )
        if turn is None or flat is None or flat.op != "Reshape":
            return (node,)
        values = [known.get(name) for name in (flat.inputs[0], flat.name, node.name)]
        if turn.wholes("perm") != (0, 2, 1) or any(value is None for value in values):
            return (node,)
        source, middle, result = (value.shape for value in values if value is not None)
        whole = len(source) == 4 and None not in source
        if not whole or middle[1:] != source[2:]:
            return (node,)
        if result != (source[0], source[1], source[3], source[2]):
            return (node,)
        perm = (0, 1, 3, 2)
        return (replace(node, op="Transpose", inputs=flat.inputs[:1], attributes={"perm": perm}),)

    return graph.rebuilt(merged).live()


def _is_guard(node: Node, producers: dict[str, Node], graph: Graph) -> bool:
    """Whether a node is Where(IsNaN(s), 0, s) of a Softmax s."""
    if node.op != "Where" or len(node.inputs) != 3:
        return False
    asks, source = producers.get(node.inputs[0]), producers.get(node.inputs[2])
    zero = graph.constants.get(node.inputs[1])
    return (
        asks is not None
        and asks.op == "IsNaN"
        and asks.inputs[0] == node.inputs[2]
        and source is not None
        and source.op == "Softmax"
        and zero is not None
        and not np.any(zero)
    )


def _finite(name: str, constants: dict[str, Array], taken: set[str]) -> str:
    """Return a constant with a large negative number in place of -inf."""
    array = constants.get(name)
    if array is None or array.dtype.kind != "f":
        return name
    numbers = np.asarray(array, dtype=np.float64)
    if not np.any(np.isneginf(numbers)):
        return name
    # Not the lowest: what is added to it must not bring it to -inf again.
    lowest = -3e4 if array.dtype == np.float16 else -1e38
    finite = fresh_name(taken, f"{name}.finite")
    constants[finite] = np.where(np.isneginf(numbers), lowest, numbers).astype(array.dtype)
    return finite
