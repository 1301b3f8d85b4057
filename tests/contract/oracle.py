"""The decoder once more, as a textbook writes it: float64, one token's row after the other."""

import numpy as np
from numpy.typing import NDArray

from onhand.core.weights import BundleWeights

Wide = NDArray[np.float64]


def oracle_logits(weights: BundleWeights, tokens: NDArray[np.int64]) -> Wide:
    """Logits after every token of one conversation: (T,) -> (T, V)."""
    decoder = weights.decoder
    x = weights.matrix("embed").astype(np.float64)[tokens]  # (T, D)
    for i, layer in enumerate(decoder.layers):
        at = f"layers.{i}"
        rows = linear(weights, f"{at}.qkv", norm(weights, f"{at}.attention_norm", x))
        q, k, v = np.split(rows, [layer.query_width, layer.query_width + layer.kv_width], axis=1)
        stretch = decoder.rope.factor if decoder.rope.scaling == "yarn" else 1.0
        size = 0.1 * np.log(stretch) + 1  # arXiv:2309.00071, section 3.4
        angles = np.outer(np.arange(tokens.size), decoder.rope.inverse_frequencies(layer.head_dim))
        heads: list[Wide] = []
        for head in range(layer.n_heads):
            shared = head * layer.n_kv_heads // layer.n_heads
            query = turned(part(q, head, layer.head_dim), angles)
            key = turned(part(k, shared, layer.head_dim), angles)
            scores = size**2 * query @ key.T / np.sqrt(layer.head_dim)  # (T, T)
            shares = np.exp(np.where(np.tri(tokens.size) > 0, scores, -np.inf))
            shares /= shares.sum(axis=1, keepdims=True)
            heads.append(shares @ part(v, shared, layer.head_dim))
        x = x + linear(weights, f"{at}.out", np.concatenate(heads, axis=1))
        both = linear(weights, f"{at}.gate_up", norm(weights, f"{at}.mlp_norm", x))
        gate, up = np.split(both, 2, axis=1)
        x = x + linear(weights, f"{at}.down", gate / (1 + np.exp(-gate)) * up)
    return linear(
        weights, "embed" if decoder.tied else "head", norm(weights, "final_norm", x)
    )  # (T, V)


def linear(weights: BundleWeights, name: str, x: Wide) -> Wide:
    """Multiply by a matrix, whole or two factors, and add its bias if it has one."""
    product: Wide = x @ whole(weights, name).T
    if f"{name}_bias" in weights.decoder.vectors():
        product = product + weights.vector(f"{name}_bias")
    return product


def whole(weights: BundleWeights, name: str) -> Wide:
    """A matrix, its factors multiplied."""
    if name in weights.decoder.matrices():
        return weights.matrix(name).astype(np.float64)
    left, right = (weights.matrix(f"{name}.{part}") for part in ("left", "right"))
    return left.astype(np.float64) @ right


def norm(weights: BundleWeights, name: str, x: Wide) -> Wide:
    """Root mean square norm."""
    mean_square = (x**2).mean(axis=1, keepdims=True)
    normed: Wide = x / np.sqrt(mean_square + weights.decoder.norm_epsilon)
    return normed * weights.vector(name)


def part(rows: Wide, head: int, head_dim: int) -> Wide:
    """The columns of one head."""
    return rows[:, head * head_dim : (head + 1) * head_dim]


def turned(rows: Wide, angles: Wide) -> Wide:
    """Rotary positions, as complex numbers: pairs are half a head apart."""
    half = rows.shape[1] // 2
    pairs = (rows[:, :half] + 1j * rows[:, half:]) * np.exp(1j * angles)
    return np.concatenate([pairs.real, pairs.imag], axis=1)
