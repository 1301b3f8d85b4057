"""Networks in integers: weights and activations, or weights alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile
from onhand.host.networks.graph import Graph
from onhand.host.networks.moments import find_layers, measure_moments
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.passes.equalize import Equalize
from onhand.host.networks.quantization.gemm_forms import plain_gemms
from onhand.host.networks.quantization.layers_alone import (
    Compressed,
    Correction,
    compress_tables,
    compress_weights,
    multiply_dynamically,
)
from onhand.host.networks.quantization.mixed import saves_a_bit
from onhand.host.networks.quantization.plan import (
    Layer,
    chosen_layers,
    nothing_to_quantize,
)
from onhand.host.networks.quantization.ranges import METHODS
from onhand.host.networks.quantization.static import (
    BIAS_CORRECTIONS,
    StaticSettings,
    quantize_statically,
)
from onhand.host.networks.quantization.stored_weights import compress_stored

__all__ = ["QuantizeNetwork"]

SCHEMES: Final = ("static", "dynamic", "weights")
ACTIVATIONS: Final = ("asymmetric", "symmetric")
GATES: Final = ("float", "integers")
SWITCHES: Final = ("auto", "on", "off")
_GROUPS: Final = (32, 64, 128)
_MOST_STEPS: Final = 100_000
_MOST_RANK: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeNetwork:
    """Compute in 8-bit integers, or store weights as integers. See `NetworkPass`.

    Attributes:
        scheme: "static" computes on integers whose ranges examples have told, in the form that
            ONNX Runtime and OpenVINO turn into integer operators; "dynamic" multiplies matrices
            on integers whose ranges each run finds, without examples, in ONNX Runtime alone;
            "weights" stores integers and computes in float.
        bits: of weights: 8 or 4. With 4, "static" still computes on 8 bits.
        group_size: inputs that share a scale where matrices of 4 bits are multiplied in float.
        correction_rank: of a product of two thin matrices beside each matrix of 4 bits that is
            multiplied in float ("weights"): it makes good for most of what rounding takes, and
            more so where examples tell the inputs; 0 for none.
        activations: "asymmetric" (uint8 with a zero point) or "symmetric" (int8 around zero, for
            processors that want it; slower on others).
        range: how far the integers of an activation reach: see `choose_range`.
        percentile: of the values that "percentile" keeps.
        per_channel: one scale for each output channel of a weight; else one for the weight.
        gates: "integers" has sigmoids, hard ones, and products of two values on integers as well:
            SiLU, hard swish, squeeze and excitation. ONNX Runtime is much faster so and
            OpenVINO slower, but the faster one of both gains; "float" is nearer to the original.
        equalize: first bring the channels of consecutive layers to one size: see `Equalize`.
        bias_correction: "full" corrects layer after layer, "fast" all in one run, "none" leaves
            biases; "auto" takes what the outputs lose least with, and tries "full" where there
            are depthwise convolutions.
        adaround: steps of learning, for each layer, which way its weights are rounded; 0 rounds
            them to nearest. It is for 4 bits.
        accuracy: what may be lost (of agreement, of similarity, or relative error: see
            `compare_answers`) on a quarter of the examples, which is put aside: layers go back to
            float until it holds. 1.0 lets all be lost.
        reduce_range: whether weights keep to 7 bits, as sums of products of 8-bit integers
            saturate on x86 without VNNI; "auto" judges by the device's instruction sets.
        keep: patterns of names of nodes (their first outputs), or of operators, that stay in
            float.
    """

    name: ClassVar[str] = "quantize"

    scheme: str = "static"
    bits: int = 8
    group_size: int = 32
    correction_rank: int = 0
    activations: str = "asymmetric"
    range: str = "mse"
    percentile: float = 99.99
    per_channel: bool = True
    gates: str = "integers"
    equalize: bool = False
    bias_correction: str = "auto"
    adaround: int = 0
    accuracy: float = 1.0
    reduce_range: str = "auto"
    keep: tuple[str, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        for name, known in (
            ("scheme", SCHEMES),
            ("bits", (4, 8)),
            ("group_size", _GROUPS),
            ("activations", ACTIVATIONS),
            ("range", METHODS),
            ("gates", GATES),
            ("bias_correction", BIAS_CORRECTIONS),
            ("reduce_range", SWITCHES),
        ):
            if (value := getattr(self, name)) not in known:
                raise InputError(
                    f"{name} is {value!r}, must be one of {', '.join(map(str, known))}"
                )
        if not 50 < self.percentile <= 100:
            raise InputError(f"percentile is {self.percentile}, must be above 50, at most 100")
        if not 0 <= self.accuracy <= 1:
            raise InputError(f"accuracy is {self.accuracy}, must be a share from 0 to 1")
        if not 0 <= self.adaround <= _MOST_STEPS:
            raise InputError(f"adaround is {self.adaround}, must be from 0 to {_MOST_STEPS} steps")
        # A recipe's lists are lists, and a text would be a list of letters.
        keep: object = self.keep
        if not isinstance(keep, tuple | list) or not all(isinstance(item, str) for item in keep):
            raise InputError(f"keep is {keep!r}, must be a list of patterns")
        if not 0 <= self.correction_rank <= _MOST_RANK:
            raise InputError(
                f"correction_rank is {self.correction_rank}, must be from 0 to {_MOST_RANK}"
            )
        if self.correction_rank and (self.scheme, self.bits) != ("weights", 4):
            raise InputError("correction_rank needs scheme 'weights' with bits = 4")
        if self.scheme == "dynamic" and self.bits != 8:
            raise InputError("scheme 'dynamic' multiplies with 8 bits: bits must be 8")

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """Quantise a graph.

        Args:
            graph: with batch normalisation folded, else it stays in float.
            bench: with examples, where the scheme is "static".

        Returns:
            The graph, what each node became, and why others stayed.

        Raises:
            InputError: if there are no examples, or too few for what is asked, a pattern fits no
                node, or nothing can be quantised.
            EngineError: if the graph cannot run.
        """
        stored = self._stored(graph)
        graph = stored.graph
        equalized = Equalize().apply(graph, bench) if self.equalize else None
        graph = graph if equalized is None else equalized.graph
        if self.scheme == "static":
            result = quantize_statically(graph, bench, self._settings(bench.profile))
        else:
            result = self._weights_alone(graph, bench, is_changed=bool(stored.changed))
        result = replace(
            result,
            changed=dict(stored.changed) | result.changed,
            notes=(*result.notes, *self._notes(bench.profile)),
        )
        if equalized is None:
            return result
        return replace(
            result, changed=equalized.changed | result.changed, kept=equalized.kept | result.kept
        )

    def _stored(self, graph: Graph) -> Compressed:
        """Return the graph whose tables, and weights of what computes in float, are integers."""
        tables = compress_tables(plain_gemms(graph))
        others = compress_stored(tables.graph, keep=tuple(self.keep), per_channel=self.per_channel)
        return replace(others, changed={**tables.changed, **others.changed})

    def _settings(self, profile: DeviceProfile | None) -> StaticSettings:
        return StaticSettings(
            bits=7 if self.bits == 8 and self._saves_a_bit(profile) else self.bits,
            symmetric=self.activations == "symmetric",
            range=self.range,
            percentile=self.percentile,
            per_channel=self.per_channel,
            gates=self.gates == "integers",
            bias_correction=self.bias_correction,
            adaround=self.adaround,
            accuracy=self.accuracy,
            keep=tuple(self.keep),
        )

    def _weights_alone(self, graph: Graph, bench: Workbench, *, is_changed: bool) -> PassResult:
        layers, kept = chosen_layers(graph, keep=tuple(self.keep))
        if self.scheme == "dynamic":
            convolutions = [n for n, layer in layers.items() if layer.node.op == "Conv"]
            if layers and len(convolutions) == len(layers):
                raise InputError(
                    "nothing to quantize: the network has convolutions alone, which gain by the "
                    "scheme 'static'"
                )
            kept |= dict.fromkeys(convolutions, "convolutions gain by the scheme 'static' alone")
            layers = {n: layer for n, layer in layers.items() if n not in kept}
        if not layers and is_changed:
            return PassResult(graph=graph, kept=kept)
        if not layers:
            raise InputError(nothing_to_quantize(graph))
        if self.scheme == "dynamic":
            made = multiply_dynamically(graph, layers, per_channel=self.per_channel)
        else:
            made = compress_weights(
                graph,
                layers,
                bits=self.bits,
                group_size=self.group_size,
                per_channel=self.per_channel,
                correction=self._correction(graph, bench, layers),
            )
        return PassResult(graph=made.graph, changed=dict(made.changed), kept=kept)

    def _correction(
        self, graph: Graph, bench: Workbench, layers: Mapping[str, Layer]
    ) -> Correction:
        """Return how rounding is corrected, with inputs' moments where there are examples."""
        if not self.correction_rank or not len(bench.calibration):
            return Correction(rank=self.correction_rank)
        products = [
            layer
            for layer in find_layers(graph)
            if layer.name in layers and layer.node.op in {"Gemm", "MatMul"}
        ]
        found = measure_moments(graph, products, bench.calibration, threads=bench.threads)
        seen = {n: m.second[0] for n, m in found.items() if m.second is not None}
        return Correction(rank=self.correction_rank, moments=seen)

    def _saves_a_bit(self, profile: DeviceProfile | None) -> bool:
        if self.reduce_range != "auto":
            return self.reduce_range == "on"
        return saves_a_bit(profile)

    def _notes(self, profile: DeviceProfile | None) -> tuple[str, ...]:
        if self.scheme == "dynamic":
            return ("ONNX Runtime multiplies this on integers; OpenVINO does so in float, slower",)
        if self.scheme == "weights":
            return ()
        if self._saves_a_bit(profile):
            return ("weights keep to 7 bits: without VNNI, sums of 8-bit products saturate",)
        if self.reduce_range == "auto" and profile is None:
            return ("the device is not known: taken to have VNNI, if it is an x86 processor",)
        return ()
