"""Hugging Face `config.json` -> the one decoder description. A family is a few options.

Source:
    Names and defaults follow transformers' configuration classes (`LlamaConfig`, `Qwen2Config`).
"""

import math
from collections.abc import Mapping

from onhand.core.decoder import Decoder, DecoderLayer, Rope, decoder_from_json
from onhand.core.errors import InputError, SourceError

__all__ = ["FAMILIES", "describe"]

FAMILIES = ("llama", "qwen2")

# A key that would change the computation in a way that the description cannot say yet.
_REFUSED: Mapping[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "quantization_config": (None,),
    "use_sliding_window": (False, None),
    "partial_rotary_factor": (1.0, 1, None),
}


def describe(config: Mapping[str, object], where: str) -> Decoder:
    """Turn a parsed `config.json` into a description.

    Args:
        config: the JSON object.
        where: the file, for messages.

    Returns:
        The description.

    Raises:
        SourceError: if the family or an option is not known, or a number is missing or wrong.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise SourceError(
            f"{where}: model family {family!r} is not known; known: {', '.join(FAMILIES)}"
        )
    for key, accepted in _REFUSED.items():
        if key in config and config[key] not in accepted:
            raise SourceError(f"{where}: {key} is {config[key]!r}, only {accepted[0]!r} is known")
    kinds = config.get("layer_types") or ["full_attention"]
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise SourceError(f"{where}: layer_types is {kinds!r}, only 'full_attention' is known")
    width = _whole(config, "hidden_size", where)
    n_heads = _whole(config, "num_attention_heads", where)
    n_kv_heads = _whole(config, "num_key_value_heads", where, default=n_heads)
    head_dim = _whole(config, "head_dim", where, default=max(width // n_heads, 1))
    if n_heads % n_kv_heads or head_dim % 2:
        raise SourceError(
            f"{where}: {n_heads} heads, {n_kv_heads} key heads and head_dim {head_dim} do not fit"
        )
    layer = DecoderLayer(
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        mlp_width=_whole(config, "intermediate_size", where),
    )
    has_bias = family == "llama" and config.get("attention_bias", False) is True
    decoder = Decoder(
        vocab_size=_whole(config, "vocab_size", where),
        width=width,
        context=_whole(config, "max_position_embeddings", where, default=2048),
        norm_epsilon=_real(config.get("rms_norm_eps", 1e-6), f"{where}: rms_norm_eps"),
        layers=(layer,) * _whole(config, "num_hidden_layers", where, most=1024),
        rope=_rope(config, where),
        tied=config.get("tie_word_embeddings", False) is True,
        qkv_bias=has_bias or family == "qwen2",
        out_bias=has_bias,
        mlp_bias=config.get("mlp_bias", False) is True,
    )
    # A bundle's reader will ask for the same bounds.
    try:
        return decoder_from_json(decoder.to_json())
    except InputError as error:
        raise SourceError(f"{where}: {error}") from error


def _rope(config: Mapping[str, object], where: str) -> Rope:
    # transformers 5 writes `rope_parameters`; before, `rope_theta` and `rope_scaling`.
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(parameters, Mapping):
        raise SourceError(f"{where}: rope_scaling is not a JSON object")
    theta = parameters.get("rope_theta", config.get("rope_theta", 10000.0))
    scaling = str(parameters.get("rope_type", parameters.get("type", "default")))
    if scaling not in {"default", "linear", "llama3", "yarn"}:
        raise SourceError(
            f"{where}: rope scaling {scaling!r} is not known; known: default, linear, llama3, yarn"
        )
    original = parameters.get("original_max_position_embeddings")
    if scaling in {"llama3", "yarn"} and original is None:
        original = config.get("max_position_embeddings")
    for key in ("mscale", "mscale_all_dim"):
        if parameters.get(key):
            raise SourceError(f"{where}: rope scaling with {key} is not known")
    if parameters.get("truncate") is False:
        raise SourceError(f"{where}: rope scaling with truncate false is not known")
    share = parameters.get("partial_rotary_factor")
    if share not in _REFUSED["partial_rotary_factor"]:
        raise SourceError(f"{where}: partial_rotary_factor is {share!r}, only 1.0 is known")

    def number(key: str, default: float) -> float:
        value = parameters.get(key)
        return default if value is None else _real(value, f"{where}: rope {key}")

    attention_factor = parameters.get("attention_factor")
    return Rope(
        theta=_real(theta, f"{where}: rope_theta"),
        scaling=scaling,
        factor=number("factor", 1.0),
        original_context=int(_real(original, f"{where}: rope context")) if original else 0,
        low_freq_factor=number("low_freq_factor", 1.0),
        high_freq_factor=number("high_freq_factor", 4.0),
        beta_fast=number("beta_fast", 32.0),
        beta_slow=number("beta_slow", 1.0),
        attention_factor=None
        if attention_factor is None
        else _real(attention_factor, f"{where}: rope attention_factor"),
    )


def _whole(
    config: Mapping[str, object],
    key: str,
    where: str,
    *,
    default: int | None = None,
    most: int = 2**24,
) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise SourceError(f"{where}: {key} is {value!r}, must be a whole number from 1 to {most}")
    return value


def _real(value: object, what: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise SourceError(f"{what} is {value!r}, must be a finite number")
    return float(value)
