"""Weights that matter least become zero: stored compactly, at the speed of before."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.sparse import parse_pattern
from onhand.host.networks.compensation import ChangedWeights
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.moments import Layer, Moments, measure_moments, own_layers
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.passes.patterns import checked_patterns, pattern_of
from onhand.host.sparsify import METHODS, Share, prune_rows, zero_share

__all__ = ["PruneWeights"]

_SCOPES: Final = ("row", "global")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneWeights:
    """Make the least important weights of each layer zero.

    Engines compute with the zeros as with other numbers; the bundle stores them in next to no
    space, and a pass that trains keeps them. See `sparsify` for the methods.

    Attributes:
        ratio: share of zeros, from 0 to below 1; without a pattern or a threshold.
        method: "sparsegpt" or "wanda", which need examples, or "magnitude".
        pattern: "2:4" leaves 2 of each 4 weights in a row; "" for any.
        threshold: with "magnitude" alone: weights that are smaller than this become zero, however
            many they are; 0 to go by `ratio`.
        scope: "row" for the same share of each row; "global" for one threshold over all layers,
            with "magnitude" alone.
        keep: patterns: weights with such a name stay.
        correct_bias: whether biases take what the outputs are off by on average, where there are
            examples.
        depthwise: whether convolutions of single channels lose weights, too; they have few.
    """

    name: ClassVar[str] = "prune-weights"
    ratio: float = 0.5
    method: str = "sparsegpt"
    pattern: str = ""
    threshold: float = 0.0
    scope: str = "row"
    keep: tuple[str, ...] = field(default_factory=tuple)
    correct_bias: bool = True
    depthwise: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", checked_patterns(self.keep))
        for key, value, known in (
            ("method", self.method, METHODS),
            ("scope", self.scope, _SCOPES),
        ):
            if value not in known:
                raise InputError(f"{key} is {value!r}, must be one of {', '.join(known)}")
        if self.scope == "global" and (self.method != "magnitude" or self.pattern):
            raise InputError("scope 'global' goes with method 'magnitude' and no pattern")
        if not 0 <= self.threshold < np.inf:
            raise InputError(f"threshold is {self.threshold}, must be 0 or more")
        if self.threshold and (self.method != "magnitude" or self.pattern):
            raise InputError("threshold goes with method 'magnitude' and no pattern")
        self._share()

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """See `NetworkPass`.

        Raises:
            InputError: if a method that needs examples has none.
        """
        kept: dict[str, str] = {}
        layers: list[Layer] = []
        for layer in own_layers(graph):
            if why := self._why_not(layer):
                kept[layer.weight] = why
            else:
                layers.append(layer)
        bench.progress.start("making weights zero", max(len(layers), 1))
        moments: Mapping[str, Moments] = {}
        if self.method != "magnitude" or (self.correct_bias and len(bench.calibration)):
            moments = measure_moments(
                graph, layers, bench.calibration, threads=bench.threads,
                pairs=self.method == "sparsegpt",
            )  # fmt: skip
        made = self._made(graph, layers, moments, bench)
        changes = ChangedWeights(graph)
        for layer in layers:
            changes.constants[layer.weight] = made[layer.weight]
            if layer.name in moments and self._corrects(layer):
                lost = layer.matrices(graph.constants[layer.weight])
                lost = lost - layer.matrices(made[layer.weight])
                shift = np.einsum("gnk,gk->gn", lost, moments[layer.name].mean).reshape(-1)
                changes.add(layer.node, shift.astype(np.float32))
        return PassResult(
            graph=changes.graph(),
            changed={n: f"{100 * zero_share(a):.1f} % are zero" for n, a in made.items()},
            kept=kept,
            notes=_notes(graph, made),
        )

    def _made(
        self,
        graph: Graph,
        layers: list[Layer],
        moments: Mapping[str, Moments],
        bench: Workbench,
    ) -> dict[str, Array]:
        """Return the weights of all layers with their zeros."""
        if self.threshold:
            # Weights of just that size stay.
            return _above(graph, layers, np.nextafter(np.float32(self.threshold), np.float32(0)))
        if self.scope == "global":
            return _above_one_threshold(graph, layers, self.ratio)
        made: dict[str, Array] = {}
        for layer in layers:
            made[layer.weight] = self._pruned(graph, layer, moments.get(layer.name))
            bench.progress.advance(1)
        return made

    def _share(self) -> Share:
        return Share(self.ratio, parse_pattern(self.pattern) if self.pattern else None)

    def _why_not(self, layer: Layer) -> str | None:
        if pattern := pattern_of(layer.weight, self.keep):
            return f"kept by the pattern {pattern!r}"
        if layer.groups > 1 and layer.shape[1] == 1 and not self.depthwise:
            return "a depthwise convolution has few weights"
        return self._share().why_not(layer.n_inputs)

    def _pruned(self, graph: Graph, layer: Layer, moments: Moments | None) -> Array:
        made: list[FloatArray] = []
        for group, rows in enumerate(layer.matrices(graph.constants[layer.weight])):
            inputs = None if moments is None else self._inputs(layer, moments, group)
            made.append(prune_rows(rows, self._share(), method=self.method, moments=inputs))
        return layer.constant(np.stack(made))

    def _corrects(self, layer: Layer) -> bool:
        """Say whether a bias takes the mean error; that of a ConvTranspose differs by place."""
        return self.correct_bias and layer.node.op != "ConvTranspose"

    def _inputs(self, layer: Layer, moments: Moments, group: int) -> FloatArray:
        """Return the inputs' moments, about their mean where the bias takes the mean error."""
        centred = self._corrects(layer)
        if moments.second is None:
            squares = moments.variance if centred else moments.square
            return np.asarray(squares[group], dtype=np.float32)
        mean = moments.mean[group] * np.float32(centred)
        return np.asarray(moments.second[group] - mean[:, None] * mean, dtype=np.float32)


def _above_one_threshold(graph: Graph, layers: list[Layer], ratio: float) -> dict[str, Array]:
    """Return the weights of all layers without the smallest of them all."""
    sizes = [np.abs(graph.constants[layer.weight]) for layer in layers]
    flat = np.concatenate([size.reshape(-1) for size in sizes]) if sizes else np.zeros(1)
    gone = round(ratio * flat.size)
    return _above(graph, layers, np.partition(flat, gone - 1)[gone - 1] if gone else np.float32(-1))


def _above(graph: Graph, layers: list[Layer], threshold: np.floating) -> dict[str, Array]:
    """Return the weights of all layers without those up to a threshold."""
    weights = {layer.weight: graph.constants[layer.weight] for layer in layers}
    return {
        name: np.where(np.abs(weight) > threshold, weight, np.float32(0))
        for name, weight in weights.items()
    }


def _notes(graph: Graph, made: Mapping[str, Array]) -> tuple[str, ...]:
    zeros = sum(array.size - np.count_nonzero(array) for array in made.values())
    total = sum(a.size for a in graph.constants.values() if np.issubdtype(a.dtype, np.floating))
    share = 100 * zeros / max(total, 1)
    return (f"{share:.1f} % of all weights are zero: the file shrinks, the speed stays",)
