"""What a step does beside its products, counted from shapes: what its time is made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from onhand.core.decoder import Decoder, DecoderLayer

__all__ = ["ROWS_AT_ONCE", "StepWork", "prompt_parts", "prompt_work", "step_work"]

ROWS_AT_ONCE: Final = 256
"""Tokens of a prompt that the native engine computes at once; `kMostRows` of model.h."""
_ALONE_ROWS: Final = 4
_MEETS: Final = 6  # of a layer, where few rows are computed; of step.h
_MEETS_OF_MANY: Final = 9
_KV_BYTES: Final = 4  # a number of a key and one of a value, of two bytes each


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """What one thread does in a step, or in several.

    Attributes:
        steps: calls of the engine.
        layers: layers passed.
        values: numbers normed, rounded, activated or added.
        scores: numbers of keys, and of values, that are read: in a step of one token once for all
            heads that share them, in a prompt for each.
        pairs: of a head's query and a key.
        meets: times that threads wait for each other.
        kv_bytes: keys and values that all threads together read in a step of one token.
    """

    steps: int
    layers: int
    values: float
    scores: float
    pairs: float
    meets: int
    kv_bytes: float = 0.0


def step_work(decoder: Decoder, *, context: float, threads: int) -> StepWork:
    """Count a step of one token.

    Args:
        decoder: the model.
        context: tokens that it attends to, itself included.
        threads: of the step.
    """
    values = scores = pairs = kv_bytes = 0.0
    for layer in decoder.layers:
        alone, shared = _values(decoder, layer)
        values += alone + shared / threads
        seen = min(context, layer.window or context)
        kv_heads = -(-layer.n_kv_heads // threads)
        scores += kv_heads * layer.head_dim * seen
        pairs += kv_heads * (layer.n_heads // layer.n_kv_heads) * seen
        kv_bytes += _KV_BYTES * layer.n_kv_heads * layer.head_dim * seen
    n_layers = len(decoder.layers)
    return StepWork(
        steps=1,
        layers=n_layers,
        values=values,
        scores=scores,
        pairs=pairs,
        meets=_MEETS * n_layers + 2,
        kv_bytes=kv_bytes,
    )


def prompt_parts(tokens: int) -> list[int]:
    """Return the rows of each step that reads a prompt."""
    whole, rest = divmod(tokens, ROWS_AT_ONCE)
    return [ROWS_AT_ONCE] * whole + ([rest] if rest else [])


def prompt_work(decoder: Decoder, *, tokens: int, threads: int) -> StepWork:
    """Count the steps that read a prompt.

    Args:
        decoder: the model.
        tokens: of the prompt, the first ones of a conversation.
        threads: of a step.
    """
    parts = prompt_parts(tokens)
    values = scores = pairs = 0.0
    for layer in decoder.layers:
        alone, shared = _values(decoder, layer)
        values += tokens * (alone + shared) / threads
        seen = sum(_seen(layer, tokens))
        scores += layer.query_width * seen / threads
        pairs += layer.n_heads * seen / threads
    n_layers = len(decoder.layers)
    return StepWork(
        steps=1,
        layers=n_layers * len(parts),
        values=values,
        scores=scores,
        pairs=pairs,
        meets=_MEETS_OF_MANY * n_layers * len(parts),
    )


def _values(decoder: Decoder, layer: DecoderLayer) -> tuple[int, int]:
    """Return the numbers of a row that each thread computes for itself, and those it shares."""
    alone = 6 * decoder.width + layer.query_width
    shared = layer.query_width + 2 * layer.kv_width + 3 * layer.mlp_width
    return alone, shared


def _seen(layer: DecoderLayer, tokens: int) -> Iterator[int]:
    """Yield the tokens that each token of a prompt attends to, itself included."""
    for position in range(tokens):
        yield min(position + 1, layer.window or position + 1)
