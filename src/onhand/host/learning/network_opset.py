"""A graph of opset 17 brought to 18, in which gradients are written."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np

from onhand.host.networks.graph import Graph, Node, fresh_name

__all__ = ["OPSET", "newer_graph"]

OPSET: Final = 18
_REDUCTIONS: Final = {
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
}


def newer_graph(graph: Graph) -> Graph:
    """Return a graph of opset 18 or later: axes of reductions are inputs there.

    Args:
        graph: of opset 17 or later.

    Returns:
        The graph; the same one where it is new enough.

    Source:
        Changelog of ONNX's operators, opset 18 (https://github.com/onnx/onnx).
    """
    if graph.opset >= OPSET:
        return graph
    names, constants = graph.names(), dict(graph.constants)

    def change(node: Node) -> Iterable[Node]:
        attributes = dict(node.attributes)
        if node.op in _REDUCTIONS and not node.domain and "axes" in attributes:
            axes = fresh_name(names, f"{node.name}.axes")
            constants[axes] = np.array(node.wholes("axes"), dtype=np.int64)
            del attributes["axes"]
            yield replace(node, inputs=(node.inputs[0], axes), attributes=attributes)
        elif node.op == "Split" and not node.domain and len(node.inputs) < 2:
            attributes["num_outputs"] = len(node.outputs)
            yield replace(node, attributes=attributes)
        else:
            yield node

    return replace(graph.rebuilt(change), constants=constants, opset=OPSET)
