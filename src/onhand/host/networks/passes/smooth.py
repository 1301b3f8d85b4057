"""Outliers of activations moved into the weights that read them, before both are rounded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.host.networks.graph import Graph
from onhand.host.networks.observe import observe
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.smoothing.targets import Target, find_targets, scale_channels

__all__ = ["Smooth"]

_EXAMPLES: Final = 64
_ROWS: Final = 512  # of an activation, kept for the search
# A product more in the graph costs time: it has to pay.
_WORTH: Final = 0.9
_LEAST: Final = 1e-5


@dataclass(frozen=True, slots=True)
class _Seen:
    """What examples gave: the peak of each channel (C,), and some rows (R, C)."""

    peaks: FloatArray
    rows: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Smooth:
    """Scale channels of activations down and rows of weights up. See `NetworkPass`.

    s_j = max|x_j|^alpha / max|w_j|^(1 - alpha): x / s times s w is x times w, and x / s is easier
    to round to 8 bits. The division moves into the norm, the layer or the attention's values
    before it; where others read the activation too, it stays as one product with a vector.

    Attributes:
        alphas: powers to try on each activation, from 0 to 1. The one that leaves the least error
            of the layers behind, with activation and weights in 8 bits, is taken, or none if that
            is no better. A single one is taken without a trial.
        insert: whether a product may be put before layers, where nothing else can give way.

    Source:
        SmoothQuant, arXiv:2211.10438; the search for each activation is ours.
    """

    name: ClassVar[str] = "smooth"

    alphas: tuple[float, ...] = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    insert: bool = True

    def __post_init__(self) -> None:
        # A recipe's lists are lists.
        given: object = self.alphas
        if (
            not isinstance(given, tuple | list)
            or not given
            or not all(type(one) in {int, float} and 0 <= one <= 1 for one in given)
        ):
            raise InputError(f"alphas is {given!r}, must be numbers from 0 to 1, at least one")
        if type(self.insert) is not bool:
            raise InputError(f"insert is {self.insert!r}, must be true or false")

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """Smooth a graph.

        Args:
            graph: in float.
            bench: with examples.

        Returns:
            A graph of the same function, up to rounding; what was scaled, and why others were not.

        Raises:
            InputError: if there are no examples, or nothing can be smoothed.
            EngineError: if the graph cannot run.
        """
        if not len(bench.calibration):
            raise InputError("smooth needs examples to see outliers in: give --data")
        targets, kept = find_targets(graph)
        if not targets:
            raise InputError("nothing to smooth: no Gemm or MatMul with constant weights")
        bench.progress.start("smoothing", len(targets))
        seen = _watch(graph, [target.data for target in targets], bench)
        changed: dict[str, str] = {}
        for target in targets:
            scales, why = self._choose(graph, target, seen[target.data])
            if scales is None:
                kept[target.data] = why
            else:
                graph = scale_channels(graph, target, scales)
                changed[target.data] = f"{why}; {target.where} divides it"
            bench.progress.advance(1)
        return PassResult(graph=graph, changed=changed, kept=kept)

    def _choose(self, graph: Graph, target: Target, seen: _Seen) -> tuple[FloatArray | None, str]:
        """Return the scales of an activation's channels, or why there are none."""
        if not target.parts and not self.insert:
            return None, "others read it too, and no product may be put in"
        weights = target.weights(graph)
        if len(seen.peaks) != len(weights[0]):
            return None, f"it has {len(seen.peaks)} channels, its weights {len(weights[0])}"
        trials = {alpha: _scales(seen.peaks, weights, alpha) for alpha in self.alphas}
        if len(trials) == 1:
            ((alpha, scales),) = trials.items()
            return scales, f"alpha {alpha:g}"
        before = _error(seen.rows, weights, np.ones_like(seen.peaks))
        errors = {alpha: _error(seen.rows, weights, scales) for alpha, scales in trials.items()}
        best = min(errors, key=lambda alpha: errors[alpha])
        share = errors[best] / before if before else 1.0
        if share >= (1.0 if target.parts else _WORTH):
            return None, f"no alpha is better: {share:.2f} of the error at best"
        return trials[best], f"alpha {best:g} leaves {share:.2f} of the error"


def _watch(graph: Graph, names: Sequence[str], bench: Workbench) -> Mapping[str, _Seen]:
    n = min(len(bench.calibration), _EXAMPLES)
    few = bench.calibration.part([i * len(bench.calibration) // n for i in range(n)])
    each = max(_ROWS // n, 1)
    peaks: dict[str, FloatArray] = {}
    rows: dict[str, list[FloatArray]] = {name: [] for name in names}
    for made in observe(graph, few, threads=bench.threads, names=names, batch=1):
        for name in names:
            array = made[name].astype(np.float32).reshape(-1, made[name].shape[-1])  # (R, C)
            peak = np.abs(array).max(axis=0)
            peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
            rows[name].append(array[:: max(len(array) // each, 1)][:each])
    return {name: _Seen(peaks[name], np.concatenate(rows[name])) for name in names}


def _scales(peaks: FloatArray, weights: Sequence[FloatArray], alpha: float) -> FloatArray:
    """Return (C,) scales around 1; channels without values or weights keep theirs."""
    heavy = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)  # (C,)
    used = (peaks > _LEAST) & (heavy > _LEAST)
    scales = np.ones_like(peaks)
    scales[used] = peaks[used] ** alpha / heavy[used] ** (1 - alpha)
    if used.any():  # one factor for all changes nothing that is rounded
        scales[used] /= np.exp(np.log(scales[used]).mean())
    clipped: FloatArray = np.clip(scales, 1e-3, 1e3).astype(np.float32)
    return clipped


def _error(rows: FloatArray, weights: Sequence[FloatArray], scales: FloatArray) -> float:
    """Return the squared error of the layers' outputs in 8 bits."""
    rounded = _round_tensor(rows / scales)  # (R, C)
    total = 0.0
    for weight in weights:
        made = rounded @ _round_columns(weight * scales[:, None])  # (R, N)
        total += float(np.square(made - rows @ weight, dtype=np.float64).sum())
    return total


def _round_tensor(x: FloatArray) -> FloatArray:
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (high - low) / 255 or 1.0
    zero = np.rint(-low / step)
    codes = np.clip(np.rint(x / step) + zero, 0, 255)
    rounded: FloatArray = ((codes - zero) * step).astype(np.float32)
    return rounded


def _round_columns(weight: FloatArray) -> FloatArray:
    steps = np.maximum(np.abs(weight).max(axis=0) / 127, 1e-12)  # (N,)
    rounded: FloatArray = np.rint(weight / steps) * steps
    return rounded
