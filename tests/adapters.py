"""LoRA adapters as PEFT saves them, made from arrays; no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.core.safetensors import SafetensorsWriter, TensorSpec

Factors = Mapping[str, tuple[FloatArray, FloatArray]]
ATTENTION = "model.layers.{}.self_attn.{}_proj"
MLP = "model.layers.{}.mlp.{}_proj"

# What PEFT writes beside the options that a test gives.
USUAL: Mapping[str, Any] = {
    "alora_invocation_tokens": None,
    "auto_mapping": {"base_model_class": "Some", "parent_library": "some"},
    "base_model_name_or_path": "../../etc/passwd",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "r": 4,
    "rank_pattern": {},
    "task_type": "CAUSAL_LM",
    "use_dora": False,
    "use_rslora": False,
}


def llama_modules(decoder: Decoder) -> dict[str, tuple[int, int]]:
    """Every module of a Llama checkpoint that an adapter may be for."""
    made: dict[str, tuple[int, int]] = {}
    for i, layer in enumerate(decoder.layers):
        made[ATTENTION.format(i, "q")] = (layer.query_width, decoder.width)
        made[ATTENTION.format(i, "k")] = (layer.kv_width, decoder.width)
        made[ATTENTION.format(i, "v")] = (layer.kv_width, decoder.width)
        made[ATTENTION.format(i, "o")] = (decoder.width, layer.query_width)
        made[MLP.format(i, "gate")] = (layer.mlp_width, decoder.width)
        made[MLP.format(i, "up")] = (layer.mlp_width, decoder.width)
        made[MLP.format(i, "down")] = (decoder.width, layer.mlp_width)
    made["lm_head"] = (decoder.vocab_size, decoder.width)
    return made


def lora_factors(
    shapes: Mapping[str, tuple[int, int]], *, rank: int = 4, seed: int = 5
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Module -> A (r, K) and B (n, r), of values that every dtype holds exactly."""
    random = np.random.default_rng(seed)
    made: dict[str, tuple[FloatArray, FloatArray]] = {}
    for module, (n, k) in shapes.items():
        first, second = (
            (random.integers(-64, 65, shape) / 512).astype(np.float32)
            for shape in ((rank, k), (n, rank))
        )
        made[module] = (first, second)
    return made


def some(decoder: Decoder, *names: str, rank: int = 4) -> Factors:
    """Factors of the modules whose names end so."""
    chosen = {m: shape for m, shape in llama_modules(decoder).items() if m.endswith(names)}
    return lora_factors(chosen, rank=rank)


def write_adapter(
    folder: Path, factors: Factors, options: Mapping[str, Any] | None = None, *, dtype: str = "F32"
) -> Path:
    """A folder as PEFT saves an adapter; an option of `...` is left out."""
    tensors = {
        f"base_model.model.{module}.lora_{side}.weight": values
        for module, pair in factors.items()
        for side, values in zip("AB", pair, strict=True)
    }
    return write_adapter_tensors(folder, tensors, options, dtype=dtype)


def write_adapter_tensors(
    folder: Path,
    tensors: Mapping[str, FloatArray],
    options: Mapping[str, Any] | None = None,
    *,
    dtype: str = "F32",
) -> Path:
    """The same of tensors with any names."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {k: v for k, v in {**USUAL, **(options or {})}.items() if v is not ...}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    declared = {name: TensorSpec(dtype=dtype, shape=a.shape) for name, a in tensors.items()}
    with SafetensorsWriter(folder / "adapter_model.safetensors", declared) as writer:
        for name, array in tensors.items():
            writer.write(name, _stored(array, dtype))
        writer.close()
    return folder


def _stored(array: FloatArray, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
    kinds = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "I8": np.int8}
    return array.astype(kinds[dtype])
