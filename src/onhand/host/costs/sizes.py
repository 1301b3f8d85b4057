"""Bytes that a decoder takes: on disk, exactly; and in the memory of the engine that runs it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from onhand.core.decoder import Decoder
from onhand.core.onnxinline import LEFT_OUT
from onhand.core.quantized import GroupFormat
from onhand.core.safetensors import TensorSpec, layout_tensors
from onhand.host.export.decoder_graph import decoder_graph
from onhand.host.scale_tables import SCALE_BITS, expected_table
from onhand.host.sparse_storage import Shrunk, declare_streams
from onhand.host.weight_files import StoredVariant, decoder_files

__all__ = [
    "Engine",
    "engine_of",
    "packed_bytes",
    "read_matrices",
    "stored_bytes",
    "variant_bytes",
    "variant_sizes",
]

Formats = Mapping[str, GroupFormat | None]
Engine = str

_TILE_ROWS: Final = 16  # of `onhand/native/src/format.h`
_LOOKED_UP: Final = "positions"


def engine_of(formats: Formats, *, accuracy_level: int = 4) -> Engine:
    """Return the engine that the device would choose: "native", or "onnx" where that cannot run it.

    Args:
        formats: matrix name -> how it is stored.
        accuracy_level: as it will be built.
    """
    plain = any(form is None for name, form in formats.items() if name != _LOOKED_UP)
    return "onnx" if plain or accuracy_level != 4 else "native"


def stored_bytes(shape: tuple[int, int], form: GroupFormat | None) -> int:
    """Return the bytes of a matrix in its file, without the header's share.

    Args:
        shape: (N, K).
        form: how it is stored; None for float32.
    """
    return 4 * shape[0] * shape[1] if form is None else form.size_bytes(shape)


def packed_bytes(shape: tuple[int, int], form: GroupFormat | None) -> int:
    """Return the bytes of a matrix as the engine keeps it in memory, and reads it for a token.

    Args:
        shape: (N, K).
        form: how it is stored; None for float32.

    Returns:
        Bytes: of the native engine's tiles of 16 rows, zero points a byte each; of float32 as it
        is.
    """
    if form is None:
        return 4 * shape[0] * shape[1]
    tiles = -(-shape[0] // _TILE_ROWS)
    codes = form.group_size * _TILE_ROWS * form.bits // 8
    block = codes + 2 * _TILE_ROWS + (0 if form.symmetric else _TILE_ROWS)
    return tiles * form.n_groups(shape[1]) * block


def read_matrices(decoder: Decoder) -> dict[str, tuple[int, int]]:
    """Return name -> (N, K) of the matrices that every token reads whole: none is looked up."""
    skipped = {_LOOKED_UP} if decoder.head == "embed" else {_LOOKED_UP, "embed"}
    return {name: shape for name, shape in decoder.matrices().items() if name not in skipped}


def variant_bytes(
    decoder: Decoder, formats: Formats, *, other_bytes: int, accuracy_level: int = 4
) -> int:
    """Return the size of a bundle with one variant, exactly: its manifest is not counted.

    Args:
        decoder: the model.
        formats: matrix name -> how it is stored.
        other_bytes: of tokenizer, template and the like.
        accuracy_level: as it will be built.

    Returns:
        Bytes on disk.
    """
    (size,) = variant_sizes(
        decoder,
        {"only": (StoredVariant(formats=formats, own=list(formats)), 16)},
        other_bytes=other_bytes,
        accuracy_level=accuracy_level,
    )
    return size


def variant_sizes(
    decoder: Decoder,
    variants: Mapping[str, tuple[StoredVariant, int]],
    *,
    other_bytes: int,
    accuracy_level: int,
) -> list[int]:
    """Return the bytes of the files that each variant of a bundle needs, from shapes alone.

    Args:
        decoder: the model.
        variants: name -> how it is stored, and the bits of its own matrices' scales; in order.
        other_bytes: of the files beside weights and graphs.
        accuracy_level: as it will be built.

    Returns:
        The sizes, exact but where codes are stored without their zeros.
    """
    laid = decoder_files(decoder, {name: stored for name, (stored, _) in variants.items()})
    sizes: list[int] = []
    written: dict[str, int] = {}
    shared: dict[str, tuple[str, TensorSpec]] = {}
    for files, (stored, scale_bits) in zip(laid, variants.values(), strict=True):
        own, formats = stored.own, stored.formats
        tables = _tables(decoder, formats, own) if scale_bits == min(SCALE_BITS) else {}
        places = dict(shared)
        for file, declared in files.written.items():
            header, tensors = layout_tensors(declare_streams(declared, tables))
            written[file] = len(header) + sum(spec.size for spec in tensors.values())
            places |= {name: (file, spec) for name, spec in tensors.items()}
            for name, one in tables.items():
                if name in declared:
                    places[name] = LEFT_OUT, replace(declared[name], size=one.form.size_bytes)
        shared = shared or places
        graph = decoder_graph(decoder, formats, places.__getitem__, accuracy_level=accuracy_level)
        sizes.append(other_bytes + len(graph) + sum(written[file] for file in files.needed))
    return sizes


def _tables(decoder: Decoder, formats: Formats, own: Sequence[str]) -> dict[str, Shrunk]:
    """Return name of scales -> how they will be stored, where they take few values."""
    found: dict[str, Shrunk] = {}
    shapes = decoder.matrices()
    for name in own:
        form = formats[name]
        table = None if form is None else expected_table(name, shapes[name], form)
        if table is not None:
            n_bytes = 2 * table.n_values
            found[table.tensor] = Shrunk(form=table, sizes=(table.stored_bytes - n_bytes, n_bytes))
    return found
