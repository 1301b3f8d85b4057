"""Tensors of one variant of a bundle, checked against the decoder's description."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.core.safetensors import SafetensorsFile, TensorSpec, open_safetensors
from onhand.core.sparse_graph import expand_from
from onhand.core.stored_forms import StoredForm
from onhand.core.table_form import TableForm

__all__ = ["BundleWeights", "matrix_tensors", "open_weights"]

_BYTES: Final = {"U8": 1, "F16": 2, "F32": 4}


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
    """A tensor that is stored without its zeros, or as a table."""

    form: StoredForm
    files: list[SafetensorsFile]
    spec: TensorSpec

    def whole(self) -> np.ndarray:
        """Return the tensor as it would have been stored."""
        found: np.ndarray = expand_from(self.files, self.form)
        if isinstance(self.form, TableForm):
            found = found.view("<f2")
        return found.reshape(self.spec.shape)


class BundleWeights:
    """Reads the tensors of one variant; safe to share between threads.

    Those that are stored without their zeros are expanded each time: tables of which rows are
    looked up are not among them. Scales that are stored as a table are expanded once.
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
        self._scales: dict[str, np.ndarray] = {}

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
            holder = self._places[f"{name}.scales"]
            path = holder.files[0].path.parent if isinstance(holder, _Streams) else holder.path
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
            InputError: if it is stored without its zeros or as a table, and has none.
        """
        file = self._places[tensor]
        if isinstance(file, _Streams):
            raise InputError(f"{tensor} is stored without its zeros, or as a table")
        return file.path, file.tensors[tensor]

    def left_out(self, tensor: str) -> TensorSpec | None:
        """Return dtype, shape and bytes of a tensor that has no place; None for one that has."""
        place = self._places[tensor]
        return place.spec if isinstance(place, _Streams) else None

    def _read(self, tensor: str) -> np.ndarray:
        place = self._places[tensor]
        if not isinstance(place, _Streams):
            return place.view(tensor)
        if not isinstance(place.form, TableForm):
            return place.whole()
        if tensor not in self._scales:
            self._scales[tensor] = place.whole()
        return self._scales[tensor]


def _may_be(name: str, form: StoredForm, expected: Mapping[str, TensorSpec]) -> bool:
    """Say whether a tensor may be stored so.

    Codes of the layers' matrices without their zeros, and scales as a table.
    """
    if name not in expected:
        return False
    if isinstance(form, TableForm):
        return name.endswith(".scales")
    return name.startswith("layers.") and name.endswith(".codes")


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
    if odd := sorted(
        name for name, form in chosen.sparse.items() if not _may_be(name, form, expected)
    ):
        raise BundleCorrupt(
            f"{bundle.root}: {odd[0]!r} cannot be stored without its zeros, or as a table"
        )
    places: dict[str, SafetensorsFile | _Streams] = {}
    for name, spec in expected.items():
        if (form := chosen.sparse.get(name)) is not None:
            whole = math.prod(spec.shape) * _BYTES[spec.dtype]
            if form.size_bytes != whole:
                raise BundleCorrupt(
                    f"{bundle.root}: {name!r} takes {whole} bytes, as it is stored it would be "
                    f"{form.size_bytes}"
                )
            places[name] = _Streams(form, files, replace(spec, size=whole))
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
