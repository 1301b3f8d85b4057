"""What cuts a convolution's values off: a Relu or a Clip that reads nothing else."""

from collections.abc import Collection

from onhand.host.networks.graph import Graph

__all__ = ["cuts_of"]


def cuts_of(graph: Graph, convolutions: Collection[str], *, operators: Collection[str]) -> set[str]:
    """Return the nodes that alone read a convolution.

    What a convolution on integers gives is rounded in any case, and finer behind the cut.

    Args:
        graph: the graph.
        convolutions: names of nodes.
        operators: that cut.
    """
    readers, outside = graph.readers(), set(graph.output_names())
    return {
        node.name
        for node in graph.nodes
        if node.op in operators
        and node.inputs[0] in convolutions
        and len(readers[node.inputs[0]]) == 1
        and node.inputs[0] not in outside
    }
