"""A bundle beside its original, wherever that is now."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.models import sample_text, write_checkpoint

from onhand import native
from onhand.core.bundle import read_bundle, stage_bundle
from onhand.core.errors import BundleCorrupt, EngineUnavailable, InputError
from onhand.core.progress import Quiet
from onhand.device.engines.base import KvKind
from onhand.device.engines.choosing import PrefillUse
from onhand.host.build import build_bundle
from onhand.host.calibrate import InputStatistics
from onhand.host.evaluate import evaluate_bundle, record_original
from onhand.host.options import BuildOptions
from onhand.host.pack import pack_bundle, plan_variants
from onhand.host.passes.quantize import Quantize
from onhand.host.sources import load_model

NAMES = [
    "flip_rate",
    "kl_divergence",
    "original_perplexity",
    "perplexity",
    "perplexity_increase",
    "top1_agreement",
]


@pytest.fixture
def source(tiny: Path, tmp_path: Path) -> Path:
    """A checkpoint that may be moved away."""
    return Path(shutil.copytree(tiny, tmp_path / "source"))


@pytest.fixture
def built(source: Path, tmp_path: Path, home: Path) -> Path:
    """A bundle of it: int8, with a coarser variant; the builder's state knows its original."""
    return packed_bundle(source, tmp_path, home)


def packed_bundle(source: Path, tmp_path: Path, home: Path, *, accuracy_level: int = 0) -> Path:
    """See `built`; the engine `native` wants accuracy level 4."""
    model = load_model(str(source))
    transforms = {"int8": Quantize(bits=8, method="rtn"), "int2": Quantize(bits=2, method="rtn")}
    with stage_bundle(tmp_path / "bundle") as staged:
        packed = pack_bundle(
            model,
            plan_variants(model.decoder, transforms),
            InputStatistics(),
            staged,
            accuracy_level=accuracy_level,
            provenance={"source_sha256": model.sha256},
            threads=1,
            progress=Quiet(),
        )
    record_original(home, packed.bundle.manifest_sha256, str(source), model.sha256)
    return tmp_path / "bundle"


def test_a_build_records_its_original(
    source: Path, tmp_path: Path, home: Path, text: Path, quick: object
) -> None:
    """In the builder's state, by its absolute place; the report's figures come again."""
    options = BuildOptions(
        transforms={"int8": Quantize(bits=8, method="rtn")}, calibrate=text, threads=1
    )
    build_bundle(str(source), tmp_path / "bundle", options, home=home)

    found = evaluate_bundle(tmp_path / "bundle", text, home=home, threads=1)

    assert 0 < found["kl_divergence"].value < 1e-2


@pytest.fixture
def other_text(tmp_path: Path) -> Path:
    """A text that the build has not seen."""
    path = tmp_path / "other.txt"
    path.write_text(sample_text(120, seed=7), encoding="utf-8")
    return path


def test_the_recorded_original_is_found(built: Path, home: Path, other_text: Path) -> None:
    """Five figures, each with an interval and how to measure it again; no path in it."""
    found = evaluate_bundle(built, other_text, home=home, threads=1)

    assert sorted(found) == NAMES
    assert all(figure.interval is not None for figure in found.values())
    assert {figure.how for figure in found.values()} == {"onhand evaluate source --text other.txt"}
    assert 0 < found["kl_divergence"].value < 1e-3
    assert found["top1_agreement"].value > 0.9


def test_the_variant_and_the_engine_are_those_asked_for(
    built: Path, home: Path, other_text: Path
) -> None:
    """The coarse variant loses more; both engines agree on how much."""
    fine = evaluate_bundle(built, other_text, home=home, threads=1)
    coarse = [
        evaluate_bundle(built, other_text, variant="int2", engine=engine, home=home, threads=1)
        for engine in ("onnx", "reference")
    ]

    lost = [figures["kl_divergence"].value for figures in coarse]
    assert lost[0] > 20 * fine["kl_divergence"].value
    assert lost[0] == pytest.approx(lost[1], rel=1e-3)


def test_keys_and_values_are_kept_as_asked_for(
    source: Path, tmp_path: Path, home: Path, other_text: Path
) -> None:
    """It changes the answers a little, and is said."""
    if native.module is None:
        pytest.skip(native.missing)
    built = packed_bundle(source, tmp_path, home, accuracy_level=4)
    kinds: tuple[KvKind, ...] = ("fp16", "int8")

    fp16, int8 = (evaluate_bundle(built, other_text, kv=kv, home=home, threads=1) for kv in kinds)

    assert int8["kl_divergence"].how == "onhand evaluate source --text other.txt --kv int8"
    assert int8["kl_divergence"].value != fp16["kl_divergence"].value
    assert int8["perplexity"].value == pytest.approx(fp16["perplexity"].value, rel=0.01)


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ({"kv": "int8"}, "onnx: it does not keep keys and values as int8"),
        ({"prefill": "bf16"}, "onnx has no prefill in bf16; native has one"),
    ],
)
def test_an_engine_that_cannot_is_named(
    built: Path, source: Path, home: Path, other_text: Path, way: Any, reason: str
) -> None:
    """Before the original is looked for."""
    shutil.rmtree(source)

    with pytest.raises(EngineUnavailable, match=reason):
        evaluate_bundle(built, other_text, engine="onnx", home=home, threads=1, **way)


def test_prompts_are_multiplied_as_asked_for(
    source: Path, tmp_path: Path, home: Path, other_text: Path
) -> None:
    """It changes the answers a little, and is said."""
    if native.module is None or "amx" not in native.module.instruction_sets():
        pytest.skip("this processor has no tile instructions for bf16")
    built = packed_bundle(source, tmp_path, home, accuracy_level=4)
    ways: tuple[PrefillUse, ...] = ("exact", "bf16")

    exact, bf16 = (
        evaluate_bundle(built, other_text, prefill=prefill, home=home, threads=1)
        for prefill in ways
    )

    assert bf16["perplexity"].how == "onhand evaluate source --text other.txt --prefill bf16"
    assert bf16["perplexity"].value != exact["perplexity"].value
    assert bf16["perplexity"].value == pytest.approx(exact["perplexity"].value, rel=0.01)


def test_the_number_of_tokens_can_be_bounded(built: Path, home: Path, other_text: Path) -> None:
    """From the beginning of the text; it is said."""
    found = evaluate_bundle(built, other_text, max_tokens=40, home=home, threads=1)

    assert found["perplexity"].samples == 39
    assert found["perplexity"].how.endswith("--max-tokens 40")


def test_an_original_that_is_gone_is_said(
    built: Path, source: Path, home: Path, other_text: Path, tmp_path: Path
) -> None:
    """With what to do; given by hand, it is compared all the same."""
    expected = evaluate_bundle(built, other_text, home=home, threads=1)
    source.rename(tmp_path / "moved")

    with pytest.raises(InputError, match=r"its original .*source is gone; give --original DIR"):
        evaluate_bundle(built, other_text, home=home, threads=1)

    given = evaluate_bundle(built, other_text, original=tmp_path / "moved", home=home, threads=1)
    assert given == expected


def test_a_machine_without_a_record_asks_for_the_original(
    built: Path, tmp_path: Path, other_text: Path
) -> None:
    """The bundle may have come from elsewhere."""
    with pytest.raises(InputError, match="has no record of its original; give --original DIR"):
        evaluate_bundle(built, other_text, home=tmp_path / "elsewhere", threads=1)


def test_another_model_is_not_the_original(
    built: Path, source: Path, home: Path, other_text: Path, tmp_path: Path
) -> None:
    """Of the same shape, or the recorded folder with other weights in it."""
    other = write_checkpoint(tmp_path / "other", seed=1)

    with pytest.raises(InputError, match=r"other is not what .*bundle was made from: SHA-256"):
        evaluate_bundle(built, other_text, original=other, home=home, threads=1)
    shutil.copy(other / "model.safetensors", source / "model.safetensors")
    with pytest.raises(InputError, match=r"source is not what .*bundle was made from"):
        evaluate_bundle(built, other_text, home=home, threads=1)


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"a"])
def test_a_text_of_no_use_is_refused(
    built: Path, home: Path, tmp_path: Path, content: bytes
) -> None:
    """Empty, no text, too short."""
    path = tmp_path / "bad.txt"
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"bad\.txt"):
        evaluate_bundle(built, path, home=home, threads=1)


def test_a_bundle_that_was_changed_is_refused(built: Path, home: Path, other_text: Path) -> None:
    """Before anything of it is read."""
    bundle = read_bundle(built)
    path = bundle.path("weights.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(BundleCorrupt, match=r"weights\.safetensors"):
        evaluate_bundle(built, other_text, home=home, threads=1)
