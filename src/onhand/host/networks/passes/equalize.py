"""Channels of consecutive layers brought to one size, so that all use their integers well."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.host.networks.graph import Array, Graph, Node, fresh_name
from onhand.host.networks.observe import observe
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.quantization.plan import Layer, layers_of
from onhand.host.networks.quantization.qdq import clip_bounds

__all__ = ["Equalize"]

BOUNDS: Final = ("auto", "exact", "calibrated")
# A scale may pass through these: f(s x) = s f(x) for s > 0.
_HOMOGENEOUS: Final = (
    "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "MaxPool", "Relu",
)  # fmt: skip
_MOST_ROUNDS: Final = 30
_SETTLED: Final = 1e-3
_MOST_SCALE: Final = 2.0**10
# A bound that examples come near to may be reached by others.
_HEADROOM: Final = 1.1
_BATCH: Final = 4
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two layers with only what keeps scales between them.

    Attributes:
        first: whose outputs are made smaller or larger.
        second: whose inputs make it good.
        clip: a Clip from 0 up between them; None for none.
    """

    first: Layer
    second: Layer
    clip: Node | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalize:
    """Divide a layer's outputs by factors, and multiply the next one's inputs. See `NetworkPass`.

    The factors make the largest weight of each output channel equal the largest that reads it.
    Layers follow each other directly, or through Relu, Clip or pools; a depthwise convolution is
    the second of one pair and the first of the next.

    Attributes:
        bounds: what becomes of the upper bound of a Clip (ReLU6) between two layers. "exact"
            gives each channel its own, which no engine computes on integers; "calibrated" leaves
            channels alone that reach the bound on an example, and scales others by no more than
            keeps them below it; "auto" is the latter where there are examples.
    """

    name: ClassVar[str] = "equalize"

    bounds: str = "auto"

    def __post_init__(self) -> None:
        if self.bounds not in BOUNDS:
            raise InputError(f"bounds is {self.bounds!r}, must be one of {', '.join(BOUNDS)}")

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """Equalise a graph.

        Args:
            graph: with batch normalisation folded.
            bench: with examples, for Clips that shall stay as they are.

        Returns:
            The graph; it computes the same but for rounding.

        Raises:
            InputError: if bounds "calibrated" are asked for without examples.
            EngineError: if the graph cannot run.

        Source:
            Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction,
            arXiv:1906.04721, section 4.1.
        """
        pairs, kept = _pairs(graph)
        clipped = [pair for pair in pairs if pair.clip is not None]
        calibrated = self.bounds == "calibrated" or (
            self.bounds == "auto" and len(bench.calibration) > 0
        )
        if calibrated and not len(bench.calibration):
            raise InputError("bounds 'calibrated' need examples: give calibration data")
        least: dict[str, Doubles] = {}
        if clipped and calibrated:
            least = _least_scales(graph, clipped, bench)
        work = _Weights(graph)
        scales = _settle(work, pairs, least)
        bounds = {} if calibrated else {pair.first.node.name: pair for pair in clipped}
        made = _with_bounds(work.graph(), bounds, scales)
        changed = {
            name: f"outputs divided by {scale.min():.3g} to {scale.max():.3g}"
            for name, scale in scales.items()
        }
        return PassResult(graph=made, changed=changed, kept=kept)


class _Weights:
    """Weights and biases of a graph while they are scaled, in float64."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._arrays: dict[str, Doubles] = {}

    def outputs(self, layer: Layer) -> Doubles:
        """Return (N,): the largest weight of each output channel."""
        weight = self._array(layer.weight)
        rows = np.moveaxis(weight, layer.axis, 0).reshape(weight.shape[layer.axis], -1)
        return np.asarray(np.abs(rows).max(axis=1))

    def inputs(self, layer: Layer) -> Doubles:
        """Return (K,): the largest weight that reads each input channel."""
        grouped = self._by_input(layer)  # (G, N / G, K / G, places)
        return np.asarray(np.abs(grouped).max(axis=(1, 3)).reshape(-1))

    def divide_outputs(self, layer: Layer, scale: Doubles) -> None:
        """Divide a layer's outputs by (N,) factors."""
        weight = self._array(layer.weight)
        shape = [-1 if i == layer.axis else 1 for i in range(weight.ndim)]
        self._arrays[layer.weight] = weight / scale.reshape(shape)
        if layer.bias:
            bias = self._array(layer.bias)
            self._arrays[layer.bias] = (bias.reshape(-1) / scale).reshape(bias.shape)

    def multiply_inputs(self, layer: Layer, scale: Doubles) -> None:
        """Multiply what a layer does with its inputs by (K,) factors."""
        weight = self._array(layer.weight)
        grouped = self._by_input(layer)
        scaled = grouped * scale.reshape(grouped.shape[0], 1, grouped.shape[2], 1)
        if layer.node.op == "Conv":
            self._arrays[layer.weight] = scaled.reshape(weight.shape)
        else:
            rows = scaled[0, :, :, 0]  # (N, K)
            self._arrays[layer.weight] = rows if layer.axis == 0 else rows.T

    def graph(self) -> Graph:
        """Return the graph with the weights as they are now."""
        scaled = {name: array.astype(np.float32) for name, array in self._arrays.items()}
        return replace(self._graph, constants={**self._graph.constants, **scaled})

    def _array(self, name: str) -> Doubles:
        if name not in self._arrays:
            self._arrays[name] = np.asarray(self._graph.constants[name], dtype=np.float64)
        return self._arrays[name]

    def _by_input(self, layer: Layer) -> Doubles:
        """Return (G, N / G, K / G, places)."""
        weight = self._array(layer.weight)
        if layer.node.op != "Conv":
            rows = weight if layer.axis == 0 else weight.T
            return rows.reshape(1, *rows.shape, 1)
        groups = layer.node.whole("group", 1)
        return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)


def _settle(work: _Weights, pairs: list[Pair], least: Mapping[str, Doubles]) -> dict[str, Doubles]:
    """Scale pair by pair until nothing moves; return what each first layer was divided by."""
    total: dict[str, Doubles] = {}
    for _ in range(_MOST_ROUNDS):
        moved = 0.0
        for pair in pairs:
            name = pair.first.node.name
            ours, theirs = work.outputs(pair.first), work.inputs(pair.second)
            dead = (ours == 0) | (theirs == 0)
            scale = np.sqrt(np.where(dead, 1, ours) / np.where(dead, 1, theirs))
            before = total.get(name, np.ones_like(scale))
            after = np.clip(before * scale, 1 / _MOST_SCALE, _MOST_SCALE)
            if name in least:
                # A channel that reaches its bound, marked by infinity, stays as it is.
                free = np.isfinite(least[name])
                after = np.where(free, np.maximum(after, np.where(free, least[name], 1)), 1.0)
            scale = after / before
            work.divide_outputs(pair.first, scale)
            work.multiply_inputs(pair.second, scale)
            total[name] = after
            moved = max(moved, float(np.abs(np.log(scale)).max()))
        if moved < _SETTLED:
            break
    return total


def _pairs(graph: Graph) -> tuple[list[Pair], dict[str, str]]:
    layers, readers = layers_of(graph), graph.readers()
    outside = set(graph.output_names())
    captured = {name for node in graph.nodes for name in node.captured}
    single = {name for name, nodes in readers.items() if len(nodes) == 1} - outside - captured
    pairs: list[Pair] = []
    kept: dict[str, str] = {}
    for name, layer in layers.items():
        found, why = _follow(graph, layer, layers, readers, single)
        if found is not None:
            why = _why_not(graph, found, readers)
        if found is None or why:
            kept[name] = why
        else:
            pairs.append(found)
    return pairs, kept


def _follow(
    graph: Graph,
    layer: Layer,
    layers: Mapping[str, Layer],
    readers: Mapping[str, list[Node]],
    single: set[str],
) -> tuple[Pair | None, str]:
    """Return the pair that a layer begins, or why there is none."""
    name, clip, is_pooled = layer.node.name, None, False
    while True:
        if name not in single:
            return None, "several read what it gives, or it is asked for from outside"
        node = readers[name][0]
        if node.name in layers and layers[node.name].data == name:
            return Pair(first=layer, second=layers[node.name], clip=clip), ""
        if node.op == "Clip" and clip is None and clip_bounds(graph, node)[0] == 0:
            clip = node
        elif node.op == "Flatten" and is_pooled and node.whole("axis", 1) == 1:
            pass
        elif node.op not in _HOMOGENEOUS:
            return None, f"{node.op} behind it does not keep scales"
        is_pooled = is_pooled or node.op.startswith("Global")
        name = node.name


def _why_not(graph: Graph, pair: Pair, readers: Mapping[str, list[Node]]) -> str:
    for layer in (pair.first, pair.second):
        constants = [layer.weight, layer.bias] if layer.bias else [layer.weight]
        if any(len(readers[name]) > 1 for name in constants):
            return "its weights are shared, or those of the layer behind it"
    n_outputs = graph.constants[pair.first.weight].shape[pair.first.axis]
    if n_outputs != _Weights(graph).inputs(pair.second).size:
        return "its outputs are not the channels of the layer behind it"
    if pair.clip is not None and not clip_bounds(graph, pair.clip)[1] > 0:
        return "the Clip behind it has no upper bound that is a positive constant"
    return ""


def _least_scales(graph: Graph, pairs: list[Pair], bench: Workbench) -> dict[str, Doubles]:
    """Return for each first layer the least factors that keep its outputs below the bound.

    Infinity marks a channel that reaches the bound as it is.
    """
    names = [pair.first.node.name for pair in pairs]
    peaks: dict[str, Doubles] = {}
    bench.progress.start("watching bounds", len(bench.calibration))
    for values in observe(
        graph, bench.calibration, threads=bench.threads, names=names, batch=_BATCH
    ):
        for pair in pairs:
            name = pair.first.node.name
            array: Array = values[name]
            axis = 1 if pair.first.node.op == "Conv" else array.ndim - 1
            others = tuple(i for i in range(array.ndim) if i != axis)
            found = np.asarray(array, dtype=np.float64).max(axis=others)
            peaks[name] = np.maximum(peaks.get(name, found), found)
        bench.progress.advance(_BATCH)
    least: dict[str, Doubles] = {}
    for pair in pairs:
        if pair.clip is None:
            continue
        near = peaks[pair.first.node.name] * _HEADROOM / clip_bounds(graph, pair.clip)[1]
        least[pair.first.node.name] = np.where(near >= 1, np.inf, np.maximum(near, 0))
    return least


def _with_bounds(graph: Graph, pairs: Mapping[str, Pair], scales: Mapping[str, Doubles]) -> Graph:
    """Return the graph with each pair's Clip as a Relu and one bound for each channel."""
    clips = {pair.clip.name: name for name, pair in pairs.items() if pair.clip is not None}
    constants, taken = dict(graph.constants), graph.names()

    def bounded(node: Node) -> tuple[Node, ...]:
        name = clips.get(node.name)
        high = clip_bounds(graph, node)[1] if name is not None else np.inf
        if name is None or np.isinf(high):
            return (node,)
        layer = pairs[name].first
        places = len(graph.constants[layer.weight].shape) - 2 if layer.node.op == "Conv" else 0
        bound = fresh_name(taken, f"{node.name}.bound")
        constants[bound] = (high / scales[name]).astype(np.float32).reshape(-1, *[1] * places)
        above = fresh_name(taken, f"{node.name}.above")
        return (
            Node(op="Relu", inputs=(node.inputs[0],), outputs=(above,)),
            Node(op="Min", inputs=(above, bound), outputs=node.outputs),
        )

    made = graph.rebuilt(bounded)
    return replace(made, constants=constants).live()
