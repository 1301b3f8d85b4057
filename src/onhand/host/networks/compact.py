"""The same network in fewer bytes: what engines can compute when they open it is not stored."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from onhand.host.networks.graph import Array, Graph, Node

__all__ = ["compact"]

_BIASED: Final = {"Conv", "ConvTranspose", "Gemm"}
_DECODERS: Final = {"DequantizeLinear", "QuantizeLinear"}
# A node that multiplies, and its names, take about as many bytes as so many scales.
_FEWEST: Final = 16


def compact(graph: Graph) -> Graph:
    """Return a graph of the very same answers that takes fewer bytes.

    A bias in 32-bit integers is in units of both scales of its layer: where they are, to the last
    bit, the product of these two, it is computed from them. ONNX Runtime and OpenVINO do so once,
    when they open the network. Equal zero points are stored once.

    Args:
        graph: any; one without integers stays as it is.

    Returns:
        The graph. Passes should see the one before: they look for scales that are constants.
    """
    return _with_one_of_each_zero(_with_computed_units(graph))


def _with_computed_units(graph: Graph) -> Graph:
    producers, readers = graph.producers(), graph.readers()
    outside = {*graph.output_names(), *(name for node in graph.nodes for name in node.captured)}
    made: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op not in _BIASED or node.domain or len(node.inputs) < 3:
            continue
        sides = [producers.get(name) for name in node.inputs[:3]]
        scales = [
            side.inputs[1]
            for side in sides
            if side and side.op == "DequantizeLinear" and not side.domain
        ]
        if len(scales) < 3 or scales[2] in made or scales[2] in scales[:2]:
            continue
        data, weight, units = scales
        alone = len(readers[units]) == 1 and units not in outside
        if alone and _is_product(graph.constants, units, weight, data):
            made[units] = Node(op="Mul", inputs=(weight, data), outputs=(units,))
    constants = {name: array for name, array in graph.constants.items() if name not in made}
    return replace(graph, nodes=(*made.values(), *graph.nodes), constants=constants)


def _is_product(constants: Mapping[str, Array], whole: str, first: str, second: str) -> bool:
    if not {whole, first, second} <= constants.keys():
        return False
    wanted, a, b = (constants[name] for name in (whole, first, second))
    if wanted.size < _FEWEST or {a.dtype, b.dtype, wanted.dtype} != {np.dtype(np.float32)}:
        return False
    # Another order of the same numbers would be another array.
    return np.broadcast_shapes(a.shape, b.shape) == wanted.shape and bool((a * b == wanted).all())


def _with_one_of_each_zero(graph: Graph) -> Graph:
    zeros = dict.fromkeys(
        node.inputs[2]
        for node in graph.nodes
        if node.op in _DECODERS and not node.domain and len(node.inputs) > 2
    )
    first: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for name in zeros:
        array = graph.constants.get(name)
        if array is not None:
            known = first.setdefault((array.dtype.name, array.shape, array.tobytes()), name)
            if known != name:
                same[name] = known
    return graph.renamed(same).live() if same else graph
