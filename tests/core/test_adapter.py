"""LoRA adapters: what they add, and files that lie."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.adapters import (
    ATTENTION,
    MLP,
    Factors,
    lora_factors,
    some,
    write_adapter,
    write_adapter_tensors,
)

from onhand.core.adapter import read_adapter
from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError


def added(place: Path, decoder: Decoder) -> dict[str, FloatArray]:
    """What an adapter adds to each matrix."""
    pairs = read_adapter(place, decoder).pairs
    return {name: second @ first for name, (first, second) in pairs.items()}


def close(found: FloatArray, expected: FloatArray) -> None:
    """Float32 sums of a few terms."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_every_matrix_of_a_model_by_the_formula(tmp_path: Path, decoder: Decoder) -> None:
    """W' = W + alpha / r B A, at the rows of each part of a joined matrix."""
    factors = some(decoder, "")
    place = write_adapter(tmp_path / "a", factors, {"lora_alpha": 6})

    found = added(place, decoder)

    delta = {module: 6 / 4 * (b @ a) for module, (a, b) in factors.items()}
    assert set(found) == set(decoder.matrices()) - {"embed"}
    for i in (0, 1):
        qkv = [delta[ATTENTION.format(i, part)] for part in "qkv"]
        inner = [delta[MLP.format(i, part)] for part in ("gate", "up")]
        close(found[f"layers.{i}.qkv"], np.concatenate(qkv))
        close(found[f"layers.{i}.gate_up"], np.concatenate(inner))
        close(found[f"layers.{i}.out"], delta[ATTENTION.format(i, "o")])
        close(found[f"layers.{i}.down"], delta[MLP.format(i, "down")])
    close(found["head"], delta["lm_head"])


def test_parts_that_are_not_adapted_stay(tmp_path: Path, decoder: Decoder) -> None:
    """Key rows get nothing where only query and value are adapted; the rank is that of two."""
    factors = some(decoder, "q_proj", "v_proj")
    place = write_adapter(tmp_path / "a", factors, {"target_modules": ["q_proj", "v_proj"]})

    pairs = read_adapter(place, decoder).pairs

    assert set(pairs) == {"layers.0.qkv", "layers.1.qkv"}
    first, second = pairs["layers.0.qkv"]
    assert (first.shape, second.shape) == ((8, 8), (16, 8))
    assert not second[8:12].any()
    assert not (second @ first)[8:12].any()


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_every_dtype_gives_the_same(tmp_path: Path, decoder: Decoder, dtype: str) -> None:
    """Half precision of both kinds is widened before it is scaled."""
    factors = some(decoder, "down_proj")
    plain = added(write_adapter(tmp_path / "plain", factors), decoder)

    found = added(write_adapter(tmp_path / "a", factors, dtype=dtype), decoder)

    assert len(found) == 2
    for name, delta in plain.items():
        np.testing.assert_array_equal(found[name], delta)


def test_the_file_itself_may_be_named(tmp_path: Path, decoder: Decoder) -> None:
    """Its configuration lies beside it; the identity is the same."""
    place = write_adapter(tmp_path / "a", some(decoder, "down_proj"))

    by_file = read_adapter(place / "adapter_model.safetensors", decoder)

    assert by_file.sha256 == read_adapter(place, decoder).sha256
    other = write_adapter(tmp_path / "b", some(decoder, "down_proj"), {"lora_alpha": 3})
    assert read_adapter(other, decoder).sha256 != by_file.sha256
    again = write_adapter(tmp_path / "c", some(decoder, "up_proj"))
    assert read_adapter(again, decoder).sha256 != by_file.sha256


def test_joined_matrices_of_a_checkpoint(tmp_path: Path, decoder: Decoder) -> None:
    """Phi-3 stores query, key and value as one: one adapter for all."""
    wanted = {
        "model.layers.0.self_attn.qkv_proj": (16, 8),
        "model.layers.1.mlp.gate_up_proj": (80, 8),
    }
    factors = lora_factors(wanted)

    found = added(write_adapter(tmp_path / "a", factors), decoder)

    for module, matrix in zip(wanted, ("layers.0.qkv", "layers.1.gate_up"), strict=True):
        close(found[matrix], 4 * factors[module][1] @ factors[module][0])


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_gpt2(tmp_path: Path, decoder: Decoder, prefix: str) -> None:
    """Conv1D stores (K, N): the factors do not care; some leave out the prefix."""
    gpt2 = replace(decoder, gated=False, positions="learned", norm="layer", tied=True)
    wanted = {
        f"{prefix}h.0.attn.c_attn": ((16, 8), "layers.0.qkv"),
        f"{prefix}h.0.attn.c_proj": ((8, 8), "layers.0.out"),
        f"{prefix}h.1.mlp.c_fc": ((40, 8), "layers.1.up"),
        f"{prefix}h.1.mlp.c_proj": ((8, 40), "layers.1.down"),
    }
    factors = lora_factors({module: shape for module, (shape, _) in wanted.items()})

    found = added(write_adapter(tmp_path / "a", factors, {"fan_in_fan_out": True}), gpt2)

    assert len(found) == 4
    for module, (_, matrix) in wanted.items():
        close(found[matrix], 4 * factors[module][1] @ factors[module][0])


def test_a_factored_matrix_is_adapted_whole(tmp_path: Path, decoder: Decoder) -> None:
    """The adapter adds to the product, whatever it is made of."""
    place = write_adapter(tmp_path / "a", some(decoder, "down_proj"))
    factored = replace(decoder, ranks={"layers.0.down": 3})

    assert set(read_adapter(place, factored).pairs) == {"layers.0.down", "layers.1.down"}


def changed(
    factors: Factors, module: str, side: int, change: FloatArray
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """The factors, one of them another."""
    first, second = factors[module]
    return {**factors, module: (change, second) if side == 0 else (first, change)}


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("shape", [(4,), (4, 7), (5, 12), (8, 5), (12, 4), (0, 12), (4, 12, 1)])
def test_attack_shapes(tmp_path: Path, decoder: Decoder, side: int, shape: tuple[int, ...]) -> None:
    """A factor of another model, or of another rank."""
    factors = some(decoder, "down_proj")
    wrong = changed(factors, MLP.format(0, "down"), side, np.ones(shape, np.float32))
    place = write_adapter(tmp_path / "a", wrong)

    with pytest.raises(InputError, match=r"layers.0.mlp.down_proj.lora_[AB].weight' is F32 .*need"):
        read_adapter(place, decoder)


@pytest.mark.parametrize("dtype", ["F64", "I8"])
def test_attack_dtypes(tmp_path: Path, decoder: Decoder, dtype: str) -> None:
    """Only floats of half and single precision."""
    place = write_adapter(tmp_path / "a", some(decoder, "down_proj"), dtype=dtype)

    with pytest.raises(InputError, match=f"is {dtype} .* of F16, BF16, F32"):
        read_adapter(place, decoder)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_attack_numbers(tmp_path: Path, decoder: Decoder, side: int, value: float) -> None:
    """One NaN would make every answer one."""
    factors = some(decoder, "down_proj")
    module = MLP.format(1, "down")
    wrong = np.array(factors[module][side])
    wrong[0, 0] = value
    place = write_adapter(tmp_path / "a", changed(factors, module, side, wrong))

    with pytest.raises(InputError, match=r"layers\.1\.mlp\.down_proj' hold a NaN or an infinity"):
        read_adapter(place, decoder)


def test_attack_a_scale_beyond_float32(tmp_path: Path, decoder: Decoder) -> None:
    """Finite numbers whose product is not."""
    factors = some(decoder, "down_proj")
    module = MLP.format(1, "down")
    wrong = changed(factors, module, 1, np.full((8, 4), 1e38, np.float32))
    place = write_adapter(tmp_path / "a", wrong, {"lora_alpha": 1e6})

    with pytest.raises(InputError, match="hold a NaN or an infinity"):
        read_adapter(place, decoder)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("base_model.model.model.embed_tokens.lora_embedding_A", "embedding cannot be adapted"),
        (
            "base_model.model.model.layers.0.mlp.down_proj.lora_magnitude_vector",
            "DoRA is not supported",
        ),
        ("base_model.model.model.layers.0.mlp.down_proj.lora_B.bias", "bias of the adapter's own"),
        ("base_model.model.model.layers.0.mlp.down_proj.base_layer.bias", "is no LoRA factor"),
        ("base_model.model.model.layers.0.mlp.down_proj.base_layer.weight", "is no LoRA factor"),
        ("base_model.model.lm_head.weight", "is no LoRA factor"),
        ("model.layers.0.mlp.down_proj.lora_A.weight", "is no LoRA factor"),
        ("base_model.model.model.layers.0.mlp.down_proj.lora_A.x.weight", "is no LoRA factor"),
        ("base_model.model.\u00e4.lora_A.weight", "is no LoRA factor"),
        ("base_model.model.model.layers.2.mlp.down_proj.lora_A.weight", "is no matrix"),
        ("base_model.model.model.layers.00.mlp.down_proj.lora_A.weight", "is no matrix"),
        ("base_model.model.model.embed_tokens.lora_A.weight", "is no matrix"),
        ("base_model.model.model.norm.lora_A.weight", "is no matrix"),
        ("base_model.model.layers.0.down.lora_A.weight", "is no matrix"),
        ("base_model.model.transformer.h.0.mlp.c_proj.lora_A.weight", "is no matrix"),
        ("base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.weight", "is no matrix"),
    ],
)
def test_attack_tensors_without_a_place(
    tmp_path: Path, decoder: Decoder, name: str, reason: str
) -> None:
    """A tensor that would be ignored is an error that names it."""
    tensors = {
        f"base_model.model.{module}.lora_{side}.weight": values
        for module, pair in some(decoder, "down_proj", "q_proj").items()
        for side, values in zip("AB", pair, strict=True)
    }
    tensors[name] = np.ones((4, 8), np.float32)
    place = write_adapter_tensors(tmp_path / "a", tensors)

    with pytest.raises(InputError, match=reason) as caught:
        read_adapter(place, decoder)

    assert repr(name) in str(caught.value) or name.split(".lora_")[0][17:] in str(caught.value)


def test_an_adapter_of_a_tied_head_leaves_the_embedding(tmp_path: Path, decoder: Decoder) -> None:
    """What adds to the head has the head's name, whatever the matrix is."""
    factors = some(decoder, "lm_head")
    place = write_adapter(tmp_path / "a", factors, {"lora_alpha": 4})

    found = added(place, replace(decoder, tied=True))

    assert set(found) == {"head"}
    close(found["head"], factors["lm_head"][1] @ factors["lm_head"][0])


def with_head_copy(folder: Path, decoder: Decoder, copy: FloatArray, dtype: str = "F32") -> Path:
    """An adapter of the head with what PEFT puts beside it."""
    first, second = some(decoder, "lm_head")["lm_head"]
    tensors = {
        "base_model.model.lm_head.lora_A.weight": first,
        "base_model.model.lm_head.lora_B.weight": second,
        "base_model.model.lm_head.base_layer.weight": copy,
    }
    return write_adapter_tensors(folder, tensors, dtype=dtype)


@pytest.mark.parametrize("tied", [False, True])
def test_a_copy_of_the_head_is_at_hand(tmp_path: Path, decoder: Decoder, tied: bool) -> None:
    """It adds nothing."""
    copy = np.arange(decoder.vocab_size * decoder.width, dtype=np.float32) % 64
    place = with_head_copy(tmp_path / "a", decoder, copy.reshape(-1, decoder.width))

    adapter = read_adapter(place, replace(decoder, tied=tied))

    assert set(adapter.pairs) == {"head"}
    assert adapter.head_copy is not None
    np.testing.assert_array_equal(adapter.head_copy.ravel(), copy)


def test_attack_a_copy_of_another_head(tmp_path: Path, decoder: Decoder) -> None:
    """Of a larger vocabulary, or of numbers that are no weights."""
    larger = np.ones((decoder.vocab_size + 1, decoder.width), np.float32)
    whole = np.ones((decoder.vocab_size, decoder.width), np.float32)

    for place in (
        with_head_copy(tmp_path / "a", decoder, larger),
        with_head_copy(tmp_path / "b", decoder, whole, dtype="I8"),
    ):
        with pytest.raises(InputError, match=r"this model( and rank 4)? needs? \("):
            read_adapter(place, decoder)


@pytest.mark.parametrize("missing", ["A", "B"])
def test_attack_half_a_pair(tmp_path: Path, decoder: Decoder, missing: str) -> None:
    """A alone, or B alone."""
    tensors = {
        f"base_model.model.{module}.lora_{side}.weight": values
        for module, pair in some(decoder, "down_proj").items()
        for side, values in zip("AB", pair, strict=True)
    }
    name = f"base_model.model.{MLP.format(1, 'down')}.lora_{missing}.weight"
    del tensors[name]

    with pytest.raises(InputError, match=f"{name!r} is missing"):
        read_adapter(write_adapter_tensors(tmp_path / "a", tensors), decoder)


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_attack_weights_cut_short(tmp_path: Path, decoder: Decoder, length: int) -> None:
    """The header is checked as that of a bundle's file."""
    place = write_adapter(tmp_path / "a", some(decoder, "down_proj"))
    path = place / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(InputError, match=r"adapter .*cut short"):
        read_adapter(place, decoder)


def test_what_is_not_there_is_named(tmp_path: Path, decoder: Decoder) -> None:
    """No folder, no configuration, no weights, pickled weights, no tensors."""
    place = write_adapter(tmp_path / "a", some(decoder, "down_proj"))
    for nowhere in (tmp_path / "nowhere", place / "adapter_config.json" / "x"):
        with pytest.raises(InputError, match="there is no such adapter; give its folder"):
            read_adapter(nowhere, decoder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not an adapter: there is no"):
        read_adapter(tmp_path / "empty", decoder)
    (tmp_path / "empty" / "adapter_config.json").mkdir()
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_adapter(tmp_path / "empty", decoder)
    with pytest.raises(InputError, match="holds no tensors"):
        read_adapter(write_adapter(tmp_path / "b", {}), decoder)
    (place / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no adapter_model.safetensors$"):
        read_adapter(place, decoder)
    (place / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"adapter_model.bin is pickled and not read"):
        read_adapter(place, decoder)


def test_paths_in_the_configuration_are_not_opened(tmp_path: Path, decoder: Decoder) -> None:
    """The model's place that PEFT wrote down is of no use here."""
    place = write_adapter(tmp_path / "a", some(decoder, "down_proj"))
    written = json.loads((place / "adapter_config.json").read_text())

    assert written["base_model_name_or_path"] == "../../etc/passwd"
    assert len(read_adapter(place, decoder).pairs) == 2
