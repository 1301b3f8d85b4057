"""GPTQ checkpoints whose matrices differ: in groups, bits, zero points, dtypes of scales."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.host.coded_checkpoints import (
    DOWN,
    GATE,
    OUT,
    SMALL,
    UP,
    V1,
    V2,
    Arrays,
    Codes,
    K,
    Q,
    V,
    check_exact,
    coded,
    codes_of,
    gptq_tensors,
    known_codes,
    modules,
    write_coded,
)

from onhand.core.errors import SourceError
from onhand.host.sources import load_model


def test_parts_of_which_one_is_not_symmetric_share_the_asymmetric_form(tmp_path: Path) -> None:
    """The others' zero points are written out; the matrix beside them stays symmetric."""
    known = coded(symmetric=True)
    known[K] = known_codes(modules()[K])

    model = load_model(str(write_coded(tmp_path / "m", known, gptq_tensors, V2)))

    forms = codes_of(model).formats()
    assert not forms["layers.0.qkv"].symmetric
    assert forms["layers.0.gate_up"].symmetric
    whole = np.concatenate([known[part].weights() for part in (Q, K, V)])
    np.testing.assert_array_equal(codes_of(model).tensor("layers.0.qkv").dequantize(), whole)


def test_parts_of_other_groups_share_the_finer_one(tmp_path: Path) -> None:
    """A scale is repeated: no loss."""
    known = coded(group_size=64)
    known[V] = known_codes(modules()[V], group_size=32)
    config = {**V2, "group_size": 64, "dynamic": {"+:.*v_proj": {"group_size": 32}}}

    model = load_model(str(write_coded(tmp_path / "m", known, gptq_tensors, config)))

    assert codes_of(model).formats()["layers.0.qkv"].group_size == 32
    assert codes_of(model).formats()["layers.0.out"].group_size == 64
    whole = np.concatenate([known[part].weights() for part in (Q, K, V)])
    np.testing.assert_array_equal(codes_of(model).tensor("layers.0.qkv").dequantize(), whole)


def test_bits_that_vary_are_read_from_the_shapes(tmp_path: Path) -> None:
    """`dynamic` gives some matrices other bits; patterns from outside are never run."""
    known = coded()
    known[DOWN] = known_codes(modules()[DOWN], bits=8)
    config = {**V2, "dynamic": {"(a+)+$": {"bits": 8}}}

    model = load_model(str(write_coded(tmp_path / "m", known, gptq_tensors, config)))

    assert codes_of(model).formats()["layers.0.down"].bits == 8
    check_exact(codes_of(model), "layers.0.down", known[DOWN])


def test_a_head_can_be_coded(tmp_path: Path) -> None:
    """`lm_head: true`."""
    config = {**SMALL, "tie_word_embeddings": False}
    known = coded()
    known["lm_head"] = known_codes((320, 64))

    folder = write_coded(
        tmp_path / "m", known, gptq_tensors, {**V2, "lm_head": True}, config=config
    )

    check_exact(codes_of(load_model(str(folder))), "head", known["lm_head"])


def shuffled(known: Codes) -> Codes:
    """As act-order leaves it: inputs of one group are no neighbours."""
    order = np.random.default_rng(5).permutation(known.group.size)
    return replace(known, group=known.group[order])


def swapped(known: Codes) -> Codes:
    """Groups of neighbours under other numbers."""
    return replace(known, group=known.group[::-1].copy())


def test_groups_of_neighbours_under_any_number_are_kept(tmp_path: Path) -> None:
    """`desc_act` may be true, as long as no group of ours would span two scales."""
    known = {name: swapped(codes) for name, codes in coded().items()}

    model = load_model(
        str(write_coded(tmp_path / "m", known, gptq_tensors, {**V2, "desc_act": True}))
    )

    check_exact(codes_of(model), "layers.0.down", known[DOWN])


def test_act_order_is_read_but_not_kept(tmp_path: Path) -> None:
    """The weights are right, so they can be rounded anew; to keep the codes is refused by name."""
    known = coded()
    known[DOWN] = shuffled(known[DOWN])

    model = load_model(
        str(write_coded(tmp_path / "m", known, gptq_tensors, {**V2, "desc_act": True}))
    )

    np.testing.assert_array_equal(model.weights.matrix("layers.0.down"), known[DOWN].weights())
    with pytest.raises(SourceError, match=rf"{DOWN} cannot be kept.*act-order.*give --bits"):
        codes_of(model).formats()


def lowered_by_words(name: str, known: Codes) -> Arrays:
    """Version 1 as GPTQModel writes it: one subtraction for each word, borrows and all."""
    arrays = gptq_tensors(name, known)
    ones = sum(1 << place for place in range(0, 32, known.bits))
    words = arrays[f"{name}.qzeros"].view(np.uint32) - np.uint32(ones)
    return arrays | {f"{name}.qzeros": words.view(np.int32)}


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_borrow_between_zero_points_is_undone(tmp_path: Path, bits: int) -> None:
    """A zero point of 0 less one takes from its neighbour; GPTQModel's addition gives it back."""
    known = coded(bits=bits)
    known[UP] = replace(known[UP], zeros=known[UP].zeros // 2)
    assert (known[UP].zeros == 0).any()
    meta = {"meta": {"quantizer": ["optimum:1.2", "gptqmodel:2.2.0"]}}

    config = {**V1, "bits": bits, **meta}
    folder = write_coded(tmp_path / "m", known, lowered_by_words, config)

    model = load_model(str(folder))
    whole = np.concatenate([known[part].weights() for part in (GATE, UP)])
    np.testing.assert_array_equal(codes_of(model).tensor("layers.0.gate_up").dequantize(), whole)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scales_that_fit_float16_are_kept_in_any_dtype(tmp_path: Path, dtype: str) -> None:
    """Powers of two are exact in all of them."""
    known = {
        name: replace(codes, scales=np.exp2(np.floor(np.log2(codes.scales))).astype(np.float16))
        for name, codes in coded().items()
    }

    def widened(arrays: Arrays) -> None:
        for name in [name for name in arrays if name.endswith(".scales")]:
            wide = np.ascontiguousarray(arrays[name]).astype(np.float32)
            upper = (wide.view(np.uint32) >> 16).astype(np.uint16)
            arrays[name] = wide if dtype == "float32" else upper

    model = load_model(str(write_coded(tmp_path / "m", known, gptq_tensors, V2, change=widened)))

    check_exact(codes_of(model), "layers.0.out", known[OUT])
