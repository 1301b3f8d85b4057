"""What stands in for channels that went: their means, or what the others tell of them."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.host.networks.dependencies import Dependencies
from onhand.host.networks.dependency_trace import Consumer, IntArray
from onhand.host.networks.graph import Array, Graph, Node, fresh_name
from onhand.host.networks.importance import covariance
from onhand.host.networks.moments import Layer, Moments, find_layers

__all__ = ["ChangedWeights", "compensate"]

Numbers = NDArray[np.float64]


def compensate(
    found: Dependencies, small: Graph, units: IntArray, moments: Mapping[str, Moments]
) -> Graph:
    """Let each layer make good for the inputs that it lost.

    With the moments of pairs, an input that went is replaced by its best guess from those that
    stay, a linear one; without, by its mean. Both go into weights and biases, and cost nothing
    when the network runs. A mean is exact for inputs that never change.

    Args:
        found: of the graph before.
        small: the graph without the units.
        units: (n,) the units that went.
        moments: of consumers before, by the node's name.

    Returns:
        The graph with other weights; a product without a bias gets an Add behind it.

    Source:
        The optimal brain surgeon for whole columns, as in ZipLM, arXiv:2302.04089.
    """
    gone = np.isin(found.roots, units)
    nodes = {node.name: node for node in small.nodes}
    readers = found.graph.readers()
    before = {layer.name: layer for layer in find_layers(found.graph)}
    made = ChangedWeights(small)
    for consumer in found.consumers:
        name, lost = consumer.node.name, gone[consumer.labels]
        # What a transposed convolution adds differs from place to place.
        if not lost.any() or name not in nodes or consumer.node.op == "ConvTranspose":
            continue
        layer, known = before[name], moments[name]
        weights, bias = _refitted(found, layer, consumer, lost, gone, known)
        if known.second is not None and len(readers[layer.weight]) == 1:
            shape = small.constants[layer.weight].shape
            after = replace(layer, node=nodes[name], shape=shape)
            made.constants[layer.weight] = after.constant(weights.astype(np.float32))
        made.add(nodes[name], bias.astype(np.float32))
    return made.graph()


def _refitted(
    found: Dependencies,
    layer: Layer,
    consumer: Consumer,
    lost: NDArray[np.bool_],
    gone: NDArray[np.bool_],
    moments: Moments,
) -> tuple[Numbers, Numbers]:
    """Return the weights (groups, N', K') of what stays, and what the bias gains, (N',)."""
    matrices = layer.matrices(found.graph.constants[layer.weight]).astype(np.float64)
    groups, _, K = matrices.shape
    # All groups lose the same inputs, each with all of its places in the kernel.
    columns = np.repeat(lost[: len(lost) // groups], K * groups // len(lost))
    stay, went = matrices[:, :, ~columns], matrices[:, :, columns]
    mean = moments.mean.astype(np.float64)
    guess = mean[:, columns]  # (groups, K - K')
    if moments.second is not None:
        whole = covariance(moments)
        inner, cross = whole[:, ~columns][:, :, ~columns], whole[:, ~columns][:, :, columns]
        factors = np.linalg.solve(inner, cross)  # (groups, K', K - K')
        stay = stay + went @ factors.swapaxes(1, 2)
        guess = guess - np.einsum("gkc,gk->gc", factors, mean[:, ~columns])
    bias = np.einsum("gnc,gc->gn", went, guess).reshape(-1)
    axis = 1 - consumer.weight_axis % 2
    labels = found.axes[layer.weight][axis]
    if labels is None:
        return stay, bias
    rows = ~gone[labels]
    return stay.reshape(len(rows), -1)[rows].reshape(groups, -1, stay.shape[2]), bias[rows]


class ChangedWeights:
    """A graph whose layers get other weights."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._taken = graph, graph.names()
        self._readers = graph.readers()
        self.constants: dict[str, Array] = dict(graph.constants)
        self._changed: dict[str, tuple[Node, ...]] = {}

    def graph(self) -> Graph:
        """Return the graph as it is now."""
        made = self._graph.rebuilt(lambda node: self._changed.get(node.name, (node,)))
        return replace(made, constants=self.constants).live()

    def add(self, node: Node, bias: FloatArray) -> None:
        """Add a bias, (N,), to what a layer makes."""
        if node.op != "MatMul":
            self._put(node, 2, bias * self._scale(node))
            return
        readers = self._readers.get(node.outputs[0], [])
        is_inner = node.outputs[0] not in self._graph.output_names()
        if len(readers) == 1 and is_inner and readers[0].op == "Add":
            reader = readers[0]
            other = next((i for i in (0, 1) if reader.inputs[i] != node.outputs[0]), 0)
            found = self.constants.get(reader.inputs[other])
            if found is not None and found.shape == bias.shape:
                self._put(reader, other, bias)
                return
        plain = fresh_name(self._taken, f"{node.name}.plain")
        name = self._constant(f"{node.name}.bias", bias)
        behind = Node(op="Add", inputs=(plain, name), outputs=node.outputs)
        self._changed[node.name] = (replace(node, outputs=(plain,)), behind)

    def _scale(self, node: Node) -> np.float32:
        if node.op != "Gemm":
            return np.float32(1)
        return np.float32(node.number("alpha", 1.0) / node.number("beta", 1.0))

    def _constant(self, wanted: str, array: Array) -> str:
        name = fresh_name(self._taken, wanted)
        self.constants[name] = array
        return name

    def _put(self, node: Node, place: int, bias: FloatArray) -> None:
        inputs = [*node.inputs, ""][: max(place + 1, len(node.inputs))]
        before = self.constants.get(inputs[place])
        total = bias if before is None else before.astype(np.float32) + bias
        # Others may read the old constant.
        inputs[place] = self._constant(inputs[place] or f"{node.name}.bias", total)
        self._changed[node.name] = (replace(node, inputs=tuple(inputs)),)
