"""Decoders of every family that an export knows, small, and bundles of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.host.test_pack import pack
from tests.models import CONFIG, VOCAB, memory_model

from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder
from onhand.host.passes.base import Pass
from onhand.host.passes.quantize import Quantize
from onhand.host.sources.families import describe

INT4 = Quantize(method="rtn")
INT8 = Quantize(method="rtn", bits=8)
UNEVEN = Quantize(method="rtn", symmetric=False, group_size=64)
LLAMA3: Mapping[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LONG = {
    "rope_type": "longrope",
    "original_max_position_embeddings": 32,
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [2.0 + 0.3 * i for i in range(8)],
}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 3, "sliding_window": 16}
PHI3 = {"model_type": "phi3", "num_key_value_heads": 4, "tie_word_embeddings": False}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "llama with its own head": {"tie_word_embeddings": False},
    "llama with biases": {"attention_bias": True, "mlp_bias": True},
    "llama 3": {"rope_scaling": LLAMA3},
    "llama with yarn": {"rope_scaling": YARN},
    "llama stretched": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "mistral": {"model_type": "mistral", "sliding_window": 24},
    "qwen2": {"model_type": "qwen2"},
    "qwen2 with wide heads": {"model_type": "qwen2", "head_dim": 32},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
    "phi3": {**PHI3, "sliding_window": None},
    "phi3 with a long context": {
        **PHI3,
        "rope_scaling": LONG,
        "original_max_position_embeddings": 32,
        "sliding_window": 2048,
    },
    "phi3 that turns half a head": {**PHI3, "hidden_size": 128, "partial_rotary_factor": 0.5},
    "gemma2": {"model_type": "gemma2", **GEMMA},
    "gemma2 without windows": {
        "model_type": "gemma2",
        **GEMMA,
        "layer_types": 3 * ["full_attention"],
    },
    "gemma3": {"model_type": "gemma3_text", **GEMMA, "sliding_window_pattern": 3},
    "gemma3 without windows": {
        "model_type": "gemma3_text",
        **GEMMA,
        "layer_types": 3 * ["full_attention"],
    },
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": VOCAB,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 128,
    },
}


def family(name: str) -> Decoder:
    """The decoder of a small model."""
    return describe({**CONFIG, **CONFIGS[name]}, name).decoder


def bundle_of(
    folder: Path, decoder: Decoder, transforms: Mapping[str, Pass] | None = None
) -> Bundle:
    """A bundle of random weights; int4 unless said otherwise."""
    model = memory_model(decoder)
    return pack(folder, transforms or {"int4": INT4}, model=model).bundle
