"""An AWQ checkpoint becomes a bundle of exactly its codes, scales and zero points."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.host.coded_checkpoints import (
    PARTS,
    SMALL,
    Codes,
    awq_tensors,
    check_exact,
    coded,
    codes_of,
    float_twin,
    known_codes,
    modules,
    one_linear,
    pack_as_is,
    write_coded,
)

from onhand.core.quantized import GroupFormat
from onhand.device.engines.reference import ReferenceEngine
from onhand.host.pack import ORIGINAL, pack_original
from onhand.host.sources import load_model
from onhand.host.sources.code_layout import CodeLayout

GEMM: Mapping[str, Any] = {
    "quant_method": "awq",
    "bits": 4,
    "group_size": 32,
    "zero_point": True,
    "version": "gemm",
    "modules_to_not_convert": None,
}
NATURAL = [0, 1, 2, 3, 4, 5, 6, 7]


@settings(max_examples=30)
@given(
    group_size=st.sampled_from([32, 64, 128, 256, -1]),
    n=st.integers(1, 9),
    k=st.integers(1, 9),
    symmetric=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_code_scale_and_zero_point_is_kept(
    group_size: int, n: int, k: int, symmetric: bool, seed: int
) -> None:
    """Eight outputs fill a word: any multiple of eight will do, and any number of inputs."""
    shape = (8 * n, 24 * k)
    known = known_codes(shape, group_size=group_size, symmetric=symmetric, seed=seed)
    layout = CodeLayout(method="awq", bits=4, group_size=group_size)
    with TemporaryDirectory() as folder:
        codes = one_linear(Path(folder), awq_tensors("m", known), shape, layout)

        check_exact(codes, "m", known)


def test_a_word_by_hand(tmp_path: Path) -> None:
    """The fields from the lowest on are outputs 0 2 4 6 1 3 5 7, in codes and zero points."""
    arrays: dict[str, np.ndarray] = {
        "m.qweight": np.full((32, 1), 0x75316420, dtype=np.int32),
        "m.qzeros": np.full((1, 1), 0x00000010, dtype=np.int32),
        "m.scales": np.ones((1, 8), dtype=np.float16),
    }

    tensor = one_linear(
        tmp_path, arrays, (8, 32), CodeLayout(method="awq", bits=4, group_size=32)
    ).tensor("m")

    codes, zeros = tensor.unpack()
    assert codes[:, 0, 0].tolist() == NATURAL
    assert zeros[:, 0].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert tensor.dequantize()[:, 31].tolist() == [0, 1, 1, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_checkpoint_is_imported_exactly(tmp_path: Path, symmetric: bool) -> None:
    """Joined by rows; blocks of rows that begin within a word are right as well."""
    known = coded(symmetric=symmetric)

    model = load_model(str(write_coded(tmp_path / "m", known, awq_tensors, GEMM)))

    for name, parts in PARTS.items():
        whole = np.concatenate([known[part].weights() for part in parts])
        tensor = codes_of(model).tensor(f"layers.0.{name}")
        assert tensor.format == GroupFormat(bits=4, group_size=32, symmetric=symmetric)
        np.testing.assert_array_equal(tensor.dequantize(), whole)
        np.testing.assert_array_equal(model.weights.block(f"layers.0.{name}", 3, 45), whole[3:45])


def test_the_bundle_answers_as_the_weights_that_the_codes_stand_for(tmp_path: Path) -> None:
    """Logit for logit in the reference engine."""
    known: dict[str, Codes] = coded()
    folder = write_coded(tmp_path / "m", known, awq_tensors, {**GEMM, "version": "GEMM"})
    (tmp_path / "float").mkdir()
    exact = pack_original(float_twin(tmp_path / "twin", known, SMALL), tmp_path / "float")

    bundle = pack_as_is(tmp_path / "b", load_model(str(folder))).bundle

    answers = []
    for made, variant in ((exact, ORIGINAL), (bundle, "as-is")):
        loaded = ReferenceEngine().open(made, variant=variant, threads=1)
        answers.append(loaded.step([(loaded.session(), np.arange(11))]))
    np.testing.assert_array_equal(answers[0], answers[1])


def test_matrices_that_were_left_out_are_plain(tmp_path: Path) -> None:
    """`modules_to_not_convert` repeats what the tensors say."""
    known = coded()
    left = next(name for name in modules() if name.endswith("down_proj"))
    del known[left]
    config = {**GEMM, "modules_to_not_convert": ["down_proj"]}

    model = load_model(str(write_coded(tmp_path / "m", known, awq_tensors, config)))

    assert "layers.0.down" not in codes_of(model).formats()
    assert model.weights.matrix("layers.0.down").shape == (64, 96)
