"""Where a network can be cut in two, and where its last block begins."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from onhand.core.errors import InputError
from onhand.host.learning.network_graph import known_shapes
from onhand.host.learning.network_head import PRODUCTS
from onhand.host.networks.graph import Graph, Node, Value

__all__ = ["Cut", "cut_at", "find_last_block", "values_behind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A value that all of a network's learning lies behind.

    Attributes:
        value: its name, dtype and shape.
        beside: inputs of the network that what lies behind needs as well: masks.
    """

    value: Value
    beside: tuple[Value, ...]


def find_last_block(graph: Graph, head: Node, fixed: Collection[str]) -> Cut:
    """Find where the last block before the head begins.

    Between two values that the whole network goes through lies a piece of it. A piece of several
    products is a block: a residual one, or a layer's attention. The last block is what lies behind
    the last such piece, if these are two products or more; else that piece as well, and of a
    transformer's layer the attention before it. In a plain chain it is the last two products.

    Args:
        graph: the graph.
        head: its last product.
        fixed: values that no input changes.

    Returns:
        The cut.

    Raises:
        InputError: if the network has no value that could be cut at, or nothing lies between that
            and the head.
    """
    cuts = _cuts(graph, head, fixed)
    pieces = _pieces(graph, cuts, head, fixed)
    if not pieces:
        raise InputError(
            "the network cannot be cut before its last block: no value leads to the head alone; "
            "name one with --learnable last-block,cut=NAME"
        )
    chain = 0
    for i in range(len(pieces) - 1, -1, -1):
        cut, piece = pieces[i]
        if piece.products > 1:
            if chain >= 2:
                return pieces[i + 1][0]
            before = next((p for p in reversed(pieces[:i]) if p[1].products), None)
            with_attention = before is not None and before[1].attends and not piece.attends
            return before[0] if before is not None and with_attention else cut
        chain += piece.products
    return _plain(pieces)


def _plain(pieces: "list[tuple[Cut, _Piece]]") -> Cut:
    """Return the cut before the last two products of a chain.

    Raises:
        InputError: if there is no product before the head.
    """
    n = 0
    for cut, piece in reversed(pieces):
        n += piece.products
        if n == 2 and piece.products:
            return cut
    if n == 0:
        raise InputError(
            "nothing that could be learned lies before the head: take --learnable head"
        )
    return next(cut for cut, piece in pieces if piece.products)


def cut_at(graph: Graph, head: Node, fixed: Collection[str], name: str) -> Cut:
    """Return the cut at a value that was named.

    Raises:
        InputError: if the network cannot be cut there; with some values where it can.
    """
    cuts = _cuts(graph, head, fixed)
    for cut in cuts:
        if cut.value.name == name:
            return cut
    known = ", ".join(cut.value.name for cut in cuts[-8:])
    raise InputError(f"cut={name}: the network cannot be cut there, but at {known or 'no value'}")


def values_behind(graph: Graph, value: str, fixed: Collection[str]) -> set[str]:
    """Return the values that change with a value, itself included."""
    found = {value}
    for node in graph.nodes:
        if not found.isdisjoint(node.reads()):
            found.update(name for name in node.outputs if name and name not in fixed)
    return found


@dataclass(frozen=True, slots=True)
class _Piece:
    """What lies between two cuts: products with a weight, and whether two values are multiplied."""

    products: int
    attends: bool


def _pieces(
    graph: Graph, cuts: list[Cut], head: Node, fixed: Collection[str]
) -> list[tuple[Cut, _Piece]]:
    """Return each cut, and what lies between it and the next one, or the head."""
    places = {name: i for i, node in enumerate(graph.nodes) for name in node.outputs}
    wanted = _needed(graph, head.inputs[0], ())
    found: list[tuple[Cut, _Piece]] = []
    if not cuts:
        return []
    ends = [*(places[cut.value.name] for cut in cuts[1:]), places[head.name]]
    for cut, end in zip(cuts, ends, strict=True):
        inside = [
            node
            for node in graph.nodes[places[cut.value.name] + 1 : end + 1]
            if node is not head and wanted.intersection(node.outputs)
        ]
        products = [node for node in inside if node.op in PRODUCTS]
        own = [node for node in products if node.op == "MatMulNBits" or node.inputs[1] in fixed]
        found.append((cut, _Piece(len(own), len(own) < len(products))))
    return found


def _cuts(graph: Graph, head: Node, fixed: Collection[str]) -> list[Cut]:
    """Return all values that a network can be cut at, in order, up to what the head reads."""
    shapes = known_shapes(graph)
    inputs = {value.name: value for value in graph.inputs}
    wanted = _needed(graph, head.inputs[0], ())
    cuts: list[Cut] = []
    for node in graph.nodes:
        name = node.name
        value = shapes.get(name)
        if name not in wanted or name in fixed or value is None:
            continue
        if value.dtype != np.dtype(np.float32) or len(value.shape) < 2 or len(node.outputs) != 1:
            continue
        beside = _needed(graph, head.inputs[0], (name,)) - values_behind(graph, name, fixed)
        if not _is_light(graph, beside, fixed):
            continue
        lone = tuple(inputs[one] for one in inputs if one in beside)
        if all(_goes_along(one, value) for one in lone):
            cuts.append(Cut(value=value, beside=lone))
    return cuts


def _goes_along(beside: Value, value: Value) -> bool:
    """Say whether an input (B, T) can travel with a value (B, T, D), as one more channel."""
    return beside.dtype.kind in "iu" and len(beside.shape) == 2 and len(value.shape) == 3


def _needed(graph: Graph, value: str, ends: Collection[str]) -> set[str]:
    """Return what a value is made of, itself included, and nothing that `ends` are made of."""
    found = {value}
    for node in reversed(graph.nodes):
        made = found.intersection(node.outputs)
        if made and not made <= set(ends):
            found.update(node.reads())
    return found


def _is_light(graph: Graph, names: Collection[str], fixed: Collection[str]) -> bool:
    """Say whether values beside a cut are no more than masks and sizes."""
    makers: Mapping[str, Node] = graph.producers()
    for name in names:
        node = makers.get(name)
        if node is None or name in fixed:
            continue
        if node.op in PRODUCTS or _reads_weight(graph, node):
            return False
    return True


def _reads_weight(graph: Graph, node: Node) -> bool:
    # Masks and sizes are made with single numbers.
    arrays = (graph.constants[name] for name in node.inputs if name in graph.constants)
    return any(array.dtype.kind == "f" and array.size > 1 for array in arrays)
