"""Matrices of a decoder as products of two thinner ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.host.recorder import Recorder
from tests.models import DECODER, memory_model

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import read_bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.measurement import Unit
from onhand.core.progress import Quiet
from onhand.core.recipe import Guard
from onhand.host.build import build_bundle, plan_build
from onhand.host.calibrate import run_original
from onhand.host.factors import factorise, spectrum_of
from onhand.host.model import Model
from onhand.host.options import BuildOptions
from onhand.host.passes.base import ShapeWork, ShapingStep
from onhand.host.passes.factorize import Factorize


def texts(seed: int) -> list[TokenArray]:
    """Sequences of few words: what matrices read hangs together."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 12, 32) for _ in range(4)]


def shaped(model: Model, folder: Path, **options: Any) -> Model:
    """A model after the pass."""
    work = ShapeWork(
        original=model, calibration=texts(1), training=(), folder=folder, threads=1,
        progress=Quiet(),
    )  # fmt: skip
    return Factorize(**{"multiple": 4, "most_lost": 1.0, **options}).shape(model, work)


def states(model: Model) -> FloatArray:
    """What the head reads of a text that was not seen."""
    run = run_original(model, calibration=(), heldout=texts(2), progress=Quiet())
    return np.concatenate(run.hidden)


@pytest.mark.parametrize("ratio", [0.1, 0.3])
def test_the_layers_come_down_to_the_share(ratio: float, tmp_path: Path) -> None:
    """Of their matrices' weights; tables and vectors stay, and so does what is kept."""
    model = memory_model(seed=3)
    made = shaped(model, tmp_path, ratio=ratio, keep=("layers.0.out",))
    whole = {n: s for n, s in model.decoder.matrices().items() if n.startswith("layers.")}
    free = sum(a * b for n, (a, b) in whole.items() if n != "layers.0.out")
    gone = model.decoder.n_parameters - made.decoder.n_parameters

    assert ratio * free <= gone <= (ratio + 0.1) * free
    assert all(rank % 4 == 0 for rank in made.decoder.ranks.values())
    assert "layers.0.out" not in made.decoder.ranks
    np.testing.assert_array_equal(made.weights.matrix("embed"), model.weights.matrix("embed"))
    planned = Factorize(ratio=ratio, multiple=4).plan_shape(model.decoder, tokens=128).decoder
    assert abs(planned.n_parameters - made.decoder.n_parameters) < 0.1 * free


def test_matrices_of_low_rank_are_taken_apart_without_loss(tmp_path: Path) -> None:
    """Products that are there already are found, and found first."""
    model = memory_model(seed=4)
    random = np.random.default_rng(5)
    thin = {
        name: (random.normal(0, 0.3, (n, 4)) @ random.normal(0, 0.1, (4, k))).astype(np.float32)
        for name, (n, k) in model.decoder.matrices().items()
        if name.endswith(".down")
    }
    given = replace(model, weights=replaced(model, thin))
    made = shaped(given, tmp_path, ratio=0.1)

    assert set(made.decoder.ranks) <= set(thin)
    np.testing.assert_allclose(states(made), states(given), rtol=1e-3, atol=1e-3)


def replaced(model: Model, matrices: dict[str, FloatArray]) -> Any:
    """The model's weights with some others."""

    class Weights:
        decoder = model.decoder
        rows, vector = model.weights.rows, model.weights.vector

        def matrix(self, name: str) -> FloatArray:
            return matrices[name] if name in matrices else model.weights.matrix(name)

        def block(self, name: str, start: int, stop: int) -> FloatArray:
            return self.matrix(name)[start:stop]

    return Weights()


def test_knowing_the_text_loses_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Than the decomposition of the weights alone, on a text of the same words."""
    model = memory_model(seed=3)
    first = states(model)
    lost = [float(np.square(states(shaped(model, tmp_path / "a", ratio=0.4)) - first).mean())]
    place = "onhand.host.passes.factorize"
    monkeypatch.setattr(f"{place}.spectrum_of", lambda m, name, _: spectrum_of(m, name, None))
    monkeypatch.setattr(f"{place}.factorise", lambda m, ranks, _: factorise(m, ranks))
    lost.append(float(np.square(states(shaped(model, tmp_path / "b", ratio=0.4)) - first).mean()))

    assert lost[0] < 0.8 * lost[1]


def test_a_factorised_model_is_built_and_judged(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: dict[str, tuple[float, Unit]]
) -> None:
    """Its factors are stored in codes, and the step is in the report."""
    step = ShapingStep(
        transform=Factorize(ratio=0.2, multiple=8, most_lost=1.0), guard=Guard(most_loss=9.0)
    )
    given = replace(options, shaping=(step,), measure_original=False)
    plan = plan_build(str(tiny), given)
    result = build_bundle(str(tiny), shelf / "b", given, home=home, progress=Recorder())
    decoder = read_bundle(shelf / "b").manifest.model

    assert isinstance(decoder, Decoder)
    assert decoder.ranks
    assert decoder.n_parameters < DECODER.n_parameters == plan.n_parameters
    steps = result.report["shaping"]
    assert isinstance(steps, list)
    assert [entry["options"]["pass"] for entry in steps] == ["factorize"]
    assert 0 < steps[0]["figures"]["kl_divergence"]["value"] < 5


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"ratio": 0.0}, "ratio is 0.0"),
        ({"most_lost": 2.0}, "most_lost is 2.0"),
        ({"multiple": 0}, "multiple is 0"),
        ({"keep": "layers.*"}, "keep is 'layers.*'"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], found: str) -> None:
    """Each with a sentence that names it."""
    with pytest.raises(InputError, match=found):
        Factorize(**options)


def test_models_that_do_not_suit_are_refused(tmp_path: Path) -> None:
    """Patterns of nothing, ranks that save nothing, factors already, and losses too large."""
    twice = replace(DECODER, ranks={"layers.0.down": 4})

    with pytest.raises(InputError, match="no matrix is called 'stem'"):
        Factorize(keep=("stem",)).plan_shape(DECODER, tokens=1)
    with pytest.raises(InputError, match="a multiple of 512"):
        Factorize(multiple=512).plan_shape(DECODER, tokens=1)
    with pytest.raises(InputError, match="factors already"):
        Factorize().plan_shape(twice, tokens=1)
    with pytest.raises(InputError, match="raise most_lost"):
        shaped(memory_model(seed=3), tmp_path, most_lost=0.0)
