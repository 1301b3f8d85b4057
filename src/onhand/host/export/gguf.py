"""A bundle as one GGUF file for llama.cpp: its own codes, nothing is rounded again."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onhand.core.bundle import Bundle
from onhand.core.manifest import Variant
from onhand.core.progress import Progress
from onhand.core.quantized import QuantTensor
from onhand.core.weights import BundleWeights, open_weights
from onhand.host.export.gguf_blocks import block_type, row_bytes, to_blocks
from onhand.host.export.gguf_layout import GgufLayout, GgufTensor, gguf_layout
from onhand.host.export.gguf_tokenizer import gguf_tokenizer
from onhand.host.export.result import ExportResult, stage_file

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["export_gguf"]

_QUANTIZATION_VERSION = 2
_FILE_TYPES = {"F32": 0, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """How a tensor of the file is stored: its type, and its shape as the writer counts it."""

    type: str
    shape: tuple[int, ...]
    size: int

    @property
    def is_quantized(self) -> bool:
        return self.type != "F32"


def export_gguf(bundle: Bundle, variant: str, out: Path, *, progress: Progress) -> ExportResult:
    """Write one variant as a GGUF file.

    Args:
        bundle: a verified bundle.
        variant: a key of its manifest's variants.
        out: the file; must not exist.
        progress: told of every tensor.

    Returns:
        What was written, and what was lost.

    Raises:
        InputError: if GGUF cannot hold the model or a matrix of it, or `out` exists.
        BundleCorrupt: if the bundle's files are not what they should be.
        ResourceError: if the disk is full.
    """
    from gguf import GGUFWriter

    chosen = bundle.manifest.variants[variant]
    layout = gguf_layout(bundle.manifest.decoder)
    stored = {tensor.name: _stored(bundle, chosen, tensor) for tensor in layout.tensors}
    weights = open_weights(bundle, variant)
    tokenizer = gguf_tokenizer(bundle)
    lost = (0.0, 0.0)
    with stage_file(out) as staged:
        writer = GGUFWriter(staged, layout.architecture)
        try:
            _declare(writer, bundle, layout, {**layout.metadata, **tokenizer.entries}, stored)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            progress.start("exporting", sum(entry.size for entry in stored.values()))
            for factors in layout.factors.values():
                writer.write_tensor_data(factors)
            for array, error in _contents(weights, layout):
                writer.write_tensor_data(array)
                lost = (max(lost[0], error[0]), max(lost[1], error[1]))
                progress.advance(array.nbytes)
        finally:
            writer.close()
        size = staged.stat().st_size
    notes = (*layout.notes, *tokenizer.notes, *_lossy(lost[1]))
    for note in notes:
        progress.note(note)
    return ExportResult(
        path=out,
        format="gguf",
        variant=variant,
        size_bytes=size,
        tensors=dict(Counter(entry.type for entry in stored.values())),
        largest_error=lost[0],
        largest_error_steps=lost[1],
        has_tokenizer=tokenizer.has_text,
        notes=notes,
    )


def _lossy(steps: float) -> tuple[str, ...]:
    if steps == 0:
        return ()
    return (
        "Q4_1 rounds each group's smallest weight to float16: some weights move, by at most "
        f"{steps:.2g} of a step",
    )


def _stored(bundle: Bundle, chosen: Variant, tensor: GgufTensor) -> _Stored:
    """Decide a tensor's type from the manifest alone, before anything is written."""
    decoder = bundle.manifest.decoder
    n = tensor.stop - tensor.start
    if tensor.source not in chosen.matrices:
        return _Stored(type="F32", shape=(n,), size=4 * n)
    form = chosen.matrices[tensor.source]
    shape = decoder.matrices()[tensor.source]
    if form is None:
        return _Stored(type="F32", shape=(n, shape[1]), size=4 * n * shape[1])
    kind = block_type(form, shape, tensor.source)
    width = row_bytes(kind, shape[1])
    return _Stored(type=kind, shape=(n, width), size=n * width)


def _declare(
    writer: "GGUFWriter",
    bundle: Bundle,
    layout: GgufLayout,
    entries: Mapping[str, object],
    stored: Mapping[str, _Stored],
) -> None:
    """Give the writer every key, and every tensor's name, type and shape."""
    from gguf import GGMLQuantizationType

    writer.add_name(bundle.manifest.name)
    writer.add_quantization_version(_QUANTIZATION_VERSION)
    sizes: Counter[str] = Counter()
    for entry in stored.values():
        sizes[entry.type] += entry.size
    writer.add_file_type(_FILE_TYPES[sizes.most_common(1)[0][0]])
    for key, value in entries.items():
        _add(writer, key, value)
    for name, factors in layout.factors.items():
        writer.add_tensor_info(name, factors.shape, factors.dtype, factors.nbytes)
    for name, entry in stored.items():
        element = np.dtype(np.uint8 if entry.is_quantized else np.float32)
        raw = GGMLQuantizationType[entry.type] if entry.is_quantized else None
        writer.add_tensor_info(name, entry.shape, element, entry.size, raw_dtype=raw)


def _add(writer: "GGUFWriter", key: str, value: object) -> None:
    """Write a key under the type that llama.cpp reads it as."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)


def _contents(
    weights: BundleWeights, layout: GgufLayout
) -> Iterator[tuple[np.ndarray, tuple[float, float]]]:
    """Yield each tensor in the file's order, one in memory at a time, and what it lost."""
    matrices = weights.decoder.matrices()
    for tensor in layout.tensors:
        rows = tensor.rows()
        if tensor.source not in matrices:
            yield np.ascontiguousarray(weights.vector(tensor.source)[rows]), (0.0, 0.0)
            continue
        matrix = weights.stored(tensor.source)
        if not isinstance(matrix, QuantTensor):
            yield np.ascontiguousarray(matrix[rows]), (0.0, 0.0)
            continue
        blocks = to_blocks(matrix.take(rows), tensor.source)
        yield blocks.data, (blocks.largest_error, blocks.largest_error_steps)
