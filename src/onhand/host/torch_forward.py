"""The computation of `device.engines.forward` in torch, so that it has gradients."""

from typing import TYPE_CHECKING, Protocol

from onhand.core.arrays import TokenArray
from onhand.core.decoder import Decoder
from onhand.device.engines.forward import RopeCache
from onhand.host.engines.torch_layers import normed, rms_normed, rotated, soft_capped, torch_layer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TorchWeights", "torch_head", "torch_hidden", "torch_logits"]


class TorchWeights(Protocol):
    """Where the tensors come from."""

    decoder: Decoder

    def matrix(self, name: str) -> "Tensor":
        """Return a matrix by its name in `Decoder.matrices`: (N, K) float32."""
        ...

    def vector(self, name: str) -> "Tensor":
        """Return a norm or bias by its name in `Decoder.vectors`: (width,) float32."""
        ...


def torch_logits(weights: TorchWeights, tokens: TokenArray, ropes: RopeCache) -> "Tensor":
    """Run a model over one sequence, or over several of one length.

    Args:
        weights: the model.
        tokens: (T,) or (B, T) int64.
        ropes: tables of at least T positions.

    Returns:
        (T, V) or (B, T, V) float32 logits, as `forward.logits` gives them.
    """
    return torch_head(weights, torch_hidden(weights, tokens, ropes))


def torch_hidden(weights: TorchWeights, tokens: TokenArray, ropes: RopeCache) -> "Tensor":
    """Run a model up to the inputs of its head.

    Args:
        weights: the model.
        tokens: (T,) or (B, T) int64.
        ropes: tables of at least T positions.

    Returns:
        (T, D) or (B, T, D).
    """
    import torch
    from torch.nn import functional

    decoder = weights.decoder
    ids = torch.from_numpy(tokens)
    x = functional.embedding(ids, weights.matrix("embed"))  # (..., T, D)
    if decoder.embed_scale != 1.0:
        x = x * decoder.embed_scale
    if decoder.positions == "learned":
        x = x + weights.matrix("positions")[: tokens.shape[-1]]
    for i in range(len(decoder.layers)):
        x = _layer(weights, i, x, ropes)
    return normed(decoder, "final_norm", x, weights.vector)


def torch_head(weights: TorchWeights, hidden: "Tensor") -> "Tensor":
    """Apply the head to any rows that `torch_hidden` gave: (..., D) -> (..., V)."""
    from torch.nn import functional

    decoder = weights.decoder
    for factor in decoder.factors(decoder.head):
        hidden = functional.linear(hidden, weights.matrix(factor))
    return soft_capped(hidden, decoder.logit_softcap)


def _layer(weights: TorchWeights, i: int, x: "Tensor", ropes: RopeCache) -> "Tensor":
    from torch.nn import functional

    decoder, at = weights.decoder, f"layers.{i}."

    def linear(name: str, inputs: "Tensor", *, bias: bool) -> "Tensor":
        *before, last = decoder.factors(f"{at}{name}")
        for factor in before:
            inputs = functional.linear(inputs, weights.matrix(factor))
        offset = weights.vector(f"{at}{name}_bias") if bias else None
        return functional.linear(inputs, weights.matrix(last), offset)

    return torch_layer(
        decoder,
        i,
        x,
        linear=linear,
        attend=lambda qkv: _attend(weights, i, qkv, ropes),
        vector=weights.vector,
    )


def _attend(weights: TorchWeights, i: int, qkv: "Tensor", ropes: RopeCache) -> "Tensor":
    import torch
    from torch.nn import functional

    decoder, layer = weights.decoder, weights.decoder.layers[i]
    *lead, T, _ = qkv.shape
    widths = [layer.query_width, layer.kv_width, layer.kv_width]
    query, key, value = (
        part.view(*lead, T, -1, layer.head_dim).transpose(-3, -2)
        for part in torch.split(qkv, widths, dim=-1)
    )  # (..., heads, T, head_dim) each
    if decoder.qk_norm:
        query = rms_normed(query, weights.vector(f"layers.{i}.query_norm"), decoder.norm_epsilon)
        key = rms_normed(key, weights.vector(f"layers.{i}.key_norm"), decoder.norm_epsilon)
    query = query * decoder.score_scale(i)
    if (tables := ropes.tables(i, T)) is not None:
        cosines, sines = (torch.from_numpy(table[:T]) for table in tables)
        query, key = rotated(query, cosines, sines), rotated(key, cosines, sines)
    # The queries that share a key head follow each other.
    if decoder.attention_softcap is None and not layer.window:
        shares = layer.n_heads // layer.n_kv_heads
        if query.dtype != value.dtype:  # the tables are float32
            query, key = query.to(value.dtype), key.to(value.dtype)
        together = functional.scaled_dot_product_attention(
            query,
            key.repeat_interleave(shares, dim=-3),
            value.repeat_interleave(shares, dim=-3),
            is_causal=True,
            scale=1.0,
        )
        return together.transpose(-3, -2).reshape(*lead, T, layer.query_width)
    shared = query.reshape(*lead, layer.n_kv_heads, -1, layer.head_dim)
    scores = (shared @ key.transpose(-1, -2)).view(*lead, layer.n_heads, T, T)
    scores = soft_capped(scores, decoder.attention_softcap)
    at, other = torch.arange(T)[:, None], torch.arange(T)[None, :]
    hidden = other > at
    if layer.window:
        hidden |= other <= at - layer.window
    share = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1).to(value.dtype)
    mixed: Tensor = share.view(*lead, layer.n_kv_heads, -1, T) @ value
    mixed = mixed.view(*lead, layer.n_heads, T, layer.head_dim)
    return mixed.transpose(-3, -2).reshape(*lead, T, layer.query_width)
