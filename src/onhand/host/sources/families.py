"""Hugging Face `config.json` -> the one decoder description. A family is a few options.

Source:
    Names and defaults follow transformers' configuration classes (`LlamaConfig`, `MistralConfig`,
    `Qwen2Config`, `Qwen3Config`, `Phi3Config`, `Gemma2Config`, `Gemma3TextConfig`, `GPT2Config`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from onhand.core.decoder import MOST, Decoder, DecoderLayer, Rope, decoder_from_json
from onhand.core.errors import InputError, SourceError
from onhand.core.naming import GEMMA, GPT2, LLAMA, PHI3, Naming
from onhand.core.outside import shown
from onhand.host.sources.keys import Keys, judge_unread
from onhand.host.sources.rotary import FULL, SLIDING, RotaryRules, read_ropes

__all__ = ["FAMILIES", "Description", "describe"]

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a `config.json` says.

    Attributes:
        decoder: the model.
        naming: where the checkpoint keeps its tensors.
        notes: what in the configuration is not used, in sentences.
    """

    decoder: Decoder
    naming: Naming
    notes: tuple[str, ...]


def _named_windows(keys: Keys, n_layers: int) -> list[bool] | None:
    """Say of each layer whether `layer_types` gives it a window; None where there is no such key.

    Raises:
        SourceError: if it does not name a kind that is known for each layer.
    """
    if keys.value("layer_types") is None:
        return None
    return [kind == SLIDING for kind in keys.words("layer_types", n_layers, (FULL, SLIDING))]


def _equal_windows(keys: Keys, n_layers: int) -> list[bool]:
    has_windows = [keys.value("sliding_window") is not None] * n_layers
    if _named_windows(keys, n_layers) not in (None, has_windows):
        expected = f"sliding_window makes every layer a {SLIDING if has_windows[0] else FULL}"
        raise keys.wrong("layer_types", expected)
    return has_windows


def _no_windows(keys: Keys, n_layers: int) -> list[bool]:
    if any(_named_windows(keys, n_layers) or ()):
        raise keys.wrong("layer_types", f"this family knows only {FULL}")
    return [False] * n_layers


def _late_windows(keys: Keys, n_layers: int) -> list[bool]:
    named, in_use = _named_windows(keys, n_layers), keys.flag("use_sliding_window")
    keys.value("max_window_layers")  # most configurations have it, even where it changes nothing
    if named is not None:
        if any(named) and not in_use:
            raise keys.wrong("use_sliding_window", f"but layer_types names {SLIDING}")
        return named
    if keys.value("sliding_window") is None or not in_use:
        return [False] * n_layers
    first = keys.whole("max_window_layers", least=0, most=2**20)
    return [i >= first for i in range(n_layers)]


def _alternating_windows(keys: Keys, n_layers: int) -> list[bool]:
    return _named_windows(keys, n_layers) or [i % 2 == 0 for i in range(n_layers)]


def _patterned_windows(keys: Keys, n_layers: int) -> list[bool]:
    named = _named_windows(keys, n_layers)
    keys.value("sliding_window_pattern")  # older than `layer_types`; some files have both
    if named is not None:
        return named
    pattern = keys.whole("sliding_window_pattern", most=MOST["n_layers"])
    return [(i + 1) % pattern != 0 for i in range(n_layers)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """What a family's `config.json` leaves unsaid, or says in its own words.

    Attributes:
        naming: where its checkpoint keeps our tensors.
        defaults: keys that may be missing, and the family's value for them.
        renamed: our usual key -> the family's.
        windows: the configuration and a number of layers -> whether each has a window.
        rotary: what its rotary positions may be; None if positions are learned.
        options: the configuration -> options of the description.
        mlp_ratio: width of the MLP by that of the model, where it may be left out.
    """

    naming: Naming
    defaults: Mapping[str, object]
    renamed: Mapping[str, str] = field(default_factory=dict)
    windows: Callable[[Keys, int], list[bool]]
    rotary: RotaryRules | None = field(default_factory=RotaryRules)
    options: Callable[[Keys], Mapping[str, object]] = lambda _: {}
    mlp_ratio: int | None = None


def _attention_bias(keys: Keys) -> Mapping[str, object]:
    return dict.fromkeys(("qkv_bias", "out_bias"), keys.flag("attention_bias"))


def _llama_options(keys: Keys) -> Mapping[str, object]:
    return {**_attention_bias(keys), "mlp_bias": keys.flag("mlp_bias")}


def _cap(keys: Keys, key: str) -> float | None:
    return None if keys.value(key) is None else keys.number(key)


def _gemma_options(keys: Keys) -> Mapping[str, object]:
    keys.repeated("hidden_act", "hidden_activation")
    return {
        **_attention_bias(keys),
        "post_norm": True,
        "embed_scale": keys.whole("hidden_size", most=MOST["width"]) ** 0.5,
        "attention_scale": keys.number("query_pre_attn_scalar") ** -0.5,
        "logit_softcap": _cap(keys, "final_logit_softcapping"),
    }


def _gemma2_options(keys: Keys) -> Mapping[str, object]:
    return {**_gemma_options(keys), "attention_softcap": _cap(keys, "attn_logit_softcapping")}


_LLAMA = {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048}
_QWEN = {
    **_LLAMA,
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
_GEMMA = {
    **_LLAMA,
    "max_position_embeddings": 8192,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
_GELU = {"hidden_act": "hidden_activation"}
_FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(naming=LLAMA, defaults=_LLAMA, windows=_no_windows, options=_llama_options),
    "mistral": _Family(
        naming=LLAMA,
        defaults={
            **_LLAMA,
            "max_position_embeddings": 131072,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
        },
        windows=_equal_windows,
    ),
    "qwen2": _Family(
        naming=LLAMA,
        defaults=_QWEN,
        windows=_late_windows,
        options=lambda _: {"qkv_bias": True},
    ),
    "qwen3": _Family(
        naming=LLAMA,
        defaults=_QWEN | {"head_dim": 128},
        windows=_late_windows,
        options=lambda keys: {**_attention_bias(keys), "qk_norm": True},
    ),
    "phi3": _Family(
        naming=PHI3,
        defaults={
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
        },
        windows=_equal_windows,
        rotary=RotaryRules(
            scalings={
                "default": "default",
                **dict.fromkeys(("longrope", "su", "yarn"), "longrope"),
            },
            may_share=True,
        ),
    ),
    "gemma2": _Family(
        naming=GEMMA,
        defaults=_GEMMA | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        renamed=_GELU,
        windows=_alternating_windows,
        options=_gemma2_options,
    ),
    "gemma3_text": _Family(
        naming=GEMMA,
        defaults=_GEMMA | {"max_position_embeddings": 131072, "sliding_window_pattern": 6},
        renamed=_GELU,
        windows=_patterned_windows,
        rotary=RotaryRules(theta=1e6, local_theta=10000.0),
        options=lambda keys: {**_gemma_options(keys), "qk_norm": True},
    ),
    "gpt2": _Family(
        naming=GPT2,
        defaults={
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
            "n_positions": 1024,
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
        windows=_no_windows,
        rotary=None,
        options=lambda _: {
            **dict.fromkeys(("qkv_bias", "out_bias", "mlp_bias"), True),
            "norm": "layer",
            "gated": False,
            "positions": "learned",
        },
        mlp_ratio=4,
    ),
}

FAMILIES = tuple(_FAMILIES)


def describe(config: Mapping[str, object], where: str) -> Description:
    """Turn a parsed `config.json` into a description.

    Args:
        config: the JSON object.
        where: the file, for messages.

    Returns:
        The description, where the checkpoint keeps its tensors, and notes.

    Raises:
        SourceError: if the family or an option is not known, or a value is missing or wrong.
    """
    kind = config.get("model_type")
    family = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise SourceError(
            f"{where}: model family {shown(kind)} is not known; known: {', '.join(FAMILIES)}"
        )
    keys = Keys(config, where, defaults=family.defaults, renamed=family.renamed)
    try:
        decoder = _decoder(family, keys)
        notes = judge_unread(keys)
    except SourceError:
        raise
    except InputError as error:
        raise SourceError(f"{error}") from error
    return Description(decoder=decoder, naming=family.naming, notes=notes)


def _decoder(family: _Family, keys: Keys) -> Decoder:
    layers = _layers(family, keys)
    rope, local_rope = Rope(), None
    if family.rotary is not None:
        rope, local_rope = read_ropes(keys, family.rotary, layers[0].head_dim)
    table = Decoder(
        vocab_size=keys.whole("vocab_size", most=MOST["vocab_size"]),
        width=keys.whole("hidden_size", most=MOST["width"]),
        context=keys.whole("max_position_embeddings", most=MOST["context"]),
        norm_epsilon=keys.number("rms_norm_eps"),
        layers=layers,
        rope=rope,
        local_rope=local_rope,
        tied=keys.flag("tie_word_embeddings"),
        activation=_ACTIVATIONS[keys.word("hidden_act", _ACTIVATIONS)],
    ).to_json()
    options = family.options(keys)
    try:
        # A bundle's reader will ask for the same bounds.
        return decoder_from_json({**table, **options})
    except InputError as error:
        raise SourceError(f"{keys.where}: {error}") from error


def _layers(family: _Family, keys: Keys) -> tuple[DecoderLayer, ...]:
    width = keys.whole("hidden_size", most=MOST["width"])
    n_layers = keys.whole("num_hidden_layers", most=MOST["n_layers"])
    n_heads = keys.whole("num_attention_heads", most=MOST["n_heads"])
    n_kv_heads = keys.whole("num_key_value_heads", most=MOST["n_heads"], default=n_heads)
    if n_heads % n_kv_heads:
        raise keys.wrong(
            "num_attention_heads", f"must be a multiple of num_key_value_heads, {n_kv_heads}"
        )
    if keys.value("head_dim") is None and width % n_heads:
        raise keys.wrong("hidden_size", f"must be a multiple of {n_heads} heads")
    head_dim = keys.whole("head_dim", most=MOST["head_dim"], default=width // n_heads)
    if head_dim % 2:
        raise keys.wrong("head_dim", f"a head's width is {head_dim}, must be even")
    plain = DecoderLayer(
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        mlp_width=keys.whole(
            "intermediate_size",
            most=MOST["mlp_width"],
            default=family.mlp_ratio and family.mlp_ratio * width,
        ),
    )
    windows = family.windows(keys, n_layers)
    if not any(windows):
        return (plain,) * n_layers
    windowed = replace(plain, window=keys.whole("sliding_window", most=MOST["context"]))
    return tuple(windowed if has_window else plain for has_window in windows)
