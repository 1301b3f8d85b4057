"""Operators in the form that engines and passes know best."""

from dataclasses import replace

import numpy as np

from onhand.host.networks.cleaning.edit import Surroundings, is_float
from onhand.host.networks.graph import Array, Attribute, Graph, Node, Value, fresh_name
from onhand.host.networks.onnx_files import infer_shapes

__all__ = ["simplify_forms"]


def simplify_forms(graph: Graph) -> Graph:
    """Return the graph with means as pools, bounds as Clip or Relu, and paddings folded.

    Args:
        graph: the graph.

    Returns:
        The graph.
    """
    return _fold_pads(_bounds(_pools(graph)))


def _pools(graph: Graph) -> Graph:
    """Means over all places of (B, C, ...) become GlobalAveragePool, and Flatten where they go."""
    if not any(node.op == "ReduceMean" for node in graph.nodes):
        return graph
    known, taken = infer_shapes(graph), graph.names()

    def pooled(node: Node) -> tuple[Node, ...]:
        value = known.get(node.inputs[0]) if node.op == "ReduceMean" and not node.domain else None
        if value is None or not is_float(value.dtype) or not 3 <= len(value.shape) <= 5:
            return (node,)
        rank = len(value.shape)
        axes = _axes(node, graph)
        if axes is None or sorted(axis % rank for axis in axes) != list(range(2, rank)):
            return (node,)
        if node.whole("keepdims", 1):
            return (replace(node, op="GlobalAveragePool", inputs=node.inputs[:1], attributes={}),)
        middle = fresh_name(taken, f"{node.name}.pooled")
        return (
            Node(op="GlobalAveragePool", inputs=node.inputs[:1], outputs=(middle,)),
            Node(op="Flatten", inputs=(middle,), outputs=node.outputs, attributes={"axis": 1}),
        )

    return graph.rebuilt(pooled)


def _axes(node: Node, graph: Graph) -> tuple[int, ...] | None:
    if len(node.inputs) > 1 and node.inputs[1]:
        given = graph.constants.get(node.inputs[1])
        return None if given is None else tuple(int(axis) for axis in given.ravel())
    return node.wholes("axes") or None


def _bounds(graph: Graph) -> Graph:
    """Max and Min with a number become Clip, two of them one, and Clip from 0 up Relu."""
    if not any(node.op in {"Max", "Min", "Clip"} for node in graph.nodes):
        return graph
    around, known, taken = Surroundings(graph), infer_shapes(graph), graph.names()
    constants = dict(graph.constants)
    clips: dict[str, tuple[str, float, float]] = {}
    changed: dict[str, Node] = {}
    for node in graph.nodes:
        found = _clip_of(node, around, known)
        if found is None:
            continue
        source, low, high = found
        inner = clips.get(source)
        if inner is not None and around.is_private(source):
            source, low, high = _both(inner, low, high)
        clips[node.name] = (source, low, high)
        # A bound alone stays as it is, but for Relu: there is nothing to be won.
        if (node.op == "Clip" and inner is None and (low, high) != (0.0, np.inf)) or low > high:
            continue
        if source == node.inputs[0] and node.op == "Clip" and (low, high) != (0.0, np.inf):
            continue
        dtype = known[node.name].dtype
        changed[node.name] = _clip(node, source, low, high, dtype, constants, taken)
    nodes = tuple(changed.get(node.name, node) for node in graph.nodes)
    return replace(graph, nodes=nodes, constants=constants) if changed else graph


def _both(inner: tuple[str, float, float], low: float, high: float) -> tuple[str, float, float]:
    source, below, above = inner
    # The outer bound has the last word: clip(clip(x, a, b), c, d).
    return source, min(max(below, low), high), max(min(above, high), low)


def _clip_of(
    node: Node, around: Surroundings, known: dict[str, Value]
) -> tuple[str, float, float] | None:
    """Return (what it reads, lowest, highest) of a node that bounds a float value by numbers."""
    value = known.get(node.name)
    if node.domain or value is None or not is_float(value.dtype) or not node.inputs:
        return None
    if node.op == "Relu":
        return node.inputs[0], 0.0, np.inf
    if node.op == "Clip":
        ends = [np.float64(-np.inf), np.float64(np.inf)]
        for i, name in enumerate(node.inputs[1:3]):
            given = around.floats(name) if name else ends[i]
            if given is None or np.size(given) != 1:
                return None
            ends[i] = np.float64(np.ravel(given)[0])
        return node.inputs[0], float(ends[0]), float(ends[1])
    if node.op not in {"Max", "Min"} or len(node.inputs) != 2:
        return None
    for side in (1, 0):
        bound, other = around.floats(node.inputs[side]), node.inputs[1 - side]
        fits = bound is not None and bound.size == 1 and other in known
        if bound is not None and fits and bound.ndim <= len(known[other].shape):
            number = float(bound.ravel()[0])
            return (other, number, np.inf) if node.op == "Max" else (other, -np.inf, number)
    return None


def _clip(
    node: Node,
    source: str,
    low: float,
    high: float,
    dtype: np.dtype[np.generic],
    constants: dict[str, Array],
    taken: set[str],
) -> Node:
    if (low, high) == (0.0, np.inf):
        return Node(op="Relu", inputs=(source,), outputs=node.outputs)
    names = []
    for word, bound in (("low", low), ("high", high)):
        if np.isinf(bound):
            names.append("")
            continue
        names.append(fresh_name(taken, f"{node.name}.{word}"))
        constants[names[-1]] = np.asarray(bound, dtype=dtype)
    inputs = (source, names[0]) if not names[1] else (source, *names)
    return Node(op="Clip", inputs=inputs, outputs=node.outputs)


def _fold_pads(graph: Graph) -> Graph:
    """Paddings of zeros before a convolution, or an average, become its own."""
    if not any(node.op == "Pad" for node in graph.nodes):
        return graph
    around = Surroundings(graph)

    def folded(node: Node) -> tuple[Node]:
        if node.op not in {"AveragePool", "Conv"} or node.domain:
            return (node,)
        pad = around.producers.get(node.inputs[0])
        if pad is None or pad.op != "Pad" or pad.domain or not around.is_private(node.inputs[0]):
            return (node,)
        pads = _zero_pads(pad, around)
        own = _own_pads(node, len(pads) // 2 if pads else 0)
        if pads is None or own is None:
            return (node,)
        both = tuple(a + b for a, b in zip(pads, own, strict=True))
        # ONNX Runtime refuses a pool that could see nothing but padding.
        if node.op == "AveragePool" and max(both) >= min(node.wholes("kernel_shape")):
            return (node,)
        attributes: dict[str, Attribute] = dict(node.attributes) | {"pads": both}
        attributes.pop("auto_pad", None)
        if node.op == "AveragePool":
            attributes["count_include_pad"] = 1
        return (replace(node, inputs=(pad.inputs[0], *node.inputs[1:]), attributes=attributes),)

    return graph.rebuilt(folded)


def _zero_pads(pad: Node, around: Surroundings) -> tuple[int, ...] | None:
    """Return (begins, ends) of the places of a Pad that adds zeros there and nowhere else."""
    given = around.constant(pad.inputs[1])
    value = around.constant(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] else None
    axes = pad.inputs[3] if len(pad.inputs) > 3 else ""
    if given is None or axes or pad.text("mode", "constant") != "constant":
        return None
    if len(pad.inputs) > 2 and pad.inputs[2] and (value is None or np.any(value != 0)):
        return None
    rank = given.size // 2
    begins, ends = given[:rank], given[rank:]
    if rank < 3 or np.any(given.astype(np.int64) < 0) or np.any(begins[:2]) or np.any(ends[:2]):
        return None
    return tuple(int(size) for size in (*begins[2:], *ends[2:]))


def _own_pads(node: Node, n_places: int) -> tuple[int, ...] | None:
    """Return the pads that a node adds itself, where they are numbers and zeros go in."""
    if node.text("auto_pad", "NOTSET") not in {"NOTSET", "VALID"} or node.whole("ceil_mode", 0):
        return None
    own = node.wholes("pads", (0,) * (2 * n_places))
    if len(own) != 2 * n_places:
        return None
    # An average that leaves its own padding out cannot count another's in.
    if node.op == "AveragePool" and any(own) and not node.whole("count_include_pad", 0):
        return None
    return own
