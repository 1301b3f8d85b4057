"""Builds of language models that can learn: the files, the report, the forecast, the refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.host.recorder import Recorder

pytest.importorskip("torch", reason="compares gradients with PyTorch's")

from onhand.core.bundle import read_bundle
from onhand.core.errors import EngineError, InputError
from onhand.core.measurement import Unit
from onhand.device.learning.graph import open_lesson
from onhand.host import ablation
from onhand.host.build import build_bundle, plan_build
from onhand.host.learning import decoder_files
from onhand.host.learning.check import Checked
from onhand.host.learning.wanted import parse_learnable
from onhand.host.options import BuildOptions
from onhand.host.passes.quantize import Quantize

Quick = dict[str, tuple[float, Unit]]
LORA = parse_learnable("lora,rank=4,targets=qkv+down")


def test_a_built_bundle_can_learn_and_its_report_says_so(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """From a checkpoint to falling losses; the check's figures are in the report."""
    shown = Recorder()
    wanted = replace(options, learnable=LORA)

    made = build_bundle(str(tiny), shelf / "b", wanted, home=home, progress=shown)

    bundle = read_bundle(shelf / "b")
    said = made.report["lesson"]
    assert isinstance(said, dict)
    assert said["check"]["gradient_error"] < 1e-4
    assert (said["rank"], said["n_tensors"], said["variant"]) == (4, 8, "int4")
    assert bundle.manifest.provenance["learnable"] == LORA.to_json()
    assert made.report["manifest_sha256"] == bundle.manifest_sha256
    assert "checking what it can learn" in shown.stages
    assert _losses(shelf / "b")[-1] < 0.7 * _losses(shelf / "b")[0]


def _losses(root: Path) -> list[float]:
    """Teach one text by plain gradient descent."""
    lesson = open_lesson(read_bundle(root), threads=1)
    tokens = np.random.default_rng(0).integers(0, 320, (1, 12))
    feeds: dict[str, np.ndarray] = {
        "tokens": tokens,
        "rows": np.arange(11),
        "labels": tokens[0, 1:, None],
        "weights": np.full((11, 1), 1 / 11, dtype=np.float32),
    }
    values = lesson.start()
    losses: list[float] = []
    for _ in range(40):
        taught = lesson.teach(values, feeds)
        losses.append(taught.loss)
        values = {name: value - 0.5 * taught.gradients[name] for name, value in values.items()}
    lesson.close()
    return losses


def test_the_plan_says_what_learning_adds(tiny: Path, options: BuildOptions) -> None:
    """Bytes in every variant, and a sentence."""
    without = plan_build(str(tiny), options)

    plan = plan_build(str(tiny), replace(options, learnable=LORA))

    assert plan.size_bytes["int4"] > without.size_bytes["int4"]
    assert any(
        "int4 can learn" in note and "rank 4 beside 4 matrices" in note for note in plan.notes
    )


def test_the_forecast_is_that_of_the_bundle(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """From shapes alone, but for a few kilobytes."""
    wanted = replace(options, learnable=LORA)

    build_bundle(str(tiny), shelf / "b", wanted, home=home)

    foretold = plan_build(str(tiny), wanted).size_bytes["int4"]
    assert abs(read_bundle(shelf / "b").size_bytes("int4") - foretold) < 3 * 4096


def test_a_failed_check_leaves_no_bundle(
    tiny: Path,
    shelf: Path,
    home: Path,
    options: BuildOptions,
    quick: Quick,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the bundle nor its lesson."""

    def refuse(*given: object, **options: object) -> Checked:
        raise EngineError("the gradient of 'x' is 0.5 away from PyTorch's")

    monkeypatch.setattr(decoder_files, "check_gradients", refuse)

    with pytest.raises(EngineError, match=r"0\.5 away from PyTorch's"):
        build_bundle(str(tiny), shelf / "b", replace(options, learnable=LORA), home=home)
    assert list(shelf.glob("[!.]*")) == []
    for kept in shelf.glob(".*"):
        _remove(kept)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


def test_codes_that_cannot_be_learned_over_are_refused_before_any_work(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions
) -> None:
    """The plan refuses already."""
    three = {"int3": Quantize(bits=3, method="rtn")}

    with pytest.raises(InputError, match="codes of 3 bits"):
        plan_build(str(tiny), replace(options, transforms=three, learnable=LORA))


def test_what_is_left_out_one_by_one_need_not_learn(options: BuildOptions) -> None:
    """Builds that only measure a technique have no lesson."""
    asked = replace(options, learnable=LORA)

    assert all(one.options.learnable is None for one in ablation.decoder_leave_outs(asked))


def test_a_bundle_without_a_wish_is_as_before(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """No file, no key of the report, nothing in the provenance."""
    made = build_bundle(str(tiny), shelf / "b", options, home=home)

    bundle = read_bundle(shelf / "b")
    assert not any(name.startswith("learn") for name in bundle.manifest.files)
    assert "lesson" not in made.report
    assert "learnable" not in bundle.manifest.provenance
    assert json.dumps(made.report)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"text": "lights off", "label": "light"}', "has a class, which a language model cannot"),
        ('{"prompt": "lights off"}', "are no example"),
    ],
)
def test_examples_that_no_device_could_use_end_a_build_at_its_beginning(
    line: str,
    sentence: str,
    tiny: Path,
    shelf: Path,
    home: Path,
    options: BuildOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With their line, and before the first matrix is rounded."""
    path = shelf / "known.jsonl"
    path.write_text(f"{line}\n", encoding="utf-8")
    wanted = parse_learnable(f"lora,remember={path}")
    monkeypatch.setattr("onhand.host.build.with_decoder_lesson", None)

    with pytest.raises(InputError, match=sentence):
        build_bundle(str(tiny), shelf / "b", replace(options, learnable=wanted), home=home)
    assert not (shelf / "b").exists()
