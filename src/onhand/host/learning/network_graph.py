"""A bundle's network as a graph on the host, and what of it is fixed: the ground of its lessons."""

import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onhand.core.bundle import Bundle
from onhand.core.onnxfile import read_graph
from onhand.core.onnxinline import LEFT_OUT
from onhand.core.sparse_graph import self_contained_graph
from onhand.device.networks.graph_file import read_graph_file
from onhand.device.onnx_errors import onnx_errors
from onhand.device.telemetry import refuse_telemetry
from onhand.host.networks.graph import Array, Graph, Node, Value, fresh_name
from onhand.host.networks.onnx_files import Place, graph_from_model, infer_shapes, model_bytes

if TYPE_CHECKING:
    import onnx

__all__ = [
    "StoredGraph",
    "few_bit_matrix",
    "fixed_names",
    "folded",
    "known_shapes",
    "merged_decoders",
    "read_answering",
    "read_stored",
    "renamed_apart",
    "run_graph",
    "with_exact_products",
    "with_plain_matrices",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGraph:
    """A variant's graph as it lies in a bundle.

    Attributes:
        graph: with all constants in memory.
        places: those that lie in a file of the bundle -> where.
    """

    graph: Graph
    places: Mapping[str, Place]

    def content(self, graph: Graph) -> bytes:
        """Return a graph made of this one as an ONNX file that reads the bundle's weights."""
        return model_bytes(graph, outside=self.places_of(graph))

    def places_of(self, graph: Graph) -> dict[str, Place]:
        """Return where the constants of a graph lie that was made of this one."""
        mine = {id(array): name for name, array in self.graph.constants.items()}
        found: dict[str, Place] = {}
        for name, array in graph.constants.items():
            place = self.places.get(mine.get(id(array), ""))
            # What is stored without its zeros is found by its name.
            if place is not None and (place.file != LEFT_OUT or name in self.places):
                found[name] = place
        return found


def read_stored(bundle: Bundle, variant: str) -> StoredGraph:
    """Read a variant's graph, and where its constants lie.

    Args:
        bundle: a verified bundle of a network.
        variant: one of its variants.

    Returns:
        The graph.

    Raises:
        BundleCorrupt: if graph, weights and manifest do not match.
        SourceError: if it holds what nothing here knows.
    """
    import onnx

    path = bundle.path(bundle.manifest.variants[variant].graph)
    outside = onnx.load(io.BytesIO(read_graph(path)), load_external_data=False)
    whole = self_contained_graph(read_graph_file(bundle, variant), bundle)
    model = onnx.load_from_string(whole)
    for tensor in model.graph.initializer:
        # What was put in has its place no more, but may still be marked as lying outside.
        tensor.data_location = onnx.TensorProto.DEFAULT
    places = dict(_places(outside.graph.initializer))
    return StoredGraph(graph=graph_from_model(model, where=str(path)), places=places)


def read_answering(bundle: Bundle) -> Graph:
    """Read the graph that a bundle answers by, with what was learned if it has learned something.

    Args:
        bundle: a verified bundle of a network, or what `with_learned` gave.

    Returns:
        The graph of the default variant, with all constants in memory.

    Raises:
        BundleCorrupt: if graph, weights and manifest do not match.
        SourceError: if it holds what nothing here knows.
    """
    import onnx

    model = onnx.load_from_string(self_contained_graph(read_graph_file(bundle, None), bundle))
    for tensor in model.graph.initializer:
        tensor.data_location = onnx.TensorProto.DEFAULT
    return graph_from_model(model, where=str(bundle.root))


def _places(tensors: "Iterable[onnx.TensorProto]") -> Iterable[tuple[str, Place]]:
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            sparse = entries["location"] == LEFT_OUT
            yield (
                tensor.name,
                Place(
                    file=entries["location"],
                    offset=0 if sparse else int(entries.get("offset", "0")),
                    length=int(entries["length"]),
                ),
            )


def fixed_names(graph: Graph) -> set[str]:
    """Return the values that no input changes: constants, and what is made of them alone."""
    fixed = set(graph.constants)
    for node in graph.nodes:
        if not node.bodies and all(name in fixed for name in node.reads()):
            fixed.update(name for name in node.outputs if name)
    return fixed


def folded(graph: Graph, names: Collection[str]) -> dict[str, Array]:
    """Return the values that no input changes.

    Args:
        graph: the graph.
        names: of them.

    Returns:
        Name -> array, as ONNX Runtime computes it.

    Raises:
        EngineError: if ONNX Runtime fails.
    """
    known = {name: graph.constants[name] for name in names if name in graph.constants}
    rest = [name for name in names if name not in known]
    if not rest:
        return known
    outputs = tuple(Value(name=n, dtype=np.dtype(np.float32), shape=()) for n in rest)
    part = replace(graph, inputs=(), outputs=outputs).live()
    return known | run_graph(part, {})


def run_graph(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Compute a graph's outputs in ONNX Runtime, on one thread, without its own changes.

    Args:
        graph: the graph; what it says of its outputs' types need not be right.
        feeds: its inputs.

    Returns:
        Name -> array.

    Raises:
        EngineError: if ONNX Runtime fails.
    """
    import onnx

    refuse_telemetry()
    import onnxruntime as ort

    model = onnx.load_from_string(model_bytes(graph))
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in graph.outputs)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with onnx_errors():
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found = session.run(None, dict(feeds))
    return dict(zip(graph.output_names(), found, strict=True))


def few_bit_matrix(graph: Graph, node: Node) -> Array:
    """Return the matrix (K, N) that a MatMulNBits multiplies with, as float32.

    Raises:
        EngineError: if ONNX Runtime fails.
    """
    K = node.whole("K", 0)
    x = Value(name=node.inputs[0], dtype=np.dtype(np.float32), shape=(K, K))
    y = Value(name=node.name, dtype=np.dtype(np.float32), shape=())
    plain = replace(
        node,
        inputs=(*node.inputs[:5], *([""] * max(len(node.inputs) - 5, 0))),
        attributes={**node.attributes, "accuracy_level": 0},
    )
    fixed = fixed_names(graph)  # scales may be widened by a node of their own
    nodes = (*(one for one in graph.nodes if one.name in fixed), plain)
    alone = replace(graph, nodes=nodes, inputs=(x,), outputs=(y,)).live()
    return run_graph(alone, {x.name: np.eye(K, dtype=np.float32)})[y.name]


def with_plain_matrices(graph: Graph) -> Graph:
    """Return the graph with a matrix of floats in the place of each of a few bits.

    Raises:
        EngineError: if ONNX Runtime fails.
    """
    names, constants = graph.names(), dict(graph.constants)

    def change(node: Node) -> Iterable[Node]:
        if node.op != "MatMulNBits":
            yield node
            return
        matrix = fresh_name(names, f"{node.name}.matrix")
        constants[matrix] = few_bit_matrix(graph, node)
        biased = len(node.inputs) > 5 and bool(node.inputs[5])
        product = fresh_name(names, f"{node.name}.product") if biased else node.name
        yield Node(op="MatMul", inputs=(node.inputs[0], matrix), outputs=(product,))
        if biased:
            yield Node(op="Add", inputs=(product, node.inputs[5]), outputs=node.outputs)

    return replace(graph.rebuilt(change), constants=constants).live()


def known_shapes(graph: Graph) -> dict[str, Value]:
    """Return dtype and shape of every value, behind matrices of a few bits as well.

    Args:
        graph: the graph.

    Returns:
        Name -> value, as `infer_shapes` gives it.
    """
    names, constants = graph.names(), dict(graph.constants)

    def change(node: Node) -> Iterable[Node]:
        if node.op == "MatMulNBits":
            matrix = fresh_name(names, f"{node.name}.matrix")
            sizes = (node.whole("K", 0), node.whole("N", 0))
            constants[matrix] = np.broadcast_to(np.float32(0), sizes)  # of no size in memory
            node = Node(op="MatMul", inputs=(node.inputs[0], matrix), outputs=node.outputs)
        yield node

    return infer_shapes(replace(graph.rebuilt(change), constants=constants))


def with_exact_products(graph: Graph) -> Graph:
    """Return the graph in which matrices of a few bits are multiplied with floats, not integers.

    Rounding what is multiplied has no gradient that anybody could check.
    """

    def change(node: Node) -> Iterable[Node]:
        if node.op == "MatMulNBits":
            node = replace(node, attributes={**node.attributes, "accuracy_level": 0})
        yield node

    return graph.rebuilt(change)


def merged_decoders(graph: Graph) -> Graph:
    """Return the graph in which a value in codes is turned into floats once, not for each reader.

    A network of residual blocks can be cut only where one value leads on.
    """
    first: dict[tuple[object, ...], str] = {}
    same: dict[str, str] = {}
    for node in graph.nodes:
        if node.op != "DequantizeLinear" or node.domain:
            continue
        key = (*node.inputs, *sorted(node.attributes.items()))
        known = first.setdefault(key, node.name)
        if known != node.name and node.name not in graph.output_names():
            same[node.name] = known
    return graph.renamed(same).live() if same else graph


def renamed_apart(graph: Graph, taken: Collection[str]) -> tuple[Graph, dict[str, str]]:
    """Give other names to values and constants whose names a lesson needs.

    Args:
        graph: the graph; its inputs keep their names.
        taken: names that must be free.

    Returns:
        graph: with other names.
        names: old name -> new name, of those that were changed.
    """
    names = graph.names()
    new: dict[str, str] = {}
    for name in sorted((names & set(taken)) - {value.name for value in graph.inputs}):
        new[name] = fresh_name(names, f"network.{name}")
    if not new:
        return graph, new

    def change(node: Node) -> Iterable[Node]:
        yield replace(
            node,
            inputs=tuple(new.get(n, n) for n in node.inputs),
            outputs=tuple(new.get(n, n) for n in node.outputs),
        )

    changed = replace(
        graph.rebuilt(change),
        constants={new.get(name, name): array for name, array in graph.constants.items()},
        outputs=tuple(replace(v, name=new.get(v.name, v.name)) for v in graph.outputs),
    )
    return changed, new
