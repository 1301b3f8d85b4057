"""What does not depend on any input is computed once, here."""

from dataclasses import replace

import numpy as np

from onhand.host.networks.cleaning.edit import static_shape
from onhand.host.networks.graph import Array, Graph, Node, Value, fresh_name
from onhand.host.networks.onnx_files import infer_shapes, model_bytes

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
    graph = _static_shapes(graph)
    foldable = _foldable(graph)
    if not foldable:
        return graph
    needed = _needed(graph, foldable)
    made = _computed(graph, foldable, needed)
    if made is None:
        made = _one_by_one(graph, foldable)
    made = {name: array for name, array in made.items() if isinstance(array, np.ndarray)}
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
    import onnxruntime as ort

    known = infer_shapes(graph)
    kept = tuple(known[name] for name in names if name in known)
    if not kept:
        return {}
    part = replace(graph, nodes=tuple(nodes), inputs=(), outputs=kept).live()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # What fails here is left as it is: nothing that a user should read about.
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model_bytes(part), options, ["CPUExecutionProvider"])
        made = session.run([value.name for value in kept], {})
    except (RuntimeError, ValueError, *_ort_errors()):
        return None
    return {value.name: array for value, array in zip(kept, made, strict=True)}


def _ort_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = [value for value in vars(state).values() if isinstance(value, type)]
    return tuple(kind for kind in found if issubclass(kind, Exception))


def _one_by_one(graph: Graph, nodes: list[Node]) -> dict[str, Array]:
    """Compute what can be, where one of the nodes cannot."""
    made: dict[str, Array] = {}
    for node in nodes:
        have = {**graph.constants, **made}
        if all(name in have for name in node.reads()):
            names = [name for name in node.outputs if name]
            made |= _computed(replace(graph, constants=have), [node], names) or {}
    return made


def _static_shapes(graph: Graph) -> Graph:
    """Write down shapes that are known: of Shape itself, and of a Reshape's target."""
    if not any(node.op in {"Shape", "Reshape"} for node in graph.nodes):
        return graph
    known = infer_shapes(graph)
    constants = dict(graph.constants)
    taken = graph.names()

    def settled(node: Node) -> tuple[Node, ...]:
        if node.op == "Reshape" and not node.domain and node.inputs[1] not in constants:
            target = _target(known.get(node.name))
            if target is None:
                target = _copied(node, known, producers, constants)
            if target is not None and not node.whole("allowzero", 0):
                name = fresh_name(taken, f"{node.name}.shape")
                constants[name] = target
                return (replace(node, inputs=(node.inputs[0], name)),)
        if node.op in {"Gather", "Shape"} and not node.domain:
            value = _part_of_shape(node, known, producers, constants)
            if value is not None:
                name = fresh_name(taken, f"{node.name}.value")
                constants[name] = value
                return (Node(op="Identity", inputs=(name,), outputs=(node.name,)),)
        return (node,)

    producers = graph.producers()
    # `settled` fills `constants` while it runs.
    changed = graph.rebuilt(settled)
    return replace(changed, constants=constants)


def _target(value: Value | None) -> Array | None:
    """Return a Reshape's target where at most one size is open."""
    if value is None or not value.shape:
        return None
    if sum(not isinstance(size, int) for size in value.shape) > 1:
        return None
    return np.asarray(
        [size if isinstance(size, int) else -1 for size in value.shape], dtype=np.int64
    )


def _copied(
    node: Node, known: dict[str, Value], producers: dict[str, Node], constants: dict[str, Array]
) -> Array | None:
    """Return a Reshape's target in which sizes of its input that it keeps are 0: "as it was"."""
    value = known.get(node.inputs[0])
    sizes = _elements(node.inputs[1], known, producers, constants)
    if value is None or sizes is None:
        return None
    found: list[int] = []
    for i, size in enumerate(sizes):
        if isinstance(size, int):
            found.append(size)
        elif i < len(value.shape) and size is not None and size == value.shape[i]:
            found.append(0)
        else:
            found.append(-1)
    return np.asarray(found, dtype=np.int64) if found.count(-1) <= 1 else None


def _elements(
    name: str, known: dict[str, Value], producers: dict[str, Node], constants: dict[str, Array]
) -> list[int | str | None] | None:
    """Return the entries of a vector of sizes: numbers, names of open sizes, None for others."""
    if name in constants:
        return [int(size) for size in constants[name].ravel()]
    node = producers.get(name)
    if node is None or node.domain:
        return None
    flat = node.op == "Reshape" and node.inputs[1] in constants
    if flat or node.op in {"Cast", "Identity", "Squeeze", "Unsqueeze"}:
        return _elements(node.inputs[0], known, producers, constants)
    if node.op == "Concat":
        parts = [_elements(part, known, producers, constants) for part in node.inputs]
        if any(part is None for part in parts):
            return None
        return [size for part in parts if part is not None for size in part]
    if node.op == "Shape":
        value = known.get(node.inputs[0])
        if value is None or not value.shape:
            return None
        return list(value.shape[slice(node.whole("start", 0), node.whole("end", len(value.shape)))])
    if node.op == "Gather":
        sizes = _elements(node.inputs[0], known, producers, constants)
        index = constants.get(node.inputs[1])
        if sizes is None or index is None or not np.all(np.abs(index) < len(sizes)):
            return None
        return [sizes[int(i)] for i in index.ravel()]
    if node.op == "Slice":
        return _sliced(node, known, producers, constants)
    return None


def _sliced(
    node: Node, known: dict[str, Value], producers: dict[str, Node], constants: dict[str, Array]
) -> list[int | str | None] | None:
    sizes = _elements(node.inputs[0], known, producers, constants)
    bounds = [constants.get(name) for name in node.inputs[1:]]
    if sizes is None or any(bound is None or bound.size != 1 for bound in bounds):
        return None
    begin, end, *rest = (int(bound.ravel()[0]) for bound in bounds if bound is not None)
    return sizes[begin : end : rest[1] if len(rest) > 1 else 1]


def _part_of_shape(
    node: Node, known: dict[str, Value], producers: dict[str, Node], constants: dict[str, Array]
) -> Array | None:
    """Return the sizes that Shape, or Gather from a Shape, gives where they are known."""
    shape_node = node if node.op == "Shape" else producers.get(node.inputs[0])
    if shape_node is None or shape_node.op != "Shape":
        return None
    value = known.get(shape_node.inputs[0])
    if value is None or not value.shape:
        return None
    rank = len(value.shape)
    start, end = shape_node.whole("start", 0), shape_node.whole("end", rank)
    sizes = value.shape[slice(start, end)]
    if node.op == "Shape":
        wanted: Array = np.arange(len(sizes))
    else:
        given = constants.get(node.inputs[1])
        if given is None or given.size == 0:
            return None
        wanted = given
    indices = np.asarray(wanted, dtype=np.int64)
    if np.any(indices >= len(sizes)) or np.any(indices < -len(sizes)):
        return None
    found = [sizes[int(i)] for i in indices.ravel()]
    whole = [size for size in found if isinstance(size, int)]
    if len(whole) != len(found):
        return None
    return np.asarray(whole, dtype=np.int64).reshape(indices.shape)
