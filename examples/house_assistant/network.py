"""A small Llama in plain torch, saved in the layout that `transformers` loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

__all__ = ["Llama", "Shape", "export_weights", "load_weights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of the network.

    Attributes:
        vocabulary: V, rows of the embedding, which is also the output matrix.
        width: D, numbers per token.
        n_layers: blocks of attention and feed-forward.
        n_heads: H, query heads.
        n_kv_heads: key-value heads; divides `n_heads`.
        head_width: numbers per head.
        hidden: width inside the feed-forward part.
        rope_theta: base of the rotary positions.
        max_positions: longest conversation in tokens.
        epsilon: added to the mean square in every norm.
    """

    vocabulary: int = 2560
    width: int = 256
    n_layers: int = 6
    n_heads: int = 4
    n_kv_heads: int = 2
    head_width: int = 64
    hidden: int = 384
    rope_theta: float = 10000.0
    max_positions: int = 4096
    epsilon: float = 1e-5


class _Block(nn.Module):
    """Attention, then a gated feed-forward part, each added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        D, kv = shape.width, shape.n_kv_heads * shape.head_width
        self.input_layernorm = nn.RMSNorm(D, eps=shape.epsilon)
        self.q_proj = nn.Linear(D, shape.n_heads * shape.head_width, bias=False)
        self.k_proj = nn.Linear(D, kv, bias=False)
        self.v_proj = nn.Linear(D, kv, bias=False)
        self.o_proj = nn.Linear(shape.n_heads * shape.head_width, D, bias=False)
        self.post_attention_layernorm = nn.RMSNorm(D, eps=shape.epsilon)
        self.gate_proj = nn.Linear(D, shape.hidden, bias=False)
        self.up_proj = nn.Linear(D, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, D, bias=False)

    @override
    def forward(self, stream: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor) -> Tensor:
        """Add this block's contribution to the stream, (B, T, D)."""
        B, T, _ = stream.shape
        s = self.shape
        x = self.input_layernorm(stream)
        heads = _side_by_side(x, self.q_proj, self.k_proj, self.v_proj)
        heads = heads.view(B, T, -1, s.head_width).transpose(1, 2)  # (B, H + 2 * kv heads, T, d)
        q, k, v = torch.split(heads, [s.n_heads, s.n_kv_heads, s.n_kv_heads], dim=1)
        mixed = _attend(_rotate(q, cosine, sine), _rotate(k, cosine, sine), v, mask)
        stream = stream + self.o_proj(mixed.transpose(1, 2).reshape(B, T, -1))
        x = self.post_attention_layernorm(stream)
        gate, up = _side_by_side(x, self.gate_proj, self.up_proj).chunk(2, dim=-1)
        added: Tensor = self.down_proj(functional.silu(gate) * up)
        return stream + added


def _side_by_side(x: Tensor, *layers: nn.Linear) -> Tensor:
    """Apply layers to the same rows as one wide product, which is faster than one by one."""
    return functional.linear(x, torch.cat([layer.weight for layer in layers]))


# Up to here the whole matrix of scores is faster on a CPU than the fused kernel, a quarter of a
# training step in all; beyond, it takes too much memory.
_WHOLE_MATRIX = 512
# Queries at a time: what comes after the last of them is left out.
_QUERIES = 128


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Mix the values of each token and those before it.

    Args:
        q: (B, H, T, d).
        k: (B, kv heads, T, d); the H / kv heads queries that follow each other share one.
        v: as k.
        mask: (T, T), added to the scores: 0 for what a token sees, else minus infinity.

    Returns:
        (B, H, T, d).
    """
    B, H, T, d = q.shape
    if T > _WHOLE_MATRIX:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    parts = []
    for begin in range(0, T, _QUERIES):
        end = min(begin + _QUERIES, T)
        part = q[:, :, begin:end].reshape(B, k.shape[1], -1, d)
        scores = (part @ k[:, :, :end].transpose(-1, -2)).view(B, H, -1, end)
        share = (scores * d**-0.5 + mask[begin:end, :end]).softmax(dim=-1).to(v.dtype)
        mixed = share.view(B, k.shape[1], -1, end) @ v[:, :, :end]
        parts.append(mixed.view(B, H, -1, d))
    return torch.cat(parts, dim=2)


class Llama(nn.Module):
    """The network: tokens in, logits out; the output matrix is the embedding."""

    cosine: Tensor
    sine: Tensor
    mask: Tensor

    def __init__(self, shape: Shape) -> None:
        """Draw the first weights from torch's generator.

        Args:
            shape: the sizes.
        """
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(_Block(shape) for _ in range(shape.n_layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self._initialise()
        self._tables()

    def _initialise(self) -> None:
        """Draw small weights; a block adds nothing to the stream at first, so learning is quick."""
        for name, weight in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(weight)
            elif weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)

    def _tables(self) -> None:
        """Keep what depends on positions alone: computed again in each step it costs time."""
        shape = self.shape
        half = shape.head_width // 2
        exponent = torch.arange(half, dtype=torch.float32) / half
        positions = torch.arange(shape.max_positions, dtype=torch.float32)
        angle = positions[:, None] * shape.rope_theta**-exponent  # (max_positions, half)
        angle = torch.cat((angle, angle), dim=-1)  # (max_positions, head_width)
        hidden = torch.full((_WHOLE_MATRIX, _WHOLE_MATRIX), float("-inf")).triu(1)
        self.register_buffer("cosine", angle.cos(), persistent=False)
        self.register_buffer("sine", angle.sin(), persistent=False)
        self.register_buffer("mask", hidden, persistent=False)

    def stream(self, tokens: Tensor) -> Tensor:
        """Run the blocks.

        Args:
            tokens: (B, T) int64, each row from the beginning of its conversation.

        Returns:
            (B, T, D), normalised, ready for the output matrix.
        """
        T = tokens.shape[1]
        stream: Tensor = self.embed_tokens(tokens)  # (B, T, D)
        for block in self.layers:
            stream = block(stream, self.cosine[:T], self.sine[:T], self.mask[:T, :T])
        out: Tensor = self.norm(stream)
        return out

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        """Give the logits of the next token, (B, T, V).

        Args:
            tokens: (B, T) int64.
        """
        return functional.linear(self.stream(tokens), self.embed_tokens.weight)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair (i, i + half) by its angle, as `transformers` pairs them."""
    left, right = x.chunk(2, dim=-1)
    turned = torch.cat((-right, left), dim=-1)
    return (x * cosine + turned * sine).to(x.dtype)


_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
_SPECIAL_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 5}
# In `transformers` these stand one module deeper than here.
_INSIDE = dict.fromkeys(_ATTENTION, "self_attn") | dict.fromkeys(_FEED_FORWARD, "mlp")


def export_weights(model: Llama, folder: Path) -> None:
    """Write `config.json`, `generation_config.json` and fp16 `model.safetensors`.

    Args:
        model: the network; it stays as it is.
        folder: the model's directory.
    """
    weights = {
        _exported_name(name): weight.detach().to(torch.float16).contiguous()
        for name, weight in model.state_dict().items()
    }
    fresh = folder / "model.safetensors.new"
    save_file(weights, fresh, metadata={"format": "pt"})
    fresh.replace(folder / "model.safetensors")
    _write_json(folder / "config.json", _config(model.shape))
    generation = {"do_sample": False, "max_new_tokens": 192}
    _write_json(folder / "generation_config.json", generation | _SPECIAL_IDS)


def load_weights(model: Llama, folder: Path) -> None:
    """Read what `export_weights` wrote.

    Args:
        model: the network, of the shape that was exported.
        folder: the model's directory.
    """
    weights = load_file(folder / "model.safetensors")
    names = list(model.state_dict())
    model.load_state_dict({name: weights[_exported_name(name)].float() for name in names})


def _exported_name(name: str) -> str:
    """Name a weight as `transformers` does."""
    parts = name.split(".")
    if parts[0] == "layers" and parts[2] in _INSIDE:
        parts.insert(2, _INSIDE[parts[2]])
    return "model." + ".".join(parts)


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "head_dim": shape.head_width,
        "max_position_embeddings": shape.max_positions,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.epsilon,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        **_SPECIAL_IDS,
        "torch_dtype": "float16",
        "use_cache": True,
    }


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
