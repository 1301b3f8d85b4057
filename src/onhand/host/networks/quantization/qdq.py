"""The graph that a plan asks for: QuantizeLinear and DequantizeLinear around what is quantised."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from onhand.host.networks.graph import Graph, Node
from onhand.host.networks.quantization.grid import Floats, Grid, WeightCodes
from onhand.host.networks.quantization.plan import Layer, Plan
from onhand.host.networks.quantization.storage import Constants

__all__ = ["RoundedLayer", "clip_bounds", "quantised_graph", "raw_name"]

_INT32: Final = 2**31 - 1
_INT8: Final = 3  # as onnx.TensorProto has it


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedLayer:
    """A layer's weight in integers, and its bias, still in float.

    Attributes:
        weight: the codes.
        bias: (N,) float32; None for no bias.
    """

    weight: WeightCodes
    bias: Floats | None


def raw_name(name: str) -> str:
    """Return what an output of the network that is rounded is called before that."""
    return f"{name}.raw"


def clip_bounds(graph: Graph, node: Node) -> tuple[float, float]:
    """Return from where to where a Relu or a Clip lets values pass."""
    if node.op == "Relu":
        return 0.0, float("inf")
    bounds = [-float("inf"), float("inf")]
    for i, name in enumerate(node.inputs[1:3]):
        if name:
            # What is computed while the network runs may be anything.
            known = graph.constants.get(name)
            bounds[i] = float("nan") if known is None else float(known.reshape(-1)[0])
    return bounds[0], bounds[1]


def quantised_graph(
    graph: Graph, plan: Plan, grids: Mapping[str, Grid], layers: Mapping[str, RoundedLayer]
) -> Graph:
    """Write a plan out.

    A value with a grid is followed by QuantizeLinear and DequantizeLinear; weights are integers
    before a DequantizeLinear, biases 32-bit integers in units of both scales. A Clip that the
    grid behind it does as well is left out. Inputs and outputs keep their names and dtypes.

    Args:
        graph: in float.
        plan: of this graph.
        grids: value -> grid, for each value that others share theirs with.
        layers: name of each layer -> what was made of it.

    Returns:
        The graph.
    """
    return _Writer(graph, plan, grids, layers).write()


class _Writer:
    """Makes one graph; its state is what has been written so far.

    Short names begin with q for codes, d for what they are decoded to, s for scales, z for zero
    points, w for codes made wider and b for biases.
    """

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        grids: Mapping[str, Grid],
        layers: Mapping[str, RoundedLayer],
    ) -> None:
        self._graph, self._plan, self._grids, self._layers = graph, plan, grids, layers
        self._outputs = set(graph.output_names())
        self._constants = Constants(graph)
        self._nodes: list[Node] = []
        self._decoded: dict[str, str] = {}
        self._codes: dict[str, str] = {}
        self._of_grid: dict[str, tuple[str, str]] = {}
        captured = {name for node in graph.nodes for name in node.captured}
        self._dropped = {
            node.name
            for node in graph.nodes
            if node.name in plan.clips and node.name not in captured and self._covers(node)
        }

    def write(self) -> Graph:
        self._round_given()
        made_by_integers = {
            name for node in self._graph.nodes if node.name in self._plan.nodes
            for name in node.outputs
        }  # fmt: skip
        for node in self._graph.nodes:
            if node.name in self._dropped:
                self._round(node.name, self._decoded.get(node.inputs[0], node.inputs[0]))
                continue
            if node.name in self._plan.scaled:
                self._scale(node.name)
                continue
            inside = node.name in self._plan.nodes
            inputs = tuple(
                self._decoded[name]
                if name in self._decoded and (inside or name in made_by_integers)
                else name
                for name in node.inputs
            )
            if node.name in self._plan.layers:
                inputs = self._weights(self._plan.layers[node.name], inputs[0])
            raw = {name: self._raw(name) for name in node.outputs}
            outputs = tuple(raw[name] for name in node.outputs)
            self._nodes.append(replace(node, inputs=inputs, outputs=outputs))
            for name in node.outputs:
                if name in self._plan.grids:
                    self._round(name, raw[name])
        return self._constants.finished(replace(self._graph, nodes=tuple(self._nodes)))

    def _round_given(self) -> None:
        for value in self._graph.inputs:
            if value.name in self._plan.grids:
                self._round(value.name, value.name)
        for name in self._graph.constants:
            if name in self._plan.grids:
                self._round_constant(name)

    def _covers(self, clip: Node) -> bool:
        """Whether a grid holds no value that a Clip would change."""
        if clip.name not in self._plan.grids:
            return False
        grid = self._grids[self._plan.grids[clip.name]]
        low, high = clip_bounds(self._graph, clip)
        half = grid.scale / 2
        return grid.low() >= low - half and grid.high() <= high + half

    def _raw(self, name: str) -> str:
        """Return what a value is called before it is rounded: outputs keep their names."""
        if name in self._plan.grids and name in self._outputs:
            return self._constants.name(raw_name(name))
        return name

    def _round(self, name: str, source: str) -> None:
        root = self._plan.grids[name]
        codes = self._constants.short("q")
        decoded = name
        if source == name or name not in self._outputs:
            decoded = self._constants.short("d")
        parameters = self._parameters(root)
        self._nodes += (
            Node(op="QuantizeLinear", inputs=(source, *parameters), outputs=(codes,)),
            Node(op="DequantizeLinear", inputs=(codes, *parameters), outputs=(decoded,)),
        )
        self._decoded[name], self._codes[name] = decoded, codes

    def _round_constant(self, name: str) -> None:
        """Write a number's code: OpenVINO fails where an operator is left to find it."""
        root = self._plan.grids[name]
        grid = self._grids[root]
        scale, zero = self._parameters(root)
        whole = np.rint(self._graph.constants[name].astype(np.float64) / grid.scale) + grid.zero
        dtype = np.int8 if grid.signed else np.uint8
        codes = self._constants.add(
            self._constants.short("q"), np.clip(whole, *grid.bounds()).astype(dtype)
        )
        decoded = self._constants.short("d")
        self._nodes.append(
            Node(op="DequantizeLinear", inputs=(codes, scale, zero), outputs=(decoded,))
        )
        self._decoded[name], self._codes[name] = decoded, codes

    def _scale(self, name: str) -> None:
        """Decode another value's codes with this one's scale."""
        source, _ = self._plan.scaled[name]
        given = (self._codes[source], *self._parameters(self._plan.grids[name]))
        self._nodes.append(Node(op="DequantizeLinear", inputs=given, outputs=(name,)))
        self._decoded[name], self._codes[name] = name, self._codes[source]

    def _parameters(self, root: str) -> tuple[str, str]:
        if root not in self._of_grid:
            grid = self._grids[root]
            scale = self._constants.add_short("s", np.array(grid.scale, np.float32))
            dtype = np.int8 if grid.signed else np.uint8
            self._of_grid[root] = (
                scale,
                self._constants.add_short("z", np.array(grid.zero, dtype)),
            )
        return self._of_grid[root]

    def _weights(self, layer: Layer, data: str) -> tuple[str, ...]:
        """Write a layer's weight and bias, and return the layer's inputs."""
        rounded = self._layers[layer.node.name]
        weight = rounded.weight
        codes = self._constants.add_codes(f"{layer.weight}.q", weight)
        if weight.bits <= 4:
            # Engines widen the codes when they open the network, and compute as with 8 bits.
            wide = self._constants.short("w")
            self._nodes.append(
                Node(op="Cast", inputs=(codes,), outputs=(wide,), attributes={"to": _INT8})
            )
            codes = wide
        # Without zero points ONNX Runtime computes a Gemm in float.
        zeros = self._constants.add_short("z", np.zeros(weight.scales.shape, np.int8))
        scales = self._constants.add_short("s", weight.scales)
        inputs = [data, self._decode((codes, scales, zeros), weight.axis)]
        if rounded.bias is not None:
            grid = self._grids[self._plan.grids[layer.data]]
            units = (weight.scales * np.float32(grid.scale)).astype(np.float32)
            sums = np.rint(rounded.bias.reshape(-1).astype(np.float64) / units)
            given = (
                # Scales leave twice the room that the original's bias needs: see `least_scales`.
                self._constants.add_short("b", np.clip(sums, -_INT32, _INT32).astype(np.int32)),
                self._constants.add_short("s", units),
            )
            inputs.append(self._decode(given, 0))
        return tuple(inputs)

    def _decode(self, given: tuple[str, ...], axis: int) -> str:
        decoded = self._constants.short("d")
        self._nodes.append(
            Node(
                op="DequantizeLinear",
                inputs=given,
                outputs=(decoded,),
                # A single scale has no axis, and nobody looks at this then.
                attributes={"axis": axis},
            )
        )
        return decoded
