"""The description of a decoder: shapes, rotary tables, and what outsiders may write."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onhand.core.decoder import Decoder, DecoderLayer, Rope, decoder_from_json
from onhand.core.errors import InputError


def test_shapes_by_hand() -> None:
    """One layer: 3 query heads and 1 key head of width 2, a residual stream of 5."""
    layer = DecoderLayer(n_heads=3, n_kv_heads=1, head_dim=2, mlp_width=7)
    tied = Decoder(vocab_size=10, width=5, context=4, norm_epsilon=1e-6, layers=(layer,), tied=True)

    assert tied.matrices() == {
        "embed": (10, 5),
        "layers.0.qkv": (6 + 2 + 2, 5),
        "layers.0.out": (5, 6),
        "layers.0.gate_up": (14, 5),
        "layers.0.down": (5, 7),
    }
    assert tied.vectors() == {
        "layers.0.attention_norm": (5,),
        "layers.0.mlp_norm": (5,),
        "final_norm": (5,),
    }
    assert tied.n_parameters == 50 + 50 + 30 + 70 + 35 + 15
    assert tied.kv_values_per_token == 4


def test_options_add_their_tensors(decoder: Decoder) -> None:
    """A head of its own and every bias have names and shapes."""
    bare = replace(decoder, tied=True, qkv_bias=False, out_bias=False, mlp_bias=False)

    assert set(decoder.matrices()) - set(bare.matrices()) == {"head"}
    added = {k: v for k, v in decoder.vectors().items() if k not in bare.vectors()}
    assert added == {
        "layers.0.qkv_bias": (16,),
        "layers.0.out_bias": (8,),
        "layers.0.gate_up_bias": (24,),
        "layers.0.down_bias": (8,),
        "layers.1.qkv_bias": (16,),
        "layers.1.out_bias": (8,),
        "layers.1.gate_up_bias": (80,),
        "layers.1.down_bias": (8,),
    }


def test_plain_rotary_tables_by_hand() -> None:
    """Of four numbers the first pair turns by one radian each step, the second by a hundredth."""
    cosines, sines = Rope(theta=10000.0).tables(4, 3)

    angles = np.outer([0, 1, 2], [1.0, 0.01])
    np.testing.assert_allclose(cosines, np.cos(angles), rtol=1e-6)  # float32 rounding
    np.testing.assert_allclose(sines, np.sin(angles), rtol=1e-6)


def test_linear_scaling_slows_every_pair() -> None:
    """A factor of four turns each pair a quarter as fast."""
    plain, linear = Rope(), Rope(scaling="linear", factor=4.0)

    np.testing.assert_allclose(
        linear.inverse_frequencies(8), plain.inverse_frequencies(8) / 4, rtol=1e-6
    )


@pytest.mark.parametrize("scaling", ["llama3", "yarn"])
def test_stretching_keeps_fast_pairs_and_slows_slow_ones(scaling: str) -> None:
    """The fastest pair stays, the slowest turns `factor` times slower, none turns faster."""
    plain = Rope().inverse_frequencies(64)
    rope = Rope(scaling=scaling, factor=8.0, original_context=2048)

    ratio = plain / rope.inverse_frequencies(64)

    assert ratio[0] == 1.0
    assert ratio[-1] == pytest.approx(8.0, rel=1e-6)
    assert np.all(np.diff(ratio) >= 0)
    assert np.any((ratio > 1.01) & (ratio < 7.9))


@pytest.mark.parametrize(
    ("rope", "scale"),
    [
        (Rope(scaling="yarn", factor=4.0, original_context=64), 0.1 * math.log(4.0) + 1),
        (Rope(scaling="yarn", factor=1.0, original_context=64), 1.0),
        (Rope(scaling="yarn", factor=4.0, original_context=64, attention_factor=0.5), 0.5),
        (Rope(scaling="linear", factor=4.0), 1.0),
    ],
)
def test_yarn_scales_the_tables(rope: Rope, scale: float) -> None:
    """At position 0 every angle is 0: the cosine is the attention factor itself."""
    cosines, sines = rope.tables(8, 1)

    np.testing.assert_allclose(cosines, scale, rtol=1e-6)
    assert not sines.any()


LONG = Rope(
    scaling="longrope",
    factor=4.0,
    original_context=64,
    short_factors=(1.0,),
    long_factors=(2.0,),
    share=0.5,
)
ROPES = [
    Rope(),
    Rope(theta=500000.0, scaling="llama3", factor=32.0, original_context=8192),
    Rope(scaling="yarn", factor=4.0, original_context=32768, attention_factor=1.1),
    Rope(scaling="linear", factor=2.0),
]


@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: rope.scaling)
def test_json_keeps_everything(decoder: Decoder, rope: Rope) -> None:
    """Written as JSON text and read back, the description is the same."""
    made = replace(decoder, rope=rope)

    assert decoder_from_json(json.loads(json.dumps(made.to_json()))) == made


def test_json_keeps_every_option(decoder: Decoder) -> None:
    """Whatever a family may choose comes back as it was."""
    layers = tuple(replace(layer, head_dim=4, window=7) for layer in decoder.layers)
    made = replace(
        decoder,
        layers=layers,
        rope=LONG,
        local_rope=Rope(theta=7.0),
        norm="layer",
        qk_norm=True,
        post_norm=True,
        activation="gelu_tanh",
        gated=False,
        embed_scale=8.0,
        attention_scale=0.25,
        attention_softcap=50.0,
        logit_softcap=30.0,
    )

    for one in (made, replace(made, positions="learned")):
        assert decoder_from_json(json.loads(json.dumps(one.to_json()))) == one


def test_tensors_of_other_families_by_hand() -> None:
    """Learned positions, norms with a bias, an MLP without a gate: as GPT-2; and Gemma's norms."""
    layer = DecoderLayer(n_heads=2, n_kv_heads=2, head_dim=2, mlp_width=7)
    gpt2 = Decoder(
        vocab_size=10,
        width=4,
        context=6,
        norm_epsilon=1e-5,
        layers=(layer,),
        tied=True,
        positions="learned",
        norm="layer",
        gated=False,
    )

    assert list(gpt2.tensors().items()) == [
        ("embed", (10, 4)),
        ("positions", (6, 4)),
        ("layers.0.attention_norm", (4,)),
        ("layers.0.attention_norm_bias", (4,)),
        ("layers.0.qkv", (12, 4)),
        ("layers.0.out", (4, 4)),
        ("layers.0.mlp_norm", (4,)),
        ("layers.0.mlp_norm_bias", (4,)),
        ("layers.0.up", (7, 4)),
        ("layers.0.down", (4, 7)),
        ("final_norm", (4,)),
        ("final_norm_bias", (4,)),
    ]
    assert gpt2.rotary(0) is None
    assert gpt2.rotary_name(0) is None
    assert gpt2.rotary_tables() == {}
    gemma = replace(gpt2, positions="rope", norm="rms", qk_norm=True, post_norm=True)
    assert [name for name in gemma.vectors() if name not in gpt2.vectors()] == [
        "layers.0.query_norm",
        "layers.0.key_norm",
        "layers.0.attention_post_norm",
        "layers.0.mlp_post_norm",
    ]
    assert gemma.vectors()["layers.0.query_norm"] == (2,)


def test_layers_with_a_window_may_turn_otherwise(decoder: Decoder) -> None:
    """Only those, and only if the description says how."""
    first, second = decoder.layers
    mixed = replace(decoder, layers=(replace(first, window=3), second))
    local = replace(mixed, local_rope=Rope(theta=50.0))

    assert mixed.rotary(0) is mixed.rotary(1) is mixed.rope
    assert (local.rotary(0), local.rotary(1)) == (Rope(theta=50.0), Rope())
    assert mixed.rotary_tables() == {"2": (Rope(), 2), "4": (Rope(), 4)}
    assert local.rotary_tables() == {"4": (Rope(), 4), "local.2": (Rope(theta=50.0), 2)}


def test_the_scale_of_scores(decoder: Decoder) -> None:
    """By the width of a head, unless it is given."""
    assert decoder.score_scale(1) == 0.5
    assert replace(decoder, attention_scale=3.0).score_scale(1) == 3.0


def test_long_conversations_have_tables_of_their_own() -> None:
    """Short factors up to the first context, long ones beyond; and half of a head turns."""
    assert [LONG.is_long(length) for length in (64, 65)] == [False, True]
    assert not Rope().is_long(10**9)
    assert LONG.rotated(4) == 2
    short, long = (LONG.tables(4, 3, long=long)[1] for long in (False, True))
    scale = math.sqrt(1 + math.log(4.0) / math.log(64))

    np.testing.assert_allclose(short[:, 0], scale * np.sin([0, 1, 2]), rtol=1e-6)
    np.testing.assert_allclose(long[:, 0], scale * np.sin([0, 0.5, 1]), rtol=1e-6)
    plain = replace(LONG, factor=1.0).tables(4, 1)[0]
    np.testing.assert_allclose(plain, 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "batch"}, "norm is 'batch', must be one of rms, layer"),
        ({"activation": None}, "activation is None, must be one of silu"),
        ({"positions": ["rope"]}, "positions is"),
        ({"gated": 1}, "gated is 1, must be true or false"),
        ({"embed_scale": 0}, "embed_scale is 0"),
        ({"logit_softcap": float("nan")}, "logit_softcap is nan"),
        ({"local_rope": 3}, "local_rope: must be a JSON object"),
        ({"local_rope": {"theta": 0.5}}, "local_rope: theta is 0.5"),
        ({"rope": {"share": 1.5}}, "share is 1.5, must be at most 1"),
        ({"rope": {"share": 0.1}}, "0 numbers of a head cannot turn"),
        ({"rope": {"share": 0.75}}, "layer 0: 1 numbers of a head cannot turn in pairs"),
        ({"rope": {"short_factors": [1.0]}}, "has 1 short and 0 long factors, needs 0 of each"),
        ({"rope": {"long_factors": "1"}}, "long_factors must be a list"),
        ({"rope": {"long_factors": [0.0]}}, "long_factors is 0.0"),
        (
            {"rope": {"scaling": "longrope", "original_context": 4, "long_factors": [1.0]}},
            "has 0 short and 1 long factors, needs 1 of each",
        ),
    ],
    ids=repr,
)
def test_attack_options(decoder: Decoder, change: dict[str, object], message: str) -> None:
    """An option that no engine knows is refused before any engine sees it."""
    with pytest.raises(InputError, match=message):
        decoder_from_json({**decoder.to_json(), **change})


@pytest.mark.parametrize("window", [-1, 1.5, "8", 10**15, "", [], None, False, 0.0])
def test_attack_windows(decoder: Decoder, window: object) -> None:
    """A window is a whole number of tokens."""
    table: dict[str, Any] = decoder.to_json()
    table["layers"] = [table["layers"][0] | {"window": window}]

    with pytest.raises(InputError, match="layer 0: window is"):
        decoder_from_json(table)


def test_options_may_be_left_out(decoder: Decoder) -> None:
    """What is not said has the default of its field."""
    table = decoder.to_json()
    for key in ("rope", "tied", "qkv_bias", "out_bias", "mlp_bias"):
        del table[key]

    plain = replace(decoder, qkv_bias=False, out_bias=False, mlp_bias=False)

    assert decoder_from_json(json.loads(json.dumps(table))) == plain


WRONG = [-1, 0, 10**15, 10**400, 2.0, True, "8", None, [8]]


@pytest.mark.parametrize("key", ["vocab_size", "width", "context"])
@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:12])
def test_attack_sizes(decoder: Decoder, key: str, value: object) -> None:
    """A size is a whole number within the bounds, nothing that looks like one."""
    with pytest.raises(InputError, match=f"decoder: {key} is .* must be a whole number from 1"):
        decoder_from_json({**decoder.to_json(), key: value})


@pytest.mark.parametrize("key", ["n_heads", "n_kv_heads", "head_dim", "mlp_width"])
@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:12])
def test_attack_sizes_of_a_layer(decoder: Decoder, key: str, value: object) -> None:
    """The message names the layer."""
    table: dict[str, Any] = decoder.to_json()
    table["layers"] = [table["layers"][0], table["layers"][1] | {key: value}]

    with pytest.raises(InputError, match=f"decoder: layer 1: {key} is"):
        decoder_from_json(table)


@pytest.mark.parametrize("change", [{"n_heads": 3}, {"head_dim": 3}])
def test_attack_sizes_that_do_not_fit_each_other(decoder: Decoder, change: dict[str, int]) -> None:
    """Heads share key heads evenly, and rotary pairs need an even width."""
    table: dict[str, Any] = decoder.to_json()
    table["layers"] = [table["layers"][0] | change]

    with pytest.raises(InputError, match=r"layer 0: .* must be a multiple of 2 key heads"):
        decoder_from_json(table)


@pytest.mark.parametrize("layers", [None, [], "two", {}, [{}] * 1025])
def test_attack_numbers_of_layers(decoder: Decoder, layers: object) -> None:
    """At least one layer, and not more than any real model has."""
    with pytest.raises(InputError, match="layers must be a list of 1 to 1024"):
        decoder_from_json({**decoder.to_json(), "layers": layers})


NOT_POSITIVE = [
    -1e-6,
    0,
    1e-13,
    1e-320,
    float("nan"),
    float("inf"),
    1e13,
    10**400,
    True,
    "1",
    [1],
    None,
]


@pytest.mark.parametrize("value", NOT_POSITIVE, ids=lambda value: repr(value)[:12])
def test_attack_epsilon(decoder: Decoder, value: object) -> None:
    """An epsilon that is negative or no number would make every answer NaN."""
    with pytest.raises(InputError, match=r"norm_epsilon is .* must be a number from 1e-12"):
        decoder_from_json({**decoder.to_json(), "norm_epsilon": value})


@pytest.mark.parametrize(
    "key", ["theta", "factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"]
)
@pytest.mark.parametrize("value", NOT_POSITIVE, ids=lambda value: repr(value)[:12])
def test_attack_rotary_numbers(decoder: Decoder, key: str, value: object) -> None:
    """No division by zero and no logarithm of less can be asked for."""
    with pytest.raises(InputError, match=f"decoder: rope: {key} is"):
        decoder_from_json({**decoder.to_json(), "rope": {key: value}})


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"scaling": "magic"}, "scaling is 'magic', must be one of default, linear"),
        ({"scaling": ["yarn"]}, r"scaling is \['yarn'\]"),
        ({"scaling": None}, "scaling is None"),
        ({"theta": 1.0}, "theta is 1.0, must be above 1"),
        ({"scaling": "llama3"}, "original_context is 0, llama3 needs at least 1"),
        ({"scaling": "yarn", "original_context": 0}, "yarn needs at least 1"),
        ({"scaling": "longrope", "original_context": 1}, "longrope needs at least 2"),
        ({"scaling": "yarn", "original_context": 1.5}, "original_context is 1.5"),
        ({"original_context": False}, "original_context is False"),
        ({"scaling": "yarn", "original_context": -1}, "original_context is -1"),
        ({"low_freq_factor": 4.0}, "low_freq_factor and beta_slow must be the smaller"),
        ({"beta_slow": 32.0}, "low_freq_factor and beta_slow must be the smaller"),
        ({"attention_factor": -1.0}, "attention_factor is -1.0"),
        ({"base": 2}, "rope: unknown key 'base'"),
        ("default", "rope: must be a JSON object, found str"),
    ],
)
def test_attack_rotary_options(decoder: Decoder, rope: object, message: str) -> None:
    """Each one is refused by name."""
    with pytest.raises(InputError, match=message):
        decoder_from_json({**decoder.to_json(), "rope": rope})


@pytest.mark.parametrize("key", ["tied", "qkv_bias", "out_bias", "mlp_bias"])
def test_attack_flags(decoder: Decoder, key: str) -> None:
    """The text "false" is not taken for true."""
    with pytest.raises(InputError, match=f"{key} is 'false', must be true or false"):
        decoder_from_json({**decoder.to_json(), key: "false"})


def test_attack_unknown_keys(decoder: Decoder) -> None:
    """An option that this reader does not know would change the computation: refused."""
    table: dict[str, Any] = decoder.to_json()

    with pytest.raises(InputError, match="decoder: unknown key 'sliding_window'"):
        decoder_from_json({**table, "sliding_window": 4096})
    with pytest.raises(InputError, match="decoder: layer 0: unknown key 'experts'"):
        decoder_from_json({**table, "layers": [table["layers"][0] | {"experts": 8}]})


@pytest.mark.parametrize("value", [None, [], "decoder", 3])
def test_attack_another_kind_of_value(value: object) -> None:
    """The description is an object."""
    with pytest.raises(InputError, match="decoder: must be a JSON object"):
        decoder_from_json(value)
