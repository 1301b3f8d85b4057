"""A model's weights in a folder of ours: what shaping made, kept while a build goes on."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder, decoder_from_json
from onhand.core.errors import BundleCorrupt, InputError, ResourceError, SourceError
from onhand.core.safetensors import (
    SafetensorsFile,
    SafetensorsWriter,
    TensorSpec,
    open_safetensors,
)
from onhand.host.array_files import damage
from onhand.host.model import Model

__all__ = ["has_model", "read_model", "store_model", "write_model"]

_WEIGHTS = "weights.safetensors"
_ABOUT = "model.json"


def has_model(folder: Path) -> bool:
    """Say whether a folder holds a finished model."""
    return (folder / _ABOUT).is_file()


def write_model(
    folder: Path, model: Model, *, advance: Callable[[float], None] = lambda _: None
) -> Model:
    """Write a model's weights in float32, one in memory at a time.

    Args:
        folder: made if it is not there; what it held before is replaced.
        model: the model.
        advance: told the number of weights written since the last call.

    Returns:
        The model, which reads its weights from the folder.

    Raises:
        SourceError: if a weight is not finite.
    """
    vectors = model.decoder.vectors()

    def read(name: str) -> FloatArray:
        array = model.weights.vector(name) if name in vectors else model.weights.matrix(name)
        if not np.isfinite(array).all():
            raise SourceError(f"{name} of the changed model holds a NaN or an infinity")
        advance(array.size)
        return np.ascontiguousarray(array, dtype=np.float32)

    return _store(folder, model, read)


def store_model(folder: Path, model: Model, arrays: Mapping[str, FloatArray]) -> Model:
    """Write a model with other weights than its own.

    Args:
        folder: as in `write_model`.
        model: gives all but the weights.
        arrays: every tensor of the decoder, float32.

    Returns:
        The model, which reads these weights from the folder; `sha256` is that of the weights.
    """
    return _store(folder, model, lambda name: arrays[name])


def _store(folder: Path, model: Model, read: Callable[[str], FloatArray]) -> Model:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _ABOUT).unlink(missing_ok=True)
    shapes = model.decoder.tensors()
    declared = {name: TensorSpec(dtype="F32", shape=shape) for name, shape in shapes.items()}
    beside = folder / f"{_WEIGHTS}.new"
    with SafetensorsWriter(beside, declared) as writer:
        for name in declared:
            writer.write(name, read(name))
        digest = writer.close()
    beside.replace(folder / _WEIGHTS)
    about = {"decoder": model.decoder.to_json(), "sha256": digest}
    fresh = folder / f"{_ABOUT}.new"
    fresh.write_text(json.dumps(about, sort_keys=True), encoding="utf-8")
    fresh.replace(folder / _ABOUT)
    return read_model(folder, model)


def read_model(folder: Path, model: Model) -> Model:
    """Read a model that was written.

    Args:
        folder: see `write_model`.
        model: gives name, family and files: the source.

    Returns:
        The model; its weights are mapped, and read as they are needed.

    Raises:
        ResourceError: if a file is damaged.
    """
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        decoder, sha256 = decoder_from_json(about["decoder"]), str(about["sha256"])
        file = open_safetensors(folder / _WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, InputError, BundleCorrupt) as error:
        raise ResourceError(damage(folder / _WEIGHTS)) from error
    found = {name: spec.shape for name, spec in file.tensors.items()}
    if found != decoder.tensors():
        raise ResourceError(damage(folder / _WEIGHTS))
    return replace(model, weights=_StoredWeights(decoder, file), sha256=sha256, coded=None)


@dataclass(frozen=True, slots=True)
class _StoredWeights:
    """See `ModelWeights`: all were finite when they were written."""

    decoder: Decoder
    file: SafetensorsFile

    def matrix(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.file.view(name)

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """See `ModelWeights`."""
        return self.file.view(name)[start:stop]

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `ModelWeights`."""
        return self.file.view(name)[ids]

    def vector(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.file.view(name)
