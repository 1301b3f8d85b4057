"""Hugging Face `config.json` -> the one decoder description. A family is a few options.

Source:
    Names and defaults follow transformers' configuration classes (`LlamaConfig`, `MistralConfig`,
    `Qwen2Config`, `Qwen3Config`, `Phi3Config`, `Gemma2Config`, `Gemma3TextConfig`, `GPT2Config`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from onhand.core.decoder import Decoder, DecoderLayer, Rope, decoder_from_json
from onhand.core.errors import InputError, SourceError
from onhand.host.sources.naming import GPT2, LLAMA, Naming

__all__ = ["FAMILIES", "describe"]

Config = Mapping[str, object]

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
# A key that would change the computation in a way that the description cannot say.
_REFUSED: Mapping[str, tuple[object, ...]] = {
    "quantization_config": (None,),
    "use_bidirectional_attention": (False, None),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
_SLIDING, _FULL = "sliding_attention", "full_attention"
_ROPE_TYPES = {"su": "longrope"} | {
    name: name for name in ("default", "linear", "llama3", "yarn", "longrope")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """What a family's `config.json` leaves unsaid, or says in its own words.

    Attributes:
        naming: where its checkpoint keeps our tensors.
        defaults: keys that may be missing, and the family's value for them.
        renamed: our usual key -> the family's.
        windows: number of a layer and the configuration -> whether it has a window, where
            `layer_types` does not say.
        options: the configuration -> options of the description.
        reads: keys that change this family's computation, and that others leave alone.
    """

    naming: Naming
    defaults: Config = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    windows: Callable[[int, Config], bool] = lambda _, config: (
        config.get("sliding_window") is not None
    )
    options: Callable[[Config], Mapping[str, object]] = lambda _: {}
    reads: tuple[str, ...] = ()


def _llama_options(config: Config) -> Mapping[str, object]:
    has_bias = config.get("attention_bias") is True
    has_mlp_bias = config.get("mlp_bias") is True
    return {"qkv_bias": has_bias, "out_bias": has_bias, "mlp_bias": has_mlp_bias}


def _gemma_options(config: Config) -> Mapping[str, object]:
    width, scalar = config.get("hidden_size"), config.get("query_pre_attn_scalar")
    return {
        **_llama_options(config),
        "post_norm": True,
        "embed_scale": _real(width, "hidden_size") ** 0.5,
        "attention_scale": _real(scalar, "query_pre_attn_scalar") ** -0.5,
        "attention_softcap": config.get("attn_logit_softcapping"),
        "logit_softcap": config.get("final_logit_softcapping"),
    }


def _late_window(i: int, config: Config) -> bool:
    most = config.get("max_window_layers")
    return config.get("use_sliding_window") is True and isinstance(most, int) and i >= most


def _patterned(i: int, config: Config) -> bool:
    pattern = config.get("sliding_window_pattern")
    return not isinstance(pattern, int) or pattern < 1 or (i + 1) % pattern != 0


_QWEN = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
_GEMMA = {
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
_FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(naming=LLAMA, windows=lambda *_: False, options=_llama_options),
    "mistral": _Family(naming=LLAMA, defaults={"sliding_window": 4096, "num_key_value_heads": 8}),
    "qwen2": _Family(
        naming=LLAMA,
        defaults=_QWEN,
        windows=_late_window,
        reads=("layer_types",),
        options=lambda _: {"qkv_bias": True},
    ),
    "qwen3": _Family(
        naming=LLAMA,
        defaults=_QWEN | {"head_dim": 128},
        windows=_late_window,
        reads=("layer_types",),
        options=lambda config: {**_llama_options(config), "qk_norm": True},
    ),
    "phi3": _Family(
        naming=replace(LLAMA, fused=True),
        defaults={"rms_norm_eps": 1e-5},
        reads=("partial_rotary_factor",),
    ),
    "gemma2": _Family(
        naming=replace(LLAMA, sandwich=True, norm_offset=1.0),
        defaults=_GEMMA
        | {
            "sliding_window_pattern": 2,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        renamed={"hidden_act": "hidden_activation"},
        windows=_patterned,
        reads=("layer_types",),
        options=_gemma_options,
    ),
    "gemma3_text": _Family(
        naming=replace(LLAMA, sandwich=True, norm_offset=1.0),
        defaults=_GEMMA
        | {"sliding_window_pattern": 6, "rope_theta": 1e6, "rope_local_base_freq": 10000.0},
        renamed={"hidden_act": "hidden_activation"},
        windows=_patterned,
        reads=("layer_types",),
        options=lambda config: {**_gemma_options(config), "qk_norm": True},
    ),
    "gpt2": _Family(
        naming=GPT2,
        defaults={
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
        },
        renamed={
            "hidden_size": "n_embd",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions",
            "intermediate_size": "n_inner",
            "rms_norm_eps": "layer_norm_epsilon",
            "hidden_act": "activation_function",
        },
        windows=lambda *_: False,
        options=lambda _: {
            **dict.fromkeys(("qkv_bias", "out_bias", "mlp_bias"), True),
            "norm": "layer",
            "gated": False,
            "positions": "learned",
        },
    ),
}

FAMILIES = tuple(_FAMILIES)


def describe(config: Config, where: str) -> tuple[Decoder, Naming]:
    """Turn a parsed `config.json` into a description.

    Args:
        config: the JSON object.
        where: the file, for messages.

    Returns:
        The description, and where the checkpoint keeps its tensors.

    Raises:
        SourceError: if the family or an option is not known, or a number is missing or wrong.
    """
    kind = config.get("model_type")
    family = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise SourceError(
            f"{where}: model family {kind!r} is not known; known: {', '.join(FAMILIES)}"
        )
    known = {**family.defaults, **config}
    known |= {ours: known.get(theirs) for ours, theirs in family.renamed.items()}
    try:
        return _decoder(family, known), family.naming
    except (InputError, SourceError) as error:
        raise SourceError(f"{where}: {error}") from error


def _decoder(family: _Family, config: Config) -> Decoder:
    for key, accepted in _REFUSED.items():
        if key in config and config[key] not in accepted:
            raise SourceError(f"{key} is {config[key]!r}, only {accepted[0]!r} is known")
    activation = config.get("hidden_act", "silu")
    if activation not in _ACTIVATIONS:
        raise SourceError(f"hidden_act is {activation!r}, must be one of {', '.join(_ACTIVATIONS)}")
    layers = _layers(family, config)
    rope, local_rope = _ropes(config)
    if rope.share != 1 and "partial_rotary_factor" not in family.reads:
        raise SourceError(f"partial_rotary_factor is {rope.share}, this family knows only 1.0")
    given = {key: value for key, value in family.options(config).items() if value is not None}
    table = Decoder(
        vocab_size=_whole(config, "vocab_size"),
        width=_whole(config, "hidden_size"),
        context=_whole(config, "max_position_embeddings", default=2048),
        norm_epsilon=_real(config.get("rms_norm_eps", 1e-6), "rms_norm_eps"),
        layers=layers,
        rope=rope,
        local_rope=local_rope,
        tied=config.get("tie_word_embeddings", False) is True,
        activation=_ACTIVATIONS[str(activation)],
    ).to_json()
    # A bundle's reader will ask for the same bounds.
    return decoder_from_json(table | given)


def _layers(family: _Family, config: Config) -> tuple[DecoderLayer, ...]:
    width = _whole(config, "hidden_size")
    n_heads = _whole(config, "num_attention_heads")
    n_kv_heads = _whole(config, "num_key_value_heads", default=n_heads)
    head_dim = _whole(config, "head_dim", default=max(width // n_heads, 1))
    n_layers = _whole(config, "num_hidden_layers", most=1024)
    if n_heads % n_kv_heads or head_dim % 2:
        raise SourceError(
            f"{n_heads} heads, {n_kv_heads} key heads and head_dim {head_dim} do not fit"
        )
    plain = DecoderLayer(
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        mlp_width=_whole(config, "intermediate_size", default=4 * width),
    )
    kinds = config.get("layer_types")
    if kinds is not None and (not isinstance(kinds, list) or len(kinds) != n_layers):
        raise SourceError(f"layer_types is {kinds!r}, must be a list of {n_layers} names")
    if kinds is not None and "layer_types" not in family.reads and set(kinds) != {_FULL}:
        raise SourceError(f"layer_types is {kinds!r}, this family knows only {_FULL!r}")
    if kinds is None or "layer_types" not in family.reads:
        kinds = [_SLIDING if family.windows(i, config) else _FULL for i in range(n_layers)]
    if unknown := [name for name in kinds if name not in {_SLIDING, _FULL}]:
        raise SourceError(f"layer_types has {unknown[0]!r}, known are {_FULL} and {_SLIDING}")
    if _SLIDING not in kinds or config.get("sliding_window") is None:
        return (plain,) * n_layers
    windowed = replace(plain, window=_whole(config, "sliding_window"))
    return tuple(windowed if name == _SLIDING else plain for name in kinds)


def _ropes(config: Config) -> tuple[Rope, Rope | None]:
    """Return the rotary positions, and those of layers with a window where they differ.

    Raises:
        SourceError: if they are not known.
    """
    # transformers 5 writes `rope_parameters`; before, `rope_theta` and `rope_scaling`.
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(parameters, Mapping):
        raise SourceError("rope_scaling is not a JSON object")
    theta = config.get("rope_theta", 10000.0)
    local_theta = config.get("rope_local_base_freq")
    if _FULL in parameters or _SLIDING in parameters:
        full, sliding = parameters.get(_FULL) or {}, parameters.get(_SLIDING) or {}
        if not isinstance(full, Mapping) or not isinstance(sliding, Mapping):
            raise SourceError("rope_parameters is not an object of objects")
        rope = _rope(full, theta, config)
        local = _rope(sliding, theta if local_theta is None else local_theta, config)
    else:
        rope = _rope(parameters, theta, config)
        local = rope if local_theta is None else _rope({}, local_theta, config)
    return rope, None if local == rope else local


def _rope(parameters: Config, theta: object, config: Config) -> Rope:
    named = str(parameters.get("rope_type", parameters.get("type", "default")))
    if named not in _ROPE_TYPES:
        raise SourceError(f"rope scaling {named!r} is not known; known: {', '.join(_ROPE_TYPES)}")
    scaling = _ROPE_TYPES[named]
    context = config.get("max_position_embeddings")
    original = parameters.get("original_max_position_embeddings")
    if scaling == "longrope" and original is None:
        original = config.get("original_max_position_embeddings")
    if scaling in {"llama3", "yarn", "longrope"} and original is None:
        original = context
    for key in ("mscale", "mscale_all_dim"):
        if parameters.get(key):
            raise SourceError(f"rope scaling with {key} is not known")
    if parameters.get("truncate") is False:
        raise SourceError("rope scaling with truncate false is not known")

    def number(key: str, default: float) -> float:
        value = parameters.get(key)
        return default if value is None else _real(value, f"rope {key}")

    share = parameters.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    factor = number("factor", 1.0)
    if scaling == "longrope" and parameters.get("factor") is None:
        factor = _real(context, "max_position_embeddings") / _real(original, "rope context")
    attention_factor = parameters.get("attention_factor")
    return Rope(
        theta=_real(parameters.get("rope_theta", theta), "rope_theta"),
        scaling=scaling,
        factor=factor,
        original_context=int(_real(original, "rope context")) if original else 0,
        low_freq_factor=number("low_freq_factor", 1.0),
        high_freq_factor=number("high_freq_factor", 4.0),
        beta_fast=number("beta_fast", 32.0),
        beta_slow=number("beta_slow", 1.0),
        attention_factor=None
        if attention_factor is None
        else _real(attention_factor, "rope attention_factor"),
        short_factors=_numbers(parameters.get("short_factor"), scaling),
        long_factors=_numbers(parameters.get("long_factor"), scaling),
        share=1.0 if share is None else _real(share, "partial_rotary_factor"),
    )


def _numbers(value: object, scaling: str) -> tuple[float, ...]:
    if scaling != "longrope":
        return ()
    if not isinstance(value, list):
        raise SourceError("rope scaling longrope needs the lists short_factor and long_factor")
    return tuple(_real(number, "rope factor") for number in value)


def _whole(config: Config, key: str, *, default: int | None = None, most: int = 2**24) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise SourceError(f"{key} is {value!r}, must be a whole number from 1 to {most}")
    return value


def _real(value: object, what: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise SourceError(f"{what} is {value!r}, must be a finite number")
    return float(value)
