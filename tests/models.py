"""Small random models from a seed: in memory, and as checkpoints in a folder; no torch."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder, DecoderLayer
from onhand.core.safetensors import SafetensorsWriter, TensorSpec
from onhand.host.model import Model

VOCAB = 320
LAYER = DecoderLayer(n_heads=4, n_kv_heads=2, head_dim=16, mlp_width=96)
DECODER = Decoder(
    vocab_size=VOCAB, width=64, context=128, norm_epsilon=1e-5, layers=(LAYER, LAYER), tied=True
)
WORDS = ["turn", "on", "the", "light", "in", "kitchen", "and", "heating", "to", "打开", "客厅"]
CONFIG: Mapping[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


def sample_text(n_words: int, *, seed: int = 0) -> str:
    """Sentences of a few words, eight to a line."""
    chosen = np.random.default_rng(seed).choice(WORDS, n_words)
    return "\n".join(" ".join(chosen[low : low + 8]) for low in range(0, n_words, 8)) + "\n"


@cache
def tokenizer_json() -> bytes:
    """A byte-level tokenizer that knows the words of `sample_text`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([sample_text(400)], trainer)
    return tokenizer.to_str().encode()


def random_tensors(
    shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0
) -> dict[str, FloatArray]:
    """Matrices that keep a vector's size about, norms about 1, small biases; values of float16."""
    random = np.random.default_rng(seed)
    made: dict[str, FloatArray] = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape, dtype=np.float32)
        if len(shape) == 2:
            values *= np.float32(shape[1] ** -0.5)
        else:
            values = values * np.float32(0.2) + np.float32("norm" in name)
        made[name] = values.astype(np.float16).astype(np.float32)
    return made


@dataclass(frozen=True, slots=True)
class MemoryWeights:
    """A model's weights in memory, by our names. See `ModelWeights`."""

    decoder: Decoder
    tensors: Mapping[str, FloatArray]

    def matrix(self, name: str) -> FloatArray:
        """A matrix."""
        return self.tensors[name]

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """Rows of a matrix."""
        return self.tensors[name][start:stop]

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """Chosen rows of a matrix."""
        return self.tensors[name][ids]

    def vector(self, name: str) -> FloatArray:
        """A norm or bias."""
        return self.tensors[name]


def memory_model(
    decoder: Decoder = DECODER, *, seed: int = 0, tensors: Mapping[str, FloatArray] | None = None
) -> Model:
    """A model that no family describes: any decoder, its weights in memory."""
    if tensors is None:
        shapes: dict[str, tuple[int, ...]] = {**decoder.matrices(), **decoder.vectors()}
        tensors = random_tensors(shapes, seed=seed)
    return Model(
        name="tiny",
        location=Path("tiny"),
        family="none",
        weights=MemoryWeights(decoder, tensors),
        files={"tokenizer.json": tokenizer_json()},
        sha256=f"{seed:064x}",
        source_bytes=2 * decoder.n_parameters,
        weight_bits=16,
    )


def varied_decoder() -> Decoder:
    """Layers of other heads, widths and ratios each; every bias; widths that groups do not fill."""
    layers = (
        DecoderLayer(n_heads=4, n_kv_heads=1, head_dim=16, mlp_width=112),
        DecoderLayer(n_heads=3, n_kv_heads=3, head_dim=32, mlp_width=48),
    )
    return replace(
        DECODER, width=80, layers=layers, tied=False, qkv_bias=True, out_bias=True, mlp_bias=True
    )


def checkpoint_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a Llama or Qwen2 checkpoint, as transformers names them."""
    width, inner, vocab = (
        config[key] for key in ("hidden_size", "intermediate_size", "vocab_size")
    )
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or width // heads
    kv = config.get("num_key_value_heads", heads) * head_dim
    qwen = config["model_type"] == "qwen2"
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, width)}
    for i in range(config["num_hidden_layers"]):
        sizes = {
            "self_attn.q_proj": (heads * head_dim, width),
            "self_attn.k_proj": (kv, width),
            "self_attn.v_proj": (kv, width),
            "self_attn.o_proj": (width, heads * head_dim),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        }
        for part, shape in sizes.items():
            at = f"model.layers.{i}.{part}"
            shapes[f"{at}.weight"] = shape
            has_bias = config.get("attention_bias", False) or (qwen and not part.endswith("o_proj"))
            if config.get("mlp_bias", False) if part.startswith("mlp") else has_bias:
                shapes[f"{at}.bias"] = shape[:1]
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{i}.{norm}.weight"] = (width,)
    shapes["model.norm.weight"] = (width,)
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (vocab, width)
    return shapes


def stored_as(array: FloatArray, dtype: str) -> np.ndarray:
    """The values in a file's dtype; bfloat16 is the upper half of float32, rounded to even."""
    if dtype == "F32":
        return array
    if dtype == "F16":
        return array.astype(np.float16)
    bits = np.ascontiguousarray(array).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_tensors(path: Path, tensors: Mapping[str, FloatArray], *, dtype: str) -> None:
    """One safetensors file."""
    declared = {name: TensorSpec(dtype=dtype, shape=a.shape) for name, a in tensors.items()}
    with SafetensorsWriter(path, declared) as writer:
        for name, array in tensors.items():
            writer.write(name, stored_as(array, dtype))
        writer.close()


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any] = CONFIG,
    *,
    tensors: Mapping[str, FloatArray] | None = None,
    dtype: str = "F16",
    n_shards: int = 1,
    seed: int = 0,
) -> Path:
    """A folder as Hugging Face models come; several shards get an index."""
    folder.mkdir(parents=True, exist_ok=True)
    given = random_tensors(checkpoint_shapes(config), seed=seed) if tensors is None else tensors
    (folder / "config.json").write_text(json.dumps(dict(config)))
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    if n_shards == 1:
        write_tensors(folder / "model.safetensors", given, dtype=dtype)
        return folder
    weight_map: dict[str, str] = {}
    for file, part in _shards(given, n_shards):
        write_tensors(folder / file, part, dtype=dtype)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _shards(
    tensors: Mapping[str, FloatArray], n_shards: int
) -> Iterator[tuple[str, dict[str, FloatArray]]]:
    names = list(tensors)
    for i in range(n_shards):
        part = {name: tensors[name] for name in names[i::n_shards]}
        yield f"model-{i + 1:05}-of-{n_shards:05}.safetensors", part
