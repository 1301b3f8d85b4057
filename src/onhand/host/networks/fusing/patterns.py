"""Find groups of operators by their shape, and put others in their place."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onhand.host.networks.graph import Array, Graph, Node, fresh_name

__all__ = ["Bind", "Const", "Made", "Match", "Number", "Op", "Pattern", "Rewritten", "rewrite"]

_COMMUTE = frozenset({"Add", "Mul"})
_NUMBER_TOLERANCE = 1e-5  # float32 carries seven digits; exporters write at least six of them


@dataclass(frozen=True, slots=True)
class Bind:
    """Any value; where the name stands twice, it is the same value both times."""

    name: str


@dataclass(frozen=True, slots=True)
class Const:
    """Any constant."""

    name: str


@dataclass(frozen=True, slots=True)
class Number:
    """A constant that is this one number."""

    value: float


@dataclass(frozen=True, slots=True)
class Op:
    """An operator of ONNX whose first inputs match; sums and products match in either order.

    Attributes:
        op: its name.
        inputs: what it reads, first to last; it may read no more.
        name: what to call the node in the match; "" for nothing.
        suits: a further condition.
    """

    op: str
    inputs: tuple["Pattern", ...]
    name: str = ""
    suits: Callable[[Node], bool] | None = None


Pattern = Bind | Const | Number | Op


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a pattern found.

    Attributes:
        root: the last node.
        values: name in the pattern -> name of the value or constant.
        nodes: all nodes, by the name of their first output.
        named: name in the pattern -> node.
    """

    root: Node
    values: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    named: dict[str, Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What stands in the place of a match.

    Attributes:
        nodes: that make the root's outputs.
        constants: that they read and the graph did not have.
        what: for the report.
    """

    nodes: tuple[Node, ...]
    constants: dict[str, Array] = field(default_factory=dict)
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """A graph after a rule, and what the rule did: see `PassResult`."""

    graph: Graph
    changed: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)


Make = Callable[[Match, Callable[[str], str]], Made | str]
"""Say what to put in the place of a match, or why nothing; the second argument makes names."""


def rewrite(graph: Graph, patterns: Sequence[Op], make: Make) -> Rewritten:
    """Replace whatever matches one of some patterns.

    A match whose inner values are read from outside of it, or are outputs, stays.

    Args:
        graph: the graph.
        patterns: tried in order at each node.
        make: see `Make`.

    Returns:
        The graph, with what was replaced and what not.
    """
    producers, readers = graph.producers(), graph.readers()
    outputs, taken = set(graph.output_names()), graph.names()
    gone: set[str] = set()
    placed: dict[str, Made] = {}
    kept: dict[str, str] = {}
    for node in graph.nodes:
        match = _first(patterns, node, graph, producers)
        if match is None or gone & match.nodes.keys():
            continue
        inner = [n for n in match.nodes.values() if n is not node]
        if why := _open(inner, match, readers, outputs):
            kept[node.name] = why
            continue
        made = make(match, lambda wanted: fresh_name(taken, wanted))
        if isinstance(made, str):
            kept[node.name] = made
            continue
        placed[node.name] = made
        gone |= match.nodes.keys()

    def change(node: Node) -> tuple[Node, ...]:
        if node.name in placed:
            return placed[node.name].nodes
        return () if node.name in gone else (node,)

    constants = dict(graph.constants)
    for made in placed.values():
        constants |= made.constants
    rebuilt = replace(graph.rebuilt(change), constants=constants).live() if placed else graph
    changed = {name: made.what for name, made in placed.items()}
    return Rewritten(graph=rebuilt, changed=changed, kept=kept)


def _open(
    inner: list[Node], match: Match, readers: dict[str, list[Node]], outputs: set[str]
) -> str | None:
    own = match.nodes.keys()
    for node in inner:
        for name in node.outputs:
            if name in outputs:
                return f"{name!r} inside it is an output"
            if any(reader.name not in own for reader in readers.get(name, [])):
                return f"{name!r} inside it is read by others as well"
    return None


def _first(
    patterns: Sequence[Op], node: Node, graph: Graph, producers: dict[str, Node]
) -> Match | None:
    for pattern in patterns:
        start = Match(root=node)
        for match in _match(pattern, node.name, start, graph, producers):
            return match
    return None


def _match(
    pattern: Pattern, name: str, so_far: Match, graph: Graph, producers: dict[str, Node]
) -> Iterator[Match]:
    """Yield every way in which a value matches, with what it adds to the match so far."""
    if isinstance(pattern, Number):
        if _is_number(graph.constants.get(name), pattern.value):
            yield so_far
        return
    if isinstance(pattern, Bind | Const):
        is_constant = name in graph.constants
        if isinstance(pattern, Const) != is_constant or not name:
            return
        if so_far.values.get(pattern.name, name) == name:
            yield replace(so_far, values=so_far.values | {pattern.name: name})
        return
    node = producers.get(name)
    if node is None or node.name != name or not _is_such(node, pattern):
        return
    named = so_far.named | {pattern.name: node} if pattern.name else so_far.named
    begun = replace(so_far, nodes=so_far.nodes | {node.name: node}, named=named)
    orders = [node.inputs]
    if node.op in _COMMUTE:
        orders.append(node.inputs[::-1])
    for order in orders:
        yield from _match_all(pattern.inputs, order, begun, graph, producers)


def _is_such(node: Node, pattern: Op) -> bool:
    if node.op != pattern.op or node.domain:
        return False
    if len([name for name in node.inputs if name]) != len(pattern.inputs):
        return False
    return pattern.suits is None or pattern.suits(node)


def _match_all(
    patterns: tuple[Pattern, ...],
    names: tuple[str, ...],
    so_far: Match,
    graph: Graph,
    producers: dict[str, Node],
) -> Iterator[Match]:
    if not patterns:
        yield so_far
        return
    for match in _match(patterns[0], names[0], so_far, graph, producers):
        yield from _match_all(patterns[1:], names[1:], match, graph, producers)


def _is_number(array: Array | None, value: float) -> bool:
    # More dimensions than one could add dimensions to what it is combined with.
    if array is None or array.size != 1 or array.ndim > 1 or array.dtype.kind not in "fiu":
        return False
    found = float(array.reshape(()))
    return bool(np.isclose(found, value, rtol=_NUMBER_TOLERANCE, atol=0.0))
