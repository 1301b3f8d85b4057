"""What each key of a `config.json` may hold, and which keys no family may pass over."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.host.configs import LONG, VALID, YARN

from onhand.core.decoder import Decoder, DecoderLayer
from onhand.core.errors import SourceError
from onhand.core.naming import GEMMA, LLAMA, PHI3
from onhand.host.sources.families import Description, describe

FILE = "folder/config.json"
FULL, SLIDING = "full_attention", "sliding_attention"


def described(kind: str, change: Mapping[str, Any] | None = None) -> Description:
    """A family's valid configuration after a change."""
    return describe({**VALID[kind], **(change or {})}, FILE)


def refused(kind: str, change: Mapping[str, Any]) -> str:
    """The sentence that refuses a changed configuration, without the file that it begins with."""
    with pytest.raises(SourceError) as caught:
        described(kind, change)

    text = str(caught.value)
    assert text.startswith(f"{FILE}: ")
    assert text.isprintable()
    return text.removeprefix(f"{FILE}: ")


NO_NUMBER: list[object] = [0, -1, float("nan"), float("inf"), 10**400, 1e300, True, "8", [8], {}]


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("gemma2", "query_pre_attn_scalar"),
        ("gemma2", "attn_logit_softcapping"),
        ("gemma2", "final_logit_softcapping"),
        ("gemma3 of old", "rope_local_base_freq"),
        ("llama", "rms_norm_eps"),
        ("llama", "rope_theta"),
        ("gpt2", "layer_norm_epsilon"),
    ],
)
@pytest.mark.parametrize("value", NO_NUMBER, ids=lambda value: repr(value)[:12])
def test_attack_numbers(kind: str, key: str, value: object) -> None:
    """A division by zero, a root of less, or a number that is none never begins."""
    assert refused(kind, {key: value}).startswith(f"{key} is ")


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("gemma2", "hidden_size"),
        ("llama", "vocab_size"),
        ("llama", "num_hidden_layers"),
        ("llama", "num_attention_heads"),
        ("llama", "num_key_value_heads"),
        ("llama", "intermediate_size"),
        ("llama", "max_position_embeddings"),
        ("llama", "head_dim"),
        ("mistral", "sliding_window"),
        ("gemma3 of old", "sliding_window_pattern"),
        ("gpt2", "n_embd"),
        ("gpt2", "n_inner"),
    ],
)
@pytest.mark.parametrize("value", [*NO_NUMBER, 8.0], ids=lambda value: repr(value)[:12])
def test_attack_sizes(kind: str, key: str, value: object) -> None:
    """The file's own name of the key, what it holds, and the bounds that a bundle has too."""
    assert f"{key} is " in (text := refused(kind, {key: value}))
    assert "must be a whole number from 1 to" in text


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("llama", "attention_bias"),
        ("llama", "mlp_bias"),
        ("llama", "tie_word_embeddings"),
        ("qwen3", "attention_bias"),
        ("qwen2", "use_sliding_window"),
    ],
)
@pytest.mark.parametrize("value", [0, 1, "true", None, [], float("nan")], ids=repr)
def test_attack_switches(kind: str, key: str, value: object) -> None:
    """The text "true" is neither true nor, in silence, false."""
    assert refused(kind, {key: value}).endswith("must be true or false")


@pytest.mark.parametrize("value", [["gelu"], {"gelu": 1}, None, 3, "relu"], ids=repr)
def test_attack_activations(value: object) -> None:
    """Lists and objects too are refused by name."""
    for kind, key in (
        ("llama", "hidden_act"),
        ("gemma2", "hidden_activation"),
        ("gpt2", "activation_function"),
    ):
        assert refused(kind, {key: value}).startswith(f"{key} is {value!r}, must be one of silu")


@pytest.mark.parametrize(
    "value",
    ["full", 3, {}, [[FULL], FULL], [{}, FULL], [FULL], [FULL, "x"], [None, FULL]],
    ids=repr,
)
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"])
def test_attack_kinds_of_layers(kind: str, value: object) -> None:
    """One known name for each layer, nothing that cannot be compared."""
    assert refused(kind, {"layer_types": value}).startswith("layer_types is ")


ROPE: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"rope_scaling": [1]}, "rope_scaling is [1], must be a JSON object"),
    ("llama", {"rope_scaling": False}, "rope_scaling is False, must be a JSON object"),
    ("qwen2", {"rope_parameters": False}, "rope_parameters is False, must be a JSON object"),
    ("llama", {"rope_scaling": {"rope_type": ["yarn"]}}, "rope_type is ['yarn'], must be one of"),
    ("llama", {"rope_scaling": {"rope_type": "su"}}, "rope_type is 'su', must be one of"),
    ("llama", {"rope_scaling": {"type": "linear"}}, "factor is None, must be a number"),
    ("llama", {"rope_scaling": {"type": "llama3", "factor": 8.0}}, "low_freq_factor is None"),
    (
        "llama",
        {"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 2.0}},
        "type is 'linear', but rope_type says otherwise",
    ),
    (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        "but rope_parameters says otherwise",
    ),
    (
        "llama as transformers 5 writes it",
        {"rope_theta": 20000.0},
        "rope_theta is 500000.0, but rope_theta beside it says otherwise",
    ),
    ("llama", {"rope_scaling": {FULL: {"rope_type": "default"}}}, "given by kinds of layers"),
    ("llama", {"partial_rotary_factor": 0.5}, "this family knows only 1.0"),
    ("llama", {"rope_theta": 1}, "rope_theta is 1, must be above 1"),
    ("qwen2", {"rope_scaling": {**YARN, "beta_slow": 32}}, "beta_slow is 32, must be below"),
    ("qwen2", {"rope_scaling": {**YARN, "mscale": 1.0}}, "mscale is 1.0, this option is not known"),
    ("qwen2", {"rope_scaling": {**YARN, "truncate": False}}, "truncate is False, this option"),
    ("qwen2", {"rope_scaling": {**YARN, "attention_factor": 0}}, "attention_factor is 0, must be"),
    ("qwen2", {"original_max_position_embeddings": 64}, "but original_max_position_embeddings bes"),
    ("phi3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "type is 'linear', must be one"),
    ("phi3", {"rope_scaling": {**LONG, "short_factor": [1.0] * 3}}, "a list of 4 numbers"),
    ("phi3", {"rope_scaling": {**LONG, "long_factor": 2.0}}, "long_factor is 2.0, must be a list"),
    ("phi3", {"rope_scaling": {**LONG, "long_factor": [0] * 4}}, "long_factor is 0, must be a"),
    ("phi3", {"rope_scaling": {**LONG, "short_mscale": 1.2}}, "short_mscale is 1.2, this family"),
    ("phi3", {"original_max_position_embeddings": 0}, "is 0, must be a whole number from 2"),
    ("phi3", {"original_max_position_embeddings": 1}, "is 1, must be a whole number from 2"),
    ("phi3", {"partial_rotary_factor": 1.5}, "partial_rotary_factor is 1.5, must be at most 1"),
    ("phi3", {"partial_rotary_factor": 0.2}, "turn an even number of a head's 16 numbers"),
    (
        "gemma3",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        "must be an object with full_attention and sliding_attention",
    ),
    ("gemma3", {"rope_parameters": {FULL: {}, SLIDING: 3}}, "sliding_attention is 3, must be a JS"),
    ("gemma3", {"rope_local_base_freq": 7.0}, "rope_local_base_freq beside it says otherwise"),
]


@pytest.mark.parametrize(("kind", "change", "reason"), ROPE, ids=repr)
def test_attack_rotary_options(kind: str, change: dict[str, Any], reason: str) -> None:
    """What is wrong, missing, contradicts itself, or is of another family, is named."""
    assert reason in refused(kind, change)


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("llama", {"compression_config": {"format": "pack"}}, "stored in a quantised form"),
        ("llama", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        ("llama", {"attention_multiplier": 0.5}, "attention_multiplier is 0.5"),
        ("llama", {"residual_multiplier": 0.22}, "residual_multiplier is 0.22"),
        ("llama", {"logits_scaling": 8.0}, "logits_scaling is 8.0"),
        ("llama", {"logits_scaling": float("nan")}, "logits_scaling is nan"),
        ("mistral", {"clip_qkv": 8.0}, "clip_qkv is 8.0"),
        ("llama", {"use_qk_norm": True}, "use_qk_norm is True"),
        ("llama", {"no_rope_layers": [1, 0]}, "no_rope_layers is [1, 0]"),
        ("llama", {"pruned_heads": {"0": [1]}}, "pruned_heads is {'0': [1]}"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False"),
        ("gpt2", {"scale_attn_weights": 1}, "scale_attn_weights is 1"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx is True"),
        ("qwen3", {"use_sliding_window": False}, "but layer_types names sliding_attention"),
        ("qwen3", {"sliding_window": None}, "sliding_window is None"),
        ("gemma2", {"sliding_window": None}, "sliding_window is None"),
        ("mistral", {"layer_types": [FULL, FULL]}, "makes every layer a sliding_attention"),
        ("llama", {"hidden_size": 65, "head_dim": None}, "must be a multiple of 4 heads"),
        ("llama", {"intermediate_size": None}, "intermediate_size is None"),
    ],
    ids=repr,
)
def test_a_key_that_would_change_the_answers_is_refused(
    kind: str, change: dict[str, Any], reason: str
) -> None:
    """No key of another family, or of a form of weights that is not read, is passed over."""
    assert reason in refused(kind, change)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("llama", {"quantization_config": None, "rope_scaling": None, "pretraining_tp": 2}),
        ("llama", {"residual_multiplier": 1, "logits_scaling": 1.0, "clip_qkv": None}),
        ("llama", {"bos_token_id": [1, 2], "architectures": ["LlamaForCausalLM"], "_x": 1}),
        ("llama", {"layer_types": [FULL, FULL], "rope_parameters": {}, "use_flash": False}),
        ("mistral", {"sliding_window": None, "layer_types": None}),
        ("qwen2", {"rope_parameters": YARN}),
        ("gpt2", {"hidden_size": None}),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 131072}),
        ("gemma2", {"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid"}),
        ("gemma2", {"final_logit_softcapping": None, "attn_logit_softcapping": None}),
        ("gemma3", {"_sliding_window_pattern": 6, "attn_logit_softcapping": None}),
        ("gpt2", {"n_ctx": 128, "resid_pdrop": 0.1, "architectures": ["GPT2LMHeadModel"]}),
    ],
    ids=repr,
)
def test_keys_that_change_nothing_need_no_note(kind: str, change: dict[str, Any]) -> None:
    """Training, generation and storage; options that are off."""
    assert described(kind, change).notes == ()


def test_keys_that_nobody_knows_are_noted() -> None:
    """Those that transformers would pass over too: listed in one sentence, however many."""
    odd = {"hidden_act": "gelu", "mlp_bias": True, "auto_map": {}, "architectures": ["GemmaBi"]}
    many = {f"odd {i:02}\n": i + 1 for i in range(20)}

    assert described("gemma2", odd).notes == (
        f"{FILE}: architectures is ['GemmaBi'], read as a language model",
        f"{FILE}: keys that this family does not use: 'auto_map', 'hidden_act', 'mlp_bias'",
    )
    assert described("llama", {"sliding_window": 8}).notes[0].endswith("'sliding_window'")
    (note,) = described("llama", many).notes
    assert note.endswith(r"'odd 11\n' and 8 more")
    table = {"rope_type": "default", "rope_theta": 500000.0, "factor": 2.0}
    assert described("llama", {"rope_scaling": table}).notes[0].endswith("use: 'factor'")


def test_yarn_may_leave_its_factor_to_the_contexts() -> None:
    """As transformers: the context by the first one."""
    rope = described("qwen2", {"rope_scaling": {**YARN, "factor": None}}).decoder.rope

    assert rope.factor == 128 / 32
    outside = {key: value for key, value in YARN.items() if "original" not in key}
    change = {"rope_scaling": outside, "original_max_position_embeddings": 64}
    assert described("qwen2", change).decoder.rope.original_context == 64


def test_phi3_calls_longrope_by_three_names() -> None:
    """Older files say "su", and some "yarn", of the same computation."""
    ropes = {
        described("phi3", {"rope_scaling": {**LONG, "rope_type": name}}).decoder.rope
        for name in ("longrope", "su", "yarn")
    }

    assert {rope.scaling for rope in ropes} == {"longrope"}
    assert len(ropes) == 1


def test_defaults_are_those_of_the_family() -> None:
    """A key that a file leaves out has the value that transformers gives it."""
    bare = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 6,
        "num_attention_heads": 32,
    }
    found = {
        kind: describe({**bare, "model_type": kind}, FILE).decoder
        for kind in ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text")
    }

    assert {kind: decoder.context for kind, decoder in found.items()} == {
        "llama": 2048,
        "mistral": 131072,
        "qwen2": 32768,
        "qwen3": 32768,
        "phi3": 4096,
        "gemma2": 8192,
        "gemma3_text": 131072,
    }
    assert [decoder.layers[0].n_kv_heads for decoder in found.values()] == [32, 8, 32, 32, 32, 4, 4]
    assert [decoder.layers[0].head_dim for decoder in found.values()] == [2, 2, 2, 128, 2, 256, 256]
    assert [decoder.tied for decoder in found.values()] == [False] * 5 + [True] * 2
    windows = {kind: [bool(x.window) for x in one.layers] for kind, one in found.items()}
    assert windows["gemma2"] == [True, False] * 3
    assert windows["gemma3_text"] == [True] * 5 + [False]
    assert windows["mistral"] == [True] * 6
    assert not any(windows["qwen2"] + windows["phi3"] + windows["llama"])


def test_namings_are_data() -> None:
    """Phi-3 joins matrices that Llama keeps apart; Gemma gives another norm Llama's name."""
    layer = DecoderLayer(n_heads=4, n_kv_heads=2, head_dim=16, mlp_width=96)
    decoder = Decoder(vocab_size=8, width=64, context=8, norm_epsilon=1e-5, layers=(layer,))
    at = "model.layers.0."

    assert LLAMA.tensors("layers.0.qkv", (128, 64), decoder) == {
        f"{at}self_attn.q_proj.weight": (64, 64),
        f"{at}self_attn.k_proj.weight": (32, 64),
        f"{at}self_attn.v_proj.weight": (32, 64),
    }
    assert PHI3.tensors("layers.0.qkv", (128, 64), decoder) == {
        f"{at}self_attn.qkv_proj.weight": (128, 64)
    }
    assert list(LLAMA.tensors("layers.0.mlp_norm", (64,), decoder)) == [
        f"{at}post_attention_layernorm.weight"
    ]
    assert list(GEMMA.tensors("layers.0.attention_post_norm", (64,), decoder)) == [
        f"{at}post_attention_layernorm.weight"
    ]
    assert json.dumps(dict(PHI3.edges)) == json.dumps(dict(LLAMA.edges))
