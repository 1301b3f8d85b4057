"""The decoder's computation in plain numpy: slow, exact, and the meaning of every engine.

The reference engine runs it over a bundle's weights. The host runs the same functions over a
source's weights, one layer at a time, to collect calibration statistics and the original's
answers: there is no second forward pass in the project.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder, DecoderLayer

__all__ = ["LayerMemory", "Observe", "Weights", "embed", "final_hidden", "logits", "run_layer"]

# Rows of queries that attend at once: bounds the score matrix of a long prompt.
_QUERY_BLOCK = 256

Observe = Callable[[str, FloatArray], None]


class Weights(Protocol):
    """Where a forward pass takes its tensors from."""

    @property
    def decoder(self) -> Decoder:
        """The model's description."""
        ...

    def matrix(self, name: str) -> FloatArray:
        """Return a matrix by its name in `Decoder.matrices`: (N, K) float32."""
        ...

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """Return some rows of a matrix: (T,) ids -> (T, K) float32."""
        ...

    def vector(self, name: str) -> FloatArray:
        """Return a norm or bias by its name in `Decoder.vectors`: (width,) float32."""
        ...


@dataclass(slots=True)
class LayerMemory:
    """Keys and values of one layer, rotated; each (n_kv_heads, context, head_dim) float32.

    The system commits the pages as they are written, so a large context costs nothing unused.
    """

    keys: FloatArray
    values: FloatArray

    @classmethod
    def empty(cls, layer: DecoderLayer, context: int) -> "LayerMemory":
        """Make a memory for `context` tokens."""
        shape = (layer.n_kv_heads, context, layer.head_dim)
        return cls(np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32))


def _ignore(name: str, inputs: FloatArray) -> None:
    pass


def embed(weights: Weights, tokens: TokenArray) -> FloatArray:
    """Look up tokens: (T,) -> (T, D)."""
    return weights.rows("embed", tokens)


def run_layer(
    weights: Weights,
    i: int,
    x: FloatArray,
    memory: LayerMemory,
    *,
    start: int,
    rope: tuple[FloatArray, FloatArray],
    observe: Observe = _ignore,
) -> FloatArray:
    """Run one layer over new tokens and remember their keys and values.

    Args:
        weights: where the tensors come from.
        i: the layer's number.
        x: (T, D) float32, the residual stream.
        memory: the layer's keys and values; positions from `start` on are written.
        start: position of the first new token.
        rope: cosines and sines, each (at least start + T, head_dim // 2).
        observe: told the name of each matrix and its inputs (T, K), before it is applied.

    Returns:
        (T, D) float32.
    """
    decoder = weights.decoder
    layer = decoder.layers[i]
    at = f"layers.{i}."

    normed = rms_norm(x, weights.vector(f"{at}attention_norm"), decoder.norm_epsilon)
    observe(f"{at}qkv", normed)
    qkv = normed @ weights.matrix(f"{at}qkv").T  # (T, query_width + 2 * kv_width)
    if decoder.qkv_bias:
        qkv += weights.vector(f"{at}qkv_bias")
    attended: FloatArray = _attend(qkv, layer, memory, start=start, rope=rope)  # (T, query_width)
    observe(f"{at}out", attended)
    x = x + attended @ weights.matrix(f"{at}out").T
    if decoder.out_bias:
        x += weights.vector(f"{at}out_bias")

    normed = rms_norm(x, weights.vector(f"{at}mlp_norm"), decoder.norm_epsilon)
    observe(f"{at}gate_up", normed)
    both = normed @ weights.matrix(f"{at}gate_up").T  # (T, 2 * mlp_width)
    if decoder.mlp_bias:
        both += weights.vector(f"{at}gate_up_bias")
    gate, up = both[:, : layer.mlp_width], both[:, layer.mlp_width :]
    inner: FloatArray = silu(gate) * up  # (T, mlp_width)
    observe(f"{at}down", inner)
    x = x + inner @ weights.matrix(f"{at}down").T
    if decoder.mlp_bias:
        x += weights.vector(f"{at}down_bias")
    return x


def final_hidden(weights: Weights, x: FloatArray) -> FloatArray:
    """Apply the last norm: (T, D) -> (T, D), the inputs of the head."""
    return rms_norm(x, weights.vector("final_norm"), weights.decoder.norm_epsilon)


def logits(weights: Weights, hidden: FloatArray) -> FloatArray:
    """Apply the head to normed rows: (T, D) -> (T, V)."""
    head = weights.matrix("embed" if weights.decoder.tied else "head")
    scores: FloatArray = hidden @ head.T
    return scores


def rms_norm(x: FloatArray, weight: FloatArray, epsilon: float) -> FloatArray:
    """Divide each row by its root mean square, times a weight; arXiv:1910.07467."""
    mean_square = np.mean(np.square(x), axis=-1, keepdims=True)
    normed: FloatArray = x / np.sqrt(mean_square + np.float32(epsilon)) * weight
    return normed


def silu(x: FloatArray) -> FloatArray:
    """Apply x * sigmoid(x), without overflow for large negative x."""
    with np.errstate(over="ignore"):
        activated: FloatArray = x / (1 + np.exp(-x))
    return activated


def rotate(x: FloatArray, cosines: FloatArray, sines: FloatArray) -> FloatArray:
    """Rotate pairs (j, j + head_dim / 2) by their position's angle.

    Args:
        x: (T, H, head_dim).
        cosines: (T, head_dim // 2).
        sines: (T, head_dim // 2).

    Returns:
        (T, H, head_dim).
    """
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    cos, sin = cosines[:, None, :], sines[:, None, :]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def _attend(
    qkv: FloatArray,
    layer: DecoderLayer,
    memory: LayerMemory,
    *,
    start: int,
    rope: tuple[FloatArray, FloatArray],
) -> FloatArray:
    T = qkv.shape[0]
    end = start + T
    cosines, sines = (table[start:end] for table in rope)
    shape = (T, -1, layer.head_dim)
    query, key, value = np.split(qkv, [layer.query_width, layer.query_width + layer.kv_width], 1)
    query = rotate(query.reshape(shape), cosines, sines)  # (T, n_heads, head_dim)
    memory.keys[:, start:end] = rotate(key.reshape(shape), cosines, sines).transpose(1, 0, 2)
    memory.values[:, start:end] = value.reshape(shape).transpose(1, 0, 2)

    shared = layer.n_heads // layer.n_kv_heads  # query heads that share one key head
    grouped = query.reshape(T, layer.n_kv_heads, shared, layer.head_dim)
    grouped = grouped.transpose(1, 2, 0, 3)  # (n_kv_heads, shared, T, head_dim)
    scale = np.float32(layer.head_dim**-0.5)
    result = np.empty_like(grouped)
    for low in range(0, T, _QUERY_BLOCK):
        high = min(low + _QUERY_BLOCK, T)
        seen = start + high
        keys = memory.keys[:, None, :seen].transpose(0, 1, 3, 2)  # (n_kv_heads, 1, head_dim, S)
        scores = grouped[:, :, low:high] @ keys * scale  # (n_kv_heads, shared, block, S)
        later = np.arange(seen)[None, :] > np.arange(start + low, seen)[:, None]
        scores[..., later] = -np.inf
        scores -= scores.max(axis=-1, keepdims=True)
        share = np.exp(scores)
        share /= share.sum(axis=-1, keepdims=True)
        result[:, :, low:high] = share @ memory.values[:, None, :seen]
    return result.transpose(2, 0, 1, 3).reshape(T, layer.query_width)
