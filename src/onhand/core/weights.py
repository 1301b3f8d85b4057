"""Tensors of one variant of a bundle, checked against the decoder's description."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.core.safetensors import SafetensorsFile, TensorSpec, open_safetensors
from onhand.core.sparse_form import SparseForm
from onhand.core.sparse_graph import expand_from

__all__ = ["BundleWeights", "matrix_tensors", "open_weights"]


def matrix_tensors(
    name: str, shape: tuple[int, int], form: GroupFormat | None
) -> dict[str, TensorSpec]:
    """Return the tensors that store one matrix: file key -> dtype and shape, in file order."""
    if form is None:
        return {name: TensorSpec(dtype="F32", shape=shape)}
    stored = {
        f"{name}.codes": TensorSpec(dtype="U8", shape=form.code_shape(shape)),
        f"{name}.scales": TensorSpec(dtype="F16", shape=(shape[0], form.n_groups(shape[1]))),
    }
    if not form.symmetric:
        stored[f"{name}.zeros"] = TensorSpec(dtype="U8", shape=form.zero_shape(shape))
    return stored


@dataclass(frozen=True, slots=True)
class _Streams:
    """A tensor that is stored without its zeros."""

    form: SparseForm
    files: list[SafetensorsFile]
    shape: tuple[int, ...]


class BundleWeights:
    """Reads the tensors of one variant; safe to share between threads.

    Those that are stored without their zeros are expanded each time: tables of which rows are
    looked up are not among them.
    """

    def __init__(
        self,
        decoder: Decoder,
        matrices: dict[str, GroupFormat | None],
        places: dict[str, SafetensorsFile | _Streams],
    ) -> None:
        self.decoder = decoder
        self._shapes = decoder.matrices()
        self._matrices = matrices
        self._places = places

    def stored(self, name: str) -> QuantTensor | FloatArray:
        """Return a matrix as it is stored: codes, or (N, K) float32.

        Raises:
            BundleCorrupt: if a scale is not finite.
        """
        form = self._matrices[name]
        if form is None:
            return self._read(name)
        shape = self._shapes[name]
        scales = self._read(f"{name}.scales")
        if not _all_finite(scales):
            path, _ = self.place(f"{name}.scales")
            raise BundleCorrupt(f"{path}: {name} has a scale that is not finite")
        return QuantTensor(
            shape=shape,
            format=form,
            codes=self._read(f"{name}.codes"),
            scales=scales,
            zeros=None if form.symmetric else self._read(f"{name}.zeros"),
        )

    def matrix(self, name: str) -> FloatArray:
        """Return a matrix dequantised: (N, K) float32."""
        stored = self.stored(name)
        return stored.dequantize() if isinstance(stored, QuantTensor) else stored

    def rows(self, name: str, ids: np.ndarray) -> FloatArray:
        """Return some rows of a matrix dequantised: (T,) ids -> (T, K) float32."""
        stored = self.stored(name)
        return stored.rows(ids) if isinstance(stored, QuantTensor) else stored[ids]

    def vector(self, name: str) -> FloatArray:
        """Return a norm or bias: (width,) float32."""
        return self._read(name)

    def format(self, name: str) -> GroupFormat | None:
        """Return how a matrix is stored; None for float32."""
        return self._matrices[name]

    def place(self, tensor: str) -> tuple[Path, TensorSpec]:
        """Return the file and byte range of a stored tensor.

        Raises:
            InputError: if it is stored without its zeros, and has none.
        """
        file = self._places[tensor]
        if isinstance(file, _Streams):
            raise InputError(f"{tensor} is stored without its zeros")
        return file.path, file.tensors[tensor]

    def _read(self, tensor: str) -> np.ndarray:
        place = self._places[tensor]
        if isinstance(place, _Streams):
            return expand_from(place.files, place.form).reshape(place.shape)
        return place.view(tensor)


def _shrinkable(expected: Mapping[str, TensorSpec]) -> set[str]:
    """Return the tensors that may be stored without their zeros: codes of the layers' matrices."""
    return {name for name in expected if name.startswith("layers.") and name.endswith(".codes")}


def _all_finite(halves: np.ndarray) -> bool:
    # By their bits: numpy's isfinite widens every float16, which takes longer than reading it.
    return bool(halves.view(np.int16).max() < 0x7C00 and halves.view(np.uint16).max() < 0xFC00)


def open_weights(bundle: Bundle, variant: str) -> BundleWeights:
    """Find every tensor of a variant and check its dtype and shape.

    Args:
        bundle: a verified bundle.
        variant: a key of its manifest's variants.

    Returns:
        The weights.

    Raises:
        BundleCorrupt: if a tensor is missing or has another dtype or shape than the decoder's
            description says.
    """
    chosen = bundle.manifest.variants[variant]
    decoder = bundle.manifest.decoder
    files = [open_safetensors(bundle.path(name)) for name in chosen.weights]
    expected: dict[str, TensorSpec] = {
        name: TensorSpec(dtype="F32", shape=shape) for name, shape in decoder.vectors().items()
    }
    for name, shape in decoder.matrices().items():
        expected |= matrix_tensors(name, shape, chosen.matrices[name])
    if odd := sorted(chosen.sparse.keys() - _shrinkable(expected)):
        raise BundleCorrupt(f"{bundle.root}: {odd[0]!r} cannot be stored without its zeros")
    places: dict[str, SafetensorsFile | _Streams] = {}
    for name, spec in expected.items():
        if (form := chosen.sparse.get(name)) is not None:
            if form.size_bytes != math.prod(spec.shape):
                raise BundleCorrupt(
                    f"{bundle.root}: {name!r} takes {math.prod(spec.shape)} bytes, without its "
                    f"zeros it would be {form.size_bytes}"
                )
            places[name] = _Streams(form, files, spec.shape)
            continue
        holder = next((file for file in files if name in file.tensors), None)
        if holder is None:
            raise BundleCorrupt(f"{bundle.root}: variant {variant!r} has no tensor {name!r}")
        found = holder.tensors[name]
        if (found.dtype, found.shape) != (spec.dtype, spec.shape):
            raise BundleCorrupt(
                f"{holder.path}: {name!r} is {found.dtype} {found.shape}, the decoder needs "
                f"{spec.dtype} {spec.shape}"
            )
        places[name] = holder
    return BundleWeights(decoder, dict(chosen.matrices), places)
