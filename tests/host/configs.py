"""A valid `config.json` of every family, in its old and new spellings."""

from collections.abc import Mapping
from typing import Any

from tests.models import CONFIG, VOCAB

PLAIN: Mapping[str, Any] = {
    **{key: value for key, value in CONFIG.items() if key != "model_type"},
    "head_dim": 16,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
}
GEMMA: Mapping[str, Any] = {
    **{key: value for key, value in PLAIN.items() if key != "hidden_act"},
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 16,
    "sliding_window": 8,
    "final_logit_softcapping": 30.0,
}
LLAMA3: Mapping[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN: Mapping[str, Any] = {
    "type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "attention_factor": 1.1,
    "beta_fast": 32,
    "beta_slow": 1,
}
LONG: Mapping[str, Any] = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 2.5, 3.0, 3.5],
}
VALID: Mapping[str, Mapping[str, Any]] = {
    "llama": {
        **PLAIN,
        "model_type": "llama",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_scaling": LLAMA3,
        "rope_theta": 500000.0,
    },
    "llama as transformers 5 writes it": {
        **{key: value for key, value in PLAIN.items() if key != "rope_theta"},
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0},
    },
    "mistral": {**PLAIN, "model_type": "mistral", "sliding_window": 8},
    "qwen2": {
        **PLAIN,
        "model_type": "qwen2",
        "rope_scaling": YARN,
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 1,
    },
    "qwen3": {
        **PLAIN,
        "model_type": "qwen3",
        "attention_bias": False,
        "use_sliding_window": True,
        "sliding_window": 8,
        "layer_types": ["full_attention", "sliding_attention"],
    },
    "phi3": {
        **PLAIN,
        "model_type": "phi3",
        "partial_rotary_factor": 0.5,
        "original_max_position_embeddings": 32,
        "rope_scaling": LONG,
    },
    "gemma2": {**GEMMA, "model_type": "gemma2", "attn_logit_softcapping": 50.0},
    "gemma3 of old": {
        **GEMMA,
        "model_type": "gemma3_text",
        "rope_local_base_freq": 5000.0,
        "sliding_window_pattern": 2,
    },
    "gemma3": {
        **{key: value for key, value in GEMMA.items() if key != "rope_theta"},
        "model_type": "gemma3_text",
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 50000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
        },
    },
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": VOCAB,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_inner": None,
        "n_positions": 128,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "scale_attn_weights": True,
    },
}
