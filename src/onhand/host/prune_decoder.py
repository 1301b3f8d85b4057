"""A decoder with parts taken out: a smaller model whose weights are cut as they are read.

What can go: neurons of an MLP, key/value heads with the query heads that share them, channels of
the residual stream, whole layers. Nothing is copied: a matrix is cut when it is read.

Source:
    Width and depth pruning of decoders: Minitron, arXiv:2407.14679. The columns that stay make
    good for those that go by least squares over the second moments of the inputs, as in
    OBC/SparseGPT, arXiv:2301.00774, here for whole columns.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder, DecoderLayer
from onhand.core.errors import InputError
from onhand.host.calibrate import InputStatistics
from onhand.host.model import Model, ModelWeights

__all__ = ["Kept", "LayerKept", "cut_decoder", "prune_decoder"]

Indices = NDArray[np.int64]
# Share of the mean diagonal that is added to it: few tokens give singular moments.
_DAMPING = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKept:
    """What stays of one layer.

    Attributes:
        source: the layer's number in the source.
        groups: key/value heads that stay, with all query heads that share them; sorted.
        neurons: numbers of the MLP that stay; sorted.
    """

    source: int
    groups: Indices
    neurons: Indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What stays of a decoder.

    Attributes:
        layers: the layers that stay, first to last.
        channels: of the residual stream; sorted.
        gains: norm -> factor on its weights: fewer channels have another mean square.
    """

    layers: tuple[LayerKept, ...]
    channels: Indices
    gains: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def everything(cls, decoder: Decoder) -> "Kept":
        """Keep all of a decoder; `replace` then takes out."""
        return cls(
            layers=tuple(
                LayerKept(
                    source=i,
                    groups=np.arange(layer.n_kv_heads),
                    neurons=np.arange(layer.mlp_width),
                )
                for i, layer in enumerate(decoder.layers)
            ),
            channels=np.arange(decoder.width),
        )


def cut_decoder(decoder: Decoder, kept: Kept) -> Decoder:
    """Return the description of what stays.

    Args:
        decoder: the source; none of its matrices is a product of factors.
        kept: what stays of it.

    Returns:
        The smaller decoder.

    Raises:
        InputError: if nothing stays of a part, or the source is factorised.
    """
    if decoder.ranks:
        raise InputError("a model whose matrices are products of factors cannot be pruned")
    if not kept.layers or not kept.channels.size:
        raise InputError("pruning would leave nothing: no layer, or no channel")
    return replace(
        decoder,
        width=int(kept.channels.size),
        layers=tuple(_cut_layer(decoder.layers[layer.source], layer) for layer in kept.layers),
    )


def _cut_layer(layer: DecoderLayer, kept: LayerKept) -> DecoderLayer:
    if not kept.groups.size or not kept.neurons.size:
        raise InputError(f"pruning would leave nothing of layer {kept.source}: no head or neuron")
    shared = layer.n_heads // layer.n_kv_heads
    return replace(
        layer,
        n_heads=int(kept.groups.size) * shared,
        n_kv_heads=int(kept.groups.size),
        mlp_width=int(kept.neurons.size),
    )


def prune_decoder(model: Model, kept: Kept, *, moments: InputStatistics | None = None) -> Model:
    """Take parts out of a model.

    Args:
        model: the source.
        kept: what stays.
        moments: whole second moments of its inputs: the columns of `down` and `out` that stay then
            make good, by least squares, for those that go. None leaves them as they are.

    Returns:
        The smaller model; nothing is read yet. `coded` is None: codes cannot be cut.

    Raises:
        InputError: if nothing would stay of a part, or the source is factorised.
    """
    decoder = cut_decoder(model.decoder, kept)
    weights = _CutWeights(decoder, model.weights, kept, moments)
    return replace(model, weights=weights, sha256=_identity(model, kept, moments), coded=None)


def _identity(model: Model, kept: Kept, moments: InputStatistics | None) -> str:
    found = hashlib.sha256(bytes.fromhex(model.sha256))
    for layer in kept.layers:
        found.update(f"{layer.source} {layer.groups.tolist()} {layer.neurons.tolist()}".encode())
    found.update(f"{kept.channels.tolist()} {sorted(kept.gains.items())}".encode())
    found.update(b"refitted" if moments else b"")
    return found.hexdigest()


@dataclass(slots=True)
class _CutWeights:
    """See `ModelWeights`."""

    decoder: Decoder
    inner: ModelWeights
    kept: Kept
    moments: InputStatistics | None
    # The last one alone: for a large model all of them would fill the memory.
    fitted: tuple[str, FloatArray] | None = None

    def matrix(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.block(name, 0, self.decoder.matrices()[name][0])

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """See `ModelWeights`."""
        source, rows, columns = self._places(name)
        if rows is None:
            return self._columns(name, source, self.inner.block(source, start, stop), columns)
        wanted = rows[start:stop]
        low = int(wanted[0])
        found = self.inner.block(source, low, int(wanted.max()) + 1)[wanted - low]
        return self._columns(name, source, found, columns)

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `ModelWeights`."""
        return np.ascontiguousarray(self.inner.rows(name, ids)[:, self.kept.channels])

    def vector(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        source, rows, _ = self._places(name)
        found = self.inner.vector(source)
        found = found if rows is None else found[rows]
        return found * np.float32(self.kept.gains.get(source, 1.0))

    def _columns(
        self, name: str, source: str, found: FloatArray, columns: Indices | None
    ) -> FloatArray:
        if columns is None or columns.size == found.shape[1]:
            return found
        if name.endswith((".down", ".out")) and self.moments is not None:
            if self.fitted is None or self.fitted[0] != source:
                self.fitted = (source, _refitting(self.moments, source, columns))
            return found @ self.fitted[1]
        # Cut columns lie apart; products of what lies apart round otherwise.
        return np.ascontiguousarray(found[:, columns])

    def _places(self, name: str) -> tuple[str, Indices | None, Indices | None]:
        """Return the source's name, and its rows and columns that stay; None for all of them."""
        channels = self.kept.channels
        if not name.startswith("layers."):
            in_rows = name.startswith("final_norm")
            return name, channels if in_rows else None, None if in_rows else channels
        _, number, part = name.split(".")
        kept = self.kept.layers[int(number)]
        layer = self.inner.decoder.layers[kept.source]
        source = f"layers.{kept.source}.{part}"
        kind = part.removesuffix("_bias")
        if kind == "qkv":
            return source, _qkv_rows(layer, kept.groups), channels
        if kind in {"gate_up", "up"}:
            halves = (kept.neurons, kept.neurons + layer.mlp_width)
            return source, np.concatenate(halves) if kind == "gate_up" else kept.neurons, channels
        if kind == "out":
            return source, channels, _query_columns(layer, kept.groups)
        if kind == "down":
            return source, channels, kept.neurons
        if kind in {"query_norm", "key_norm"}:
            return source, None, None
        return source, channels, None


def _query_columns(layer: DecoderLayer, groups: Indices) -> Indices:
    """Return the outputs of attention that belong to key/value heads: (heads kept * head_dim,)."""
    width = layer.n_heads // layer.n_kv_heads * layer.head_dim
    found: Indices = (groups[:, None] * width + np.arange(width)).reshape(-1)
    return found


def _qkv_rows(layer: DecoderLayer, groups: Indices) -> Indices:
    """Return the rows of query, key and value that belong to key/value heads."""
    pairs = (groups[:, None] * layer.head_dim + np.arange(layer.head_dim)).reshape(-1)
    first_value = layer.query_width + layer.kv_width
    return np.concatenate([
        _query_columns(layer, groups),
        layer.query_width + pairs,
        first_value + pairs,
    ])


def _refitting(moments: InputStatistics, name: str, columns: Indices) -> FloatArray:
    """Return R (K, columns kept), with which W R x[columns] is nearest to W x in the mean square.

    Raises:
        InputError: if the matrix's inputs were not observed.
    """
    second = moments.second_moments(name)
    if second is None:
        raise InputError(f"{name} was not observed: its columns cannot be refitted")
    whole = second.astype(np.float64)
    inside = whole[np.ix_(columns, columns)]
    inside[np.diag_indices_from(inside)] += _DAMPING * max(np.trace(inside) / len(inside), 1e-30)
    across = whole[:, columns]
    # What stays is itself and nothing else, but for the damping.
    across[columns] = inside
    fitted: FloatArray = np.linalg.solve(inside, across.T).T.astype(np.float32)
    return fitted
