"""One matrix that a checkpoint holds as codes, in the layout of GPTQ or of AWQ.

GPTQ: `qweight` (K * bits / 32, N) int32, each column a little-endian bit stream along K;
`qzeros` (G, N * bits / 32) int32, each row such a stream along N; `scales` (G, N); `g_idx` (K,)
int32, the group of each input. AWQ: `qweight` (K, N / 8) and `qzeros` (G, N / 8) int32, packed
along N, eight columns to a word in the order 0 2 4 6 1 3 5 7; `scales` (G, N).

Source:
    GPTQ: `pack_original` of GPTQModel (gptqmodel/nn_modules/qlinear/__init__.py); zero points less
    one: `convert_gptq_v1_to_v2_format_module` there (gptqmodel/utils/model.py). AWQ:
    `WQLinear_GEMM.from_linear` of AutoAWQ 0.2.9 (awq/modules/linear/gemm.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import ByteArray, FloatArray, HalfArray
from onhand.core.errors import SourceError
from onhand.core.quantized import GroupFormat, QuantTensor, unpack_bits
from onhand.core.safetensors import widen
from onhand.host.sources.code_layout import AWQ, CodeLayout
from onhand.host.sources.stored import StoredTensor

__all__ = ["AGAIN", "CodedLinear", "open_linear"]

AGAIN = "give --bits to round its weights anew, with a second loss"
_DTYPES = {
    "qweight": ("I32",),
    "qzeros": ("I32",),
    "scales": ("F16", "BF16", "F32"),
    "g_idx": ("I32", "I64"),
}
# Place in AWQ's word -> column is 0 2 4 6 1 3 5 7; this is column -> place.
_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
# Columns that fill whole words at any width.
_COLUMNS = 32
# Weights unpacked at once: bounds the memory beside the finished codes.
_BLOCK_WEIGHTS = 2**22


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedLinear:
    """Reads one coded matrix; nothing is kept in memory.

    Attributes:
        name: the module, such as model.layers.0.mlp.up_proj.
        folder: of the checkpoint, for messages.
        shape: (N, K).
        bits: width of one code.
        group_size: inputs that share one scale, where there is no `g_idx`.
        layout: of the checkpoint.
        tensors: "qweight", "qzeros", "scales" and, if there is one, "g_idx".
    """

    name: str
    folder: Path
    shape: tuple[int, int]
    bits: int
    group_size: int
    layout: CodeLayout
    tensors: Mapping[str, StoredTensor]

    @property
    def size_bytes(self) -> int:
        """Bytes in the checkpoint."""
        return sum(stored.spec.size for stored in self.tensors.values())

    def rows(self, low: int, high: int) -> FloatArray:
        """Return the weights of outputs `low` to `high`: (rows, K) float32.

        Raises:
            SourceError: if a scale is not finite, or zero points or groups cannot be read.
        """
        group = self._groups()  # (K,)
        scales = self._scales(low, high)  # (G, rows)
        weights = self._codes(low, high).astype(np.float32)
        weights -= self._zeros(low, high).T[:, group]
        weights *= scales.T[:, group]
        return weights

    def is_symmetric(self) -> bool:
        """Say whether every zero point is the middle of the codes' range.

        Raises:
            SourceError: if zero points cannot be read.
        """
        return bool((self._zeros(0, self.shape[0]) == 1 << (self.bits - 1)).all())

    def group_sizes(self) -> tuple[int, ...]:
        """Return our group sizes that hold these codes without loss: no group spans two scales.

        Raises:
            SourceError: if there is none.
        """
        group = self._groups()
        firsts = {size: np.repeat(group[::size], size) for size in GroupFormat.GROUP_SIZES}
        fitting = tuple(
            size for size, first in firsts.items() if (first[: group.size] == group).all()
        )
        if not fitting:
            smallest = min(GroupFormat.GROUP_SIZES)
            raise SourceError(
                f"{self.folder}: {self.name} cannot be kept as it is: its groups are smaller than "
                f"{smallest} inputs or not of neighbours (act-order, desc_act); {AGAIN}"
            )
        return fitting

    def pieces(self, form: GroupFormat) -> list[QuantTensor]:
        """Return the matrix in our format, in blocks of rows.

        Args:
            form: of these bits and one of `group_sizes`; symmetric only if the matrix is.

        Returns:
            The blocks, from the first row on.

        Raises:
            SourceError: if a scale is no finite float16, or zero points cannot be read.
        """
        n, k = self.shape
        step = max(_BLOCK_WEIGHTS // k // _COLUMNS, 1) * _COLUMNS
        return [self._piece(form, low, min(low + step, n)) for low in range(0, n, step)]

    def _piece(self, form: GroupFormat, low: int, high: int) -> QuantTensor:
        k, size = self.shape[1], form.group_size
        first = self._groups()[::size]  # (G of ours,)
        scales = self._half(self._scales(low, high)).T[:, first]  # (rows, G)
        zeros = self._zeros(low, high).T[:, first]  # (rows, G)
        missing = form.n_groups(k) * size - k
        codes = self._codes(low, high)
        # The padding stands for zero, so its codes are the last group's zero point.
        codes = np.concatenate([codes, np.repeat(zeros[:, -1:], missing, axis=1)], axis=1)
        return QuantTensor.pack(
            codes.reshape(high - low, -1, size),
            scales,
            None if form.symmetric else zeros,
            n_inputs=k,
            format=form,
        )

    def _codes(self, low: int, high: int) -> ByteArray:
        """Return the codes of outputs `low` to `high`: (rows, K) uint8."""
        words = self.tensors["qweight"].view()
        if self.layout.method == AWQ:
            return np.ascontiguousarray(self._along_outputs(words, low, high).T)
        columns = np.ascontiguousarray(words[:, low:high].T)  # (rows, words)
        return unpack_bits(columns.view(np.uint8), self.bits)

    def _zeros(self, low: int, high: int) -> ByteArray:
        """Return the zero points of outputs `low` to `high`: (G, rows) uint8.

        Raises:
            SourceError: if what is stored has more than one reading.
        """
        words = self.tensors["qzeros"].view()
        if not self.layout.lowered:
            return self._along_outputs(words, low, high)
        if self.layout.by_gptqmodel and self.bits != 3:
            # It takes one from every field by a single subtraction of words: where a zero point is
            # 0 that borrows from the next field, and the same addition gives it back.
            ones = sum(1 << place for place in range(0, 32, self.bits))
            return self._along_outputs(words.view(np.uint32) + np.uint32(ones), low, high)
        stored = self._along_outputs(words, low, high)
        top = (1 << self.bits) - 1
        if (stored == top).any():
            raise SourceError(
                f"{self.folder}: tensor '{self.name}.qzeros' holds {top}, which stands for a zero "
                f"point of 0, of {top + 1} or for a damaged one, depending on the program that "
                "wrote it; save the model again as gptq_v2"
            )
        return stored + np.uint8(1)

    def _along_outputs(self, words: np.ndarray, low: int, high: int) -> ByteArray:
        """Unpack columns `low` to `high` of words that are packed along N: (..., rows) uint8."""
        start = low // _COLUMNS * _COLUMNS
        stop = -(-high // _COLUMNS) * _COLUMNS
        part = words[:, start * self.bits // 32 : stop * self.bits // 32]
        stream = unpack_bits(np.ascontiguousarray(part).view(np.uint8), self.bits)
        if self.layout.method == AWQ:
            eights = stream.reshape(stream.shape[0], -1, 8)[:, :, _PLACES]
            stream = eights.reshape(stream.shape)
        return stream[:, low - start : high - start]

    def _scales(self, low: int, high: int) -> FloatArray:
        """Return the scales of outputs `low` to `high`: (G, rows) float32, all finite.

        Raises:
            SourceError: if one of them is not finite.
        """
        scales = widen(np.ascontiguousarray(self.tensors["scales"].view()[:, low:high]))
        if not np.isfinite(scales).all():
            raise SourceError(
                f"{self.folder}: tensor '{self.name}.scales' holds a NaN or an infinity"
            )
        return scales

    def _half(self, scales: FloatArray) -> HalfArray:
        with np.errstate(over="ignore"):
            half = scales.astype(np.float16)
        if (half.astype(np.float32) != scales).any():
            dtype = self.tensors["scales"].spec.dtype
            raise SourceError(
                f"{self.folder}: tensor '{self.name}.scales' is {dtype} and does not fit float16 "
                f"exactly; {AGAIN}"
            )
        return half

    def _groups(self) -> NDArray[np.int64]:
        """Return the group of each input: (K,).

        Raises:
            SourceError: if there is no such group.
        """
        stored = self.tensors.get("g_idx")
        if stored is None:
            return np.arange(self.shape[1], dtype=np.int64) // self.group_size
        group = stored.view().astype(np.int64)
        n_groups = self.tensors["scales"].spec.shape[0]
        if ((group < 0) | (group >= n_groups)).any():
            raise SourceError(
                f"{self.folder}: tensor '{self.name}.g_idx' goes from {group.min()} to "
                f"{group.max()}, there are {n_groups} groups"
            )
        return group


def open_linear(
    name: str,
    shape: tuple[int, int],
    layout: CodeLayout,
    tensors: Mapping[str, StoredTensor],
    *,
    folder: Path,
) -> CodedLinear:
    """Check the dtypes and shapes of a coded matrix; its numbers are read later.

    Args:
        name: the module; its tensors are `name`.qweight and so on.
        shape: (N, K) that the model needs.
        layout: of the checkpoint.
        tensors: all of the checkpoint.
        folder: of the checkpoint, for messages.

    Returns:
        The matrix.

    Raises:
        SourceError: if a tensor is missing, or of another dtype or shape.
    """
    found = {part: tensors[f"{name}.{part}"] for part in _DTYPES if f"{name}.{part}" in tensors}
    for part in ("qweight", "qzeros", "scales"):
        if part not in found:
            raise SourceError(f"{folder}: tensor '{name}.{part}' is missing")
    n, k = shape
    bits, group_size = _widths(k, layout, found)
    n_groups = -(-k // group_size)
    along_inputs = layout.method != AWQ
    expected: Mapping[str, tuple[int, ...]] = {
        "qweight": (k * bits // 32, n) if along_inputs else (k, n * bits // 32),
        "qzeros": (n_groups, n * bits // 32),
        "scales": (n_groups, n),
        "g_idx": (k,),
    }
    if n * bits % 32 or (along_inputs and k * bits % 32):
        raise SourceError(
            f"{folder}: {name} of {n} outputs by {k} inputs does not fill whole words at {bits} "
            "bits; its config.json is of another model"
        )
    for part, stored in found.items():
        spec = stored.spec
        if spec.shape != expected[part] or spec.dtype not in _DTYPES[part]:
            raise SourceError(
                f"{folder}: tensor '{name}.{part}' is {spec.dtype} {spec.shape}, expected "
                f"{expected[part]} of {', '.join(_DTYPES[part])} for {bits} bits in groups of "
                f"{group_size}"
            )
    return CodedLinear(
        name=name,
        folder=folder,
        shape=shape,
        bits=bits,
        group_size=group_size,
        layout=layout,
        tensors=found,
    )


def _widths(
    n_inputs: int, layout: CodeLayout, found: Mapping[str, StoredTensor]
) -> tuple[int, int]:
    """Return bits and group size: the layout's, or where they vary what the shapes say."""
    group_size = n_inputs if layout.group_size == -1 else layout.group_size
    if not layout.varies:
        return layout.bits, group_size
    words, groups = found["qweight"].spec.shape, found["scales"].spec.shape
    bits = words[0] * 32 // n_inputs if words else 0
    if groups and groups[0] and n_inputs % groups[0] == 0:
        group_size = n_inputs // groups[0]
    return bits if bits in GroupFormat.BITS else layout.bits, group_size
