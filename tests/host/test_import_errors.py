"""Whatever is wrong with a quantised checkpoint, it is one clear sentence."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.host.coded_checkpoints import (
    DOWN,
    OUT,
    SMALL,
    V1,
    V2,
    Arrays,
    K,
    awq_tensors,
    coded,
    codes_of,
    gptq_tensors,
    known_codes,
    modules,
    write_coded,
)
from tests.host.test_import_awq import GEMM
from tests.host.test_source_errors import refused
from tests.models import write_checkpoint

from onhand.core.errors import SourceError
from onhand.host.model import Model
from onhand.host.sources import load_model

Change = Callable[[Arrays], object]
KNOWN = coded()


@cache
def standard(name: str) -> Arrays:
    """The tensors of one matrix, packed once for all tests."""
    return gptq_tensors(name, KNOWN[name])


def damaged(folder: Path, change: Change, **config: Any) -> Path:
    """A GPTQ checkpoint, changed before it is written."""
    return write_coded(
        folder, KNOWN, lambda name, _: dict(standard(name)), {**V2, **config}, change=change
    )


def with_tensor(name: str, array: np.ndarray) -> Change:
    """Put a tensor there."""
    return lambda arrays: arrays.update({name: array})


def not_kept(model: Model) -> str:
    """The sentence that refuses to keep the codes."""
    codes = codes_of(model)
    with pytest.raises(SourceError) as caught:
        [codes.tensor(name) for name in codes.formats()]

    text = str(caught.value)
    assert "\n" not in text
    assert not text.endswith(".")
    return text


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("gptq", "quantization_config is 'gptq', must be a JSON object"),
        ({"quant_method": "bitsandbytes"}, "is of method 'bitsandbytes'; known: gptq, awq"),
        ({"quant_method": ["gptq"]}, "is of method ['gptq']"),
        ({**V2, "checkpoint_format": "marlin"}, "gptq format 'marlin', known: gptq, gptq_v2"),
        ({**V2, "checkpoint_format": 2}, "gptq format 2, known"),
        ({**V1, "format": "marlin"}, "gptq format 'marlin'"),
        ({**V2, "is_marlin_format": True}, "is_marlin_format of quantization_config is True"),
        ({**V2, "pack_dtype": "int16"}, "pack_dtype of quantization_config is 'int16'"),
        ({**V2, "adapter": {"rank": 8}}, "adapter of quantization_config"),
        ({**V2, "bits": None}, "bits of quantization_config is None, must be a whole number"),
        ({**V2, "bits": 5}, "bits of quantization_config is 5, known for gptq: 2, 3, 4, 8"),
        ({**V2, "bits": True}, "bits of quantization_config is True"),
        ({**V2, "bits": 10**9}, "is 1000000000, known for gptq"),
        ({**V2, "group_size": 0}, "group_size of quantization_config is 0, must be -1 or above"),
        ({**V2, "group_size": "all"}, "group_size of quantization_config is 'all'"),
        ({**GEMM, "version": "gemv"}, "awq format 'gemv', known: gemm"),
        ({**GEMM, "version": "gemv_fast"}, "awq format 'gemv_fast', known: gemm"),
        ({**GEMM, "backend": "llm-awq"}, "awq format 'llm-awq', known: gemm"),
        ({**GEMM, "zero_point": False}, "zero_point of quantization_config is False"),
        ({**GEMM, "bits": 8}, "is 8, known for awq: 4"),
    ],
    ids=repr,
)
def test_a_quantisation_that_is_not_known_is_refused(
    tmp_path: Path, config: object, reason: str
) -> None:
    """Nothing is guessed: the method, the format and every key that would change the reading."""
    folder = write_checkpoint(tmp_path / "m", {**SMALL, "quantization_config": config})

    text = refused(folder)

    assert reason in text
    assert "config.json" in text


@pytest.mark.parametrize("part", ["qweight", "qzeros", "scales", "g_idx"])
def test_attack_coded_tensor_of_another_shape_or_dtype(tmp_path: Path, part: str) -> None:
    """A row too few, one axis, no numbers at all, another dtype: the tensor is named."""
    name = f"{OUT}.{part}"
    whole = standard(OUT)[name]
    other = np.int32 if part == "scales" else np.float32
    spoiled = [
        whole[:-1],
        whole[:0],
        whole.reshape(1, 1, -1),
        np.array(1, whole.dtype),
        whole.astype(other),
    ]

    for number, array in enumerate(spoiled):
        # Where bits vary they are told by the shapes, which are then looked at first.
        config = {"dynamic": {"x": {"bits": 8}}} if number % 2 else {}
        text = refused(damaged(tmp_path / f"{number}", with_tensor(name, array), **config))
        assert f"tensor '{OUT}." in text
        assert "expected" in text


@pytest.mark.parametrize("part", ["qweight", "qzeros", "scales"])
def test_a_tensor_that_is_missing_is_named(tmp_path: Path, part: str) -> None:
    """Without `qweight` the plain weight is what is missing."""
    missing = "weight" if part == "qweight" else part

    text = refused(damaged(tmp_path / "m", lambda t: t.pop(f"{OUT}.{part}")))

    assert f"tensor '{OUT}.{missing}' is missing" in text


@pytest.mark.parametrize("change", [{"bits": 8}, {"bits": 2}, {"bits": 3}, {"group_size": 64}])
def test_attack_config_that_contradicts_the_shapes(tmp_path: Path, change: dict[str, int]) -> None:
    """Bits and groups decide how words are cut: they have to fit."""
    text = refused(damaged(tmp_path / "m", lambda t: None, **change))

    assert "expected" in text
    assert f"{change.get('bits', 4)} bits in groups of {change.get('group_size', 32)}" in text


def test_attack_width_that_words_do_not_fill(tmp_path: Path) -> None:
    """A config of another model."""
    folder = damaged(tmp_path / "m", lambda t: None)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 70}))

    assert "does not fill whole words" in refused(folder)


def test_a_plain_weight_beside_its_codes_is_refused(tmp_path: Path) -> None:
    """Which of the two counts cannot be known."""
    both = with_tensor(f"{OUT}.weight", np.zeros((64, 64), np.float16))

    assert f"tensor '{OUT}.g_idx' has no place" in refused(damaged(tmp_path / "m", both))


def test_codes_that_nothing_explains_are_refused(tmp_path: Path) -> None:
    """Old writers put the explanation into a file of their own."""
    folder = damaged(tmp_path / "m", lambda t: None)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))

    assert "q_proj.qweight' holds codes, but config.json has no" in refused(folder)


def test_a_model_without_codes_that_claims_some_is_refused(tmp_path: Path) -> None:
    """A config that was copied from another model."""
    folder = write_checkpoint(tmp_path / "m", {**SMALL, "quantization_config": dict(V2)})

    assert "no tensor holds codes" in refused(folder)


def test_the_bias_of_zeros_that_old_writers_add_is_passed_over(tmp_path: Path) -> None:
    """Any other bias that the family has no place for is refused."""
    zeros = with_tensor(f"{OUT}.bias", np.zeros(64, np.float16))
    ones = with_tensor(f"{OUT}.bias", np.ones(64, np.float16))

    load_model(str(damaged(tmp_path / "zeros", zeros)))

    assert f"tensor '{OUT}.bias' has no place" in refused(damaged(tmp_path / "ones", ones))


def put(name: str, value: float) -> Change:
    """Write one value into a copy of a tensor."""

    def change(arrays: Arrays) -> None:
        arrays[name] = np.array(arrays[name], order="C")
        arrays[name].reshape(-1)[-1] = value

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_attack_scale_that_is_no_number(tmp_path: Path, value: float) -> None:
    """Found when the codes are read, and when the weights are."""
    model = load_model(str(damaged(tmp_path / "m", put(f"{OUT}.scales", value))))

    assert f"tensor '{OUT}.scales' holds a NaN or an infinity" in not_kept(model)
    with pytest.raises(SourceError, match="holds a NaN or an infinity"):
        model.weights.matrix("layers.0.out")


@pytest.mark.parametrize("value", [-1, 2, 2**31 - 1, -(2**31)])
def test_attack_group_that_is_not_there(tmp_path: Path, value: int) -> None:
    """`g_idx` is an index from outside."""
    model = load_model(str(damaged(tmp_path / "m", put(f"{OUT}.g_idx", value))))

    assert f"tensor '{OUT}.g_idx' goes from" in not_kept(model)
    with pytest.raises(SourceError, match="there are 2 groups"):
        model.weights.block("layers.0.out", 0, 4)


def test_a_plain_weight_that_is_no_number_is_named(tmp_path: Path) -> None:
    """As in any other checkpoint."""
    folder = damaged(tmp_path / "m", put("model.embed_tokens.weight", np.nan))

    with pytest.raises(SourceError, match=r"embed_tokens\.weight' holds a NaN"):
        load_model(str(folder)).weights.matrix("embed")


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("meta", [{}, {"meta": {"quantizer": "optimum:1.2"}}])
def test_a_zero_point_with_more_than_one_reading_is_refused(
    tmp_path: Path, bits: int, meta: dict[str, Any]
) -> None:
    """Version 1 stores it less one: programs read the largest field as 0, or as one more."""
    known = coded(bits=bits)
    top = 2**bits - 1
    known[OUT] = replace(known[OUT], zeros=np.full_like(known[OUT].zeros, top))
    folder = write_coded(tmp_path / "m", known, gptq_tensors, {**V1, "bits": bits, **meta})

    text = not_kept(load_model(str(folder)))

    assert f"_proj.qzeros' holds {top}, which stands for" in text


def test_scales_that_do_not_fit_float16_are_not_rounded_in_silence(tmp_path: Path) -> None:
    """The weights can still be read, and rounded anew if asked for."""
    name = f"{OUT}.scales"
    for number, value in enumerate((0.1, 1e6, 1e-9)):
        exact = with_tensor(name, np.full((2, 64), value, np.float32))
        model = load_model(str(damaged(tmp_path / f"{number}", exact)))

        assert f"tensor '{name}' is F32 and does not fit float16 exactly; give --bits" in not_kept(
            model
        )
        assert model.weights.matrix("layers.0.out").shape == (64, 64)


def test_parts_that_differ_in_bits_are_refused_by_name(tmp_path: Path) -> None:
    """Query, key and value are one matrix."""
    known = coded()
    known[K] = known_codes(modules()[K], bits=8)
    config = {**V2, "dynamic": {".*k_proj": {"bits": 8}}}

    model = load_model(str(write_coded(tmp_path / "m", known, gptq_tensors, config)))

    text = not_kept(model)
    assert f"layers.0.qkv cannot be kept as it is: its parts {K[:-6]}q_proj (4 bits), {K}" in text
    assert "give --bits" in text


def test_a_part_that_is_plain_is_refused_by_name(tmp_path: Path) -> None:
    """One of three that are stored as one; their weights can be read."""
    known = coded()
    del known[K]

    model = load_model(str(write_coded(tmp_path / "m", known, gptq_tensors, V2)))

    assert f"layers.0.qkv cannot be kept as it is: {K}.weight is not quantised" in not_kept(model)
    assert "layers.0.qkv" not in codes_of(model).source_bytes()
    assert model.weights.matrix("layers.0.qkv").shape == (128, 64)


@pytest.mark.parametrize("pack", [gptq_tensors, awq_tensors], ids=["gptq", "awq"])
def test_groups_smaller_than_ours_are_refused(tmp_path: Path, pack: Callable[..., Arrays]) -> None:
    """Sixteen inputs to a scale have no place in a group of 32."""
    known = coded()
    known[DOWN] = known_codes(modules()[DOWN], group_size=16)
    method = V2 if pack is gptq_tensors else GEMM
    config = {**method, "dynamic": {".*down_proj": {"group_size": 16}}}

    model = load_model(str(write_coded(tmp_path / "m", known, pack, config)))

    assert f"{DOWN} cannot be kept as it is: its groups are smaller than 32" in not_kept(model)
