"""Which of llama.cpp's architectures computes what a decoder's description says.

A bundle does not know its family; an architecture fits if its fixed computation, with the keys
that it reads, is the description's. Where none fits, the first difference is the reason.

Source:
    llama.cpp: src/models/{llama,qwen2,qwen3,phi3,gemma2,gemma3,gpt2}.cpp.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.rope import Rope

__all__ = ["Architecture", "choose_architecture", "exact_context", "window_sizes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What llama.cpp computes for one of its architectures, whatever the file says.

    Attributes:
        name: its own.
        scalings: kinds of rotary scaling that it reads.
        options: fields of `Decoder` that must have this value.
        permuted: whether neighbours of a head turn together, not halves.
        fused_qkv: whether query, key and value stay one matrix.
        fused_mlp: whether gate and up stay one matrix.
        windows: whether layers with a window may be told from others.
        square: whether the heads together must be as wide as the model.
        whole: whether every number of a head turns.
    """

    name: str
    scalings: tuple[str, ...] = ("default", "linear", "yarn")
    options: Mapping[str, object]
    permuted: bool = False
    fused_qkv: bool = False
    fused_mlp: bool = False
    windows: bool = False
    square: bool = False
    whole: bool = True


_PLAIN: Mapping[str, object] = {
    "norm": "rms",
    "positions": "rope",
    "activation": "silu",
    "gated": True,
    "qk_norm": False,
    "post_norm": False,
    "attention_softcap": None,
    "logit_softcap": None,
}
_NO_BIAS: Mapping[str, object] = dict.fromkeys(("qkv_bias", "out_bias", "mlp_bias"), False)
_GEMMA: Mapping[str, object] = {
    **_NO_BIAS,
    "norm": "rms",
    "positions": "rope",
    "activation": "gelu_tanh",
    "gated": True,
    "post_norm": True,
}
_LLAMA = Architecture(
    name="llama",
    scalings=("default", "linear", "yarn", "llama3"),
    options=_PLAIN,
    permuted=True,
)
_QWEN2 = Architecture(name="qwen2", options={**_PLAIN, **_NO_BIAS, "qkv_bias": True}, square=True)
_QWEN3 = Architecture(name="qwen3", options={**_PLAIN, **_NO_BIAS, "qk_norm": True})
_PHI3 = Architecture(
    name="phi3",
    scalings=("default", "longrope"),
    options={**_PLAIN, **_NO_BIAS},
    fused_qkv=True,
    fused_mlp=True,
    square=True,
    whole=False,
)
_GEMMA2 = Architecture(
    name="gemma2",
    scalings=("default", "linear"),
    options={**_GEMMA, "qk_norm": False, "tied": True, "local_rope": None},
    windows=True,
)
_GEMMA3 = Architecture(
    name="gemma3",
    scalings=("default", "linear"),
    options={**_GEMMA, "qk_norm": True, "attention_softcap": None},
    windows=True,
)
_GPT2 = Architecture(
    name="gpt2",
    options={
        "norm": "layer",
        "positions": "learned",
        "activation": "gelu_tanh",
        "gated": False,
        "qk_norm": False,
        "post_norm": False,
        **dict.fromkeys(("qkv_bias", "out_bias", "mlp_bias"), True),
        "attention_softcap": None,
        "logit_softcap": None,
    },
    fused_qkv=True,
    square=True,
)
# Layers of the largest Gemma 2 and 3, for which llama.cpp has another factor on the scores.
_LARGEST_GEMMA = {"gemma2": 46, "gemma3": 62}


def choose_architecture(decoder: Decoder) -> Architecture:
    """Find the architecture that computes what a description says.

    Args:
        decoder: the model.

    Returns:
        The architecture.

    Raises:
        InputError: if there is none.
    """
    architecture = _candidate(decoder)
    if reason := _difference(decoder, architecture):
        raise InputError(
            f"llama.cpp's architecture {architecture.name} does not compute this model: {reason}; "
            "it cannot be exported to GGUF"
        )
    return architecture


def _candidate(decoder: Decoder) -> Architecture:
    """Return the only architecture that could fit."""
    if decoder.positions == "learned":
        return _GPT2
    if decoder.post_norm:
        return _GEMMA3 if decoder.qk_norm else _GEMMA2
    if decoder.qk_norm:
        return _QWEN3
    if decoder.rope.scaling == "longrope" or decoder.rope.share != 1:
        return _PHI3
    fits_qwen2 = _difference(decoder, _QWEN2) is None
    return _QWEN2 if decoder.qkv_bias and fits_qwen2 else _LLAMA


def _difference(decoder: Decoder, architecture: Architecture) -> str | None:
    """Return the first thing that the architecture would compute in another way."""
    if decoder.ranks:
        return f"{next(iter(decoder.ranks))} is a product of two factors"
    for option, expected in architecture.options.items():
        found = getattr(decoder, option)
        if found != expected:
            return f"{option} is {found!r}, there {expected!r}"
    layers = decoder.layers
    if len({replace(layer, window=0) for layer in layers}) > 1:
        return "its layers differ in their sizes"
    if architecture.square and layers[0].query_width != decoder.width:
        return f"its heads are {layers[0].query_width} wide together, the model {decoder.width}"
    for i, layer in enumerate(layers):
        expected_scale = layer.head_dim**-0.5
        if len(layers) == _LARGEST_GEMMA.get(architecture.name):
            expected_scale = (decoder.width // layer.n_heads) ** -0.5
        if not math.isclose(decoder.score_scale(i), expected_scale, rel_tol=1e-6):
            return f"its scores are scaled by {decoder.score_scale(i):g}, there {expected_scale:g}"
    expected_embed = decoder.width**0.5 if architecture.windows else 1.0
    if not math.isclose(decoder.embed_scale, expected_embed, rel_tol=1e-6):
        return f"its embedding is scaled by {decoder.embed_scale:g}, there {expected_embed:g}"
    return _gemma_difference(decoder, architecture) or _rotary_difference(decoder, architecture)


def _gemma_difference(decoder: Decoder, architecture: Architecture) -> str | None:
    capped = decoder.attention_softcap is not None and decoder.logit_softcap is not None
    if architecture.name == "gemma2" and not capped:
        return "its scores or its logits have no soft cap"
    if architecture.windows and len(window_sizes(decoder)) > 1:
        return f"its layers have windows of different sizes: {sorted(window_sizes(decoder))}"
    return None


def _rotary_difference(decoder: Decoder, architecture: Architecture) -> str | None:
    rope, local = decoder.rope, decoder.local_rope
    if decoder.positions == "learned":
        return None
    if architecture.whole and rope.share != 1:
        return f"only a share of {rope.share:g} of a head turns"
    if rope.scaling not in architecture.scalings:
        return f"its rotary scaling is {rope.scaling!r}"
    usual = Rope()
    turns = (rope.beta_fast, rope.beta_slow)
    if rope.scaling == "yarn" and turns != (usual.beta_fast, usual.beta_slow):
        return f"its beta_fast and beta_slow are {turns[0]:g} and {turns[1]:g}"
    if local is not None and not architecture.windows:
        return "layers with a window turn in another way"
    if local is not None and local != Rope(theta=local.theta):
        return f"its rotary scaling in layers with a window is {local.scaling!r}"
    stretched = architecture.name == "gemma3" and rope.scaling != "default"
    if stretched and local is None and window_sizes(decoder):
        return "layers with a window are stretched too"
    return None


def window_sizes(decoder: Decoder) -> set[int]:
    """Return the sizes of the windows that some layers have."""
    return {layer.window for layer in decoder.layers if layer.window}


def exact_context(decoder: Decoder, architecture: Architecture) -> int:
    """Return the most tokens within which an architecture computes the same."""
    if architecture.windows:
        return decoder.context
    return min([decoder.context, *window_sizes(decoder)])
