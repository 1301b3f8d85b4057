"""Random-weight checkpoints of real shapes, made on the spot: speed and memory need no meaning."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onhand.core.safetensors import SafetensorsWriter, TensorSpec

__all__ = ["SHAPES", "make_checkpoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model's sizes, as its published `config.json` has them."""

    family: str
    width: int
    mlp_width: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    context: int
    epsilon: float
    theta: float


SHAPES = {
    "qwen2.5-0.5b": Shape(
        family="qwen2",
        width=896,
        mlp_width=4864,
        n_layers=24,
        n_heads=14,
        n_kv_heads=2,
        vocab_size=151936,
        context=32768,
        epsilon=1e-6,
        theta=1e6,
    ),
    "smollm2-135m": Shape(
        family="llama",
        width=576,
        mlp_width=1536,
        n_layers=30,
        n_heads=9,
        n_kv_heads=3,
        vocab_size=49152,
        context=8192,
        epsilon=1e-5,
        theta=1e5,
    ),
    "llama-3.2-1b": Shape(
        family="llama",
        width=2048,
        mlp_width=8192,
        n_layers=16,
        n_heads=32,
        n_kv_heads=8,
        vocab_size=128256,
        context=131072,
        epsilon=1e-5,
        theta=5e5,
    ),
}
_CLASSES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}


def make_checkpoint(name: str, folder: Path, *, tokenizer: Path, seed: int = 0) -> None:
    """Write a checkpoint with random float16 weights and a tied embedding.

    Args:
        name: a key of `SHAPES`.
        folder: where to; created.
        tokenizer: a `tokenizer.json`; ids beyond it have no token.
        seed: of the weights.
    """
    shape = SHAPES[name]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(_config(shape), indent=1))
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    end = "<|endoftext|>"
    settings = {"bos_token": end, "eos_token": end, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    random = np.random.default_rng(seed)
    tensors = _tensors(shape)
    with SafetensorsWriter(folder / "model.safetensors", tensors) as writer:
        for tensor, spec in tensors.items():
            if "norm" in tensor:
                values = np.ones(spec.shape, dtype=np.float32)
            else:
                values = random.standard_normal(spec.shape, dtype=np.float32)
                values *= np.float32(0.02)
            writer.write(tensor, values.astype(np.float16))
        writer.close()


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": [_CLASSES[shape.family]],
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp_width,
        "max_position_embeddings": shape.context,
        "model_type": shape.family,
        "num_attention_heads": shape.n_heads,
        "num_hidden_layers": shape.n_layers,
        "num_key_value_heads": shape.n_kv_heads,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.theta,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "vocab_size": shape.vocab_size,
    }


def _tensors(shape: Shape) -> dict[str, TensorSpec]:
    kv_width = shape.width // shape.n_heads * shape.n_kv_heads
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocab_size, shape.width)
    }
    for i in range(shape.n_layers):
        at = f"model.layers.{i}."
        shapes[f"{at}input_layernorm.weight"] = (shape.width,)
        for part, n in (("q", shape.width), ("k", kv_width), ("v", kv_width)):
            shapes[f"{at}self_attn.{part}_proj.weight"] = (n, shape.width)
            if shape.family == "qwen2":
                shapes[f"{at}self_attn.{part}_proj.bias"] = (n,)
        shapes[f"{at}self_attn.o_proj.weight"] = (shape.width, shape.width)
        shapes[f"{at}post_attention_layernorm.weight"] = (shape.width,)
        shapes[f"{at}mlp.gate_proj.weight"] = (shape.mlp_width, shape.width)
        shapes[f"{at}mlp.up_proj.weight"] = (shape.mlp_width, shape.width)
        shapes[f"{at}mlp.down_proj.weight"] = (shape.width, shape.mlp_width)
    shapes["model.norm.weight"] = (shape.width,)
    return {name: TensorSpec(dtype="F16", shape=found) for name, found in shapes.items()}
