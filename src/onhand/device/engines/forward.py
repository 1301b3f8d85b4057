"""The decoder's computation in plain numpy: slow, exact, and the meaning of every engine.

The reference engine runs it over a bundle's weights. The host runs the same functions over a
source's weights, one layer at a time, to collect calibration statistics and the original's
answers: there is no second forward pass in the project.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onhand.core.adapter import Pairs
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder, DecoderLayer
from onhand.core.rope import Rope

__all__ = [
    "LayerMemory",
    "Observe",
    "RopeCache",
    "RopeTables",
    "Weights",
    "before_last",
    "embed",
    "final_hidden",
    "logits",
    "run_layer",
    "soft_cap",
]

# Rows of queries that attend at once: bounds the score matrix of a long prompt.
_QUERY_BLOCK = 256

Observe = Callable[[str, FloatArray], None]
_NO_PAIRS: Pairs = {}

RopeTables = tuple[FloatArray, FloatArray]
"""Cosines and sines by position, each (positions, rotated // 2)."""


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


class RopeCache:
    """The rotary tables of every layer, each computed once."""

    def __init__(self, decoder: Decoder, context: int) -> None:
        """Prepare, without work.

        Args:
            decoder: the model.
            context: positions that the tables have.
        """
        self._decoder = decoder
        self._context = context
        self._tables: dict[tuple[Rope, int, bool], RopeTables] = {}

    def tables(self, i: int, length: int) -> RopeTables | None:
        """Return the tables of a layer, None if positions are learned.

        Args:
            i: the layer's number.
            length: tokens of the conversation, the new ones included.
        """
        rope = self._decoder.rotary(i)
        if rope is None:
            return None
        head_dim, long = self._decoder.layers[i].head_dim, rope.is_long(length)
        key = (rope, head_dim, long)
        if key not in self._tables:
            self._tables[key] = rope.tables(head_dim, self._context, long=long)
        return self._tables[key]


def _ignore(name: str, inputs: FloatArray) -> None:
    pass


def embed(weights: Weights, tokens: TokenArray, *, start: int = 0) -> FloatArray:
    """Look up tokens, and their positions from `start` on if those are learned: (T,) -> (T, D)."""
    decoder = weights.decoder
    x = weights.rows("embed", tokens)
    if decoder.embed_scale != 1.0:
        x = x * np.float32(decoder.embed_scale)
    if decoder.positions == "learned":
        x = x + weights.rows("positions", np.arange(start, start + tokens.size))
    return x


def run_layer(
    weights: Weights,
    i: int,
    x: FloatArray,
    memory: LayerMemory,
    *,
    start: int,
    rope: RopeTables | None,
    observe: Observe = _ignore,
    pairs: Pairs = _NO_PAIRS,
) -> FloatArray:
    """Run one layer over new tokens and remember their keys and values.

    Args:
        weights: where the tensors come from.
        i: the layer's number.
        x: (T, D) float32, the residual stream.
        memory: the layer's keys and values; positions from `start` on are written.
        start: position of the first new token.
        rope: tables of at least start + T positions; None if positions are learned.
        observe: told the name of each stored matrix and its inputs (T, K), before it is applied.
        pairs: an adapter's.

    Returns:
        (T, D) float32.
    """
    decoder = weights.decoder
    at = f"layers.{i}."

    def linear(name: str, inputs: FloatArray, *, bias: bool) -> FloatArray:
        product = multiply(weights, f"{at}{name}", inputs, observe=observe, pairs=pairs)
        return product + weights.vector(f"{at}{name}_bias") if bias else product

    normed = _norm(weights, f"{at}attention_norm", x)
    qkv = linear("qkv", normed, bias=decoder.qkv_bias)  # (T, query_width + 2 * kv_width)
    attended = _attend(weights, i, qkv, memory, start=start, rope=rope)  # (T, query_width)
    attention = linear("out", attended, bias=decoder.out_bias)
    if decoder.post_norm:
        attention = _norm(weights, f"{at}attention_post_norm", attention)
    x = x + attention

    normed = _norm(weights, f"{at}mlp_norm", x)
    inner = linear(decoder.inner, normed, bias=decoder.mlp_bias)
    activation = _ACTIVATIONS[decoder.activation]
    if decoder.gated:
        gate, up = np.split(inner, 2, axis=1)  # (T, mlp_width) each
        inner = activation(gate) * up
    else:
        inner = activation(inner)
    down = linear("down", inner, bias=decoder.mlp_bias)
    if decoder.post_norm:
        down = _norm(weights, f"{at}mlp_post_norm", down)
    return x + down


def multiply(
    weights: Weights,
    name: str,
    inputs: FloatArray,
    *,
    observe: Observe = _ignore,
    pairs: Pairs = _NO_PAIRS,
) -> FloatArray:
    """Multiply by a matrix, whole or one factor after the other, and add what an adapter adds.

    Args:
        weights: where the tensors come from.
        name: the matrix.
        inputs: (T, K) float32.
        observe: told the name of each factor and its inputs, before it is applied.
        pairs: an adapter's.

    Returns:
        (T, N) float32.
    """
    last, between = before_last(weights, name, inputs, observe=observe)
    observe(last, between)
    product: FloatArray = between @ weights.matrix(last).T
    if name in pairs:
        first, second = pairs[name]
        product += (inputs @ first.T) @ second.T
    return product


def before_last(
    weights: Weights, name: str, inputs: FloatArray, *, observe: Observe = _ignore
) -> tuple[str, FloatArray]:
    """Multiply by all factors of a matrix but the one that is applied last.

    Args:
        weights: where the tensors come from.
        name: the matrix; the last factor of a whole one is itself.
        inputs: (T, K) float32.
        observe: told the name of each factor and its inputs, before it is applied.

    Returns:
        The last factor's name, and its inputs.
    """
    *before, last = weights.decoder.factors(name)
    for factor in before:
        observe(factor, inputs)
        inputs = inputs @ weights.matrix(factor).T  # (T, R)
    return last, inputs


def final_hidden(weights: Weights, x: FloatArray) -> FloatArray:
    """Apply the last norm: (T, D) -> (T, D), the inputs of the head."""
    return _norm(weights, "final_norm", x)


def logits(weights: Weights, hidden: FloatArray, *, pairs: Pairs = _NO_PAIRS) -> FloatArray:
    """Apply the head, and what an adapter adds to it, to normed rows: (T, D) -> (T, V)."""
    decoder = weights.decoder
    # What adds to a tied head does not add to the embedding, so its name is "head" all the same.
    added = {decoder.head: pairs["head"]} if "head" in pairs else _NO_PAIRS
    scores = multiply(weights, decoder.head, hidden, pairs=added)
    return soft_cap(scores, decoder.logit_softcap)


def soft_cap(x: FloatArray, cap: float | None) -> FloatArray:
    """Keep numbers within -cap .. cap: cap * tanh(x / cap); None leaves them. arXiv:2408.00118."""
    if cap is None:
        return x
    capped: FloatArray = np.tanh(x / np.float32(cap)) * np.float32(cap)
    return capped


def _norm(weights: Weights, name: str, x: FloatArray) -> FloatArray:
    decoder = weights.decoder
    if decoder.norm == "rms":
        return rms_norm(x, weights.vector(name), decoder.norm_epsilon)
    return layer_norm(x, weights.vector(name), weights.vector(f"{name}_bias"), decoder.norm_epsilon)


def layer_norm(x: FloatArray, weight: FloatArray, bias: FloatArray, epsilon: float) -> FloatArray:
    """Shift each row to mean 0 and scale it to variance 1, times a weight; arXiv:1607.06450."""
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return rms_norm(centred, weight, epsilon) + bias


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


def gelu_tanh(x: FloatArray) -> FloatArray:
    """Approximate x times the normal distribution's integral; arXiv:1606.08415, section 2."""
    inside = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)
    activated: FloatArray = np.float32(0.5) * x * (1 + np.tanh(inside))
    return activated


def gelu(x: FloatArray) -> FloatArray:
    """Multiply by the normal distribution's integral up to x; arXiv:1606.08415."""
    integral = _erf(x.astype(np.float64) / math.sqrt(2)).astype(np.float32)
    activated: FloatArray = np.float32(0.5) * x * (1 + integral)
    return activated


# One number at a time: only small models are run by this engine, and numpy has no erf.
_erf = np.vectorize(math.erf, otypes=[np.float64])

_ACTIVATIONS: Mapping[str, Callable[[FloatArray], FloatArray]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
}


def rotate(x: FloatArray, cosines: FloatArray, sines: FloatArray) -> FloatArray:
    """Rotate pairs (j, j + rotated / 2) by their position's angle; the rest of a head stays.

    Args:
        x: (T, H, head_dim).
        cosines: (T, rotated // 2).
        sines: (T, rotated // 2).

    Returns:
        (T, H, head_dim).
    """
    half = cosines.shape[1]
    low, high = x[..., :half], x[..., half : 2 * half]
    cos, sin = cosines[:, None, :], sines[:, None, :]
    turned = (low * cos - high * sin, high * cos + low * sin)
    return np.concatenate([*turned, x[..., 2 * half :]], axis=-1)


def _attend(
    weights: Weights,
    i: int,
    qkv: FloatArray,
    memory: LayerMemory,
    *,
    start: int,
    rope: RopeTables | None,
) -> FloatArray:
    decoder = weights.decoder
    layer = decoder.layers[i]
    T = qkv.shape[0]
    end = start + T
    split = np.split(qkv, [layer.query_width, layer.query_width + layer.kv_width], 1)
    query, key, value = (part.reshape(T, -1, layer.head_dim) for part in split)
    if decoder.qk_norm:
        epsilon = decoder.norm_epsilon
        query = rms_norm(query, weights.vector(f"layers.{i}.query_norm"), epsilon)
        key = rms_norm(key, weights.vector(f"layers.{i}.key_norm"), epsilon)
    if rope is not None:
        cosines, sines = (table[start:end] for table in rope)
        query, key = rotate(query, cosines, sines), rotate(key, cosines, sines)
    memory.keys[:, start:end] = key.transpose(1, 0, 2)
    memory.values[:, start:end] = value.transpose(1, 0, 2)

    shared = layer.n_heads // layer.n_kv_heads  # query heads that share one key head
    grouped = query.reshape(T, layer.n_kv_heads, shared, layer.head_dim)
    grouped = grouped.transpose(1, 2, 0, 3)  # (n_kv_heads, shared, T, head_dim)
    scale = np.float32(decoder.score_scale(i))
    result = np.empty_like(grouped)
    for low in range(0, T, _QUERY_BLOCK):
        high = min(low + _QUERY_BLOCK, T)
        seen = start + high
        keys = memory.keys[:, None, :seen].transpose(0, 1, 3, 2)  # (n_kv_heads, 1, head_dim, S)
        scores = grouped[:, :, low:high] @ keys * scale  # (n_kv_heads, shared, block, S)
        scores = soft_cap(scores, decoder.attention_softcap)
        at, other = np.arange(start + low, seen)[:, None], np.arange(seen)[None, :]
        hidden = other > at
        if layer.window:
            hidden |= other <= at - layer.window
        scores[..., hidden] = -np.inf
        scores -= scores.max(axis=-1, keepdims=True)
        share = np.exp(scores)
        share /= share.sum(axis=-1, keepdims=True)
        result[:, :, low:high] = share @ memory.values[:, None, :seen]
    return result.transpose(2, 0, 1, 3).reshape(T, layer.query_width)
