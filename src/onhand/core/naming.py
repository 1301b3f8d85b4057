"""Where a checkpoint keeps each of our tensors: one naming for each layout in use."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from onhand.core.decoder import Decoder

__all__ = ["GEMMA", "GPT2", "LAYOUTS", "LLAMA", "PHI3", "Naming"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How a family names and lays out its tensors.

    Attributes:
        edges: our names outside the layers -> theirs, without ".weight".
        layer: what comes before a layer's tensors, with {i}.
        parts: our names inside a layer -> theirs, in row order, without ".weight".
        buffers: tensors of old checkpoints that the description computes: a pattern.
        transposed: whether a layer's matrices are stored (K, N).
        norm_offset: what is added to every norm's stored weight.
        optional_prefix: a prefix that some checkpoints of the family lack.
    """

    edges: Mapping[str, str]
    layer: str
    parts: Mapping[str, tuple[str, ...]]
    buffers: str
    transposed: bool = False
    norm_offset: float = 0.0
    optional_prefix: str = ""

    def tensors(
        self, name: str, shape: tuple[int, ...], decoder: Decoder
    ) -> dict[str, tuple[int, ...]]:
        """Return the checkpoint's tensors that make up one of ours.

        Args:
            name: as in `Decoder.tensors`.
            shape: as there.
            decoder: the model.

        Returns:
            Their names -> the shape of each part in our layout, in row order.
        """
        kind = "bias" if name.endswith("_bias") else "weight"
        ours = name.removesuffix("_bias")
        if ours in self.edges:
            return {f"{self.edges[ours]}.{kind}": shape}
        _, number, ours = ours.split(".")
        layer = decoder.layers[int(number)]
        names = self.parts[ours]
        if len(names) == 1:
            sizes = [shape[0]]
        elif ours == "qkv":
            sizes = [layer.query_width, layer.kv_width, layer.kv_width]
        else:
            sizes = [layer.mlp_width] * 2
        at = self.layer.format(i=number)
        return {f"{at}{part}.{kind}": (n, *shape[1:]) for part, n in zip(names, sizes, strict=True)}

    def is_buffer(self, name: str) -> bool:
        """Say whether a stored tensor is one that needs no place."""
        return re.fullmatch(self.buffers, name) is not None

    def is_transposed(self, name: str) -> bool:
        """Say whether one of our matrices is stored (K, N)."""
        return self.transposed and name.startswith("layers.")


LLAMA = Naming(
    edges={"embed": "model.embed_tokens", "head": "lm_head", "final_norm": "model.norm"},
    layer="model.layers.{i}.",
    parts={
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "query_norm": ("self_attn.q_norm",),
        "key_norm": ("self_attn.k_norm",),
        "out": ("self_attn.o_proj",),
        "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
        "down": ("mlp.down_proj",),
        "attention_norm": ("input_layernorm",),
        "mlp_norm": ("post_attention_layernorm",),
    },
    buffers=r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
)

# Query, key and value are one matrix, gate and up another.
PHI3 = replace(
    LLAMA,
    parts={**LLAMA.parts, "qkv": ("self_attn.qkv_proj",), "gate_up": ("mlp.gate_up_proj",)},
)

# Norms also follow attention and MLP; "post_attention" is such a one here.
GEMMA = replace(
    LLAMA,
    parts={
        **LLAMA.parts,
        "attention_post_norm": ("post_attention_layernorm",),
        "mlp_norm": ("pre_feedforward_layernorm",),
        "mlp_post_norm": ("post_feedforward_layernorm",),
    },
    norm_offset=1.0,
)

GPT2 = Naming(
    edges={
        "embed": "transformer.wte",
        "positions": "transformer.wpe",
        "final_norm": "transformer.ln_f",
        "head": "lm_head",
    },
    layer="transformer.h.{i}.",
    parts={
        "qkv": ("attn.c_attn",),
        "out": ("attn.c_proj",),
        "up": ("mlp.c_fc",),
        "down": ("mlp.c_proj",),
        "attention_norm": ("ln_1",),
        "mlp_norm": ("ln_2",),
    },
    buffers=r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",
    transposed=True,
    optional_prefix="transformer.",
)

# Every way in use to name the matrices of a layer.
LAYOUTS = (LLAMA, PHI3, GPT2)
