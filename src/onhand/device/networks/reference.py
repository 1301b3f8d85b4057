"""Networks in plain numpy: slow, small, and what the other engines are held against."""

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Final

import numpy as np

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, EngineUnavailable, InputError
from onhand.core.network import ArrayInfo, Network
from onhand.core.onnxgraph import OnnxGraph, OnnxNode, parse_graph
from onhand.core.profile import DeviceProfile
from onhand.device.networks.base import Array, check_feeds, still_open
from onhand.device.networks.graph_file import read_graph_file
from onhand.device.networks.operators.kinds import Operators
from onhand.device.networks.operators.products import ProductCounter
from onhand.device.networks.operators.table import OPERATORS, OPSETS
from onhand.device.networks.timing import random_feeds

__all__ = ["MOST_PRODUCTS", "ReferenceNetwork", "ReferenceNetworkEngine", "evaluate"]

MOST_PRODUCTS: Final = 2_000_000_000
"""Multiplications that one run may take: seconds in numpy."""

# What numpy raises of arrays that do not go together.
_NUMPY_ERRORS: Final = (ValueError, IndexError, TypeError, ArithmeticError, MemoryError)


class ReferenceNetwork:
    """See `NetworkLoaded`."""

    def __init__(self, graph: OnnxGraph, network: Network) -> None:
        self._graph: OnnxGraph | None = graph
        self._network = network

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See `NetworkLoaded`."""
        graph = still_open(self._graph)
        check_feeds(feeds, self._network.inputs)
        found = evaluate(graph, feeds)
        return {info.name: _owned(info, found[info.name]) for info in self._network.outputs}

    def close(self) -> None:
        """See `NetworkLoaded`."""
        self._graph = None


class ReferenceNetworkEngine:
    """See `NetworkEngine`. numpy decides for itself on threads."""

    name: ClassVar[str] = "reference"
    package: ClassVar[str] = "numpy"

    def why_not(
        self, bundle: Bundle, profile: DeviceProfile, *, variant: str | None = None
    ) -> str | None:
        """Return None if `open` should work here, else a reason."""
        try:
            _check_size(_read(bundle, variant), bundle.manifest.network)
        except (InputError, EngineError) as error:
            return str(error).removeprefix("reference: ")
        return None

    def open(self, bundle: Bundle, *, variant: str | None = None, threads: int) -> ReferenceNetwork:
        """Map the constants from the bundle's files.

        Raises:
            EngineUnavailable: if it lacks an operator, or the network is too large for it.
            BundleCorrupt: if graph, weights and manifest do not match.
        """
        network = bundle.manifest.network
        bundle.variant(variant)
        try:
            graph = _read(bundle, variant)
            _check_size(graph, network)
        except (InputError, EngineError) as error:
            reason = str(error).removeprefix("reference: ")
            raise EngineUnavailable(f"{bundle.root}: {reason}") from error
        return ReferenceNetwork(graph, network)


def evaluate(
    graph: OnnxGraph,
    feeds: Mapping[str, Array],
    *,
    operators: Operators = OPERATORS,
    wanted: Collection[str] | None = None,
) -> dict[str, Array]:
    """Compute a graph's outputs, node by node.

    Args:
        graph: the graph.
        feeds: name -> array for every input.
        operators: domain and name of an operator -> what computes it.
        wanted: names of values to return; None for the graph's outputs.

    Returns:
        Name -> array; views of inputs and constants among them.

    Raises:
        EngineError: if it lacks an operator, or arrays do not go together.
    """
    values: dict[str, Array] = {**graph.constants, **feeds}
    kept = {info.name for info in graph.outputs} if wanted is None else set(wanted)
    last = {name: place for place, node in enumerate(graph.nodes) for name in node.inputs}
    # Infinities and what is no number are results, as in other engines.
    with np.errstate(all="ignore"):
        for place, node in enumerate(graph.nodes):
            values |= _outputs(node, values, operators)
            for name in {*node.inputs, *node.outputs} - kept:
                if last.get(name, place) == place:
                    values.pop(name, None)
    if missing := sorted(kept - values.keys()):
        raise EngineError(f"reference: nothing gives the output {missing[0]!r}")
    return {name: values[name] for name in kept}


def _owned(info: ArrayInfo, array: Array) -> Array:
    if array.dtype != np.dtype(info.dtype):
        raise EngineError(f"reference: output {info.name!r} is {array.dtype}, must be {info.dtype}")
    return np.array(array)  # it may be an input, a constant, or a view of another output


def _outputs(
    node: OnnxNode,
    values: Mapping[str, Array],
    operators: Operators,
) -> dict[str, Array]:
    what = f"reference: {node.op} {next(iter(node.outputs), '')!r}"
    try:
        operator = operators[node.domain, node.op]
        inputs = [values[name] if name else None for name in node.inputs]
    except KeyError as error:
        raise EngineError(f"{what}: there is no {error}") from error
    try:
        made = operator(node, *inputs)
    except InputError as error:
        raise EngineError(f"reference: {error}") from error
    except _NUMPY_ERRORS as error:
        raise EngineError(f"{what}: {error}") from error
    several: Sequence[Array] = made if isinstance(made, tuple) else (made,)
    return {
        name: np.asarray(array) for name, array in zip(node.outputs, several, strict=False) if name
    }


def _read(bundle: Bundle, variant: str | None) -> OnnxGraph:
    content = read_graph_file(bundle, variant)
    _, chosen = bundle.variant(variant)
    files = {name: np.memmap(bundle.path(name), np.uint8, "r") for name in chosen.weights}
    graph = parse_graph(content, files)
    if graph.opset not in OPSETS:
        raise InputError(f"has opset {graph.opset}, must be {OPSETS[0]} to {OPSETS[-1]}")
    known: Collection[tuple[str, str]] = OPERATORS
    for node in graph.nodes:
        if (node.domain, node.op) not in known:
            where = f" of {node.domain}" if node.domain else ""
            raise InputError(f"has no operator {node.op}{where}")
        if node.op == "QuantizeLinear" and graph.four_bits.intersection(node.inputs):
            raise InputError("has no QuantizeLinear to 4 bits")
    return graph


def _check_size(graph: OnnxGraph, network: Network) -> None:
    counter = ProductCounter(MOST_PRODUCTS)
    evaluate(graph, random_feeds(network), operators=counter.operators)
