"""Scales in 8 bits: few values, a table, and the same answers from every engine."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models import DECODER, memory_model

from onhand import native
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.progress import Quiet
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.core.safetensors import open_safetensors
from onhand.core.table_form import TableForm
from onhand.core.weights import open_weights
from onhand.device.engines.base import Engine
from onhand.device.engines.native import NativeEngine
from onhand.device.engines.onnx import OnnxEngine
from onhand.device.engines.reference import ReferenceEngine
from onhand.host import pack as pack_module
from onhand.host.calibrate import InputStatistics
from onhand.host.costs.sizes import variant_sizes
from onhand.host.pack import pack_bundle, plan_variants
from onhand.host.passes.quantize import Quantize
from onhand.host.rounding import round_matrix
from onhand.host.scale_tables import coded_bytes, few_scales, has_few_scales, table_values
from onhand.host.sparse_storage import saved_bytes, tabulate_scales
from onhand.host.weight_files import StoredVariant

LARGE = [name for name, (n, k) in DECODER.matrices().items() if n * k // 32 >= 640]


def rounded(bits: int, *, symmetric: bool = True, seed: int = 0) -> tuple[np.ndarray, QuantTensor]:
    """A matrix whose rows differ much in size, and its codes."""
    draw = np.random.default_rng(seed)
    spread = np.exp(draw.standard_normal((300, 1)))
    weight = (draw.standard_normal((300, 256)) * spread).astype(np.float32)
    form = GroupFormat(bits=bits, symmetric=symmetric)
    return weight, round_matrix(weight, form, method="rtn").tensor


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_few_values_hardly_add_to_the_error(bits: int, *, symmetric: bool) -> None:
    """Rows that differ a hundredfold are the worst case; the codes stay."""
    weight, whole = rounded(bits, symmetric=symmetric)

    few = few_scales(whole)

    assert not has_few_scales(whole)
    assert has_few_scales(few)
    np.testing.assert_array_equal(few.codes, whole.codes)
    before, after = (np.square(one.dequantize() - weight).sum() for one in (whole, few))
    assert before < after < 1.08 * before


@settings(max_examples=40, deadline=None)
@given(
    scales=st.lists(
        st.floats(-6e4, 6e4, width=16, allow_nan=False), min_size=257, max_size=600, unique=True
    )
)
def test_any_scales_stay_near(scales: list[float]) -> None:
    """Each moves by no more than the widest gap between values that are left."""
    n = len(scales)
    form = GroupFormat()
    codes = np.full((n, 1, 16), 0x97, dtype=np.uint8)
    whole = QuantTensor(
        shape=(n, 32),
        format=form,
        codes=codes,
        scales=np.array(scales, np.float16)[:, None],
        zeros=None,
    )

    few = few_scales(whole)

    left = np.unique(few.scales.astype(np.float64))
    assert len(left) <= table_values(whole.shape)
    assert np.isfinite(left).all()
    assert left.min() >= min(scales)
    assert left.max() <= max(scales)
    assert few_scales(few) is few


def test_wide_codes_keep_their_scales() -> None:
    """At 8 bits the error is so small that the scales' own would be seen."""
    _, whole = rounded(8)

    assert few_scales(whole) is whole


def test_bytes_are_forecast() -> None:
    """Of each width, as they will be; where float16 makes two values one, there are two fewer."""
    for bits in (2, 3, 4, 8):
        _, whole = rounded(bits)
        few = few_scales(whole)
        table = tabulate_scales("layers.0.down", few)

        found = few.size_bytes - saved_bytes("layers.0.down", few)

        spare = 0 if table is None else 2 * _spare(table.form)
        assert found == coded_bytes(whole.shape, whole.format, scale_bits=8) - spare
        assert whole.size_bytes == coded_bytes(whole.shape, whole.format, scale_bits=16)


@pytest.mark.parametrize("scale_bits", [0, 4, 32])
def test_other_widths_are_refused(scale_bits: int) -> None:
    """By name."""
    with pytest.raises(InputError, match=f"scale_bits is {scale_bits}, must be one of"):
        Quantize(scale_bits=scale_bits)


def _spare(form: object) -> int:
    """Values that a table has room for, and does not have."""
    assert isinstance(form, TableForm)
    n, groups = form.shape
    spare = table_values((n, groups * 32)) - form.n_values
    assert 0 <= spare < 16
    return spare


@pytest.mark.parametrize(
    ("shape", "n_values"),
    [((32, 32), 25), ((128, 128), 63), ((1024, 1024), 251), ((4096, 4096), 256)],
)
def test_large_matrices_have_more_values(shape: tuple[int, int], n_values: int) -> None:
    """In small ones a table would take more than it is worth."""
    assert table_values(shape) == n_values


def packed(folder: Path, **variants: Quantize) -> Bundle:
    """A bundle of some variants."""
    folder.mkdir()
    model = memory_model(seed=4)
    pack_bundle(
        model,
        plan_variants(model.decoder, variants),
        InputStatistics(),
        folder,
        accuracy_level=0,
        provenance={},
        threads=1,
        progress=Quiet(),
    )
    return read_bundle(folder)


def test_a_bundle_stores_them_as_tables(tmp_path: Path) -> None:
    """Of all matrices that are large enough; each variant for itself, and as small as forecast."""
    few = Quantize(method="rtn", scale_bits=8)
    bundle = packed(tmp_path / "b", few=few, whole=Quantize(method="rtn"))

    forms = bundle.manifest.variants["few"].sparse
    assert LARGE
    assert sorted(forms) == sorted(f"{name}.scales" for name in LARGE)
    assert all(isinstance(form, TableForm) for form in forms.values())
    assert not bundle.manifest.variants["whole"].sparse
    few_weights, whole = (open_weights(bundle, name) for name in ("few", "whole"))
    for name in LARGE:
        first, second = few_weights.stored(name), whole.stored(name)
        assert isinstance(first, QuantTensor)
        assert isinstance(second, QuantTensor)
        np.testing.assert_array_equal(first.codes, second.codes)
        np.testing.assert_array_equal(first.scales, few_scales(second).scales)
    formats = bundle.manifest.variants["few"].matrices
    stored = StoredVariant(formats=formats, own=list(formats))
    size, whole_size = variant_sizes(
        DECODER,
        {"few": (stored, 8), "whole": (stored, 16)},
        other_bytes=sum(len(content) for content in memory_model(seed=4).files.values()),
        accuracy_level=0,
    )
    assert size - 2 * sum(map(_spare, forms.values())) == bundle.size_bytes("few")
    assert whole_size == bundle.size_bytes("whole")


def test_attack_a_table_with_what_is_no_number(tmp_path: Path) -> None:
    """It is found where scales are read, whole or not."""
    bundle = packed(tmp_path / "b", v=Quantize(method="rtn", scale_bits=8))
    name = LARGE[0]
    path = bundle.path("weights.safetensors")
    spec = open_safetensors(path).tensors[f"{name}.scales.table"]
    content = bytearray(path.read_bytes())
    content[spec.offset : spec.offset + 2] = np.float16("nan").tobytes()
    path.write_bytes(content)

    with pytest.raises(BundleCorrupt, match=f"{name} has a scale that is not finite"):
        open_weights(bundle, "v").stored(name)


@pytest.mark.parametrize("stream", ["index", "table"])
def test_attack_streams_that_do_not_fit(tmp_path: Path, stream: str) -> None:
    """An index beyond the table, a stream that is not there."""
    bundle = packed(tmp_path / "b", v=Quantize(method="rtn", scale_bits=8))
    name = LARGE[0]
    variant = bundle.manifest.variants["v"]
    form = variant.sparse[f"{name}.scales"]
    assert isinstance(form, TableForm)
    lie = (
        replace(form, n_values=form.n_values - 1)
        if stream == "table"
        else replace(form, tensor="nothing")
    )
    lies = replace(variant, sparse={**variant.sparse, f"{name}.scales": lie})
    manifest = replace(bundle.manifest, variants={"v": lies})

    with pytest.raises(
        BundleCorrupt, match="index and table of" if stream == "table" else "has 'nothing.index'"
    ):
        open_weights(replace(bundle, manifest=manifest), "v").stored(name)


def test_what_has_no_place_says_what_it_is(tmp_path: Path) -> None:
    """A lesson needs dtype and shape of scales that lie in no one place."""
    weights = open_weights(packed(tmp_path / "b", v=Quantize(method="rtn", scale_bits=8)), "v")
    name = LARGE[0]
    found = weights.stored(name)
    assert isinstance(found, QuantTensor)

    spec = weights.left_out(f"{name}.scales")

    assert spec is not None
    assert (spec.dtype, spec.shape) == ("F16", found.scales.shape)
    assert spec.size == found.scales.size * 2
    assert weights.left_out(f"{name}.codes") is None
    with pytest.raises(InputError, match=rf"{name}\.scales is stored without its zeros, or as"):
        weights.place(f"{name}.scales")


@pytest.mark.parametrize("engine", [OnnxEngine, ReferenceEngine, NativeEngine])
def test_engines_answer_as_from_whole_scales(
    engine: type[Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit."""
    if engine is NativeEngine and native.module is None:
        pytest.skip("the native part is not built")
    transform = Quantize(method="rtn", scale_bits=8)
    tables = packed(tmp_path / "tables", v=transform)
    monkeypatch.setattr(pack_module, "tabulate_scales", lambda *_: None)
    whole = packed(tmp_path / "whole", v=transform)

    assert tables.manifest.variants["v"].sparse
    assert not whole.manifest.variants["v"].sparse
    assert tables.size_bytes("v") < whole.size_bytes("v")
    first, second = (engine().open(bundle, variant="v", threads=1) for bundle in (tables, whole))
    np.testing.assert_array_equal(
        first.step([(first.session(), np.arange(9))]),
        second.step([(second.session(), np.arange(9))]),
    )
