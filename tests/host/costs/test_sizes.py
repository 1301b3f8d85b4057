"""`onhand.host.costs.sizes`: what shapes say is what is there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.host.costs.parts import FORMS
from tests.models import DECODER

from onhand import native
from onhand.core.decoder import Decoder
from onhand.core.quantized import GroupFormat
from onhand.host.costs.sizes import (
    engine_of,
    packed_bytes,
    read_matrices,
    stored_bytes,
    variant_bytes,
)
from onhand.host.costs.synthetic import Sizes, make_bundle


@pytest.mark.parametrize("bits", GroupFormat.BITS)
def test_a_bundle_has_the_size_that_its_shapes_say(tmp_path: Path, bits: int) -> None:
    """To the byte, tokenizer included."""
    sizes = Sizes(width=96, mlp_width=80)
    bundle = make_bundle(sizes, tmp_path / "b", bits=bits, tokens=400)
    other = (bundle.root / "tokenizer.json").stat().st_size

    formats = bundle.manifest.variants["sample"].matrices
    assert variant_bytes(sizes.decoder, formats, other_bytes=other) == bundle.size_bytes("sample")


@pytest.mark.skipif(native.module is None, reason="the native part is not built")
@pytest.mark.parametrize("shape", [(1, 1), (16, 32), (33, 130), (48, 512)])
def test_packed_matrices_take_what_shapes_say(shape: tuple[int, int]) -> None:
    """Tiles of sixteen rows, whole groups, a byte for each zero point."""
    assert native.module is not None
    for form in FORMS:
        groups = form.n_groups(shape[1])
        made = native.module.Matrix(
            form.bits,
            form.group_size,
            *shape,
            np.zeros(form.code_shape(shape), dtype=np.uint8),
            np.ones((shape[0], groups), dtype=np.uint16),
            None if form.symmetric else np.zeros(form.zero_shape(shape), dtype=np.uint8),
        )
        assert made.n_bytes == packed_bytes(shape, form), form


def test_floats_take_four_bytes() -> None:
    """In the file and in memory."""
    assert stored_bytes((3, 5), None) == packed_bytes((3, 5), None) == 60


@pytest.mark.parametrize(
    ("decoder", "unread"),
    [
        (DECODER, set()),
        (replace(DECODER, tied=False), {"embed"}),
        (replace(DECODER, positions="learned"), {"positions"}),
    ],
)
def test_what_is_looked_up_is_not_read(decoder: Decoder, unread: set[str]) -> None:
    """A token takes one row of it."""
    assert decoder.matrices().keys() - read_matrices(decoder).keys() == unread


def test_the_engine_is_the_one_that_can_run_it() -> None:
    """Floats, and inputs that are not rounded, leave the native kernels out."""
    formats: dict[str, GroupFormat | None] = dict.fromkeys(DECODER.matrices(), GroupFormat())

    assert engine_of(formats) == "native"
    assert engine_of({**formats, "positions": None}) == "native"
    assert engine_of({**formats, "embed": None}) == "onnx"
    assert engine_of(formats, accuracy_level=0) == "onnx"
