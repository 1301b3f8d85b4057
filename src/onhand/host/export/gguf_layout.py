"""Keys and tensors of a GGUF file, from a decoder's description.

Source:
    llama.cpp: src/llama-arch.cpp (names), convert_hf_to_gguf.py (the order of rotated rows).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.core.rope import Rope
from onhand.host.export.gguf_architecture import (
    Architecture,
    choose_architecture,
    exact_context,
    window_sizes,
)

__all__ = ["GgufLayout", "GgufTensor", "Value", "gguf_layout"]

Value = int | float | str | bool | list[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """A tensor of the file: rows of one of ours.

    Attributes:
        name: in the file.
        source: ours, as in `Decoder.tensors`.
        start: its first row.
        stop: the row after its last.
        heads: heads whose rows change their order, from halves that turn together to neighbours
            that do; 0 where the order stays.
    """

    name: str
    source: str
    start: int
    stop: int
    heads: int = 0

    def rows(self) -> np.ndarray:
        """Return the source's rows in the file's order: (N,) integers."""
        ids = np.arange(self.start, self.stop)
        if self.heads:
            ids = ids.reshape(self.heads, 2, -1).swapaxes(1, 2).reshape(-1)
        return ids


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufLayout:
    """What a file holds beside its tokenizer.

    Attributes:
        architecture: llama.cpp's name of it.
        metadata: key -> value.
        tensors: the matrices, norms and biases, in the order of the file.
        factors: tensors that the description computes: name -> (n,) float32.
        notes: what the user should know.
    """

    architecture: str
    metadata: Mapping[str, Value]
    tensors: tuple[GgufTensor, ...]
    factors: Mapping[str, FloatArray]
    notes: tuple[str, ...]


# llama.cpp marks the layers of a repeating pattern itself: all but each n-th have a window.
_PATTERN = {"gemma2": 2, "gemma3": 6}
_OUTER = {"embed": "token_embd", "positions": "position_embd", "head": "output"}
_NORMS = {
    "attention_norm": "attn_norm",
    "mlp_norm": "ffn_norm",
    "attention_post_norm": "post_attention_norm",
    "mlp_post_norm": "post_ffw_norm",
    "query_norm": "attn_q_norm",
    "key_norm": "attn_k_norm",
}
_MATRICES = {"out": "attn_output", "up": "ffn_up", "down": "ffn_down"}


def gguf_layout(decoder: Decoder) -> GgufLayout:
    """Choose the architecture, its keys and its tensors.

    Args:
        decoder: the model.

    Returns:
        What a file of it holds.

    Raises:
        InputError: if no architecture computes what the description says.
    """
    architecture = choose_architecture(decoder)
    notes: list[str] = []
    context = exact_context(decoder, architecture)
    if context < decoder.context:
        notes.append(
            f"llama.cpp's {architecture.name} has no attention windows: the context is cut from "
            f"{decoder.context} to {context} tokens, within which no window hides anything"
        )
    if decoder.rope.scaling == "longrope":
        notes.append(
            "llama.cpp chooses the rotary factors by the context that it is opened with, above "
            f"{decoder.rope.original_context} tokens the long ones; onhand by the conversation's "
            "length"
        )
    name = architecture.name
    metadata = _sizes(decoder, architecture, context) | _rotary(decoder)
    metadata |= _gemma(decoder, name) if architecture.windows else {}
    return GgufLayout(
        architecture=name,
        metadata={f"{name}.{key}": value for key, value in metadata.items()},
        tensors=tuple(_tensors(decoder, architecture)),
        factors=_factors(decoder),
        notes=tuple(notes),
    )


def _sizes(decoder: Decoder, architecture: Architecture, context: int) -> dict[str, Value]:
    layer = decoder.layers[0]
    epsilon = "layer_norm_epsilon" if decoder.norm == "layer" else "layer_norm_rms_epsilon"
    return {
        "vocab_size": decoder.vocab_size,
        "context_length": context,
        "embedding_length": decoder.width,
        "block_count": len(decoder.layers),
        "feed_forward_length": layer.mlp_width,
        "attention.head_count": layer.n_heads,
        "attention.head_count_kv": layer.n_kv_heads,
        "attention.key_length": layer.head_dim,
        "attention.value_length": layer.head_dim,
        f"attention.{epsilon}": float(decoder.norm_epsilon),
    }


def _rotary(decoder: Decoder) -> dict[str, Value]:
    rope, head_dim = decoder.rope, decoder.layers[0].head_dim
    if decoder.positions == "learned":
        return {}
    found: dict[str, Value] = {
        "rope.dimension_count": rope.rotated(head_dim),
        "rope.freq_base": float(rope.theta),
    }
    if rope.scaling in {"linear", "yarn"}:
        found |= {"rope.scaling.type": rope.scaling, "rope.scaling.factor": float(rope.factor)}
    if rope.scaling == "longrope":
        found["rope.scaling.type"] = rope.scaling
    if rope.scaling in {"yarn", "longrope"}:
        found["rope.scaling.original_context_length"] = rope.original_context
    # At position 0 every cosine is 1, times the factor on the tables.
    scale = float(rope.tables(head_dim, 1)[0][0, 0])
    if rope.scaling == "longrope":
        found["rope.scaling.attn_factor"] = scale
    if rope.scaling == "yarn" and rope.attention_factor is not None:
        # llama.cpp multiplies with its own, which is what the paper computes.
        own = replace(rope, attention_factor=None).tables(head_dim, 1)[0][0, 0]
        found["rope.scaling.attn_factor"] = scale / float(own)
    return found


def _factors(decoder: Decoder) -> dict[str, FloatArray]:
    """Return what divides the angles of each pair, as tensors."""
    rope, head_dim = decoder.rope, decoder.layers[0].head_dim
    if rope.scaling == "llama3":
        plain = Rope(theta=rope.theta, share=rope.share).inverse_frequencies(head_dim)
        return {"rope_freqs.weight": plain / rope.inverse_frequencies(head_dim)}
    if rope.scaling == "longrope":
        return {
            "rope_factors_long.weight": np.array(rope.long_factors, dtype=np.float32),
            "rope_factors_short.weight": np.array(rope.short_factors, dtype=np.float32),
        }
    return {}


def _gemma(decoder: Decoder, name: str) -> dict[str, Value]:
    """Return the keys of windows and soft caps."""
    found: dict[str, Value] = {}
    windows = window_sizes(decoder)
    if windows:
        hidden = [layer.window > 0 for layer in decoder.layers]
        found["attention.sliding_window"] = windows.pop()
        if hidden != [(i + 1) % _PATTERN[name] != 0 for i in range(len(hidden))]:
            found["attention.sliding_window_pattern"] = hidden
        if decoder.local_rope is not None:
            found["rope.freq_base_swa"] = float(decoder.local_rope.theta)
        elif name == "gemma3":
            found["rope.freq_base_swa"] = float(decoder.rope.theta)
    elif name == "gemma2":
        # Without the key, llama.cpp would take a window of its own.
        found["attention.sliding_window"] = decoder.context
    if decoder.attention_softcap is not None:
        found["attn_logit_softcapping"] = float(decoder.attention_softcap)
    if decoder.logit_softcap is not None:
        found["final_logit_softcapping"] = float(decoder.logit_softcap)
    return found


def _tensors(decoder: Decoder, architecture: Architecture) -> Iterator[GgufTensor]:
    for source, shape in decoder.tensors().items():
        kind = "bias" if source.endswith("_bias") else "weight"
        ours = source.removesuffix("_bias")
        if ours in _OUTER or ours == "final_norm":
            name = _OUTER.get(ours, "output_norm")
            yield GgufTensor(name=f"{name}.{kind}", source=source, start=0, stop=shape[0])
            continue
        _, number, part = ours.split(".")
        low = 0
        for name, size, heads in _parts(decoder, architecture, int(number), part, shape[0]):
            yield GgufTensor(
                name=f"blk.{number}.{name}.{kind}",
                source=source,
                start=low,
                stop=low + size,
                heads=heads if architecture.permuted else 0,
            )
            low += size


def _parts(
    decoder: Decoder, architecture: Architecture, i: int, part: str, n_rows: int
) -> list[tuple[str, int, int]]:
    """Return the file's tensors that one of ours is cut into: name, rows, heads that turn."""
    layer = decoder.layers[i]
    if part == "qkv" and not architecture.fused_qkv:
        return [
            ("attn_q", layer.query_width, layer.n_heads),
            ("attn_k", layer.kv_width, layer.n_kv_heads),
            ("attn_v", layer.kv_width, 0),
        ]
    if part == "gate_up" and not architecture.fused_mlp:
        return [("ffn_gate", layer.mlp_width, 0), ("ffn_up", layer.mlp_width, 0)]
    fused = {"qkv": "attn_qkv", "gate_up": "ffn_up"}
    return [((_NORMS | _MATRICES | fused)[part], n_rows, 0)]
