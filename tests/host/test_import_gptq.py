"""A GPTQ checkpoint becomes a bundle of exactly its codes, scales and zero points."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.host.coded_checkpoints import (
    DOWN,
    OUT,
    PARTS,
    V1,
    V2,
    check_exact,
    coded,
    codes_of,
    float_twin,
    gptq_tensors,
    known_codes,
    one_linear,
    pack_as_is,
    write_coded,
)
from tests.models import CONFIG

from onhand.core.quantized import GroupFormat
from onhand.core.weights import open_weights
from onhand.device.engines.base import Engine
from onhand.device.engines.onnx import OnnxEngine
from onhand.device.engines.reference import ReferenceEngine
from onhand.host.pack import ORIGINAL, pack_original, plan_variants
from onhand.host.passes.as_is import AsIs
from onhand.host.plan import predict_sizes
from onhand.host.sources import load_model
from onhand.host.sources.code_layout import CodeLayout


@settings(max_examples=30)
@given(
    bits=st.sampled_from(GroupFormat.BITS),
    group_size=st.sampled_from([32, 64, 96, 128, 256, -1]),
    n=st.integers(1, 3),
    k=st.integers(1, 5),
    symmetric=st.booleans(),
    version=st.sampled_from([1, 2]),
    g_idx=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_code_scale_and_zero_point_is_kept(
    bits: int,
    group_size: int,
    n: int,
    k: int,
    symmetric: bool,
    version: int,
    g_idx: bool,
    seed: int,
) -> None:
    """Any shape, width and group that a writer makes, with and without `g_idx`, both versions."""
    shape = (32 * n, 32 * k)
    known = known_codes(shape, bits=bits, group_size=group_size, symmetric=symmetric, seed=seed)
    layout = CodeLayout(method="gptq", bits=bits, group_size=group_size, lowered=version == 1)
    with TemporaryDirectory() as folder:
        arrays = gptq_tensors("m", known, version=version, g_idx=g_idx)
        codes = one_linear(Path(folder), arrays, shape, layout)

        form = codes.formats()["m"]
        assert form.bits == bits
        assert form.symmetric == bool((known.zeros == 2 ** (bits - 1)).all())
        assert group_size == -1 or group_size % form.group_size == 0 or group_size > shape[1]
        check_exact(codes, "m", known)


def test_three_bits_straddle_words_as_written_by_hand(tmp_path: Path) -> None:
    """Ten fields, a field of 2 + 1 bits, ten fields, a field of 1 + 2 bits, ten fields."""
    known = known_codes((32, 32), bits=3)
    words = np.zeros((3, 32), dtype=np.uint64)
    for output, fields in enumerate(known.codes.astype(np.uint64)):
        for i in range(10):
            words[0, output] |= fields[i] << np.uint64(3 * i)
            words[1, output] |= fields[11 + i] << np.uint64(3 * i + 1)
            words[2, output] |= fields[22 + i] << np.uint64(3 * i + 2)
        words[0, output] |= (fields[10] & np.uint64(3)) << np.uint64(30)
        words[1, output] |= fields[10] >> np.uint64(2)
        words[1, output] |= (fields[21] & np.uint64(1)) << np.uint64(31)
        words[2, output] |= fields[21] >> np.uint64(1)
    arrays = gptq_tensors("m", known)
    arrays["m.qweight"] = words.astype(np.uint32).view(np.int32)

    codes = one_linear(tmp_path, arrays, (32, 32), CodeLayout(method="gptq", bits=3, group_size=32))

    check_exact(codes, "m", known)


def test_a_word_by_hand(tmp_path: Path) -> None:
    """Eight codes of 4 bits, the first one lowest; zero point 8 is stored as 7 in version 1."""
    arrays: dict[str, np.ndarray] = {
        "m.qweight": np.full((4, 8), 0x76543210, dtype=np.int32),
        "m.qzeros": np.full((1, 1), 0x77777777, dtype=np.int32),
        "m.scales": np.full((1, 8), 0.5, dtype=np.float16),
    }
    layout = CodeLayout(method="gptq", bits=4, group_size=-1, lowered=True)

    tensor = one_linear(tmp_path, arrays, (8, 32), layout).tensor("m")

    assert tensor.format == GroupFormat(bits=4, group_size=32, symmetric=True)
    row = [-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5] * 4
    np.testing.assert_array_equal(tensor.dequantize(), [row] * 8)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", GroupFormat.BITS)
def test_a_checkpoint_is_imported_exactly(
    tmp_path: Path, bits: int, symmetric: bool, version: int
) -> None:
    """Query, key and value are joined by rows, and so are gate and up; nothing is rounded."""
    known = coded(bits=bits, symmetric=symmetric)
    config = {**(V1 if version == 1 else V2), "bits": bits, "sym": symmetric}

    folder = write_coded(tmp_path / "m", known, partial(gptq_tensors, version=version), config)
    model = load_model(str(folder))

    assert set(codes_of(model).formats()) == {f"layers.0.{name}" for name in PARTS}
    for name, parts in PARTS.items():
        tensor = codes_of(model).tensor(f"layers.0.{name}")
        rows = np.concatenate([known[part].codes for part in parts])
        assert tensor.format == GroupFormat(bits=bits, group_size=32, symmetric=symmetric)
        np.testing.assert_array_equal(tensor.unpack()[0].reshape(len(rows), -1), rows)
        whole = np.concatenate([known[part].weights() for part in parts])
        np.testing.assert_array_equal(tensor.dequantize(), whole)
        np.testing.assert_array_equal(model.weights.matrix(f"layers.0.{name}"), whole)
        np.testing.assert_array_equal(model.weights.block(f"layers.0.{name}", 5, 47), whole[5:47])


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({}, {}),
        ({"model_type": "qwen2", "tie_word_embeddings": False}, {"bits": 8, "symmetric": True}),
        ({"hidden_size": 128, "intermediate_size": 160}, {"group_size": 128}),
        ({}, {"bits": 2, "group_size": -1}),
    ],
    ids=["llama", "qwen2", "wide groups", "one group"],
)
def test_the_bundle_answers_as_the_weights_that_the_codes_stand_for(
    tmp_path: Path, config: dict[str, Any], options: dict[str, Any]
) -> None:
    """Logit for logit in the reference engine, and closely in the one that ships."""
    config = {**CONFIG, **config}
    known = coded(config, **options)
    folder = write_coded(
        tmp_path / "m",
        known,
        gptq_tensors,
        {**V2, "bits": options.get("bits", 4), "group_size": options.get("group_size", 32)},
        config=config,
    )
    (tmp_path / "float").mkdir()
    exact = pack_original(float_twin(tmp_path / "twin", known, config), tmp_path / "float")

    bundle = pack_as_is(tmp_path / "b", load_model(str(folder))).bundle

    def answer(engine: Engine, which: Any, variant: str) -> np.ndarray:
        loaded = engine.open(which, variant=variant, threads=1)
        return loaded.step([(loaded.session(), np.arange(11))])

    expected = answer(ReferenceEngine(), exact, ORIGINAL)
    np.testing.assert_array_equal(answer(ReferenceEngine(), bundle, "as-is"), expected)
    found = answer(OnnxEngine(), bundle, "as-is")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bits", [0, 8, 4])
def test_what_is_plain_is_stored_as_asked(tmp_path: Path, bits: int) -> None:
    """The embedding and a matrix that was left out; sizes are predicted; nothing else is lost."""
    known = coded()
    del known[OUT], known[DOWN]
    folder = write_coded(
        tmp_path / "m", known, gptq_tensors, {**V2, "dynamic": {"-:.*o_proj": {}, "-:.*down": {}}}
    )
    model = load_model(str(folder))

    packed = pack_as_is(tmp_path / "b", model, bits=bits)

    made = AsIs(how="gptq", formats=codes_of(model).formats(), bits=bits, method="rtn")
    forms = packed.bundle.manifest.variants["as-is"].matrices
    plain = {"embed", "layers.0.out", "layers.0.down"}
    expected = GroupFormat(bits=bits) if bits else None
    assert {name for name, form in forms.items() if form == expected} == plain
    weights = open_weights(packed.bundle, "as-is")
    for name in set(forms) - plain:
        np.testing.assert_array_equal(weights.matrix(name), model.weights.matrix(name))
    if not bits:
        np.testing.assert_array_equal(weights.matrix("embed"), model.weights.matrix("embed"))
    errors = {loss.name: loss.relative_error for loss in packed.losses["as-is"]}
    assert {name for name, error in errors.items() if error == 0} == set(errors) - plain
    plans = plan_variants(model.decoder, {"as-is": made})
    assert set(plans[0].report.kept) >= set(forms) - plain
    size = predict_sizes(model, plans, accuracy_level=0)["as-is"]
    assert abs(size - packed.bundle.size_bytes("as-is")) <= 4096 + 64
