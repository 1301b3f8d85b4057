"""What a bundle holds, how large it is, and that the same input gives the same bytes."""

import filecmp
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from tests.models import DECODER, memory_model, random_tensors, varied_decoder

from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError, OnhandError, SourceError
from onhand.core.progress import Quiet
from onhand.core.quantized import GroupFormat
from onhand.core.safetensors import open_safetensors
from onhand.core.weights import open_weights
from onhand.device.engines.onnx import OnnxEngine
from onhand.device.engines.reference import ReferenceEngine
from onhand.host.calibrate import InputStatistics, run_original
from onhand.host.model import Model
from onhand.host.pack import Packed, pack_bundle, plan_variants
from onhand.host.passes.base import Matrix, Pass, PassReport
from onhand.host.passes.quantize import Quantize
from onhand.host.plan import predict_sizes
from onhand.host.rounding import round_matrix
from onhand.host.weight_files import StoredVariant, decoder_files

RTN4 = Quantize(method="rtn")
RTN8 = Quantize(method="rtn", bits=8)


def pack(
    folder: Path,
    transforms: Mapping[str, Pass],
    *,
    model: Model | None = None,
    threads: int = 1,
    calibrate: bool = False,
) -> Packed:
    """A bundle of the tiny model."""
    model = model or memory_model()
    folder.mkdir()
    statistics = InputStatistics()
    if calibrate:
        row = np.arange(64)
        statistics = run_original(model, calibration=[row], heldout=[], progress=Quiet()).statistics
    return pack_bundle(
        model,
        plan_variants(model.decoder, transforms),
        statistics,
        folder,
        accuracy_level=0,
        provenance={"source_sha256": model.sha256},
        threads=threads,
        progress=Quiet(),
    )


def answer(bundle: Bundle, variant: str) -> np.ndarray:
    """What a variant says in the engine that ships, and in the reference."""
    answers = []
    for engine in (OnnxEngine(), ReferenceEngine()):
        loaded = engine.open(bundle, variant=variant, threads=1)
        answers.append(loaded.step([(loaded.session(), np.arange(9))]))
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-3, atol=1e-4)
    return answers[0]


@pytest.mark.parametrize(
    "transforms",
    [
        {"int4": RTN4},
        {"int8": RTN8},
        {"int4": Quantize(method="rtn", symmetric=False, group_size=128, embed_bits=8)},
        {"int8": RTN8, "int4": RTN4},
        {"int4": RTN4, "mixed": replace(RTN4, embed_bits=8)},
    ],
    ids=["int4", "int8", "mixed", "two", "shared"],
)
@pytest.mark.parametrize(
    "decoder",
    [
        DECODER,
        replace(DECODER, tied=False),
        varied_decoder(),
        replace(DECODER, ranks={"layers.0.down": 24, "layers.1.gate_up": 40}),
    ],
    ids=["tied", "own head", "layers that differ", "factors"],
)
def test_the_predicted_size_is_the_size(
    tmp_path: Path, transforms: dict[str, Pass], decoder: Decoder
) -> None:
    """From shapes alone; within 1 %, and the manifest's few kilobytes on so small a model."""
    model = memory_model(replace(decoder, vocab_size=4096))

    bundle = pack(tmp_path / "b", transforms, model=model).bundle

    predicted = predict_sizes(model, plan_variants(model.decoder, transforms), accuracy_level=0)
    assert list(predicted) == list(transforms)
    for name, size in predicted.items():
        real = bundle.size_bytes(name) + (bundle.root / "manifest.json").stat().st_size
        assert abs(size - real) < 0.01 * real + 4096, name


def test_variants_share_what_is_the_same(tmp_path: Path) -> None:
    """A second variant with another embedding stores that matrix; neither needs the other's."""
    transforms = {"int4": RTN4, "mixed": replace(RTN4, embed_bits=8)}
    bundle = pack(tmp_path / "both", transforms).bundle
    alone = pack(tmp_path / "alone", {"int4": RTN4}).bundle
    shape = DECODER.matrices()["embed"]
    sizes = {bits: GroupFormat(bits=bits).size_bytes(shape) for bits in (4, 8)}

    files = {name: entry.size for name, entry in bundle.manifest.files.items()}
    whole = alone.manifest.files["weights.safetensors"].size
    assert files["weights.safetensors"] < whole - sizes[4]
    assert sizes[4] <= files["weights.int4.safetensors"] < sizes[4] + 1024
    assert sizes[8] <= files["weights.mixed.safetensors"] < sizes[8] + 1024
    for name in transforms:
        needed = (f"weights.{name}.safetensors", "weights.safetensors")
        assert bundle.manifest.variants[name].weights == needed
    assert bundle.size_bytes("int4") - alone.size_bytes() < 1024
    np.testing.assert_array_equal(answer(bundle, "int4"), answer(alone, "int4"))
    assert np.abs(answer(bundle, "mixed") - answer(bundle, "int4")).max() > 1e-3


def test_each_variant_needs_only_what_it_uses(tmp_path: Path) -> None:
    """Of three variants two share a matrix: it lies in a file of these two."""
    transforms = {
        "int4": RTN4,
        "wide": replace(RTN4, layers={"layers.0.down": {"bits": 8}, "layers.0.out": {"bits": 8}}),
        "broad": replace(RTN4, layers={"layers.0.down": {"bits": 2}}),
    }
    bundle = pack(tmp_path / "three", transforms).bundle

    weights = {name: variant.weights for name, variant in bundle.manifest.variants.items()}
    assert weights == {
        "int4": ("weights.int4.safetensors", "weights.1+3.safetensors", "weights.safetensors"),
        "wide": ("weights.wide.safetensors", "weights.safetensors"),
        "broad": (
            "weights.broad.safetensors",
            "weights.1+3.safetensors",
            "weights.safetensors",
        ),
    }
    both = open_safetensors(bundle.path("weights.1+3.safetensors"))
    assert {name.rpartition(".")[0] for name in both.tensors} == {"layers.0.out"}
    for name, transform in transforms.items():
        alone = pack(tmp_path / name, {name: transform}).bundle
        np.testing.assert_array_equal(answer(bundle, name), answer(alone, name))
        assert abs(bundle.size_bytes(name) - alone.size_bytes()) < 2048


def test_a_variant_in_float_beside_one_stored_otherwise(tmp_path: Path) -> None:
    """What the first variant stores as a table is not a table in one that keeps it in float."""
    model = memory_model(replace(DECODER, vocab_size=4096))
    kept = {"embed": {"bits": 32}}
    transforms = {
        "int4": replace(RTN4, scale_bits=8),
        "float": replace(RTN4, scale_bits=8, layers=kept),
    }

    bundle = pack(tmp_path / "b", transforms, model=model).bundle

    variants = bundle.manifest.variants
    assert "embed.scales" in variants["int4"].sparse
    assert "embed.scales" not in variants["float"].sparse
    exact = model.weights.matrix("embed")
    np.testing.assert_array_equal(open_weights(bundle, "float").matrix("embed"), exact)


def test_no_variant_takes_the_name_of_what_others_share() -> None:
    """Said before anything is written."""
    stored = StoredVariant(formats={}, own=("embed",))

    with pytest.raises(InputError, match=r"variant '1\+2': a file of shared weights is called so"):
        decoder_files(
            DECODER,
            {
                "a": stored,
                "b": StoredVariant(formats={}, own=()),
                "1+2": StoredVariant(formats={"embed": None}, own=("embed",)),
            },
        )


def test_variants_that_are_the_same_are_stored_once(tmp_path: Path) -> None:
    """No second weights file at all."""
    bundle = pack(tmp_path / "b", {"int4": RTN4, "again": Quantize(method="rtn")}).bundle

    assert bundle.manifest.variants["again"].weights == ("weights.safetensors",)
    assert "weights.again.safetensors" not in bundle.manifest.files
    np.testing.assert_array_equal(answer(bundle, "int4"), answer(bundle, "again"))


def test_variants_of_other_rounding_share_nothing(tmp_path: Path) -> None:
    """The same bits, other codes: each variant is what it would be alone."""
    transforms = {"rtn": RTN4, "clip": Quantize()}
    bundle = pack(tmp_path / "both", transforms, calibrate=True).bundle
    alone = pack(tmp_path / "alone", {"clip": Quantize()}, calibrate=True).bundle

    np.testing.assert_array_equal(answer(bundle, "clip"), answer(alone, "clip"))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, threads: int) -> None:
    """Every file, manifest included, whatever the number of threads."""
    transforms = {"int4": Quantize(), "int8": RTN8}
    model = memory_model(varied_decoder())

    first = pack(tmp_path / "a", transforms, model=model, calibrate=True).bundle
    second = pack(tmp_path / "b", transforms, model=model, calibrate=True, threads=threads).bundle

    assert first.manifest_sha256 == second.manifest_sha256
    same = filecmp.dircmp(tmp_path / "a", tmp_path / "b")
    assert not same.diff_files + same.left_only + same.right_only


def test_losses_say_what_each_matrix_lost(tmp_path: Path) -> None:
    """For every variant every matrix, in the order of the model, shared ones too."""
    transforms = {"int4": RTN4, "mixed": replace(RTN4, embed_bits=8)}
    model = memory_model()

    packed = pack(tmp_path / "b", transforms, calibrate=True)

    for name, rows in packed.losses.items():
        assert [row.name for row in rows] == list(DECODER.matrices())
        weights = open_weights(packed.bundle, name)
        for row in rows:
            exact = model.weights.matrix(row.name)
            lost = np.linalg.norm(weights.matrix(row.name) - exact) / np.linalg.norm(exact)
            assert row.relative_error == pytest.approx(lost, rel=1e-4)
    bits = {name: [row.bits for row in rows] for name, rows in packed.losses.items()}
    assert bits == {"int4": [4] * 9, "mixed": [8] + [4] * 8}


def test_a_weight_that_is_no_number_stops_the_packing(tmp_path: Path) -> None:
    """Too large counts as well."""
    tensors = random_tensors({**DECODER.matrices(), **DECODER.vectors()})
    tensors["layers.1.out"][0, 0] = 3e38

    with pytest.raises(SourceError, match="too large"):
        pack(tmp_path / "b", {"int4": RTN4}, model=memory_model(tensors=tensors))


@pytest.mark.parametrize("name", ["../up", "a/b", "", "a b", "x" * 200, ".hidden"])
def test_attack_variant_that_is_a_path(name: str) -> None:
    """Names of variants become names of files."""
    with pytest.raises(InputError):
        plan_variants(DECODER, {"int4": RTN4, name: RTN8})


@dataclass(frozen=True, slots=True, kw_only=True)
class Third:
    """A pass of a third party: quantizes the MLP, keeps the rest, and says why."""

    name: ClassVar[str] = "third"

    order: int = 1
    bits: int = 4
    count: int = 99

    def plan(self, decoder: Decoder) -> PassReport:
        """See `Pass`."""
        names = decoder.matrices()
        chosen = {name for name in names if name.endswith(("gate_up", "down"))}
        form = GroupFormat()
        return PassReport(
            formats={name: form if name in chosen else None for name in names},
            kept=dict.fromkeys([*(set(names) - chosen), *decoder.vectors()], "not in the MLP"),
            rounding=f"third {self.order}",
            needs_calibration=False,
        )

    def apply(
        self,
        model: Model,
        statistics: InputStatistics,
        *,
        names: Sequence[str],
        threads: int,
        advance: Callable[[float], None],
    ) -> Iterator[Matrix]:
        """See `Pass`."""
        exact = Quantize(method="rtn", bits=self.bits)
        chosen = list(names)[:: self.order][: self.count]
        return exact.apply(model, statistics, names=chosen, threads=threads, advance=advance)


def test_a_pass_of_a_third_party_keeps_what_it_says(tmp_path: Path) -> None:
    """Matrices without a format stay in float32, and the bundle runs."""
    model = memory_model()

    packed = pack(tmp_path / "b", {"third": Third(), "int4": RTN4})

    weights = open_weights(packed.bundle, "third")
    np.testing.assert_array_equal(weights.matrix("embed"), model.weights.matrix("embed"))
    np.testing.assert_array_equal(
        weights.matrix("layers.0.down"),
        round_matrix(
            model.weights.matrix("layers.0.down"), GroupFormat(), method="rtn"
        ).tensor.dequantize(),
    )
    assert [loss.name for loss in packed.losses["third"]] == [
        f"layers.{i}.{part}" for i in (0, 1) for part in ("gate_up", "down")
    ]
    answer(packed.bundle, "third")
    answer(packed.bundle, "int4")


def test_what_two_variants_keep_is_stored_once() -> None:
    """Float32 is float32, whatever the rounding of the rest is called."""
    plans = plan_variants(DECODER, {"a": Third(), "b": Third(order=2)})

    assert "embed" in plans[0].own
    assert "embed" not in plans[1].own
    assert "layers.0.down" in plans[1].own


@pytest.mark.parametrize(
    "wrong", [Third(order=-1), Third(count=2), Third(bits=8)], ids=["order", "missing", "format"]
)
def test_a_pass_that_breaks_its_word_is_refused(tmp_path: Path, wrong: Third) -> None:
    """Another order than asked for, too few matrices, another format than planned."""
    with pytest.raises(OnhandError) as caught:
        pack(tmp_path / "b", {"third": wrong})

    assert "layers." in str(caught.value)
