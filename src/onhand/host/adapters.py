"""A source model with an adapter merged into its weights."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onhand.core.adapter import Pairs, read_adapter
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError, SourceError
from onhand.core.safetensors import widen
from onhand.host.bundle_source import BundleCodes
from onhand.host.model import Model, ModelWeights

__all__ = ["merge_adapter"]


def merge_adapter(model: Model, place: Path) -> Model:
    """Add an adapter to a model's weights, as they are read.

    Args:
        model: the source that the adapter was trained on.
        place: the adapter's folder, or its weights file.

    Returns:
        The model; its hash is that of source and adapter.

    Raises:
        InputError: if the adapter is damaged, made for another model, or asks for what is not
            supported, or the source is quantised already.
    """
    if model.coded is not None and not isinstance(model.coded, BundleCodes):
        raise InputError(
            f"{model.location} is quantised already: with the adapter {place.name} merged it would "
            "have to be rounded again; merge it into the unquantised model, or give it at run time"
        )
    adapter = read_adapter(place, model.decoder)
    if adapter.head_copy is not None:
        _check_head(model.weights, adapter.head_copy, place)
    widest = max(first.shape[0] for first, _ in adapter.pairs.values())
    notes = [f"the adapter {place.name} is merged: {len(adapter.pairs)} matrices, rank {widest}"]
    coded = model.coded
    if isinstance(coded, BundleCodes):
        coded = coded.without(adapter.pairs)
    unties = model.decoder.tied and "head" in adapter.pairs
    if unties:
        notes.append("the adapter changes the head alone: it is no longer tied to the embedding")
    decoder = replace(model.decoder, tied=False) if unties else model.decoder
    return replace(
        model,
        weights=_MergedWeights(model.weights, adapter.pairs, decoder),
        sha256=hashlib.sha256(bytes.fromhex(model.sha256 + adapter.sha256)).hexdigest(),
        notes=(*model.notes, *notes),
        adapter_sha256=adapter.sha256,
        coded=coded,
    )


_ROWS = 4096  # compared at a time


def _check_head(weights: ModelWeights, copy: np.ndarray, place: Path) -> None:
    """Compare the head that an adapter was trained with to the model's.

    Raises:
        InputError: if they differ by more than bfloat16 rounds.
    """
    for start in range(0, len(copy), _ROWS):
        theirs = widen(copy[start : start + _ROWS])
        ours = weights.block(weights.decoder.head, start, start + len(theirs))
        if not np.abs(theirs - ours).max() <= 2**-7 * np.abs(ours).max():
            raise InputError(
                f"{place}: the head that the adapter was trained with is not this model's: give "
                "the model that it was trained on"
            )


@dataclass(frozen=True, slots=True)
class _MergedWeights:
    """See `ModelWeights`."""

    inner: ModelWeights
    pairs: Pairs
    decoder: Decoder

    def matrix(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.block(name, 0, self.decoder.matrices()[name][0])

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """See `ModelWeights`.

        Raises:
            SourceError: if a sum is too large for float32.
        """
        source = self.inner.decoder.head if name == "head" else name
        weight = self.inner.block(source, start, stop)
        if name not in self.pairs:
            return weight
        first, second = self.pairs[name]
        with np.errstate(over="ignore", invalid="ignore"):
            merged: FloatArray = weight + second[start:stop] @ first
        if not np.isfinite(merged).all():
            raise SourceError(f"{name} with its adapter holds a NaN or an infinity")
        return merged

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `ModelWeights`: what is looked up by rows is never adapted."""
        return self.inner.rows(name, ids)

    def vector(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.inner.vector(name)
