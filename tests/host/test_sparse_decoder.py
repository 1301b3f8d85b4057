"""Decoders with weights of zero: the zeros stay, and the bundle does not store them."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from tests.models import DECODER, memory_model

from onhand import native
from onhand.core.budget import Budget
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.progress import Quiet
from onhand.core.recipe import parse_recipe
from onhand.core.sparse import Pattern
from onhand.core.sparse_form import SparseForm
from onhand.core.table_form import TableForm
from onhand.core.weights import open_weights
from onhand.device.engines.base import Engine
from onhand.device.engines.native import NativeEngine
from onhand.device.engines.onnx import OnnxEngine
from onhand.device.engines.reference import ReferenceEngine
from onhand.host import pack as pack_module
from onhand.host.build import build_bundle
from onhand.host.calibrate import InputStatistics, run_original
from onhand.host.model import Model
from onhand.host.options import BuildOptions
from onhand.host.pack import Packed, pack_bundle, plan_variants
from onhand.host.passes.base import ShapeWork, ShapingStep
from onhand.host.passes.prune_weights import PruneWeights
from onhand.host.passes.quantize import METHODS, Quantize
from onhand.host.prune import prune_matrices
from onhand.host.sparsify import Share, zero_share

TEXT = [np.random.default_rng(i).integers(0, 40, 48) for i in range(4)]
MATRICES = [name for name in DECODER.matrices() if name.startswith("layers.")]


def observed(model: Model) -> InputStatistics:
    """Whole second moments of a short text."""
    return run_original(
        model, calibration=TEXT, heldout=[], progress=Quiet(), whole=True
    ).statistics


@pytest.fixture(scope="module")
def pruned() -> Model:
    """Two of each four weights of the layers are zero."""
    model = memory_model(seed=4)
    share = Share(pattern=Pattern(2, 4))
    made = prune_matrices(model, InputStatistics(), share, method="magnitude")
    tensors = {name: made.weights.matrix(name) for name in DECODER.matrices()}
    return memory_model(
        tensors=tensors | {name: made.weights.vector(name) for name in DECODER.vectors()}
    )


def packed(model: Model, folder: Path, **variants: Quantize) -> Packed:
    """A bundle of some variants."""
    folder.mkdir()
    return pack_bundle(
        model,
        plan_variants(model.decoder, variants),
        observed(model),
        folder,
        accuracy_level=0,
        provenance={},
        threads=1,
        progress=Quiet(),
    )


def answer(engine: Engine, bundle: Bundle, variant: str) -> np.ndarray:
    """Scores after a short text."""
    loaded = engine.open(bundle, variant=variant, threads=1)
    return loaded.step([(loaded.session(), np.arange(9))])


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("method", [m for m in METHODS if not m.startswith("awq")])
def test_every_way_of_rounding_keeps_the_zeros(
    pruned: Model, method: str, bits: int, *, symmetric: bool
) -> None:
    """Where later columns make good for earlier ones as well."""
    transform = Quantize(method=method, bits=bits, symmetric=symmetric)
    made = transform.apply(
        pruned, observed(pruned), names=MATRICES, threads=1, advance=lambda _: None
    )

    for name, matrix in zip(MATRICES, made, strict=True):
        zeros = pruned.weights.matrix(name) == 0
        assert zeros.mean() == 0.5
        assert not matrix.tensor.dequantize()[zeros].any()
        assert matrix.loss.relative_error < 0.35


@pytest.fixture(scope="module")
def bundle(pruned: Model, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """int4, int8, and matrices with zero points of their own."""
    folder = tmp_path_factory.mktemp("sparse") / "b"
    int4, int8 = Quantize(method="clip"), Quantize(method="rtn", bits=8)
    return packed(pruned, folder, int4=int4, int8=int8, zeros=replace(int4, symmetric=False))


@pytest.mark.parametrize("variant", ["int4", "int8", "zeros"])
@pytest.mark.parametrize("engine", [OnnxEngine, ReferenceEngine, NativeEngine])
def test_engines_answer_as_from_whole_codes(
    engine: type[Engine],
    variant: str,
    bundle: Packed,
    pruned: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bit for bit."""
    if engine is NativeEngine and native.module is None:
        pytest.skip("the native part is not built")
    monkeypatch.setattr(pack_module, "shrink_codes", lambda *_: None)
    transforms = {"int4": Quantize(method="clip"), "int8": Quantize(method="rtn", bits=8)}
    transforms["zeros"] = replace(transforms["int4"], symmetric=False)
    whole = packed(pruned, tmp_path / "whole", **{variant: transforms[variant]}).bundle

    assert not whole.manifest.variants[variant].sparse
    np.testing.assert_array_equal(
        answer(engine(), bundle.bundle, variant), answer(engine(), whole, variant)
    )


def test_the_bundle_is_as_much_smaller(bundle: Packed) -> None:
    """11 of 16 bits in int4, 19 of 32 in int8; zero points of their own keep codes whole."""
    sparse = {name: v.sparse for name, v in bundle.bundle.manifest.variants.items()}
    n = sum(n * k for n, k in (DECODER.matrices()[name] for name in MATRICES))

    assert list(sparse["int4"]) == list(sparse["int8"]) == [f"{name}.codes" for name in MATRICES]
    assert not sparse["zeros"]
    for variant, bits, most in (("int4", 4, 11 / 16), ("int8", 8, 19 / 32)):
        stored, dense = bundle.bundle.manifest.variants[variant].sparse_bytes()
        assert dense == n * bits // 8
        assert stored <= most * dense
        losses = {loss.name: loss.size_bytes for loss in bundle.losses[variant]}
        scales = 2 * n // 32
        assert sum(losses[name] for name in MATRICES) == stored + scales


def test_attack_forms_of_other_tensors(bundle: Packed) -> None:
    """Only codes of the layers' matrices, and only as large as they are."""
    (name, form), *_ = bundle.bundle.manifest.variants["int4"].sparse.items()
    variant = bundle.bundle.manifest.variants["int4"]
    sparse = cast("SparseForm", form)
    table = TableForm(tensor=name, shape=(4, 4), n_values=9)
    for forms, message in (
        ({"embed.codes": form}, "'embed.codes' cannot be stored without its zeros"),
        ({"embed.scales": form}, "'embed.scales' cannot be stored without its zeros"),
        ({"nothing.scales": table}, "'nothing.scales' cannot be stored without its zeros"),
        ({name: table}, "cannot be stored without its zeros, or as a table"),
        ({"embed.scales": table}, "takes .* bytes, as it is stored it would be 32"),
        (
            {name: replace(sparse, shape=(4, 4), n_kept=8)},
            "takes .* bytes, as it is stored it would be 8",
        ),
    ):
        lies = replace(variant, sparse=forms)
        manifest = replace(bundle.bundle.manifest, variants={"int4": lies})
        with pytest.raises(BundleCorrupt, match=message):
            open_weights(replace(bundle.bundle, manifest=manifest), "int4")


def test_attack_a_scale_that_is_no_number(bundle: Packed, tmp_path: Path) -> None:
    """Beside codes without zeros as beside whole ones."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle.bundle.root, copy)
    path, spec = open_weights(bundle.bundle, "int4").place("layers.0.down.scales")
    content = bytearray((copy / path.name).read_bytes())
    content[spec.offset : spec.offset + 2] = np.float16("nan").tobytes()
    (copy / path.name).write_bytes(content)

    with pytest.raises(BundleCorrupt, match=r"layers\.0\.down has a scale that is not finite"):
        open_weights(replace(bundle.bundle, root=copy), "int4").stored("layers.0.down")


def test_streams_have_no_place_as_a_tensor(bundle: Packed) -> None:
    """Whoever would map them is told."""
    weights = open_weights(bundle.bundle, "int4")

    with pytest.raises(InputError, match=r"layers\.0\.down\.codes is stored without its zeros"):
        weights.place("layers.0.down.codes")


def work(model: Model, folder: Path, text: Sequence[np.ndarray] = TEXT) -> ShapeWork:
    """What a shaping pass works with."""
    return ShapeWork(
        original=model,
        calibration=text,
        training=text,
        folder=folder,
        threads=1,
        progress=Quiet(),
    )


@pytest.mark.parametrize("method", ["sparsegpt", "wanda", "magnitude"])
def test_the_pass_makes_half_zero(method: str, tmp_path: Path) -> None:
    """In all layers but those that are kept; the rest of the model is the same."""
    model = memory_model(seed=4)
    transform = PruneWeights(method=method, keep=("layers.0.*",))
    report = transform.plan_shape(DECODER, tokens=100)
    made = transform.shape(model, work(model, tmp_path))

    assert report.decoder == made.decoder == DECODER
    assert report.kept["layers.0.down"] == "kept by the pattern 'layers.0.*'"
    for name in DECODER.matrices():
        found = made.weights.matrix(name)
        if name.startswith("layers.1"):
            assert zero_share(found) == 0.5
        else:
            np.testing.assert_array_equal(found, model.weights.matrix(name))
    assert not (tmp_path / "statistics").exists()


def test_a_recipe_names_it() -> None:
    """With its own words for a slip."""
    text = """
name = "sparse"
[[step]]
pass = "prune-weights"
pattern = "2:4"
keep = ["layers.0.*"]
"""
    kinds = {"prune-weights": PruneWeights}

    (found,) = parse_recipe(text, passes=kinds.__getitem__).steps

    assert found == PruneWeights(pattern="2:4", keep=("layers.0.*",))
    for change, message in (
        ({"method": "luck"}, "method is 'luck'"),
        ({"ratio": 1.0}, "ratio is 1.0"),
        ({"pattern": "4:2"}, "pattern 4:2"),
        ({"keep": "head"}, "keep is 'head', must be a list"),
    ):
        with pytest.raises(InputError, match=message):
            PruneWeights(**change)
    with pytest.raises(InputError, match="no matrix is called 'nothing'"):
        PruneWeights(keep=("nothing",)).plan_shape(DECODER, tokens=1)
    with pytest.raises(InputError, match="no matrix is left to be pruned"):
        PruneWeights(keep=("*",)).plan_shape(DECODER, tokens=1)


def test_training_keeps_the_zeros(pruned: Model, tmp_path: Path) -> None:
    """Every other weight moves."""
    pytest.importorskip("torch", reason="trains in torch")
    from onhand.host.passes.distil import Distil

    original = memory_model(seed=4)
    made = Distil(steps=12, rate=3e-3, batch_tokens=96, precision="float32").shape(
        pruned, replace(work(pruned, tmp_path), original=original)
    )

    for name in MATRICES:
        before, after = pruned.weights.matrix(name), made.weights.matrix(name)
        np.testing.assert_array_equal(after == 0, before == 0)
        assert (after != before).mean() > 0.4


@pytest.mark.usefixtures("quick")
def test_a_recipe_gives_a_smaller_bundle_that_is_proven(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions
) -> None:
    """What the report calls its size is what is stored, and a limit of it is held to that."""
    half = ShapingStep(transform=PruneWeights(ratio=0.75))
    asked = replace(options, shaping=(half,), measure_original=False)
    whole = build_bundle(str(tiny), shelf / "whole", options, home=home)
    size = read_bundle(whole.root).size_bytes()
    asked = replace(asked, budget=Budget(size_bytes=size - 10_000))

    made = build_bundle(str(tiny), shelf / "sparse", asked, home=home)

    bundle, notes = read_bundle(made.root), "\n".join(map(str, made.report["notes"]))  # type: ignore[call-overload]
    stored, with_zeros = bundle.manifest.variants["int4"].sparse_bytes()
    assert stored < 0.55 * with_zeros
    assert bundle.size_bytes() < size - 0.9 * (with_zeros - stored) + 8192
    assert "int4: the codes of 8 of 9 matrices are stored without their zeros" in notes
    assert "after prune-weights" in notes
