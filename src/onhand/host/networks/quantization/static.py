"""Networks on integers from end to end: plan, ranges, weights, biases, and what goes back."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

from onhand.core.errors import InputError
from onhand.host.networks.graph import Graph
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.quantization.accuracy import OutputJudge, Reverted, revert_worst
from onhand.host.networks.quantization.adaround import learn_rounding
from onhand.host.networks.quantization.bias_correction import correct_at_once, correct_in_order
from onhand.host.networks.quantization.calibration import Ranges
from onhand.host.networks.quantization.gate_forms import spell_gates
from onhand.host.networks.quantization.gemm_forms import (
    dense_to_gemm,
    pooled_to_gemm,
    shape_biases,
)
from onhand.host.networks.quantization.grid import Grid, least_scales, round_weight
from onhand.host.networks.quantization.plan import Plan, make_plan, nothing_to_quantize
from onhand.host.networks.quantization.qdq import RoundedLayer, quantised_graph
from onhand.host.networks.samples import Samples

__all__ = ["BIAS_CORRECTIONS", "StaticSettings", "StaticWork", "quantize_statically"]

BIAS_CORRECTIONS: Final = ("auto", "none", "fast", "full")
# Means settle soon, and layer after layer each example is run as often as there are layers.
_FEW: Final = 24
# Of the examples, this share is put aside for the last word on what is lost.
_HELD_OUT: Final = 4
Layers = dict[str, RoundedLayer]
_LOW_BITS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticSettings:
    """How to quantise; see the pass's options, whose names these have.

    Attributes:
        bits: of weights: 4, 7 or 8.
        symmetric: whether activations are int8 around zero.
        range: how ranges are chosen.
        percentile: for one of those.
        per_channel: one scale for each output channel of a weight.
        gates: whether sigmoids and products of values are on integers.
        bias_correction: one of `BIAS_CORRECTIONS`.
        adaround: steps; 0 for none.
        accuracy: most loss on examples put aside; 1.0 for any.
        keep: patterns of nodes that stay in float.
    """

    bits: int
    symmetric: bool
    range: str
    percentile: float
    per_channel: bool
    gates: bool
    bias_correction: str
    adaround: int
    accuracy: float
    keep: tuple[str, ...]


def quantize_statically(graph: Graph, bench: Workbench, settings: StaticSettings) -> PassResult:
    """Quantise weights and activations.

    Args:
        graph: in float.
        bench: with examples.
        settings: how.

    Returns:
        The graph, and what became of each part.

    Raises:
        InputError: if there are no examples, or too few for what is asked, or nothing to quantise.
        EngineError: if a graph cannot run.
    """
    if settings.gates:
        graph = spell_gates(graph, keep=settings.keep)
    graph = shape_biases(dense_to_gemm(pooled_to_gemm(graph)))
    samples, aside = bench.calibration, None
    if settings.accuracy < 1:
        samples, aside = _split(samples)
    work = StaticWork(graph, replace(bench, calibration=samples), settings)
    plan = work.plan(())
    if not plan.layers:
        raise InputError(nothing_to_quantize(graph))
    grids = work.ranges.grids(plan)
    layers, kept = work.rounded(plan, grids)
    layers, notes = work.corrected(plan, grids, layers)
    reverted: Collection[str] = ()
    if aside is not None:
        found = work.reverted(plan, layers, aside)
        reverted = found.nodes
        notes += (
            f"lost on {len(aside)} examples put aside: {found.loss:.4f}, with "
            f"{len(found.nodes)} of {len(plan.layers)} layers back in float; before: "
            f"{found.before:.4f}",
        )
        plan = work.plan(reverted)
    made = work.written(plan, layers)
    return PassResult(
        graph=made,
        changed=_changes(graph, plan, layers),
        kept=kept | dict(plan.kept),
        notes=notes,
    )


class StaticWork:
    """One graph on its way to integers; keeps what was counted. Used by one thread."""

    def __init__(self, graph: Graph, bench: Workbench, settings: StaticSettings) -> None:
        """Begin.

        Args:
            graph: in float, with the forms of operators that integers know.
            bench: with examples.
            settings: how.
        """
        self._graph, self._bench, self._settings = graph, bench, settings
        self.ranges = Ranges(
            graph,
            bench.calibration,
            method=settings.range,
            symmetric=settings.symmetric,
            percentile=settings.percentile,
            threads=bench.threads,
            progress=bench.progress,
        )

    def plan(self, float_nodes: Collection[str]) -> Plan:
        """Return what is quantised, but for some nodes."""
        return make_plan(
            self._graph,
            keep=self._settings.keep,
            float_nodes=tuple(float_nodes),
            gates=self._settings.gates,
        )

    def written(self, plan: Plan, layers: Layers) -> Graph:
        """Return the graph of a plan."""
        return quantised_graph(self._graph, plan, self.ranges.grids(plan), layers)

    def rounded(
        self, plan: Plan, grids: dict[str, Grid], *, low: Collection[str] = ()
    ) -> tuple[Layers, dict[str, str]]:
        """Return the layers in integers, and why some were not learned.

        Args:
            plan: what is quantised.
            grids: of its values.
            low: names of layers whose weights keep to 4 bits.
        """
        made: Layers = {}
        for name, layer in plan.layers.items():
            bias = layer.bias_of(self._graph)
            weight = round_weight(
                layer.weight_of(self._graph),
                axis=layer.axis,
                bits=_LOW_BITS if name in low else self._settings.bits,
                per_channel=self._settings.per_channel,
                least=least_scales(bias, grids[plan.grids[layer.data]].scale),
            )
            made[name] = RoundedLayer(weight=weight, bias=bias)
        if not self._settings.adaround:
            return made, {}
        return learn_rounding(
            self._graph,
            plan,
            grids,
            made,
            _first(self._bench.calibration),
            steps=self._settings.adaround,
            threads=self._bench.threads,
            progress=self._bench.progress,
        )

    def corrected(
        self, plan: Plan, grids: dict[str, Grid], layers: Layers
    ) -> tuple[Layers, tuple[str, ...]]:
        """Return the layers with biases corrected as asked for."""
        asked = self._settings.bias_correction
        if asked != "auto":
            return self.corrected_by(asked, plan, grids, layers), ()
        _, made, note = self.best_correction(plan, grids, layers)
        return made, (note,)

    def corrected_by(self, way: str, plan: Plan, grids: dict[str, Grid], layers: Layers) -> Layers:
        """Return the layers with biases corrected in one of `BIAS_CORRECTIONS`, but "auto"."""
        return self._ways(plan, grids, layers)[way]()

    def best_correction(
        self, plan: Plan, grids: dict[str, Grid], layers: Layers
    ) -> tuple[str, Layers, str]:
        """Return the way that the outputs lose least with, what it gives, and a sentence."""
        depthwise = any(layer.depthwise for layer in plan.layers.values())
        tried = ("none", "fast", "full") if depthwise else ("none", "fast")
        judge = self._judge(_last(self._bench.calibration))
        found = {way: self.corrected_by(way, plan, grids, layers) for way in tried}
        errors = {way: judge.error(self.written(plan, made)) for way, made in found.items()}
        best = min(tried, key=lambda way: errors[way])
        told = ", ".join(f"{way} {error:.5f}" for way, error in errors.items())
        note = f"bias correction {best!r} chosen by the error of the outputs: {told}"
        return best, found[best], note

    def reverted(self, plan: Plan, layers: Layers, aside: Samples) -> Reverted:
        """Return the layers that lose too much."""

        def make(float_nodes: Collection[str]) -> Graph:
            return self.written(self.plan(float_nodes), layers)

        return revert_worst(
            list(plan.layers),
            make,
            self._judge(aside),
            most=self._settings.accuracy,
            progress=self._bench.progress,
        )

    def _judge(self, samples: Samples) -> OutputJudge:
        bench = self._bench
        return OutputJudge(
            self._graph, samples, task=bench.task, threads=bench.threads, reader=bench.reader
        )

    def _ways(
        self, plan: Plan, grids: dict[str, Grid], layers: Layers
    ) -> dict[str, Callable[[], Layers]]:
        bench, few = self._bench, _first(self._bench.calibration)
        return {
            "none": lambda: layers,
            "fast": lambda: correct_at_once(
                self._graph, plan, grids, layers, few, threads=bench.threads
            ),
            "full": lambda: correct_in_order(
                self._graph,
                plan,
                grids,
                layers,
                few,
                threads=bench.threads,
                progress=bench.progress,
            ),
        }


def _split(samples: Samples) -> tuple[Samples, Samples]:
    """Put every fourth example aside.

    Raises:
        InputError: if there are too few.
    """
    if len(samples) < 2 * _HELD_OUT:
        raise InputError(
            f"accuracy needs {2 * _HELD_OUT} examples or more, some of them to judge by; "
            f"there are {len(samples)}"
        )
    every = range(len(samples))
    used = samples.part([i for i in every if i % _HELD_OUT])
    return used, samples.part([i for i in every if i % _HELD_OUT == 0])


def _first(samples: Samples) -> Samples:
    return samples.part(range(min(len(samples), _FEW)))


def _last(samples: Samples) -> Samples:
    """Return as many as biases are not corrected by, or all where there are too few."""
    low = _FEW if len(samples) >= 2 * _FEW else 0
    return samples.part(range(low, min(len(samples), low + _FEW)))


def _changes(graph: Graph, plan: Plan, layers: Layers) -> dict[str, str]:
    changed: dict[str, str] = {}
    for name, layer in plan.layers.items():
        weight = layers[name].weight
        changed[layer.weight] = f"{weight.bits} bits, {weight.scales.size} scales"
    return changed | {node.name: "on integers" for node in graph.nodes if node.name in plan.nodes}
