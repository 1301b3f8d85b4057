"""Which architecture of llama.cpp a model gets, under which keys and names, or why none."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.host.export_models import CONFIGS, family
from tests.models import DECODER, LAYER, varied_decoder

from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.rope import Rope
from onhand.device.engines.forward import rotate
from onhand.host.export.gguf_layout import GgufTensor, gguf_layout

gguf = pytest.importorskip("gguf", reason="knows llama.cpp's names: needs onhand[host]")


@pytest.mark.parametrize("name", CONFIGS)
def test_names_are_those_that_llama_cpp_knows(name: str) -> None:
    """The gguf package lists the tensors of each architecture."""
    layout = gguf_layout(family(name))

    kind = next(k for k, word in gguf.MODEL_ARCH_NAMES.items() if word == layout.architecture)
    known = {
        gguf.TENSOR_NAMES[tensor].format(bid=i)
        for tensor in gguf.MODEL_TENSORS[kind]
        for i in range(len(family(name).layers))
    }
    names = [tensor.name for tensor in layout.tensors] + list(layout.factors)
    assert len(set(names)) == len(names)
    assert {name.rpartition(".")[0] for name in names} <= known


ARCHITECTURES = {
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen2 with wide heads": "llama",
    "qwen3": "qwen3",
    "phi3": "llama",
    "phi3 with a long context": "phi3",
    "phi3 that turns half a head": "phi3",
    "gemma2": "gemma2",
    "gemma2 without windows": "gemma2",
    "gemma3": "gemma3",
    "gemma3 without windows": "gemma3",
    "gpt2": "gpt2",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_each_family_has_its_architecture(name: str) -> None:
    """Chosen by what it computes."""
    assert gguf_layout(family(name)).architecture == ARCHITECTURES.get(name, "llama")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama with yarn", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}),
        ("llama with yarn", {"rope.scaling.original_context_length": 32}),
        ("llama stretched", {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}),
        ("phi3 that turns half a head", {"rope.dimension_count": 16}),
        (
            "phi3 with a long context",
            {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 32},
        ),
        (
            "phi3 with a long context",
            {"rope.scaling.attn_factor": math.sqrt(1 + math.log(4) / math.log(32))},
        ),
        ("gemma2", {"attention.sliding_window": 16, "attn_logit_softcapping": 50.0}),
        ("gemma2", {"final_logit_softcapping": 30.0}),
        ("gemma2 without windows", {"attention.sliding_window": 128}),
        ("gemma3", {"rope.freq_base": 1e6, "rope.freq_base_swa": 1e4}),
        ("gpt2", {"attention.layer_norm_epsilon": 1e-5}),
    ],
)
def test_keys_of_a_family(name: str, expected: dict[str, object]) -> None:
    """What llama.cpp must be told."""
    layout = gguf_layout(family(name))

    found = {key: layout.metadata[f"{layout.architecture}.{key}"] for key in expected}
    assert found == pytest.approx(expected)


def test_windows_in_another_pattern_are_listed() -> None:
    """llama.cpp's own would be every sixth layer of Gemma 3 without one."""
    metadata = gguf_layout(family("gemma3")).metadata

    assert metadata["gemma3.attention.sliding_window_pattern"] == [True, True, False]


def test_keys_that_a_family_does_not_have() -> None:
    """Gemma 2's windows are llama.cpp's own pattern; a model without windows names none."""
    assert "gemma2.attention.sliding_window_pattern" not in gguf_layout(family("gemma2")).metadata
    without = gguf_layout(family("gemma3 without windows")).metadata
    assert [key for key in without if "sliding_window" in key or "_swa" in key] == []
    assert [key for key in gguf_layout(family("gpt2")).metadata if "rope" in key] == []


def test_a_factor_on_yarns_tables_is_beside_llama_cpps_own() -> None:
    """llama.cpp computes 0.1 * ln(factor) + 1 and multiplies with the key."""
    rope = Rope(scaling="yarn", factor=4.0, original_context=32, attention_factor=2.0)

    metadata = gguf_layout(replace(DECODER, rope=rope)).metadata

    expected = 2.0 / (0.1 * math.log(4.0) + 1)
    assert metadata["llama.rope.scaling.attn_factor"] == pytest.approx(expected)


def test_gemma_3_with_one_turn_in_every_layer() -> None:
    """llama.cpp's own base for layers with a window is another: it must be told."""
    decoder = replace(family("gemma3"), local_rope=None, rope=Rope(theta=5e4))

    assert gguf_layout(decoder).metadata["gemma3.rope.freq_base_swa"] == 5e4


def test_the_factors_of_a_long_context() -> None:
    """Both lists are tensors."""
    factors = gguf_layout(family("phi3 with a long context")).factors

    np.testing.assert_allclose(factors["rope_factors_short.weight"], np.arange(8) * 0.1 + 1)
    np.testing.assert_allclose(factors["rope_factors_long.weight"], np.arange(8) * 0.3 + 2)


def turned_as_neighbours(x: FloatArray, cosines: FloatArray, sines: FloatArray) -> FloatArray:
    """Rotate numbers 2j and 2j + 1 of each head, as llama.cpp does for this architecture."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cosines[:, None], sines[:, None]
    pairs = np.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return pairs.reshape(x.shape)


def test_reordered_rows_give_the_same_scores(rng: np.random.Generator) -> None:
    """Neighbours that turn, in the file's order, are our halves that turn."""
    order = GgufTensor(name="q", source="q", start=0, stop=32, heads=2).rows()
    tables = Rope().tables(16, 7)
    q, k = rng.normal(size=(2, 7, 32)).astype(np.float32)

    def scores(turn: Any, rows: np.ndarray) -> FloatArray:
        query, key = (turn(x[:, rows].reshape(7, 2, 16), *tables) for x in (q, k))
        products: FloatArray = np.einsum("thd,shd->hts", query, key)
        return products

    theirs = scores(turned_as_neighbours, order)
    np.testing.assert_allclose(theirs, scores(rotate, np.arange(32)), rtol=1e-4, atol=1e-4)


def test_only_llama_changes_the_order_of_rows() -> None:
    """And of query and key alone, biases too."""
    heads = {t.name: t.heads for t in gguf_layout(family("llama with biases")).tensors if t.heads}

    kinds = [
        f"blk.{i}.attn_{part}.{k}" for i in (0, 1) for k in ("weight", "bias") for part in "qk"
    ]
    assert sorted(heads) == sorted(kinds)
    assert [t for t in gguf_layout(family("qwen2")).tensors if t.heads] == []


def decoder_with(name: str, **changes: Any) -> Decoder:
    """A family's decoder with other options."""
    return replace(family(name), **changes)


@pytest.mark.parametrize(
    ("decoder", "reason"),
    [
        (varied_decoder(), "layers differ in their sizes"),
        (decoder_with("llama", ranks={"layers.0.out": 8}), "layers.0.out is a product of two"),
        (decoder_with("llama", activation="gelu"), "activation is 'gelu'"),
        (decoder_with("llama", logit_softcap=30.0), "logit_softcap is 30.0"),
        (decoder_with("llama", attention_scale=0.1), "scores are scaled by 0.1"),
        (decoder_with("llama", embed_scale=2.0), "embedding is scaled by 2"),
        (decoder_with("llama", rope=Rope(share=0.5), qkv_bias=True), "qkv_bias is True"),
        (
            decoder_with("llama", rope=Rope(scaling="yarn", original_context=9, beta_fast=16.0)),
            "beta_fast and beta_slow are 16 and 1",
        ),
        (
            decoder_with("mistral", local_rope=Rope(theta=100.0)),
            "layers with a window turn in another way",
        ),
        (decoder_with("qwen3", qkv_bias=True), "qkv_bias is True"),
        (decoder_with("qwen3", rope=Rope(share=0.5)), "share of 0.5 of a head"),
        (
            decoder_with("qwen3", rope=Rope(scaling="llama3", original_context=32)),
            "rotary scaling is 'llama3'",
        ),
        (decoder_with("gemma2", logit_softcap=None), "no soft cap"),
        (decoder_with("gemma2", attention_scale=0.2), "scores are scaled by 0.2"),
        (
            decoder_with("gemma2", layers=tuple(replace(LAYER, window=w) for w in (8, 16))),
            "windows of different sizes: [8, 16]",
        ),
        (
            decoder_with("gemma3", local_rope=Rope(scaling="linear", factor=2.0)),
            "in layers with a window is 'linear'",
        ),
        (
            decoder_with("gemma3", local_rope=None, rope=Rope(scaling="linear", factor=2.0)),
            "layers with a window are stretched too",
        ),
        (decoder_with("gpt2", activation="gelu"), "activation is 'gelu'"),
        (decoder_with("gpt2", width=80), "heads are 64 wide together, the model 80"),
    ],
)
def test_what_llama_cpp_computes_in_another_way_is_refused(decoder: Decoder, reason: str) -> None:
    """With the first difference."""
    with pytest.raises(InputError) as caught:
        gguf_layout(decoder)

    assert reason in str(caught.value)
    assert "cannot be exported to GGUF" in str(caught.value)


def test_the_largest_gemma_has_its_own_factor() -> None:
    """llama.cpp knows it by its number of layers."""
    layer = replace(LAYER, n_heads=2, head_dim=16)
    decoder = decoder_with("gemma2", layers=(layer,) * 46, attention_scale=(64 / 2) ** -0.5)

    assert gguf_layout(decoder).architecture == "gemma2"


def test_a_long_context_is_told_of() -> None:
    """llama.cpp chooses the factors when it opens the file, we by the conversation."""
    notes = gguf_layout(family("phi3 with a long context")).notes

    assert any("rotary factors" in note for note in notes)
