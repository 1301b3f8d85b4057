"""Networks in integers: 8-bit weights and activations, or weights alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile
from onhand.host.networks.graph import Graph
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.quantization.bias_correction import correct_at_once, correct_in_order
from onhand.host.networks.quantization.calibration import choose_grids, count_values
from onhand.host.networks.quantization.grid import Grid, least_scales, round_weight
from onhand.host.networks.quantization.plan import Plan, make_plan, pooled_to_gemm
from onhand.host.networks.quantization.qdq import RoundedLayer, quantised_graph
from onhand.host.networks.quantization.ranges import METHODS

__all__ = ["QuantizeNetwork"]

ACTIVATIONS: Final = ("asymmetric", "symmetric")
BIAS_CORRECTIONS: Final = ("auto", "none", "fast", "full")
SWITCHES: Final = ("auto", "on", "off")
# Means settle soon, and layer after layer each example is run as often as there are layers.
_BIAS_EXAMPLES: Final = 32
_VNNI: Final = {"avx_vnni", "avx512_vnni", "amx_int8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeNetwork:
    """Compute in 8-bit integers. See `NetworkPass`.

    The graph gets QuantizeLinear and DequantizeLinear around what computes on integers, in the
    form that ONNX Runtime and OpenVINO turn into integer operators: activations uint8, weights
    int8 around zero for each output channel, biases int32.

    Attributes:
        activations: "asymmetric" (uint8 with a zero point) or "symmetric" (int8 around zero, for
            processors that want it; slower on others).
        range: how far the integers of an activation reach: see `choose_range`.
        percentile: of the values that "percentile" keeps.
        per_channel: one scale for each output channel of a weight; else one for the weight.
        bias_correction: "full" corrects layer after layer, "fast" all in one run, "none" leaves
            biases; "auto" is "full" where there are depthwise convolutions, else "fast".
        reduce_range: whether weights keep to 7 bits, as sums of products of 8-bit integers
            saturate on x86 without VNNI; "auto" judges by the device's instruction sets.
        keep: patterns of names of nodes (their first outputs), or of operators, that stay in
            float.
    """

    name: ClassVar[str] = "quantize"

    activations: str = "asymmetric"
    range: str = "mse"
    percentile: float = 99.99
    per_channel: bool = True
    bias_correction: str = "auto"
    reduce_range: str = "auto"
    keep: tuple[str, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        for name, known in (
            ("activations", ACTIVATIONS),
            ("range", METHODS),
            ("bias_correction", BIAS_CORRECTIONS),
            ("reduce_range", SWITCHES),
        ):
            if (value := getattr(self, name)) not in known:
                raise InputError(f"{name} is {value!r}, must be one of {', '.join(known)}")
        if not 50 < self.percentile <= 100:
            raise InputError(f"percentile is {self.percentile}, must be above 50, at most 100")
        # A recipe's lists are lists, and a text would be a list of letters.
        keep: object = self.keep
        if not isinstance(keep, tuple | list) or not all(isinstance(item, str) for item in keep):
            raise InputError(f"keep is {keep!r}, must be a list of patterns")

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """Quantise a graph.

        Args:
            graph: with batch normalisation folded, else it stays in float.
            bench: with examples.

        Returns:
            The graph, what each node became, and why others stayed.

        Raises:
            InputError: if there are no examples, a pattern fits no node, or nothing can be
                quantised.
            EngineError: if the graph cannot run.
        """
        graph = pooled_to_gemm(graph)
        plan = make_plan(graph, keep=self.keep)
        if not plan.layers:
            raise InputError("nothing to quantize: no Conv, Gemm or MatMul with constant weights")
        grids, layers = self._rounded(graph, plan, bench)
        made = quantised_graph(graph, plan, grids, layers)
        return PassResult(
            graph=made,
            changed=_changes(graph, plan, layers),
            kept=dict(plan.kept),
            notes=self._notes(bench.profile),
        )

    def _rounded(
        self, graph: Graph, plan: Plan, bench: Workbench
    ) -> tuple[dict[str, Grid], dict[str, RoundedLayer]]:
        """Return grids of values, and layers in integers."""
        histograms = count_values(
            graph, plan.grids, bench.calibration, threads=bench.threads, progress=bench.progress
        )
        grids = choose_grids(
            graph,
            plan,
            histograms,
            method=self.range,
            symmetric=self.activations == "symmetric",
            percentile=self.percentile,
        )
        layers = self._layers(graph, plan, grids, bench.profile)
        how = self.bias_correction
        if how == "auto":
            depthwise = any(layer.depthwise for layer in plan.layers.values())
            how = "full" if depthwise else "fast"
        few = bench.calibration.part(range(min(len(bench.calibration), _BIAS_EXAMPLES)))
        if how == "full":
            layers = correct_in_order(
                graph, plan, grids, layers, few, threads=bench.threads, progress=bench.progress
            )
        elif how == "fast":
            layers = correct_at_once(graph, plan, grids, layers, few, threads=bench.threads)
        return grids, layers

    def _layers(
        self,
        graph: Graph,
        plan: Plan,
        grids: Mapping[str, Grid],
        profile: DeviceProfile | None,
    ) -> dict[str, RoundedLayer]:
        made: dict[str, RoundedLayer] = {}
        for name, layer in plan.layers.items():
            bias = layer.bias_of(graph)
            scale = grids[plan.grids[layer.data]].scale
            weight = round_weight(
                layer.weight_of(graph),
                axis=layer.axis,
                bits=7 if self._saves_a_bit(profile) else 8,
                per_channel=self.per_channel,
                least=least_scales(bias, scale),
            )
            made[name] = RoundedLayer(weight=weight, bias=bias)
        return made

    def _saves_a_bit(self, profile: DeviceProfile | None) -> bool:
        if self.reduce_range != "auto":
            return self.reduce_range == "on"
        return profile is not None and _saturates(profile)

    def _notes(self, profile: DeviceProfile | None) -> tuple[str, ...]:
        if self._saves_a_bit(profile):
            return ("weights keep to 7 bits: without VNNI, sums of 8-bit products saturate",)
        if self.reduce_range == "auto" and profile is None:
            return ("the device is not known: taken to have VNNI, if it is an x86 processor",)
        return ()


def _saturates(profile: DeviceProfile) -> bool:
    x86 = profile.machine.lower() in {"x86_64", "amd64", "i386", "i686"}
    return x86 and not _VNNI.intersection(profile.instruction_sets)


def _changes(graph: Graph, plan: Plan, layers: Mapping[str, RoundedLayer]) -> dict[str, str]:
    changed = {
        layer.weight: f"int8, {layers[name].weight.scales.size} scales"
        for name, layer in plan.layers.items()
    }
    return changed | {node.name: "on integers" for node in graph.nodes if node.name in plan.nodes}
