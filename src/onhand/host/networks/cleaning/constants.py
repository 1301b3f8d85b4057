"""What does not depend on any input is computed once, here."""

from dataclasses import replace

import numpy as np

from onhand.core.errors import EngineError
from onhand.host.networks.cleaning.edit import static_shape
from onhand.host.networks.cleaning.quiet import run_quietly
from onhand.host.networks.cleaning.sizes import write_sizes
from onhand.host.networks.graph import Array, Graph, Node, Value, fresh_name
from onhand.host.networks.onnx_files import infer_shapes

__all__ = ["fold_constants"]

# Random values change from run to run; quantised constants shall stay small.
_NEVER = {
    "Bernoulli",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "Multinomial",
    "QuantizeLinear",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
_SMALL_BYTES = 2**20
_MOST_GROWTH = 4


def fold_constants(graph: Graph) -> Graph:
    """Return the graph with nodes of constants computed and with static shapes written down.

    Args:
        graph: the graph.

    Returns:
        The graph; a constant that would grow over 1 MiB and fourfold stays a node, and so does
        what ONNX Runtime cannot compute.
    """
    graph = write_sizes(graph)
    foldable = _foldable(graph)
    if not foldable:
        return graph
    needed = _needed(graph, foldable)
    made = _computed(graph, foldable, needed)
    if made is None:
        made = _one_by_one(graph, foldable)
    nodes = tuple(n for n in graph.nodes if not all(name in made for name in n.outputs if name))
    # A graph's output that is constant needs a node that gives it.
    outputs = [name for name in graph.output_names() if name in made]
    taken = graph.names()
    constants = dict(graph.constants) | {n: a for n, a in made.items() if n not in outputs}
    extra: list[Node] = []
    for name in outputs:
        held = fresh_name(taken, f"{name}.value")
        constants[held] = made[name]
        extra.append(Node(op="Identity", inputs=(held,), outputs=(name,)))
    return replace(graph, nodes=(*extra, *nodes), constants=constants)


def _foldable(graph: Graph) -> list[Node]:
    """Return nodes of constants alone, in order."""
    known = infer_shapes(graph)
    sizes = {name: array.nbytes for name, array in graph.constants.items()}
    outputs = set(graph.output_names())
    found: list[Node] = []
    for node in graph.nodes:
        reads = node.reads()
        if node.domain or node.bodies or node.op in _NEVER or not all(n in sizes for n in reads):
            continue
        # What already stands for a constant output is done.
        if node.op == "Identity" and node.name in outputs:
            continue
        size = _size_bytes(node, known)
        most = max(_SMALL_BYTES, _MOST_GROWTH * sum(sizes[name] for name in reads))
        if size is not None and size <= most:
            found.append(node)
            sizes |= {name: size for name in node.outputs if name}
    return found


def _size_bytes(node: Node, known: dict[str, Value]) -> int | None:
    total = 0
    for name in node.outputs:
        value = known.get(name)
        if not name or (value is not None and not value.shape):
            continue
        shape = static_shape(value)
        if value is None or shape is None:
            # Slices and casts of shapes have no known size, but are as small as those.
            return 0 if node.op in _OF_SHAPES else None
        total += int(np.prod(shape, dtype=np.int64)) * value.dtype.itemsize
    return total


_OF_SHAPES = {"Cast", "Concat", "Gather", "Identity", "Neg", "Slice", "Squeeze", "Unsqueeze"}


def _needed(graph: Graph, foldable: list[Node]) -> list[str]:
    """Return values of foldable nodes that the rest of the graph reads."""
    inside = {node.name for node in foldable}
    read = {n for node in graph.nodes if node.name not in inside for n in node.reads()}
    read |= set(graph.output_names())
    return [name for node in foldable for name in node.outputs if name in read]


def _computed(graph: Graph, nodes: list[Node], names: list[str]) -> dict[str, Array] | None:
    """Return name -> array, None if ONNX Runtime cannot run these nodes."""
    known = infer_shapes(graph)
    kept = tuple(known[name] for name in names if name in known)
    if not kept:
        return {}
    part = replace(graph, nodes=tuple(nodes), inputs=(), outputs=kept).live()
    try:
        return run_quietly(part, {})
    except EngineError:
        return None


def _one_by_one(graph: Graph, nodes: list[Node]) -> dict[str, Array]:
    """Compute what can be, where one of the nodes cannot."""
    made: dict[str, Array] = {}
    for node in nodes:
        have = {**graph.constants, **made}
        if all(name in have for name in node.reads()):
            names = [name for name in node.outputs if name]
            made |= _computed(replace(graph, constants=have), [node], names) or {}
    return made
