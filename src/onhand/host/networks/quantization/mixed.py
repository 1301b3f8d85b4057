"""One network whose layers compute in several ways: each has a choice of its own."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile
from onhand.core.quantized import GroupFormat
from onhand.host.networks.graph import Graph
from onhand.host.networks.moments import Layer as MatrixLayer
from onhand.host.networks.moments import Moments, find_layers, measure_moments
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.quantization.gate_forms import spell_gates
from onhand.host.networks.quantization.gemm_forms import (
    dense_to_gemm,
    plain_gemms,
    pooled_to_gemm,
    shape_biases,
)
from onhand.host.networks.quantization.grid import round_weight
from onhand.host.networks.quantization.layers_alone import (
    Correction,
    compress_tables,
    compress_weights,
    multiply_dynamically,
)
from onhand.host.networks.quantization.plan import Layer, Plan, layers_of
from onhand.host.networks.quantization.static import StaticSettings, StaticWork
from onhand.host.networks.quantization.stored_weights import compress_stored
from onhand.host.rounding import round_matrix

__all__ = ["CHOICES", "FLOAT", "TURNED", "MixedWork", "saves_a_bit"]

FLOAT: Final = "float32"
CHOICES: Final = (
    FLOAT,
    "static-8",
    "static-8-symmetric",
    "static-8-asymmetric",
    "static-4",
    "dynamic-8",
    "weights-8",
    "weights-4",
)
"""Ways in which a layer may compute: float32; on 8-bit integers of known ranges with weights of 8
or 4 bits; on 8-bit integers whose ranges each run finds; in float with weights of few bits."""
TURNED: Final = {False: "static-8-symmetric", True: "static-8-asymmetric"}
"""Whether activations are symmetric where nothing else is said -> the choice of the other way."""
_STATIC: Final = {"static-8", "static-4", *TURNED.values()}
_PRODUCTS: Final = {"Gemm", "MatMul"}
_GROUP: Final = 32
_FEW: Final = 12  # examples settle the squares of inputs
_VNNI: Final = {"avx_vnni", "avx512_vnni", "amx_int8"}
Doubles = NDArray[np.float64]


def saves_a_bit(profile: DeviceProfile | None) -> bool:
    """Say whether weights keep to 7 bits: without VNNI, sums of 8-bit products saturate on x86."""
    if profile is None:
        return False
    x86 = profile.machine.lower() in {"x86_64", "amd64", "i386", "i686"}
    return x86 and not _VNNI.intersection(profile.instruction_sets)


class MixedWork:
    """Makes graphs of one network by each layer's choice; used by one thread.

    What examples tell is counted once, so that many graphs can be made.

    Attributes:
        graph: the network in the forms that integers know.
        layers: its layers, by name.
        bias_correction: of static layers; may be set.
    """

    def __init__(
        self,
        graph: Graph,
        bench: Workbench,
        *,
        symmetric: bool,
        bias_correction: str,
    ) -> None:
        """Bring the graph to the forms that integers know.

        Args:
            graph: in float, with batch normalisation folded.
            bench: with examples, where a layer is to be static.
            symmetric: whether activations are int8 around zero, else uint8.
            bias_correction: one of `BIAS_CORRECTIONS`, but "auto".
        """
        stored = compress_stored(
            compress_tables(plain_gemms(graph)).graph, keep=(), per_channel=True
        )
        spelled = spell_gates(stored.graph, keep=())
        self.graph = shape_biases(dense_to_gemm(pooled_to_gemm(spelled)))
        self.layers: dict[str, Layer] = layers_of(self.graph)
        self._bench = bench
        self.bias_correction = bias_correction
        self._symmetric = symmetric
        self._bits = 7 if saves_a_bit(bench.profile) else 8
        self._static = StaticWork(
            self.graph,
            bench,
            StaticSettings(
                bits=self._bits,
                symmetric=symmetric,
                range="mse",
                percentile=99.99,
                per_channel=True,
                gates=True,
                bias_correction=bias_correction,
                adaround=0,
                accuracy=1.0,
                keep=(),
            ),
        )

    def choices(self, name: str) -> tuple[str, ...]:
        """Return the ways in which a layer may compute; float32 comes first.

        Only products of matrices have ranges that each run finds; of "static-8-symmetric" and
        "static-8-asymmetric" there is the one that "static-8" is not.
        """
        none = {TURNED[not self._symmetric]}
        if self.layers[name].node.op not in _PRODUCTS:
            none.add("dynamic-8")
        return tuple(one for one in CHOICES if one not in none)

    def made(self, choices: Mapping[str, str]) -> Graph:
        """Return the graph of some choices.

        Args:
            choices: name of a layer -> one of `choices`; layers that are not named stay in float.

        Returns:
            The graph; the same for the same choices.

        Raises:
            InputError: if there is no such layer or choice, or a layer is to be static and there
                are no examples.
            EngineError: if the graph cannot run.
        """
        for name, choice in choices.items():
            if name not in self.layers:
                raise InputError(f"the network has no layer {name!r}")
            if choice not in self.choices(name):
                raise InputError(
                    f"layer {name!r}: {choice!r}, must be one of {', '.join(self.choices(name))}"
                )
        graph = self._statically(choices)
        for choice in ("dynamic-8", "weights-8", "weights-4"):
            left = layers_of(graph)
            chosen = {n: left[n] for n, one in choices.items() if one == choice and n in left}
            if not chosen:
                continue
            if choice == "dynamic-8":
                graph = multiply_dynamically(graph, chosen, per_channel=True).graph
                continue
            graph = compress_weights(
                graph,
                chosen,
                bits=8 if choice == "weights-8" else 4,
                group_size=_GROUP,
                per_channel=True,
                correction=Correction(),
            ).graph
        return graph

    def best_correction(self) -> tuple[str, str]:
        """Return how biases are best corrected where all layers are static, and a sentence.

        Raises:
            InputError: if there are no examples.
            EngineError: if the graph cannot run.
        """
        plan = self._static.plan(())
        grids = self._static.ranges.grids(plan)
        layers, _ = self._static.rounded(plan, grids)
        way, _, note = self._static.best_correction(plan, grids, layers)
        return way, note

    def local_errors(self) -> dict[str, dict[str, float]]:
        """Return layer -> choice -> mean square error of its outputs, as a share of their squares.

        From stored statistics alone: mean and squares of each input, histograms of what comes in,
        and the rounded weights; what varies in different inputs is taken as uncorrelated. Nothing
        is run for a single choice.

        Raises:
            InputError: if there are no examples.
            EngineError: if the graph cannot run.
        """
        layers = [layer for layer in find_layers(self.graph) if layer.name in self.layers]
        seen = self._bench.calibration
        seen = seen.part(range(min(len(seen), _FEW)))
        moments = measure_moments(
            self.graph, layers, seen, threads=self._bench.threads, pairs=False
        )
        plan = self._static.plan(())
        noise = self._static.ranges.errors(plan)
        turned = self._static.ranges.errors(replace(plan, turned=frozenset(plan.grids.values())))
        return {
            layer.name: self._local_error(layer, moments[layer.name], noise, turned)
            for layer in layers
        }

    def _local_error(
        self,
        layer: MatrixLayer,
        moments: Moments,
        noise: Mapping[str, float],
        turned: Mapping[str, float],
    ) -> dict[str, float]:
        own = self.layers[layer.name]
        weight = own.weight_of(self.graph)
        matrices = layer.matrices(weight).astype(np.float64)  # (groups, N, K)
        power = max(sum(_power(matrices, moments)), 1e-30)
        amplified = float(np.square(matrices).sum()) / power
        through, through_turned = (one.get(own.data, 0.0) * amplified for one in (noise, turned))
        rounded: dict[int, float] = {}
        static: dict[int, float] = {}
        for bits in {self._bits, 8, 4}:
            codes = round_weight(weight, axis=own.axis, bits=bits, per_channel=True)
            change = layer.matrices(codes.values() - weight).astype(np.float64)
            mean, rest = _power(change, moments)
            rounded[bits] = (mean + rest) / power
            # A bias takes the mean out again.
            is_corrected = self.bias_correction != "none" and own.node.op != "MatMul"
            static[bits] = (rest if is_corrected else mean + rest) / power
        grouped = rounded[4]
        if own.node.op in _PRODUCTS:
            matrix = np.ascontiguousarray(matrices[0], np.float32)
            form = GroupFormat(bits=4, group_size=_GROUP)
            near = round_matrix(matrix, form, method="clip").tensor.dequantize()
            grouped = sum(_power((near - matrices[0])[None], moments)) / power
        known = {
            FLOAT: 0.0,
            "static-8": static[self._bits] + through,
            TURNED[self._symmetric]: static[self._bits] + through_turned,
            "static-4": static[4] + through,
            "dynamic-8": rounded[8] + through,
            "weights-8": rounded[8],
            "weights-4": grouped,
        }
        return {one: known[one] for one in self.choices(layer.name)}

    def _statically(self, choices: Mapping[str, str]) -> Graph:
        static = {name for name, choice in choices.items() if choice in _STATIC}
        if not static:
            return self.graph
        plan = self._static.plan([name for name in self.layers if name not in static])
        plan = replace(plan, turned=self._turned(plan, choices))
        grids = self._static.ranges.grids(plan)
        low = {name for name, choice in choices.items() if choice == "static-4"}
        layers, _ = self._static.rounded(plan, grids, low=low)
        layers = self._static.corrected_by(self.bias_correction, plan, grids, layers)
        return self._static.written(plan, layers)

    def _turned(self, plan: Plan, choices: Mapping[str, str]) -> frozenset[str]:
        """Return the grids that lie the other way.

        Those where all layers that read them ask for it; what no layer reads lies as what it is
        computed from, since engines compute on integers of one sign at once.
        """
        asked: dict[str, bool] = {}
        for name, layer in plan.layers.items():
            root = plan.grids[layer.data]
            asked[root] = asked.get(root, True) and choices.get(name) == TURNED[self._symmetric]
        ways: dict[str, bool] = {}
        for node in self.graph.nodes:
            for value in node.inputs:
                if value in plan.grids:
                    ways.setdefault(value, asked.get(plan.grids[value], False))
            before = next((ways[value] for value in node.inputs if value in ways), False)
            for value in node.outputs:
                ways[value] = before
                if value in plan.grids:
                    ways[value] = asked.setdefault(plan.grids[value], before)
        return frozenset(root for root, is_turned in asked.items() if is_turned)


def _power(matrices: Doubles, moments: Moments) -> tuple[float, float]:
    """Return the squares of what matrices give: of its mean, and of what varies around that.

    Args:
        matrices: (groups, N, K).
        moments: of the inputs; what varies in different ones is taken as uncorrelated.
    """
    mean = np.einsum("gnk,gk->gn", matrices, moments.mean.astype(np.float64))
    rest = np.einsum("gnk,gk->", np.square(matrices), moments.variance)
    return float(np.square(mean).sum()), float(rest)
