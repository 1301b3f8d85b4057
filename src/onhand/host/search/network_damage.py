"""What a network loses by each layer's choice: from stored statistics, then measured at its end.

The error that a choice makes at its layer follows from statistics alone. How much of it arrives at
the network's end is a matter of the layer: it is measured with that layer alone in one choice, for
as many layers as may be run, and lies between its neighbours for the others. Whole networks that
are run then correct the sum, and say what an error costs in answers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.progress import Progress
from onhand.device.networks.boxes import BoxReader
from onhand.host.networks.graph import Graph
from onhand.host.networks.quantization.accuracy import OutputJudge
from onhand.host.networks.quantization.mixed import FLOAT, TURNED, MixedWork
from onhand.host.networks.samples import Samples

__all__ = ["Damages", "LossCurve", "Seen", "fit_curve", "measure_damages", "reused_damages"]

_LEAST: Final = 1e-12
# Rounded activations differ from place to place, and average out where places are pooled; rounded
# weights err alike everywhere. So each kind of choice has a gain of its own.
_PROBES: Final = {"activations": ("static-8", "dynamic-8"), "weights": ("weights-4", "static-4")}
# Beyond this share of the outputs' squares an error is no longer a small one that adds up.
_SATURATED: Final = 0.3
_MOST_CORRECTION: Final = 8.0
# By the square of an error: the share of answers that change goes with the error itself.
_POWERS: Final = {"text-embedding": 1.0}
_USUAL: Final = {"text-embedding": 0.5, "features": 1.0}


@dataclass(frozen=True, slots=True)
class Seen:
    """A whole network that was run.

    Attributes:
        damage: squared error at its end, as a share of the squares there.
        loss: share of quality that was lost.
    """

    damage: float
    loss: float


@dataclass(frozen=True, slots=True)
class LossCurve:
    """Quality lost for a squared error at the network's end: scale * error ** power.

    Attributes:
        scale: fitted to what was run.
        power: 0.5 where answers change with the error, 1 where similarity is lost with its square.
    """

    scale: float
    power: float

    def loss(self, damage: float) -> float:
        """Return the share that is expected to be lost, 0 to 1."""
        return min(self.scale * math.pow(max(damage, 0.0), self.power), 1.0)

    def damage(self, loss: float) -> float:
        """Return the squared error that costs so much."""
        return math.pow(max(loss, 0.0) / self.scale, 1 / self.power)


@dataclass(frozen=True, slots=True, kw_only=True)
class Damages:
    """What choices are expected to lose.

    Attributes:
        layers: layer -> choice -> squared error at the network's end.
        gains: "activations" or "weights", by what a choice rounds most -> layer -> what arrives
            at the end, for an error at the layer.
        measured: likewise, layers that were run alone -> the error that was found at the end.
        corrections: choice -> factor by which whole networks differ from the sum.
        base: squared error of the network before any choice: of a pruned one.
        seen: whole networks that were run.
        curve: from error to loss.
    """

    layers: Mapping[str, Mapping[str, float]]
    gains: Mapping[str, Mapping[str, float]]
    measured: Mapping[str, Mapping[str, float]]
    corrections: Mapping[str, float]
    base: float
    seen: tuple[Seen, ...]
    curve: LossCurve

    def total(self, choices: Mapping[str, str]) -> float:
        """Return the squared error expected at the end."""
        return self.base + sum(self.layers[name][choice] for name, choice in choices.items())

    def loss(self, choices: Mapping[str, str]) -> float:
        """Return the share of quality that is expected to be lost."""
        return self.curve.loss(self.total(choices))


def fit_curve(task: str, seen: Sequence[Seen]) -> LossCurve:
    """Fit how an error at the end becomes a loss.

    Args:
        task: of the network.
        seen: networks that were run; those that lost nothing or all say nothing.
    """
    power = _POWERS.get(task, 0.5)
    logs = [
        math.log(one.loss / one.damage**power)
        for one in seen
        if one.damage > _LEAST and 0 < one.loss < 0.95 and one.damage < 1
    ]
    return LossCurve(math.exp(float(np.median(logs))) if logs else _USUAL.get(task, 0.5), power)


def measure_damages(
    work: MixedWork,
    original: Graph,
    samples: Samples,
    *,
    task: str,
    threads: int,
    most_runs: int,
    choices: Sequence[str],
    reader: BoxReader | None,
    progress: Progress,
) -> Damages:
    """Find what each choice of each layer loses.

    Args:
        work: makes graphs of choices.
        original: what all are compared with.
        samples: that judge.
        task: of the network.
        threads: of one run.
        most_runs: layers that are run alone, at most.
        choices: those looked at.
        reader: of a detector's boxes.
        progress: told of each run.

    Returns:
        What was found; the same again for the same.

    Raises:
        InputError: if there are no examples.
        EngineError: if a graph cannot run.
    """
    judge = OutputJudge(original, samples, task=task, threads=threads, reader=reader)
    local = work.local_errors()
    base = judge.error(work.made({}))
    chosen = _to_measure(local, most_runs)
    progress.start("measuring what single layers lose", len(chosen))
    measured: dict[str, dict[str, float]] = {kind: {} for kind in _PROBES}
    for name in chosen:
        for kind, probes in _PROBES.items():
            probe = next(one for one in probes if one in local[name])
            found = judge.error(work.made({name: probe})) - base
            measured[kind][name] = max(found, _LEAST)
        progress.advance(1)
    gains = {kind: spread_gains(local, measured[kind], kind=kind) for kind in _PROBES}
    layers = _arriving(local, gains, choices)
    corrections, seen = _whole_networks(work, judge, layers, base, choices, progress)
    return Damages(
        layers=_corrected(layers, corrections),
        gains=gains,
        measured=measured,
        corrections=corrections,
        base=base,
        seen=seen,
        curve=fit_curve(task, seen),
    )


def _whole_networks(
    work: MixedWork,
    judge: OutputJudge,
    layers: Mapping[str, Mapping[str, float]],
    base: float,
    choices: Sequence[str],
    progress: Progress,
) -> tuple[dict[str, float], tuple[Seen, ...]]:
    """Run networks with one choice; return by how much each differs from its sum, and them."""
    corrections: dict[str, float] = {}
    seen: list[Seen] = []
    wholes = [one for one in choices if one != FLOAT]
    progress.start("measuring whole networks", len(wholes))
    for choice in wholes:
        able = {name: choice for name in layers if choice in layers[name]}
        if able:
            graph = work.made(able)
            one = Seen(judge.error(graph), max(judge.loss(graph), 0.0))
            seen.append(one)
            summed = sum(layers[name][choice] for name in able)
            corrections[choice] = _correction(one.damage - base, summed)
        progress.advance(1)
    return corrections, tuple(seen)


def reused_damages(
    work: MixedWork, known: Damages, judge: OutputJudge, *, choices: Sequence[str]
) -> Damages:
    """Return damages of a network that came of another: pruned, or its layers in two.

    What arrives of an error is taken from the other network's layers of the same names; new ones
    get the middle of all. What it has lost already is measured.

    Args:
        work: makes graphs of choices.
        known: of the other network.
        judge: against the original of both.
        choices: those looked at.

    Raises:
        EngineError: if the graph cannot run.
    """
    local = work.local_errors()
    gains: dict[str, dict[str, float]] = {}
    for kind, known_gains in known.gains.items():
        usual = float(np.exp(np.mean(np.log(list(known_gains.values())))))
        gains[kind] = {name: known_gains.get(name, usual) for name in local}
    layers = _arriving(local, gains, choices)
    plain = work.made({})
    base = Seen(judge.error(plain), max(judge.loss(plain), 0.0))
    seen = (*known.seen, base)
    return Damages(
        layers=_corrected(layers, known.corrections),
        gains=gains,
        measured={},
        corrections=known.corrections,
        base=base.damage,
        seen=seen,
        curve=known.curve,
    )


def spread_gains(
    local: Mapping[str, Mapping[str, float]], measured: Mapping[str, float], *, kind: str
) -> dict[str, float]:
    """Return layer -> gain: measured, or between its neighbours' in the order of the graph.

    Args:
        local: layer -> choice -> error there.
        measured: layer -> error at the end, with the layer alone as `measure_damages` has it.
        kind: "activations" or "weights".
    """
    names = list(local)
    places = [i for i, name in enumerate(names) if name in measured]
    if not places:
        return dict.fromkeys(names, 1.0)
    logs = []
    for i in places:
        errors = local[names[i]]
        probe = next(one for one in _PROBES[kind] if one in errors)
        logs.append(math.log(measured[names[i]] / max(errors[probe], _LEAST)))
    found = np.interp(range(len(names)), places, logs)
    return {name: float(math.exp(value)) for name, value in zip(names, found, strict=True)}


def _arriving(
    local: Mapping[str, Mapping[str, float]],
    gains: Mapping[str, Mapping[str, float]],
    choices: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Return layer -> choice -> error at the network's end."""
    kinds = dict.fromkeys(choices, "weights")
    kinds |= dict.fromkeys((*_PROBES["activations"], *TURNED.values()), "activations")
    return {
        name: {c: gains[kinds[c]][name] * error for c, error in errors.items() if c in choices}
        for name, errors in local.items()
    }


def _to_measure(local: Mapping[str, Mapping[str, float]], most: int) -> list[str]:
    """Return half of them those with the largest errors, and the others evenly spread."""
    names = list(local)
    if len(names) <= most:
        return names
    worst = sorted(names, key=lambda name: -max(local[name].values()))[: most // 2]
    rest = [name for name in names if name not in worst]
    places = np.linspace(0, len(rest) - 1, most - len(worst)).round().astype(int)
    chosen = {*worst, *(rest[i] for i in places)}
    return [name for name in names if name in chosen]


def _correction(found: float, summed: float) -> float:
    """Return by how much a whole network differs from the sum; 1 where errors are not small."""
    if summed <= _LEAST or found <= _LEAST or max(found, summed) > _SATURATED:
        return 1.0
    return min(max(found / summed, 1 / _MOST_CORRECTION), _MOST_CORRECTION)


def _corrected(
    layers: Mapping[str, Mapping[str, float]], corrections: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    return {
        name: {choice: error * corrections.get(choice, 1.0) for choice, error in errors.items()}
        for name, errors in layers.items()
    }
