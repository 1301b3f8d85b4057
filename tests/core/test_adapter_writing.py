"""Adapters that are written: in the checkpoint's names, and read back by the strict reader."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.adapters import ATTENTION, lora_factors

from onhand.core.adapter import WEIGHTS, Pairs, read_adapter
from onhand.core.adapter_writing import (
    family_naming,
    render_config,
    write_adapter,
    write_pairs,
)
from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.naming import GPT2, LLAMA, PHI3
from onhand.core.safetensors import open_safetensors


def pairs_of(decoder: Decoder, *names: str, rank: int = 2) -> Pairs:
    """Factors of some of the model's own matrices, by the ends of their names."""
    shapes = replace(decoder, tied=False).whole_tensors()
    chosen = {n: (s[0], s[1]) for n, s in shapes.items() if n.endswith(names) and len(s) == 2}
    return lora_factors(chosen, rank=rank)


def folder_of(place: Path, pairs: Pairs, decoder: Decoder, **options: object) -> Path:
    place.mkdir()
    write_adapter(place, pairs, decoder, **{"naming": LLAMA, **options})  # type: ignore[arg-type]
    return place


def config(place: Path) -> Mapping[str, object]:
    return dict(json.loads((place / "adapter_config.json").read_text()))


def added(pairs: Pairs) -> dict[str, FloatArray]:
    return {name: second @ first for name, (first, second) in pairs.items()}


def same(found: Pairs, expected: Pairs) -> None:
    """Sums of a few terms, all of them exact in float32."""
    found_sums, expected_sums = added(found), added(expected)
    assert found_sums.keys() == expected_sums.keys()
    for name, delta in expected_sums.items():
        np.testing.assert_allclose(found_sums[name], delta, rtol=1e-6, atol=1e-7)


def test_every_matrix_is_read_back(tmp_path: Path, decoder: Decoder) -> None:
    """What it adds is the same, of joined matrices and of the head too."""
    pairs = pairs_of(decoder, "qkv", "out", "gate_up", "down", "head")
    assert len(pairs) == 9

    place = folder_of(tmp_path / "a", pairs, decoder, scale=2.0)

    same(read_adapter(place, decoder).pairs, pairs)
    assert config(place)["lora_alpha"] == 4.0
    assert config(place)["target_modules"] == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "lm_head",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]


def test_a_joined_matrix_is_split_by_rows(tmp_path: Path, decoder: Decoder) -> None:
    """W + alpha / r B A of the checkpoint's own matrices, the rows of ours one below the other."""
    pairs = pairs_of(decoder, "layers.0.qkv")
    first, second = pairs["layers.0.qkv"]

    place = folder_of(tmp_path / "a", pairs, decoder, scale=0.5)

    file = open_safetensors(place / "adapter_model.safetensors")
    key = f"base_model.model.{ATTENTION.format(0, '{}')}.lora_{{}}.weight"
    deltas = [
        0.5 * np.array(file.view(key.format(part, "B"))) @ file.view(key.format(part, "A"))
        for part in "qkv"
    ]
    np.testing.assert_allclose(np.concatenate(deltas), second @ first, rtol=1e-6, atol=1e-7)
    assert [delta.shape[0] for delta in deltas] == [8, 4, 4]
    np.testing.assert_array_equal(file.view(key.format("k", "A")), first)


def test_some_layers_alone_are_named_in_full(tmp_path: Path, decoder: Decoder) -> None:
    """The end of a name would ask for every layer."""
    pairs = pairs_of(decoder, "layers.1.down")

    place = folder_of(tmp_path / "a", pairs, decoder)

    assert config(place)["target_modules"] == ["model.layers.1.mlp.down_proj"]
    same(read_adapter(place, decoder).pairs, pairs)


def test_ranks_may_differ(tmp_path: Path, decoder: Decoder) -> None:
    """The usual rank is said once, the others by name; the scale is the same for all."""
    pairs = {**pairs_of(decoder, "down", rank=2), **pairs_of(decoder, "0.out", rank=3)}

    place = folder_of(tmp_path / "a", pairs, decoder, scale=4.0)

    same(read_adapter(place, decoder).pairs, pairs)
    said = config(place)
    assert (said["r"], said["lora_alpha"]) == (2, 8.0)
    assert said["rank_pattern"] == {"model.layers.0.self_attn.o_proj": 3}
    assert said["alpha_pattern"] == {"model.layers.0.self_attn.o_proj": 12.0}


def test_the_names_are_those_of_the_family(tmp_path: Path, decoder: Decoder) -> None:
    """Phi-3 keeps joined matrices; GPT-2 has names of its own, and stores (K, N)."""
    gpt2 = replace(decoder, gated=False, positions="learned", norm="layer", tied=True)
    joined = folder_of(tmp_path / "phi", pairs_of(decoder, "0.qkv"), decoder, naming=PHI3)
    other = folder_of(tmp_path / "gpt", pairs_of(gpt2, "up"), gpt2, naming=GPT2)

    assert config(joined)["target_modules"] == ["model.layers.0.self_attn.qkv_proj"]
    assert config(other)["target_modules"] == ["c_fc"]
    assert config(other)["fan_in_fan_out"] is True
    same(read_adapter(other, gpt2).pairs, pairs_of(gpt2, "up"))


@pytest.mark.parametrize(
    ("family", "naming"),
    [("gpt2", GPT2), ("phi3", PHI3), ("qwen2", LLAMA), (None, LLAMA), (["phi3"], LLAMA)],
)
def test_a_family_has_a_naming(family: object, naming: object) -> None:
    """What a provenance says comes from outside: anything else is as most are."""
    assert family_naming(family) is naming


def test_the_same_pairs_give_the_same_bytes(tmp_path: Path, decoder: Decoder) -> None:
    """Both files."""
    pairs = pairs_of(decoder, "qkv")
    one, other = (folder_of(tmp_path / name, pairs, decoder) for name in "ab")

    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ({}, "nothing is added"),
        ({"layers.7.out": ((2, 8), (8, 2))}, "'layers.7.out' is None in this model"),
        ({"layers.0.out": ((2, 9), (8, 2))}, r"\(8, 8\) in this model, the pair is for \(8, 9\)"),
        ({"layers.0.out": ((2, 8), (8, 3))}, "of ranks 2 and 3"),
    ],
)
def test_what_fits_no_matrix_is_refused(
    tmp_path: Path,
    decoder: Decoder,
    pairs: Mapping[str, tuple[tuple[int, int], tuple[int, int]]],
    sentence: str,
) -> None:
    """Nothing is written."""
    made = {n: (np.ones(a, np.float32), np.ones(b, np.float32)) for n, (a, b) in pairs.items()}

    with pytest.raises(InputError, match=sentence):
        write_adapter(tmp_path, made, decoder, naming=LLAMA)
    assert list(tmp_path.iterdir()) == []


def test_what_stands_in_the_place_of_a_tensor_goes_along(tmp_path: Path) -> None:
    """Under the name of the checkpoint's, beside the factors."""
    config = render_config({"a": 1}, 2.0, targets=["a"], task="SEQ_CLS", wholes=["classifier"])
    pair = (np.ones((1, 3), np.float32), np.full((2, 1), 4, np.float32))
    head = np.arange(4, dtype=np.float32).reshape(2, 2)

    write_pairs(tmp_path, config, {"a": pair}, scale=2.0, wholes={"classifier.weight": head})

    file = open_safetensors(tmp_path / WEIGHTS)
    np.testing.assert_array_equal(file.view("base_model.model.classifier.weight"), head)
    np.testing.assert_array_equal(file.view("base_model.model.a.lora_B.weight"), [[2.0], [2.0]])
    assert json.loads(config)["modules_to_save"] == ["classifier"]
