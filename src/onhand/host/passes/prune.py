"""A decoder made smaller: neurons, key/value heads, channels or whole layers are taken out."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.host.calibrate import InputStatistics
from onhand.host.importance import (
    IMPORTANCES,
    Importance,
    block_influence,
    importance_by_activation,
    importance_by_magnitude,
    importance_by_taylor,
    norm_gains,
)
from onhand.host.model import Model
from onhand.host.passes.base import ShapeReport, ShapeWork
from onhand.host.passes.observed import STATISTICS, observe_inputs
from onhand.host.prune_decoder import Kept, cut_decoder, prune_decoder
from onhand.host.stored_model import write_model

__all__ = ["Prune"]

Indices = NDArray[np.int64]
# Of a product: multiply and add. Statistics take about as much again as the products.
_FORWARD = 2
_STATISTICS = 2
_TAYLOR = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """Take parts out of a decoder that matter least on the calibration text. See `ShapingPass`.

    Attributes:
        mlp: share of the MLPs' neurons that go.
        heads: share of the key/value heads that go, with the query heads that share them.
        width: share of the residual stream's channels that go.
        layers: layers that go, those that turn the stream least.
        importance: "activation" judges by what a part adds to the stream on the text; "taylor" by
            weight times gradient of the loss (needs torch); "magnitude" by the weights alone.
        even: whether every layer gives up the same share; else those that matter least give most.
        multiple: neurons and channels that stay are a multiple of this: of what kernels and
            groups of codes like.
        refit: whether the columns that stay make good, by least squares, for those that go.
    """

    name: ClassVar[str] = "prune"

    mlp: float = 0.0
    heads: float = 0.0
    width: float = 0.0
    layers: int = 0
    importance: str = "activation"
    even: bool = False
    multiple: int = 32
    refit: bool = True

    def __post_init__(self) -> None:
        for name in ("mlp", "heads", "width"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"{name} is {getattr(self, name)}, must be a share: 0.0 to below 1"
                )
        if self.layers < 0 or self.multiple < 1:
            raise InputError("layers must be 0 or more, multiple 1 or more")
        if not (self.mlp or self.heads or self.width or self.layers):
            raise InputError("nothing would go: give mlp, heads, width or layers")
        if self.importance not in IMPORTANCES:
            known = ", ".join(IMPORTANCES)
            raise InputError(f"importance is {self.importance!r}, must be one of {known}")

    def plan_shape(self, decoder: Decoder, *, tokens: int) -> ShapeReport:
        """Say what would stay: as many parts, though a text decides which. See `ShapingPass`.

        Raises:
            InputError: if no layer would stay.
        """
        layers = range(len(decoder.layers) - self.layers)
        if not layers:
            raise InputError(f"layers is {self.layers}, the model has {len(decoder.layers)}")
        stays = replace(decoder, layers=tuple(decoder.layers[i] for i in layers))
        kept = self._choose(stays, _as_they_come(stays))
        made = cut_decoder(stays, kept)
        n = decoder.n_parameters
        taylor = self.importance == "taylor"
        passes = _FORWARD * _STATISTICS * self._observes + _FORWARD * (self.layers > 0)
        return ShapeReport(
            decoder=made,
            operations=float(tokens) * n * (passes + (_TAYLOR if taylor else 0)),
            memory_bytes=(8 * n if taylor else 0) + 4 * max(k * k for _, k in _shapes(decoder)),
            kept={} if self._multiple(decoder) else {"mlp": "narrower than one multiple"},
        )

    def shape(self, model: Model, work: ShapeWork) -> Model:
        """Take the parts out and write what stays. See `ShapingPass`."""
        decoder = model.decoder
        kept = Kept.everything(decoder)
        if self.layers:
            work.progress.start("measuring layers", len(decoder.layers))
            influence = block_influence(model, work.calibration, advance=work.progress.advance)
            stays = np.sort(np.argsort(-influence, kind="stable")[: len(influence) - self.layers])
            kept = replace(kept, layers=tuple(kept.layers[i] for i in stays))
        statistics = self._observe(model, work)
        if self.mlp or self.heads or self.width:
            kept = self._choose(decoder, self._judge(model, statistics, work), kept)
        if self.width:
            kept = replace(kept, gains=norm_gains(model, statistics, kept.channels))
        pruned = prune_decoder(model, kept, moments=statistics if self.refit else None)
        work.progress.start("writing what stays", pruned.decoder.n_parameters)
        stored = write_model(work.folder, pruned, advance=work.progress.advance)
        shutil.rmtree(work.folder / STATISTICS, ignore_errors=True)
        return stored

    @property
    def _observes(self) -> bool:
        return self.refit or self.width > 0 or self.importance == "activation"

    def _observe(self, model: Model, work: ShapeWork) -> InputStatistics:
        if not self._observes:
            return InputStatistics()
        return observe_inputs(model, work)

    def _judge(self, model: Model, statistics: InputStatistics, work: ShapeWork) -> Importance:
        if self.importance == "magnitude":
            return importance_by_magnitude(model)
        if self.importance == "activation":
            return importance_by_activation(model, statistics)
        work.progress.start("weighing parts", len(work.calibration))
        return importance_by_taylor(
            model, work.calibration, threads=work.threads, advance=work.progress.advance
        )

    def _choose(self, decoder: Decoder, importance: Importance, kept: Kept | None = None) -> Kept:
        """Return what stays of the layers that stay."""
        kept = kept or Kept.everything(decoder)
        sources = [layer.source for layer in kept.layers]
        neurons = _chosen(
            [importance.neurons[i] for i in sources], self.mlp, self.multiple, even=self.even
        )
        groups = _chosen([importance.groups[i] for i in sources], self.heads, 1, even=self.even)
        (channels,) = _chosen([importance.channels], self.width, self.multiple, even=True)
        return replace(
            kept,
            layers=tuple(
                replace(layer, neurons=n, groups=g)
                for layer, n, g in zip(kept.layers, neurons, groups, strict=True)
            ),
            channels=channels,
        )

    def _multiple(self, decoder: Decoder) -> bool:
        return not self.mlp or all(layer.mlp_width >= self.multiple for layer in decoder.layers)


def _shapes(decoder: Decoder) -> Sequence[tuple[int, int]]:
    return list(decoder.matrices().values())


def _as_they_come(decoder: Decoder) -> Importance:
    """Stand in for what a text says: in every layer the first parts matter most."""
    return Importance(
        neurons=tuple(-np.arange(float(layer.mlp_width)) for layer in decoder.layers),
        groups=tuple(-np.arange(float(layer.n_kv_heads)) for layer in decoder.layers),
        channels=-np.arange(float(decoder.width)),
    )


def _chosen(
    scores: Sequence[NDArray[np.float64]], share: float, multiple: int, *, even: bool
) -> list[Indices]:
    """Choose the parts that stay: whole multiples, at least one of each layer.

    Args:
        scores: of each layer's parts; larger matters more.
        share: of all parts that go.
        multiple: parts that stay or go together; a layer's rest of fewer is its last.
        even: whether every layer gives up the same.

    Returns:
        The parts of each layer that stay, sorted.
    """
    if not share:
        return [np.arange(len(layer)) for layer in scores]
    orders = [np.argsort(-layer, kind="stable") for layer in scores]
    units = [-(-len(layer) // multiple) for layer in scores]
    if even:
        taken = [max(round(n * (1 - share)), 1) for n in units]
    else:
        taken = [1] * len(scores)
        wanted = max(round(sum(units) * (1 - share)) - len(scores), 0)
        worth = sorted(
            (
                (float(-layer[order[u * multiple : (u + 1) * multiple]].sum()), u, i)
                for i, (layer, order) in enumerate(zip(scores, orders, strict=True))
                for u in range(1, units[i])
            ),
        )
        for _, _, i in worth[:wanted]:
            taken[i] += 1
    return [np.sort(order[: n * multiple]) for order, n in zip(orders, taken, strict=True)]
