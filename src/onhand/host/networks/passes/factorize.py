"""Layers become products of thinner ones: fewer weights and operations, a little error."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar, Final

import numpy as np

from onhand.core.errors import InputError
from onhand.host.networks.costs import count_operations
from onhand.host.networks.decomposition import Choice, Parts, chained, choices
from onhand.host.networks.graph import Graph, Node, Value, fresh_name
from onhand.host.networks.moments import Layer, Moments, measure_moments, own_layers
from onhand.host.networks.onnx_files import infer_shapes
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.passes.patterns import checked_patterns, pattern_of

__all__ = ["Factorize"]

_OF: Final = ("operations", "parameters")
_KINDS: Final = ("svd", "spatial", "tucker", "depthwise", "cp")
# CP takes the longest to find, and one kernel for each channel is as near and faster to run.
_USUAL: Final = _KINDS[:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Factorize:
    """Replace layers by two to four thinner ones in a row, where that loses least.

    Every layer has choices of several kinds and ranks, each with what it costs and how much of
    the layer's output it loses; the cheapest steps are taken until the budget is met.

    Attributes:
        ratio: share of the network's cost to remove, from 0 to below 1.
        of: the cost: "operations" (multiply-accumulates) or "parameters".
        kinds: of "svd" (two products; the second convolution is of single pixels), "spatial" (a
            column and a row of a kernel), "tucker" (a narrower kernel between two of one pixel),
            "depthwise" (one kernel for each of some channels between two of one pixel) and "cp"
            (the same with a column and a row). Of several, what loses least for its cost is taken,
            layer by layer.
        multiple: ranks are multiples of this.
        most_lost: share of a layer's output that may be lost, from 0 to 1.
        keep: patterns: layers of which the weights have such a name stay.
    """

    name: ClassVar[str] = "factorize"
    ratio: float = 0.2
    of: str = "operations"
    kinds: tuple[str, ...] = field(default_factory=lambda: _USUAL)
    multiple: int = 8
    most_lost: float = 0.25
    keep: tuple[str, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", checked_patterns(self.keep))
        if self.of not in _OF:
            raise InputError(f"of is {self.of!r}, must be one of {', '.join(_OF)}")
        given: object = self.kinds
        if not isinstance(given, tuple | list) or not given or not set(given) <= set(_KINDS):
            raise InputError(f"kinds is {given!r}, must be a list of some of {', '.join(_KINDS)}")
        object.__setattr__(self, "kinds", tuple(given))
        if not 0 <= self.ratio < 1:
            raise InputError(f"ratio is {self.ratio}, must be from 0 to below 1")
        if not 0 <= self.most_lost <= 1:
            raise InputError(f"most_lost is {self.most_lost}, must be from 0 to 1")
        if self.multiple < 1:
            raise InputError(f"multiple is {self.multiple}, must be at least 1")

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """See `NetworkPass`; without examples all inputs count the same."""
        shapes = infer_shapes(graph)
        kept: dict[str, str] = {}
        layers = [layer for layer in own_layers(graph) if self._is_free(layer, kept)]
        moments: Mapping[str, Moments] = {}
        if len(bench.calibration) and layers:
            moments = measure_moments(graph, layers, bench.calibration, threads=bench.threads)
        bench.progress.start("factorising", max(len(layers), 1))
        fronts: dict[str, list[Choice]] = {}
        for layer in layers:
            found = self._front(graph, layer, moments.get(layer.name), shapes)
            if len(found) > 1:
                fronts[layer.weight] = found
            else:
                kept[layer.weight] = "no product of lower rank saves weights and operations"
            bench.progress.advance(1)
        total = self._total(graph)
        chosen, saved = self._chosen(fronts, self.ratio * total)
        for name in fronts.keys() - chosen.keys():
            kept[name] = "other layers lose less for what they save"
        notes = [
            f"{100 * saved / max(total, 1):.1f} % of the {self.of} removed, "
            f"{100 * self.ratio:.1f} % asked for"
        ]
        if saved < self.ratio * total:
            notes.append("no more could go: raise most_lost, or keep less")
        if not moments:
            notes.append("without examples all inputs of a layer count the same")
        return PassResult(
            graph=_replaced(graph, layers, chosen),
            changed={
                name: f"{c.how}, {100 * c.lost:.2g} % of its output lost"
                for name, c in chosen.items()
            },
            kept=kept,
            notes=tuple(notes),
        )

    def _is_free(self, layer: Layer, kept: dict[str, str]) -> bool:
        if pattern := pattern_of(layer.weight, self.keep):
            kept[layer.weight] = f"kept by the pattern {pattern!r}"
        elif layer.groups > 1:
            kept[layer.weight] = "a convolution in groups is thin already"
        elif layer.node.op == "ConvTranspose" or (
            layer.node.op == "Gemm" and layer.node.whole("transA", 0)
        ):
            kept[layer.weight] = f"nothing is known to replace this {layer.node.op}"
        return layer.weight not in kept

    def _front(
        self,
        graph: Graph,
        layer: Layer,
        moments: Moments | None,
        shapes: Mapping[str, Value],
    ) -> list[Choice]:
        """Return the layer as it is and choices that lose ever more for ever less, convex."""
        inputs, outputs = (
            _area(layer.node, shapes.get(name)) for name in (layer.data, layer.node.outputs[0])
        )
        weight = graph.constants[layer.weight].astype(np.float32)
        size = weight.size
        full = Choice(
            how="as it is", parameters=size, operations=size * math.prod(outputs), lost=0.0,
            make=lambda: Parts((weight,), ({},)),
        )  # fmt: skip
        options = [
            choice
            for choice in choices(
                layer, weight, moments, inputs=inputs, outputs=outputs, multiple=self.multiple,
                kinds=self.kinds,
            )
            if choice.operations < full.operations
            and choice.parameters < full.parameters
            and choice.lost <= self.most_lost
        ]  # fmt: skip
        return _hull([full, *options], self._cost)

    def _cost(self, choice: Choice) -> int:
        return choice.operations if self.of == "operations" else choice.parameters

    def _total(self, graph: Graph) -> int:
        if self.of == "operations":
            return count_operations(graph)
        return sum(a.size for a in graph.constants.values() if np.issubdtype(a.dtype, np.floating))

    def _chosen(
        self, fronts: Mapping[str, Sequence[Choice]], budget: float
    ) -> tuple[dict[str, Choice], int]:
        """Take steps along all fronts, what loses least for what it saves first."""
        chosen: dict[str, Choice] = {}
        saved = 0
        steps = [
            (_slope(before, after, self._cost), i, name)
            for name, front in fronts.items()
            for i, (before, after) in enumerate(pairwise(front), 1)
        ]
        for _, i, name in sorted(steps):
            if saved >= budget:
                break
            # A front is convex, so that its steps come in their order.
            saved += self._cost(fronts[name][i - 1]) - self._cost(fronts[name][i])
            chosen[name] = fronts[name][i]
        return chosen, saved


def _area(node: Node, value: Value | None) -> tuple[int, int]:
    """Return height and width of a picture, or 1 and the number of vectors of an example."""
    sizes = () if value is None else value.shape
    inner = [
        n if isinstance(n, int) else 1 for n in (sizes[2:] if node.op == "Conv" else sizes[1:-1])
    ]
    return (inner[0], math.prod(inner[1:])) if len(inner) > 1 else (1, math.prod(inner))


def _slope(before: Choice, after: Choice, cost: Callable[[Choice], int]) -> float:
    """Return what is lost for what is saved, from one choice to a cheaper one.

    Of a layer of which half is lost already, each further part is worth more.
    """
    worth = [-math.log(max(1 - choice.lost, 1e-9)) for choice in (before, after)]
    return (worth[1] - worth[0]) / (cost(before) - cost(after))


def _hull(options: Sequence[Choice], cost: Callable[[Choice], int]) -> list[Choice]:
    """Return choices of falling cost such that each step loses more for what it saves."""
    front: list[Choice] = []
    for choice in sorted(options, key=lambda c: (-cost(c), -c.lost)):
        while front and (
            cost(front[-1]) == cost(choice)
            or (front[-1].lost >= choice.lost and len(front) > 1)
            or (
                len(front) > 1
                and _slope(front[-2], front[-1], cost) >= _slope(front[-1], choice, cost)
            )
        ):
            front.pop()
        front.append(choice)
    return front


def _replaced(graph: Graph, layers: Sequence[Layer], chosen: Mapping[str, Choice]) -> Graph:
    """Return the graph in which choices do the work of layers."""
    taken, constants = graph.names(), dict(graph.constants)
    nodes: dict[str, list[Node]] = {}
    for layer in layers:
        if layer.weight not in chosen:
            continue
        parts = chosen[layer.weight].make()
        names = [fresh_name(taken, f"{layer.weight}.part") for _ in parts.weights]
        between = [fresh_name(taken, f"{layer.name}.thin") for _ in parts.weights[1:]]
        constants.update(zip(names, parts.weights, strict=True))
        nodes[layer.name] = chained(layer, parts, names, between)
    made = graph.rebuilt(lambda node: nodes.get(node.name, [node]))
    return replace(made, constants=constants).live()
