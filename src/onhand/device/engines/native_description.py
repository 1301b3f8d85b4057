"""What the native engine is told of a model."""

from functools import cache
from typing import Any

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.core.errors import EngineUnavailable
from onhand.core.quantized import QuantTensor
from onhand.core.weights import BundleWeights
from onhand.device.engines.native_session import aligned
from onhand.device.engines.rotary_blocks import RotaryBlocks

__all__ = ["describe"]


def describe(
    module: Any, weights: BundleWeights, rotary: RotaryBlocks, threads: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what the native part needs to know of a model, its matrices packed.

    Args:
        module: the native part.
        weights: quantised, every matrix.
        rotary: the tables of the model.
        threads: that pack.

    Returns:
        The whole, and each layer.

    Raises:
        EngineUnavailable: if a matrix is not quantised.
    """
    decoder = weights.decoder
    arena = module.Arena()  # the matrices keep what they have of it

    @cache  # a tied matrix is packed once
    def matrix(name: str) -> Any:
        return _packed(module, weights, name, threads, arena)

    def linear(key: str, name: str) -> dict[str, Any]:
        return {key: [matrix(factor) for factor in decoder.factors(name)]}

    names = list(decoder.vectors())
    learned = decoder.positions == "learned"
    edges = {
        "width": decoder.width,
        "vocab_size": decoder.vocab_size,
        "context": decoder.context,
        "norm_epsilon": decoder.norm_epsilon,
        "embed_scale": decoder.embed_scale,
        "attention_softcap": decoder.attention_softcap or 0.0,
        "logit_softcap": decoder.logit_softcap or 0.0,
        "gated": int(decoder.gated),
        "activation": decoder.activation,
        "embed": [matrix("embed")],
        **linear("head", decoder.head),
        "positions": aligned(weights.matrix("positions")) if learned else None,
        **_vectors(weights, names, "", "final_norm"),
        "rotary_halves": rotary.halves,
    }
    layers: list[dict[str, Any]] = []
    for i in range(len(decoder.layers)):
        at = f"layers.{i}."
        own = _vectors(weights, names, at)
        layers.append({
            **own,
            **_numbers(decoder, rotary, i),
            **linear("qkv", f"{at}qkv"),
            **linear("out", f"{at}out"),
            **linear("inner", f"{at}{decoder.inner}"),
            "inner_bias": own.get(f"{decoder.inner}_bias"),
            **linear("down", f"{at}down"),
        })
    return edges, layers


def _numbers(decoder: Decoder, rotary: RotaryBlocks, i: int) -> dict[str, float]:
    layer = decoder.layers[i]
    return {
        "rotary": rotary.layers[i].plain,
        "rotary_stretched": rotary.layers[i].stretched,
        "rotary_limit": rotary.layers[i].limit,
        "n_heads": layer.n_heads,
        "n_kv_heads": layer.n_kv_heads,
        "head_dim": layer.head_dim,
        "mlp_width": layer.mlp_width,
        "window": layer.window,
        "scale": decoder.score_scale(i),
    }


def _vectors(
    weights: BundleWeights, names: list[str], at: str, which: str = ""
) -> dict[str, FloatArray]:
    own = [name for name in names if name.startswith(at + which)]
    return {name.removeprefix(at): aligned(weights.vector(name)) for name in own}


def _packed(module: Any, weights: BundleWeights, name: str, threads: int, arena: Any) -> Any:
    stored = weights.stored(name)
    if not isinstance(stored, QuantTensor):
        raise EngineUnavailable(f"native: {name} is not quantised")
    return module.Matrix(
        bits=stored.format.bits,
        group=stored.format.group_size,
        n_rows=stored.shape[0],
        n_inputs=stored.shape[1],
        codes=stored.codes,
        scales=aligned(stored.scales).view(np.uint16),
        zeros=stored.zeros,
        threads=threads,
        arena=arena,
    )
