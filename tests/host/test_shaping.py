"""Steps that change a model before it is stored: planned, judged, resumed, refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.host.recorder import Recorder
from tests.models import DECODER, memory_model

from onhand.core.budget import Budget
from onhand.core.bundle import read_bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import BudgetExceeded, InputError, ResourceError
from onhand.core.measurement import Unit
from onhand.core.progress import Quiet
from onhand.core.recipe import Guard
from onhand.device.report_data import parse_report
from onhand.host.build import build_bundle, plan_build
from onhand.host.calibrate import run_original
from onhand.host.model import Model, ShapesAlone
from onhand.host.options import BuildOptions
from onhand.host.passes.base import ShapeReport, ShapeWork, ShapingPass, ShapingStep
from onhand.host.passes.distil import Distil
from onhand.host.passes.prune import Prune
from onhand.host.passes.quantize import Quantize
from onhand.host.shaping import plan_shaping

pytest.importorskip("torch", reason="distils")

Quick = dict[str, tuple[float, Unit]]
FREE = Guard(most_loss=1.0)
MUCH = Prune(mlp=0.9, multiple=1)
PRUNE = ShapingStep(transform=Prune(mlp=0.5, multiple=16))
DISTIL = ShapingStep(transform=Distil(steps=4, rate=1e-4, batch_tokens=256, precision="float32"))


@pytest.fixture
def slim(options: BuildOptions) -> BuildOptions:
    """Pruned, distilled, rounded plainly."""
    return replace(options, shaping=(PRUNE, DISTIL), measure_original=False)


def contents(bundle: Path) -> dict[str, bytes]:
    """All files but the report."""
    files = (path for path in bundle.iterdir() if not path.name.startswith("report."))
    return {path.name: path.read_bytes() for path in files}


def test_a_model_is_pruned_distilled_and_stored(
    tiny: Path, shelf: Path, home: Path, slim: BuildOptions, quick: Quick
) -> None:
    """Every step is in the report, with what it lost; quality is judged beside the source."""
    shown = Recorder()
    plan = plan_build(str(tiny), slim)

    result = build_bundle(str(tiny), shelf / "b", slim, home=home, progress=shown)

    bundle = read_bundle(shelf / "b")
    decoder = bundle.manifest.model
    assert isinstance(decoder, Decoder)
    assert sum(layer.mlp_width for layer in decoder.layers) == 96
    assert abs(plan.size_bytes["int4"] - bundle.size_bytes("int4")) <= 4096 + 64
    assert plan.n_parameters == DECODER.n_parameters > decoder.n_parameters
    steps, shaping = result.report["shaping"], bundle.manifest.provenance["shaping"]
    assert isinstance(steps, list)
    assert isinstance(shaping, list)
    assert [step["options"]["pass"] for step in steps] == ["prune", "distil"]
    assert [step["n_parameters"] for step in steps] == [decoder.n_parameters] * 2
    assert all(0 < step["figures"]["kl_divergence"]["value"] < 5 for step in steps)
    report = parse_report(result.report)
    assert sum(note.startswith("after ") for note in report.notes) == 2
    assert [row.name for row in report.steps["int4"]] == ["prune", "distil"]
    assert {row.size_bytes for row in report.steps["int4"]} == {2 * decoder.n_parameters}
    assert [entry["pass"] for entry in shaping] == ["prune", "distil"]
    assert shown.unfinished == []
    assert "distilling" in shown.stages


@pytest.mark.parametrize(
    ("stage", "after"),
    [("running", 5), ("writing what stays", 2), ("distilling", 2), ("quantizing", 1)],
)
def test_a_shaped_build_is_resumed(
    tiny: Path,
    shelf: Path,
    home: Path,
    slim: BuildOptions,
    quick: Quick,
    stage: str,
    after: int,
) -> None:
    """Interrupted in any step, it ends with the same bytes; a finished step is not run again."""
    build_bundle(str(tiny), shelf / "whole", slim, home=home)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(str(tiny), shelf / "b", slim, home=home, progress=Recorder(stage, after=after))
    again = Recorder()

    build_bundle(str(tiny), shelf / "b", replace(slim, resume=True), home=home, progress=again)

    assert contents(shelf / "b") == contents(shelf / "whole")
    assert ("distilling" in again.stages) == (stage != "quantizing")


def test_other_steps_are_another_build(
    tiny: Path, shelf: Path, home: Path, slim: BuildOptions, quick: Quick
) -> None:
    """What an interrupted build pruned otherwise is not taken up."""
    with pytest.raises(KeyboardInterrupt):
        build_bundle(str(tiny), shelf / "b", slim, home=home, progress=Recorder("distilling"))
    other = replace(slim, shaping=(ShapingStep(transform=Prune(layers=1)), DISTIL), resume=True)

    with pytest.raises(InputError, match="these differ: shaping"):
        build_bundle(str(tiny), shelf / "b", other, home=home)


def test_damaged_work_of_a_step_is_refused(
    tiny: Path, shelf: Path, home: Path, slim: BuildOptions, quick: Quick
) -> None:
    """In one sentence, which says what to remove."""
    with pytest.raises(KeyboardInterrupt):
        build_bundle(str(tiny), shelf / "b", slim, home=home, progress=Recorder("quantizing"))
    figures = shelf / "b.building" / "shaped" / "1-prune" / "figures.json"
    figures.write_text("{}")

    with pytest.raises(ResourceError, match=r"is damaged; remove .*b\.building"):
        build_bundle(str(tiny), shelf / "b", replace(slim, resume=True), home=home)


def test_a_step_that_loses_too_much_ends_the_build(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """By its own guard, or after the last step by the budget; nothing is left."""
    tight = replace(options, shaping=(ShapingStep(transform=MUCH, guard=Guard(most_loss=0.01)),))
    with pytest.raises(BudgetExceeded, match=r"after prune: .*most_loss allows \+1.00%"):
        build_bundle(str(tiny), shelf / "b", tight, home=home)
    judged = replace(options, shaping=(PRUNE, DISTIL), budget=Budget(perplexity_increase=-0.9))
    with pytest.raises(BudgetExceeded, match=r"quality: after distil: .* at most -90.00% allowed"):
        build_bundle(str(tiny), shelf / "b", judged, home=home)

    assert list(shelf.iterdir()) == []


def test_a_step_may_be_undone(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """Then the model before it is stored; the report says so."""
    undo = Guard(most_loss=0.01, undo=True)
    steps = (ShapingStep(transform=MUCH, guard=undo),)
    plain = build_bundle(str(tiny), shelf / "plain", options, home=home)
    asked = replace(options, shaping=steps)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(str(tiny), shelf / "b", asked, home=home, progress=Recorder("quantizing"))

    result = build_bundle(str(tiny), shelf / "b", replace(asked, resume=True), home=home)

    made = [contents(shelf / name)["weights.safetensors"] for name in ("plain", "b")]
    assert made[0] == made[1]
    assert "steps" not in plain.report
    assert "after prune, which is undone: " in json.dumps(result.report["notes"])


def test_a_step_is_judged_after_the_training_behind_it(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """Its guard holds for both, and both are undone together."""
    undo = Guard(most_loss=0.01, undo=True)
    asked = replace(options, shaping=(ShapingStep(transform=MUCH, guard=undo), DISTIL))

    result = build_bundle(str(tiny), shelf / "b", asked, home=home)

    rows = parse_report(result.report).steps["int4"]
    assert [row.name for row in rows] == ["prune", "distil"]
    assert all("most_loss allows +1.00%" in row.undone for row in rows)
    assert read_bundle(shelf / "b").manifest.model == DECODER


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ((Prune(mlp=0.9, multiple=1),), 'prune takes out .* add a .* pass = "distil" behind it'),
        ((Distil(), Prune(mlp=0.9, multiple=1)), "nothing trains the rest again"),
        ((Prune(layers=2), Distil()), "layers is 2, the model has 2"),
    ],
)
def test_what_cannot_end_well_is_refused_from_shapes(
    steps: tuple[ShapingPass, ...], sentence: str
) -> None:
    """Before any weight is read."""
    with pytest.raises(InputError, match=sentence):
        plan_shaping(DECODER, [ShapingStep(transform=step) for step in steps], tokens=100)


def test_a_guard_says_that_loss_is_meant() -> None:
    """Much may go without training then."""
    step = ShapingStep(transform=Prune(mlp=0.9, multiple=1), guard=FREE)

    assert plan_shaping(DECODER, [step], tokens=100).decoder.n_parameters < DECODER.n_parameters


def test_weights_that_are_not_made_yet_cannot_be_read() -> None:
    """A plan never reads any."""
    weights = ShapesAlone(DECODER)

    with pytest.raises(InputError, match="embed is not made yet"):
        weights.block("embed", 0, 1)


class Unchanged:
    """A third party's pass: it changes nothing, and keeps nothing. See `ShapingPass`."""

    name: ClassVar[str] = "unchanged"

    def plan_shape(self, decoder: Decoder, *, tokens: int) -> ShapeReport:
        """Nothing."""
        return ShapeReport(decoder=decoder, kept={"all": "it is good as it is"})

    def shape(self, model: Model, work: ShapeWork) -> Model:
        """Nothing."""
        return model


def test_a_pass_of_others_is_run_and_judged(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """What it gives is kept for it; what stays as it is has a reason in the plan."""
    asked = replace(options, shaping=(ShapingStep(transform=Unchanged()),))

    plan = plan_build(str(tiny), asked)
    result = build_bundle(str(tiny), shelf / "b", asked, home=home)

    assert isinstance(Unchanged(), ShapingPass)
    assert not isinstance(Quantize(), ShapingPass)
    assert "unchanged: all stays: it is good as it is" in plan.notes
    steps = result.report["shaping"]
    assert isinstance(steps, list)
    assert len(steps) == 1
    assert steps[0]["figures"]["kl_divergence"]["value"] < 1e-9


@pytest.mark.parametrize(
    "prune",
    [
        Prune(mlp=0.4, multiple=8, even=True, importance="magnitude", refit=False),
        Prune(mlp=0.4, multiple=8, importance="taylor"),
        Prune(heads=0.5),
        Prune(width=0.25, multiple=16),
        Prune(layers=1, mlp=0.25, multiple=8),
    ],
    ids=str,
)
def test_what_is_pruned_is_as_large_as_the_plan_says(prune: Prune, tmp_path: Path) -> None:
    """Every kind, every way to judge; what stays is a model that speaks."""
    model, text = memory_model(), list(np.random.default_rng(1).integers(0, 320, (4, 40)))
    shown = Recorder()
    work = ShapeWork(
        original=model, calibration=text, training=(), folder=tmp_path, threads=1, progress=shown
    )

    pruned = prune.shape(model, work)

    planned = prune.plan_shape(DECODER, tokens=160).decoder
    assert pruned.decoder.n_parameters == planned.n_parameters < DECODER.n_parameters
    assert all(np.isfinite(pruned.weights.matrix(name)).all() for name in planned.matrices())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]
    assert shown.unfinished == []


@settings(max_examples=40, deadline=None)
@given(
    share=st.floats(0.05, 0.9),
    multiple=st.sampled_from([1, 8, 16, 32]),
    even=st.booleans(),
    heads=st.sampled_from([0.0, 0.5]),
)
def test_what_stays_is_of_whole_multiples_and_as_much_as_was_asked(
    share: float, multiple: int, even: bool, heads: float
) -> None:
    """In every layer something stays; the share is met to half a multiple a layer."""
    prune = Prune(mlp=share, heads=heads, multiple=multiple, even=even)

    planned = prune.plan_shape(DECODER, tokens=10).decoder

    widths = [layer.mlp_width for layer in planned.layers]
    assert all(width % multiple == 0 and width >= multiple for width in widths)
    wanted = sum(layer.mlp_width for layer in DECODER.layers) * (1 - share)
    assert abs(sum(widths) - wanted) <= multiple * len(widths) / 2 + multiple
    assert {layer.n_kv_heads for layer in planned.layers} == ({1} if heads else {2})


def test_what_learnt_as_codes_is_stored_as_those_codes(tmp_path: Path) -> None:
    """By plain rounding, and by methods that search: there is nothing to be better at."""
    model = memory_model()
    text = tuple(np.random.default_rng(3).integers(0, DECODER.vocab_size, (6, 24)))
    work = ShapeWork(
        original=model,
        calibration=text,
        training=(),
        folder=tmp_path,
        threads=1,
        progress=Quiet(),
    )
    learnt = Distil(steps=6, rate=1e-3, batch_tokens=96, bits=4, embed_bits=8).shape(model, work)
    moments = run_original(learnt, calibration=text, heldout=(), progress=Quiet(), whole=True)

    assert learnt is not model
    for method in ("rtn", "clip", "gptq"):
        stored = Quantize(bits=4, embed_bits=8, method=method).apply(
            learnt,
            moments.statistics,
            names=list(DECODER.matrices()),
            threads=1,
            advance=lambda _: None,
        )
        for name, matrix in zip(DECODER.matrices(), stored, strict=True):
            np.testing.assert_array_equal(
                matrix.tensor.dequantize(), learnt.weights.matrix(name), err_msg=f"{method} {name}"
            )


def test_codes_that_nothing_stores_are_refused() -> None:
    """In the words of the options."""
    with pytest.raises(InputError, match=r"bits is 5, must be one of \(2, 3, 4, 8\)"):
        Distil(bits=5)
    with pytest.raises(InputError, match="embed_bits is 8, but bits is 0: give both"):
        Distil(embed_bits=8)
