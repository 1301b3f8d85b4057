"""Weights of operators that compute in float on every engine, stored as 8-bit integers."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from onhand.host.networks.graph import Graph, Node
from onhand.host.networks.quantization.grid import round_weight
from onhand.host.networks.quantization.layers_alone import Compressed, unpacking
from onhand.host.networks.quantization.storage import Constants

__all__ = ["compress_stored"]

# Up to which input, from the second on, there are weights; all count their outputs along the
# second axis.
_WEIGHTS: Final[Mapping[str, int]] = {"ConvTranspose": 1, "GRU": 2, "LSTM": 2, "RNN": 2}
_AXIS: Final = 1
_LEAST: Final = 1024  # numbers; smaller ones are not worth two more nodes


def compress_stored(graph: Graph, *, keep: Sequence[str], per_channel: bool) -> Compressed:
    """Store weights of ConvTranspose, LSTM, GRU and RNN in 8 bits.

    ONNX Runtime has no such operators on integers; the weights are unpacked when the network is
    opened, which then takes the time and the memory of the original.

    Args:
        graph: any.
        keep: patterns of names of nodes, or of operators, whose weights stay in float.
        per_channel: one scale for each output (of a gate), else one for a weight.

    Returns:
        The graph.
    """
    readers, outputs = graph.readers(), set(graph.output_names())
    writer = Constants(graph)
    changed: dict[str, str] = {}
    before: dict[str, tuple[Node, ...]] = {}
    names: dict[str, str] = {}
    for node in graph.nodes:
        if node.domain or node.op not in _WEIGHTS or _is_kept(node, keep):
            continue
        for name in node.inputs[1 : _WEIGHTS[node.op] + 1]:
            array = graph.constants.get(name)
            alone = len(readers.get(name, ())) == 1 and node.inputs.count(name) == 1
            if array is None or array.dtype != np.float32 or array.size < _LEAST:
                continue
            if not alone or name in outputs or array.ndim <= _AXIS:
                continue
            codes = round_weight(
                np.asarray(array, np.float32), axis=_AXIS, bits=8, per_channel=per_channel
            )
            made = unpacking(writer, name, codes)
            before[node.name] = (*before.get(node.name, ()), *made)
            names[name] = made[-1].name
            changed[name] = f"stored in 8 bits; engines compute {node.op} in float"

    def unpacked(node: Node) -> tuple[Node, ...]:
        inputs = tuple(names.get(name, name) for name in node.inputs)
        return (*before.get(node.name, ()), replace(node, inputs=inputs))

    return Compressed(graph=writer.finished(graph.rebuilt(unpacked)), changed=changed)


def _is_kept(node: Node, keep: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(node.name, p) or node.op == p for p in keep)
