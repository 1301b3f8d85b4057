"""Memory of a process that runs a decoder: what it keeps, and what a step works in."""

from dataclasses import dataclass
from typing import Final

from onhand.core.decoder import Decoder, DecoderLayer
from onhand.host.costs.calibration import MemoryCosts
from onhand.host.costs.sizes import Formats, engine_of, packed_bytes

__all__ = ["USUAL_MEMORY", "RunningMemory", "peak_memory_bytes", "running_memory"]

USUAL_MEMORY: Final = MemoryCosts(
    process_bytes=49.0 * 2**20, token_bytes=278.0, token_peak_bytes=662.0, matrix_bytes=0.0
)
"""Measured on Linux, x86-64."""
# ONNX Runtime's library, beside what the native engine needs.
_ONNX_BYTES: Final = 26 * 2**20

# All of `onhand/native/src`: model.h, memory.h, workspace.cpp, step.h.
_ROWS: Final = 256  # of a step; longer prompts are cut
_TILE: Final = 16
_ALONE_ROWS: Final = 4
_PAGE: Final = 64  # tokens
_WIDE: Final = 128  # columns of the widest product that are made at once
_HEAD_SCORES: Final = 32 * 32 * _TILE  # of a thread
_ROTARY_BLOCK: Final = 1024
_SMALLEST_GROUP: Final = 32
_SCRATCH: Final = 2**16  # of a thread, about


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningMemory:
    """Bytes beside interpreter, libraries, tokenizer and weights.

    Attributes:
        kv_bytes: keys and values, in whole pages.
        work_bytes: what a step works in.
        table_bytes: norms, biases and rotary positions.
    """

    kv_bytes: int
    work_bytes: int
    table_bytes: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.kv_bytes + self.work_bytes + self.table_bytes


def peak_memory_bytes(
    decoder: Decoder,
    formats: Formats,
    costs: MemoryCosts,
    *,
    tokens: int,
    threads: int,
    accuracy_level: int = 4,
) -> int:
    """Return the peak memory of a process that opens a bundle and answers once.

    Args:
        decoder: the model.
        formats: matrix name -> how it is stored.
        costs: of a process.
        tokens: of prompt and answer.
        threads: of a step.
        accuracy_level: as it will be built.
    """
    shapes = decoder.matrices()
    weights = sum(packed_bytes(shape, formats[name]) for name, shape in shapes.items())
    if engine_of(formats, accuracy_level=accuracy_level) == "onnx":
        # It keeps what it packed, and the pages that it packed from stay mapped.
        weights += _ONNX_BYTES + sum(
            form.size_bytes(shapes[name]) for name, form in formats.items() if form is not None
        )
    held = running_memory(decoder, tokens=tokens, threads=threads).bytes
    words = decoder.vocab_size
    running = words * costs.token_bytes + weights + held + len(shapes) * costs.matrix_bytes
    # A tokenizer takes more while it is read, when no weights are there yet.
    return int(costs.process_bytes + max(running, words * costs.token_peak_bytes))


def running_memory(decoder: Decoder, *, tokens: int, threads: int) -> RunningMemory:
    """Return what running takes beside the weights, from shapes alone.

    Args:
        decoder: the model.
        tokens: of the longest conversation, prompt and answer.
        threads: of a step.

    Returns:
        The parts; the native engine's own sizes.
    """
    pages = -(-tokens // _PAGE)
    kv = sum(4 * layer.n_kv_heads * _up(layer.head_dim, _TILE) for layer in decoder.layers)
    return RunningMemory(
        kv_bytes=pages * _PAGE * kv,
        work_bytes=_work_bytes(decoder, threads),
        table_bytes=_table_bytes(decoder, tokens),
    )


def _work_bytes(decoder: Decoder, threads: int) -> int:
    widest = max(max(layer.query_width, decoder.width) for layer in decoder.layers)
    rows = _ROWS + (threads - 1) * _ALONE_ROWS
    own = rows * (8 * decoder.width + _rounded(widest))
    shared = _ROWS * (
        4 * max(_up(_qkv(layer), _TILE) for layer in decoder.layers)
        + 4 * max(layer.query_width for layer in decoder.layers)
        + 4 * _up(decoder.width, _TILE)
        + max(_rounded(layer.mlp_width) for layer in decoder.layers)
    )
    inner = max(_kept_inner(decoder, layer) for layer in decoder.layers)
    a_thread = 4 * (2 * _ROWS + 1) * _WIDE + 4 * _HEAD_SCORES + _SCRATCH
    return own + shared + _ROWS * 4 * inner + threads * a_thread


def _kept_inner(decoder: Decoder, layer: DecoderLayer) -> int:
    """Return the outputs of the widest product where they are kept whole."""
    if layer.mlp_width % _TILE == 0 or not decoder.gated:
        return 0
    return _up(2 * layer.mlp_width, _TILE)


def _rounded(width: int) -> int:
    """Return the bytes of a row of inputs as int8, a scale and two sums for each group."""
    return width + 12 * -(-width // _SMALLEST_GROUP)


def _qkv(layer: DecoderLayer) -> int:
    return layer.query_width + 2 * layer.kv_width


def _table_bytes(decoder: Decoder, tokens: int) -> int:
    vectors = 4 * sum(n for (n,) in decoder.vectors().values())
    blocks = -(-tokens // _ROTARY_BLOCK) * _ROTARY_BLOCK
    turned = sum(rope.rotated(dim) for rope, dim in decoder.rotary_tables().values())
    learned = 0
    if decoder.positions == "learned":
        learned = 4 * decoder.context * decoder.width
    return vectors + 4 * blocks * turned + learned


def _up(n: int, to: int) -> int:
    return -(-n // to) * to
