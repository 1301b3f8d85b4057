"""Tests of `onhand.host.search.perturb` against running each changed model by itself."""

from dataclasses import replace

import numpy as np
import pytest
from tests.models import memory_model, varied_decoder

from onhand.core.arrays import FloatArray
from onhand.core.progress import Quiet
from onhand.device.engines import forward
from onhand.host.model import Model
from onhand.host.search.perturb import ChangedWeights, Trial, run_trials

SEQUENCES = [np.arange(3, 40, dtype=np.int64), np.arange(200, 240, dtype=np.int64)]


def alone(model: Model, changed: dict[str, FloatArray]) -> tuple[float, float]:
    """Divergence and increase of the loss, with one whole forward pass for each model."""
    other = replace(model, weights=ChangedWeights(model.weights, changed))
    divergence: list[float] = []
    increase: list[float] = []
    for tokens in SEQUENCES:
        p, q = (_log_probabilities(one, tokens) for one in (model, other))
        divergence += (np.exp(p) * (p - q)).sum(axis=1).tolist()
        rows = np.arange(tokens.size - 1)
        increase += (p - q)[rows, tokens[1:]].tolist()
    return float(np.mean(divergence)), float(np.mean(increase))


def _log_probabilities(model: Model, tokens: np.ndarray) -> np.ndarray:
    decoder, weights = model.decoder, model.weights
    x = forward.embed(weights, tokens)
    ropes = forward.RopeCache(decoder, tokens.size)
    for i, layer in enumerate(decoder.layers):
        memory = forward.LayerMemory.empty(layer, tokens.size)
        x = forward.run_layer(weights, i, x, memory, start=0, rope=ropes.tables(i, tokens.size))
    scores = forward.logits(weights, forward.final_hidden(weights, x)).astype(np.float64)[:-1]
    found: np.ndarray = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return found


@pytest.mark.parametrize("model", [memory_model(), memory_model(varied_decoder())])
def test_trials_that_travel_together_lose_what_each_loses_alone(model: Model) -> None:
    """Every matrix in turn, and all of them at once; tied and untied, of any width."""
    random = np.random.default_rng(0)
    changed = {
        name: model.weights.matrix(name) + 0.05 * random.standard_normal(shape, dtype=np.float32)
        for name, shape in model.decoder.matrices().items()
    }
    sets = [*({name: one} for name, one in changed.items()), changed]
    trials = [
        Trial({name: (lambda one=one: one) for name, one in own.items()})  # type: ignore[misc]
        for own in sets
    ]

    found = run_trials(model, trials, SEQUENCES, threads=1, progress=Quiet())

    for own, loss in zip(sets, found, strict=True):
        divergence, increase = alone(model, own)
        assert loss.divergence == pytest.approx(divergence, rel=1e-3, abs=1e-7)
        assert loss.loss_increase == pytest.approx(increase, rel=1e-3, abs=1e-6)


def test_a_trial_that_changes_nothing_loses_nothing() -> None:
    """It is the original."""
    model = memory_model()
    same = Trial({"layers.1.down": lambda: model.weights.matrix("layers.1.down")})

    (loss,) = run_trials(model, [same], SEQUENCES, threads=1, progress=Quiet())

    assert (loss.divergence, loss.loss_increase) == (0.0, 0.0)
