"""Tiny encoders with random weights, as transformers and sentence-transformers save them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "the",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "mat",
    "##s",
]
V = 40
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": V,
    "max_position_embeddings": 24,
}
DISTIL: dict[str, Any] = {
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 24,
    "vocab_size": V,
    "max_position_embeddings": 24,
}


def config(family: str, **changes: Any) -> Any:
    """A small configuration of transformers' own class."""
    import transformers

    sizes = DISTIL if family == "distilbert" else SIZES
    if "roberta" in family:  # every published one tells no texts apart
        sizes = sizes | {"type_vocab_size": 1}
    return transformers.AutoConfig.for_model(family, **{**sizes, **changes})


def save_encoder(folder: Path, family: str, *, kind: str = "AutoModel", **changes: Any) -> Any:
    """Save a model with random weights and norms that are no identity, and return it."""
    import torch
    import transformers

    torch.manual_seed(7)
    model = getattr(transformers, kind).from_config(config(family, **changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Random weights as they begin are so small that every mistake would be as small.
            parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.1))
            assert parameter.dtype == torch.float32, name
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


def save_tokenizer(folder: Path, **limits: Any) -> None:
    """Save a tokenizer of words that puts [CLS] and [SEP] around, and would cut at 5 tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")  # noqa: S106
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens(WORDS[:4])
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=5)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(limits))


def save_modules(
    folder: Path, *, pooling: str = "mean_tokens", normalize: bool = True, **pool: Any
) -> None:
    """Write what sentence-transformers puts beside a model."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    places = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, place) in enumerate(zip(kinds, places, strict=False))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    names = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    modes = {f"pooling_mode_{name}": name == pooling for name in names}
    whole = {"word_embedding_dimension": 16, **modes, **pool}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(whole))


def texts(
    *, length: int = 9, pad_id: int = 0, has_types: bool = True
) -> dict[str, NDArray[np.int64]]:
    """Two texts, the first one padded at its end."""
    rng = np.random.default_rng(3)
    ids = rng.integers(4, V, (2, length))
    mask = np.ones((2, length), dtype=np.int64)
    mask[0, length - 4 :] = 0
    types = rng.integers(0, 2, (2, length))
    ids = np.where(mask == 1, ids, pad_id)
    feeds = {"input_ids": ids, "attention_mask": mask}
    return feeds | ({"token_type_ids": types} if has_types else {})
