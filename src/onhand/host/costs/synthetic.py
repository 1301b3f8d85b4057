"""Small models of random weights, with tokenizers of any size: what micro-measurements run."""

import itertools
import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder, DecoderLayer
from onhand.core.progress import Quiet
from onhand.host.calibrate import InputStatistics
from onhand.host.model import Model
from onhand.host.pack import pack_bundle, plan_variants
from onhand.host.passes.quantize import Quantize

__all__ = ["RandomWeights", "Sizes", "made_tokenizer", "make_bundle", "random_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """A small decoder, all layers alike, its embedding tied.

    Attributes:
        width: of the residual stream.
        mlp_width: inside the MLP.
        n_layers: of them.
        vocab_size: tokens.
        n_heads: query heads.
        n_kv_heads: key heads.
        head_dim: numbers of a head.
        context: most tokens.
    """

    width: int = 64
    mlp_width: int = 128
    n_layers: int = 2
    vocab_size: int = 512
    n_heads: int = 2
    n_kv_heads: int = 2
    head_dim: int = 32
    context: int = 2048

    @property
    def decoder(self) -> Decoder:
        """The description."""
        layer = DecoderLayer(
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            head_dim=self.head_dim,
            mlp_width=self.mlp_width,
        )
        return Decoder(
            vocab_size=self.vocab_size,
            width=self.width,
            context=self.context,
            norm_epsilon=1e-6,
            layers=(layer,) * self.n_layers,
            tied=True,
        )


class RandomWeights:
    """Stands in for a model when something is timed. See `ModelWeights`."""

    def __init__(self, decoder: Decoder) -> None:
        """Make nothing yet; every matrix is drawn when it is asked for."""
        self.decoder = decoder
        self._random = np.random.default_rng(0)

    def matrix(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.block(name, 0, self.decoder.matrices()[name][0])

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """See `ModelWeights`."""
        shape = (stop - start, self.decoder.matrices()[name][1])
        return self._random.standard_normal(shape, dtype=np.float32)

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `ModelWeights`."""
        return self.matrix(name)[ids]

    def vector(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return np.ones(self.decoder.vectors()[name], dtype=np.float32)


def random_model(decoder: Decoder, files: Mapping[str, bytes] | None = None) -> Model:
    """Return a model of random weights.

    Args:
        decoder: its description.
        files: its tokenizer and the like; None for none.
    """
    return Model(
        name="sample",
        location=Path(),
        family="sample",
        weights=RandomWeights(decoder),
        files=files or {},
        sha256="0" * 64,
        source_bytes=0,
        weight_bits=32,
    )


def make_bundle(sizes: Sizes, folder: Path, *, bits: int = 4, tokens: int = 0) -> Bundle:
    """Write a bundle of random weights in groups of 32.

    Args:
        sizes: of the model.
        folder: where to; an empty one is made.
        bits: of a code.
        tokens: of its tokenizer, at least 300; 0 for no tokenizer.

    Returns:
        The bundle; its only variant is "sample".
    """
    folder.mkdir(parents=True)
    files = {"tokenizer.json": made_tokenizer(tokens)} if tokens else {}
    model = random_model(sizes.decoder, files)
    plans = plan_variants(sizes.decoder, {"sample": Quantize(bits=bits, method="rtn")})
    packed = pack_bundle(
        model,
        plans,
        InputStatistics(),
        folder,
        accuracy_level=4,
        provenance={},
        threads=1,
        progress=Quiet(),
    )
    return packed.bundle


def made_tokenizer(n_tokens: int) -> bytes:
    """Return a `tokenizer.json` of byte pairs with so many tokens, at least 300.

    Every token beyond the letters joins a shorter one and a letter, as trained vocabularies do.
    """
    letters = string.ascii_lowercase + string.ascii_uppercase + string.digits
    vocab = {letter: i for i, letter in enumerate(["<|endoftext|>", *letters])}
    merges: list[list[str]] = []
    for length in itertools.count(2):
        for parts in itertools.product(letters, repeat=length):
            if len(vocab) >= n_tokens:
                break
            vocab["".join(parts)] = len(vocab)
            merges.append(["".join(parts[:-1]), parts[-1]])
        if len(vocab) >= n_tokens:
            break
    added = {
        "id": 0,
        "content": "<|endoftext|>",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": merges,
    }
    table = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": model,
    }
    return json.dumps(table, ensure_ascii=False, indent=2).encode()
