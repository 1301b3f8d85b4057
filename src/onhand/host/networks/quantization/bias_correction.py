"""Biases that take the mean error out of what rounded layers compute."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onhand.core.progress import Progress
from onhand.host.networks.graph import Array, Graph, Node
from onhand.host.networks.quantization.calibration import channel_means
from onhand.host.networks.quantization.grid import Grid
from onhand.host.networks.quantization.plan import Layer, Plan
from onhand.host.networks.quantization.qdq import RoundedLayer, quantised_graph, raw_name
from onhand.host.networks.quantization.stages import Stages
from onhand.host.networks.samples import Samples

__all__ = ["correct_at_once", "correct_in_order"]


def correct_in_order(
    graph: Graph,
    plan: Plan,
    grids: Mapping[str, Grid],
    layers: Mapping[str, RoundedLayer],
    samples: Samples,
    *,
    threads: int,
    progress: Progress,
) -> dict[str, RoundedLayer]:
    """Add to each bias what its channel lacks in the mean, beside the float network.

    Each layer after all before it, so that none corrects an error that an earlier one has taken
    out already. What layers give is kept for all examples, so each layer runs once.

    Args:
        graph: in float.
        plan: of this graph.
        grids: of its values.
        layers: rounded; a MatMul has no bias and stays as it is.
        samples: the examples.
        threads: of one run.
        progress: told of each layer.

    Returns:
        Name of a layer -> the layer with its new bias.

    Raises:
        EngineError: if a graph cannot run.

    Source:
        Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction,
        arXiv:1906.04721, section 4.2, with means of examples.
    """
    axes = _axes(plan)
    made = dict(layers)
    if not axes:
        return made
    progress.start("correcting biases", len(axes))
    true = channel_means(graph, axes, samples, threads=threads)
    written = quantised_graph(graph, plan, grids, made)
    outside = set(graph.output_names()) & set(plan.grids)
    stages = Stages(written, samples, threads=threads)
    for name, axis in axes.items():
        unrounded = raw_name(name) if name in outside else name
        lacking = true[name] - stages.reach(unrounded, axis=axis)
        made[name] = _moved(made[name], lacking)
        stages.add(unrounded, lacking, axis=axis)
        progress.advance(1)
    return made


def correct_at_once(
    graph: Graph,
    plan: Plan,
    grids: Mapping[str, Grid],
    layers: Mapping[str, RoundedLayer],
    samples: Samples,
    *,
    threads: int,
) -> dict[str, RoundedLayer]:
    """Like `correct_in_order`, but in one run: each layer for the error that it makes itself.

    Args:
        graph: in float.
        plan: of this graph.
        grids: of its values.
        layers: rounded.
        samples: the examples.
        threads: of one run.

    Returns:
        Name of a layer -> the layer with its new bias.

    Raises:
        EngineError: if the graph cannot run.
    """
    axes = _axes(plan)
    made = dict(layers)
    if not axes:
        return made
    beside, twins = _beside(graph, plan, grids, layers)
    both = axes | {twins[name]: axis for name, axis in axes.items()}
    means = channel_means(beside, both, samples, threads=threads)
    for name in axes:
        made[name] = _moved(made[name], means[name] - means[twins[name]])
    return made


def _axes(plan: Plan) -> dict[str, int]:
    """Return the axis of channels of what each layer gives that can have a bias."""
    return {name: 1 for name, layer in plan.layers.items() if layer.node.op != "MatMul"}


def _beside(
    graph: Graph, plan: Plan, grids: Mapping[str, Grid], layers: Mapping[str, RoundedLayer]
) -> tuple[Graph, dict[str, str]]:
    """Return the float graph with a rounded twin beside each layer, fed with the same values."""
    constants: dict[str, Array] = dict(graph.constants)
    nodes: list[Node] = []
    twins: dict[str, str] = {}
    rounded: set[str] = set()
    for node in graph.nodes:
        nodes.append(node)
        if node.name not in plan.layers:
            continue
        layer, codes = plan.layers[node.name], f"{node.inputs[0]}::codes"
        if layer.data not in rounded:
            rounded.add(layer.data)
            grid = grids[plan.grids[layer.data]]
            given = layer.data, f"{layer.data}::scale", f"{layer.data}::zero"
            constants[given[1]] = np.array(grid.scale, np.float32)
            constants[given[2]] = np.array(grid.zero, np.int8 if grid.signed else np.uint8)
            data = f"{layer.data}::rounded"
            nodes.append(Node(op="QuantizeLinear", inputs=given, outputs=(codes,)))
            nodes.append(Node(op="DequantizeLinear", inputs=(codes, *given[1:]), outputs=(data,)))
        nodes.append(_twin(layer, layers[node.name], constants))
        twins[node.name] = nodes[-1].name
    return replace(graph, nodes=tuple(nodes), constants=constants), twins


def _twin(layer: Layer, rounded: RoundedLayer, constants: dict[str, Array]) -> Node:
    name = layer.node.name
    constants[f"{name}::weight"] = rounded.weight.values()
    inputs = [f"{layer.data}::rounded", f"{name}::weight"]
    if rounded.bias is not None:
        constants[f"{name}::bias"] = rounded.bias
        inputs.append(f"{name}::bias")
    return replace(layer.node, inputs=tuple(inputs), outputs=(f"{name}::twin",))


def _moved(layer: RoundedLayer, by: NDArray[np.float64]) -> RoundedLayer:
    before = 0.0 if layer.bias is None else layer.bias.reshape(-1)
    return replace(layer, bias=(before + by).astype(np.float32))
