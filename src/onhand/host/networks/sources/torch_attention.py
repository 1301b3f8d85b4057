"""Attention as torch exports it, in the form that engines know."""

from dataclasses import replace

import numpy as np

from onhand.host.networks.graph import Array, Graph, Node, fresh_name

__all__ = ["plain_attention"]


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
    nodes = []
    for node in softened.nodes:
        if node.op == "Where":
            names = [_finite(name, constants, taken) for name in node.inputs[1:]]
            node = replace(node, inputs=(node.inputs[0], *names))
        nodes.append(node)
    return replace(softened, nodes=tuple(nodes), constants=constants).live(), len(same)


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
    """Return a constant with half of the lowest number in place of -inf."""
    array = constants.get(name)
    if array is None or array.dtype.kind != "f" or not np.any(np.isneginf(array)):
        return name
    # Half: what is added to it must not bring it to -inf again.
    lowest = np.finfo(array.dtype).min / 2
    finite = fresh_name(taken, f"{name}.finite")
    constants[finite] = np.where(np.isneginf(array), lowest, array).astype(array.dtype)
    return finite
