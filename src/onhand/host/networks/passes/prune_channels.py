"""Channels, heads and whole blocks that matter least are taken out: a smaller, dense network."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.host.networks.compensation import compensate
from onhand.host.networks.dependencies import Dependencies, UnitGroup, cut, find_dependencies
from onhand.host.networks.dependency_trace import IntArray
from onhand.host.networks.graph import Graph
from onhand.host.networks.importance import by_activation, by_magnitude
from onhand.host.networks.moments import Moments, find_layers, measure_moments
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.passes.patterns import checked_patterns, pattern_of
from onhand.host.networks.residual_blocks import block_influences, find_blocks, without_block
from onhand.host.networks.selection import Costs, Widths, choose_together, choose_uniformly
from onhand.host.networks.taylor import by_taylor

__all__ = ["PruneChannels", "gradual_ratios"]

_IMPORTANCE: Final = ("activation", "taylor", "magnitude", "random")
_OF: Final = ("operations", "parameters")
_COMPENSATE: Final = ("regression", "mean", "none")
_LOSSES: Final = ("activation", "taylor")
Numbers = NDArray[np.float64]


def gradual_ratios(ratio: float, steps: int) -> tuple[float, ...]:
    """Return what share of the network at hand each step removes, so that all remove `ratio`.

    With as many passes, each followed by one that recovers, a network is pruned gradually.

    Args:
        ratio: in all, from 0 to below 1.
        steps: at least 1.
    """
    return (1 - (1 - ratio) ** (1 / steps),) * steps


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneChannels:
    """Remove channels of convolutions, heads of attention and widths of products.

    What goes together is found by following every channel, see `dependencies`. The result is a
    smaller network of the same operators; what it loses, a pass that trains may recover.

    Attributes:
        ratio: share of the cost to remove, from 0 to below 1.
        of: the cost: "operations" (multiply-accumulates) or "parameters".
        importance: "activation" (share of the next layers' energy, needs examples), "magnitude"
            (norm of all weights that depend on a channel), "taylor" (what the loss gains, by
            gradients; needs torch and examples) or "random".
        multiple: numbers of channels stay multiples of this, for engines compute in such blocks;
            a width that is none may stay as it is.
        least: share of each group that stays, from 0 to 1.
        global_: whether groups compete; if not, each loses the same share.
        keep: patterns, as `*.attention.*`: weights with such a name keep all channels.
        layers: residual blocks to take out first, those that change least; a transformer's layer
            has two. They come on top of the ratio.
        steps: importance is judged anew so many times on the way.
        compensate: what stands in for what goes, needs examples: "regression" (the best guess from
            what stays, put into the next weights), "mean" (added to the next biases) or "none".
        seed: of "random".
    """

    name: ClassVar[str] = "prune-channels"
    ratio: float = 0.3
    of: str = "operations"
    importance: str = "activation"
    multiple: int = 16
    least: float = 0.2
    global_: bool = True
    keep: tuple[str, ...] = field(default_factory=tuple)
    layers: int = 0
    steps: int = 1
    compensate: str = "regression"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", checked_patterns(self.keep))
        for key, value, known in (
            ("importance", self.importance, _IMPORTANCE),
            ("of", self.of, _OF),
            ("compensate", self.compensate, _COMPENSATE),
        ):
            if value not in known:
                raise InputError(f"{key} is {value!r}, must be one of {', '.join(known)}")
        if not 0 <= self.ratio < 1:
            raise InputError(f"ratio is {self.ratio}, must be from 0 to below 1")
        if not 0 <= self.least <= 1:
            raise InputError(f"least is {self.least}, must be from 0 to 1")
        if self.layers < 0:
            raise InputError(f"layers is {self.layers}, must be 0 or more")
        for key, number in (("multiple", self.multiple), ("steps", self.steps)):
            if number < 1:
                raise InputError(f"{key} is {number}, must be at least 1")

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """See `NetworkPass`.

        Raises:
            InputError: if "activation" has no examples.
        """
        if self.importance in _LOSSES and not len(bench.calibration):
            raise InputError(
                f"importance {self.importance!r} needs examples: give some for calibration, or "
                "choose importance = 'magnitude'"
            )
        state = _State(graph)
        bench.progress.start("removing channels", self.steps + self.layers)
        dropped = self._without_blocks(state, bench)
        for step in range(1, self.steps + 1):
            state.graph = self._step(state, (1 - self.ratio) ** (step / self.steps), bench)
            bench.progress.advance(1)
        return PassResult(
            graph=state.graph,
            changed=_changes(graph, state.graph) | dropped,
            kept=state.kept,
            notes=self._notes(state, bench),
        )

    def _without_blocks(self, state: "_State", bench: Workbench) -> dict[str, str]:
        """Take out whole blocks, one after the other; return what went.

        Raises:
            InputError: if there are not so many, or no examples to tell them apart.
        """
        if self.layers and not len(bench.calibration):
            raise InputError("layers needs examples to tell what matters: give some")
        dropped: dict[str, str] = {}
        for _ in range(self.layers):
            blocks = [b for b in find_blocks(state.graph) if not pattern_of(b.result, self.keep)]
            if not blocks:
                raise InputError(
                    f"layers is {self.layers}: the network has only {len(dropped)} blocks that "
                    "can be taken out"
                )
            influences = block_influences(
                state.graph, blocks, bench.calibration, threads=bench.threads
            )
            least = int(np.argmin(influences))
            state.graph = without_block(state.graph, blocks[least])
            dropped[blocks[least].result] = f"block taken out, of influence {influences[least]:.3f}"
            bench.progress.advance(1)
        return dropped

    def _step(self, state: "_State", share: float, bench: Workbench) -> Graph:
        """Bring the network down to a share of its first cost."""
        found = self._free(find_dependencies(state.graph), state)
        moments = self._moments(found, bench)
        costs = Costs(found, of=self.of)
        before = costs.cost(np.zeros(len(found.groups)))
        state.first = state.first or before
        widths = [Widths.of(g, multiple=self.multiple, least=self.least) for g in found.groups]
        for group, width in zip(found.groups, widths, strict=True):
            if len(width.kept) == 1:
                reason = f"{len(group.units)} units are the fewest that may stay"
                state.kept.update(dict.fromkeys(group.weights, reason))
        scores, target = self._scores(found, moments, bench), state.first * share
        if self.global_:
            losses = self.importance in _LOSSES
            units = choose_together(found, scores, widths, costs, target=target, per_cost=losses)
        else:
            units = choose_uniformly(found, scores, widths, costs, target=target)
        small = cut(found, units)
        state.last = costs.cost(_removed(found, units))
        if self.compensate != "none" and moments:
            small = compensate(found, small, units, moments)
        return small

    def _moments(self, found: Dependencies, bench: Workbench) -> Mapping[str, Moments]:
        needed = self.compensate != "none" or self.importance == "activation"
        if not needed or not len(bench.calibration):
            return {}
        read = {consumer.node.name for consumer in found.consumers}
        layers = [layer for layer in find_layers(found.graph) if layer.name in read]
        pairs = self.compensate == "regression"
        return measure_moments(
            found.graph, layers, bench.calibration, threads=bench.threads, pairs=pairs
        )

    def _free(self, found: Dependencies, state: "_State") -> Dependencies:
        """Leave out groups that a pattern keeps; note what stays and why."""
        state.kept = dict(found.kept)
        free: list[UnitGroup] = []
        for group in found.groups:
            fits = [p for name in group.weights if (p := pattern_of(name, self.keep))]
            if fits:
                state.kept.update(dict.fromkeys(group.weights, f"kept by the pattern {fits[0]!r}"))
            else:
                free.append(group)
        return replace(found, groups=tuple(free))

    def _scores(
        self, found: Dependencies, moments: Mapping[str, Moments], bench: Workbench
    ) -> Numbers:
        if self.importance == "activation":
            return by_activation(found, moments)
        if self.importance == "taylor":
            return by_taylor(found, bench.calibration, moments, task=bench.task, seed=self.seed)
        if self.importance == "magnitude":
            return by_magnitude(found)
        return np.random.default_rng(self.seed).random(len(found.roots))

    def _notes(self, state: "_State", bench: Workbench) -> tuple[str, ...]:
        gone = 1 - state.last / state.first if state.first else 0.0
        notes = [f"{100 * gone:.1f} % of the {self.of} removed, {100 * self.ratio:.1f} % asked for"]
        if gone < self.ratio - 1e-9:
            notes.append("no more could go: lower least or multiple, or keep less")
        if self.compensate != "none" and not len(bench.calibration):
            notes.append("without examples nothing could stand in for what went")
        return tuple(notes)


@dataclass(slots=True)
class _State:
    graph: Graph
    kept: dict[str, str] = field(default_factory=dict)
    first: float = 0.0
    last: float = 0.0


def _removed(found: Dependencies, units: IntArray) -> Numbers:
    """Return how many units of each group go."""
    return np.array([np.isin(group.units, units).sum() for group in found.groups], dtype=float)


def _changes(before: Graph, after: Graph) -> dict[str, str]:
    return {
        name: f"{array.shape} -> {after.constants[name].shape}"
        for name, array in before.constants.items()
        if name in after.constants and after.constants[name].shape != array.shape
    }
