"""What one run of a graph costs, from shapes alone."""

import math

from onhand.host.networks.graph import Graph, Node, Value
from onhand.host.networks.onnx_files import infer_shapes

__all__ = ["count_operations", "operations_by_node"]


def count_operations(graph: Graph) -> int:
    """Return the multiply-accumulates of one run with one example.

    Args:
        graph: the graph; open sizes count as 1.

    Returns:
        Of convolutions and products of matrices; 0 where no shape can be told.
    """
    return sum(operations_by_node(graph).values())


def operations_by_node(graph: Graph) -> dict[str, int]:
    """Return name of a node -> its multiply-accumulates; see `count_operations`."""
    known = infer_shapes(graph)
    return {node.name: _operations(node, known) for node in graph.nodes}


def _operations(node: Node, known: dict[str, Value]) -> int:
    if node.op not in {"Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "MatMulInteger"}:
        return 0
    read = [known.get(name) for name in node.inputs[:2]]
    made = known.get(node.name)
    if made is None or None in read:
        return 0
    data, weight = (_sizes(value) for value in read if value is not None)
    out = _sizes(made)
    # Behind a loop the number of sizes is not known, and none are listed.
    if not data or not out:
        return 0
    if node.op == "Conv":
        return math.prod(out) * math.prod(weight[1:])
    if node.op == "ConvTranspose":
        return math.prod(data) * math.prod(weight[1:])
    if node.op == "Gemm":
        return math.prod(out) * data[0 if node.whole("transA", 0) else -1]
    return math.prod(out) * data[-1]


def _sizes(value: Value) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else 1 for size in value.shape)
