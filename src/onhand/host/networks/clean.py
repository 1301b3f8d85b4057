"""Make a graph plain: the same function with fewer and simpler operators."""

from onhand.host.networks.cleaning.affine import fold_affine
from onhand.host.networks.cleaning.constants import fold_constants
from onhand.host.networks.cleaning.forms import simplify_forms
from onhand.host.networks.cleaning.no_ops import drop_no_ops
from onhand.host.networks.graph import Graph

__all__ = ["clean"]

# A rule may make room for another; real exports are done after two or three rounds.
_MOST_ROUNDS = 12


def clean(graph: Graph) -> Graph:
    """Return a graph of the same function that passes and engines find easier.

    Nodes of constants are computed; operators that do nothing go; batch normalisation and other
    products and sums with constants move into the convolution or product beside them; paddings
    move into it; means over all places become global pools, pairs of bounds one Clip. Inputs and
    outputs keep their names, dtypes and order; nodes that quantise stay as they are.

    Args:
        graph: the graph; not changed.

    Returns:
        The new graph; its values differ by rounding alone.
    """
    for _ in range(_MOST_ROUNDS):
        before = graph
        for rule in (fold_constants, drop_no_ops, simplify_forms, fold_affine):
            graph = rule(graph)
        graph = graph.live()
        if _same(graph, before):
            break
    return graph


def _same(left: Graph, right: Graph) -> bool:
    return len(left.nodes) == len(right.nodes) and all(
        a is b for a, b in zip(left.nodes, right.nodes, strict=True)
    )
