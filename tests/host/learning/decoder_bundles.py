"""Small decoders of every kind, as bundles that are not yet at their place."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from tests.models import DECODER, LAYER, memory_model, random_tensors, varied_decoder

from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder
from onhand.core.progress import Quiet
from onhand.core.rope import Rope
from onhand.host.calibrate import InputStatistics
from onhand.host.model import Model
from onhand.host.pack import pack_bundle, pack_original, plan_variants
from onhand.host.passes.quantize import Quantize

_WINDOWED = replace(LAYER, window=5)
_NARROW = replace(LAYER, n_heads=2, n_kv_heads=2, head_dim=8, mlp_width=40)

DECODERS: dict[str, Decoder] = {
    "llama": DECODER,
    "other heads and widths in each layer, biases, a head of its own": varied_decoder(),
    "gemma": replace(
        DECODER,
        layers=(_WINDOWED, LAYER),
        local_rope=Rope(theta=1e3),
        qk_norm=True,
        post_norm=True,
        activation="gelu_tanh",
        embed_scale=8.0,
        attention_softcap=3.0,
        logit_softcap=2.0,
        attention_scale=0.3,
    ),
    "gpt2": replace(
        DECODER,
        norm="layer",
        positions="learned",
        activation="gelu",
        gated=False,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
    ),
    "part of a head turns": replace(DECODER, rope=Rope(share=0.5), tied=False),
    "factors": replace(
        DECODER,
        layers=(LAYER, _NARROW),
        ranks={"layers.0.qkv": 12, "layers.1.down": 16, "layers.0.out": 8},
    ),
}


def quantized(
    decoder: Decoder, folder: Path, *, seed_of_zeros: int | None = None, **options: object
) -> Bundle:
    """Write a bundle with one variant; with a seed, three of four weights of layers are zero."""
    transform = Quantize(method="rtn", **options)  # type: ignore[arg-type] # as they are given
    plans = plan_variants(decoder, {"coded": transform})
    return pack_bundle(
        memory_model(decoder) if seed_of_zeros is None else _thinned(decoder, seed_of_zeros),
        plans,
        InputStatistics(),
        folder,
        accuracy_level=4,
        provenance={},
        threads=1,
        progress=Quiet(),
    ).bundle


def _thinned(decoder: Decoder, seed: int) -> Model:
    random = np.random.default_rng(seed)
    tensors = random_tensors(decoder.tensors(), seed=seed)
    for name, array in tensors.items():
        if name.startswith("layers.") and array.ndim == 2:
            array[random.random(array.shape) < 0.75] = 0.0
    return memory_model(decoder, tensors=tensors)


def original(decoder: Decoder, folder: Path) -> Bundle:
    """Write a bundle in float32."""
    return pack_original(memory_model(decoder), folder)
