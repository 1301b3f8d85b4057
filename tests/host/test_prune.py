"""Decoders of which weights are zero: read as any other, and near to the original."""

from dataclasses import replace

import numpy as np
import pytest
from tests.models import DECODER, memory_model

from onhand.core.errors import InputError
from onhand.core.progress import Quiet
from onhand.core.sparse import Pattern
from onhand.device.engines import forward
from onhand.host.calibrate import InputStatistics, run_original
from onhand.host.model import Model
from onhand.host.prune import prune_matrices, pruned_names
from onhand.host.sparsify import METHODS, Share


@pytest.fixture(scope="module")
def model() -> Model:
    """A small random decoder."""
    return memory_model(seed=3)


@pytest.fixture(scope="module")
def statistics(model: Model) -> InputStatistics:
    """Whole second moments of a short text."""
    rng = np.random.default_rng(1)
    # A text of few words: its inputs hang together.
    tokens = [rng.integers(0, 12, 32) for _ in range(4)]
    run = run_original(model, calibration=tokens, heldout=[], progress=Quiet(), whole=True)
    return run.statistics


@pytest.mark.parametrize("method", METHODS)
def test_matrices_of_layers_lose_half_of_each_row(
    model: Model, statistics: InputStatistics, method: str
) -> None:
    """Blocks and rows of them are the same; tables and vectors stay."""
    pruned = prune_matrices(model, statistics, Share(0.5), method=method).weights
    for name, (n, k) in DECODER.matrices().items():
        whole = pruned.matrix(name)

        if name.startswith("layers."):
            assert ((whole == 0).sum(axis=1) == k // 2).all()
        else:
            np.testing.assert_array_equal(whole, model.weights.matrix(name))
        np.testing.assert_allclose(pruned.block(name, 3, n - 2), whole[3 : n - 2], atol=1e-6)
        ids = np.array([5, 1])
        np.testing.assert_allclose(pruned.rows(name, ids), whole[ids], atol=1e-6)
    for name in DECODER.vectors():
        np.testing.assert_array_equal(pruned.vector(name), model.weights.vector(name))


def test_what_makes_good_brings_it_nearer(model: Model, statistics: InputStatistics) -> None:
    """On a text that was not seen, "sparsegpt" is nearer to the original than magnitudes."""
    tokens = np.random.default_rng(2).integers(0, 12, 24)

    def states(of: Model) -> np.ndarray:
        run = run_original(of, calibration=[], heldout=[tokens], progress=Quiet())
        return run.hidden[0]

    first = states(model)
    lost = {}
    for method in METHODS:
        pruned = prune_matrices(model, statistics, Share(0.3), method=method)
        lost[method] = float(np.square(states(pruned) - first).mean())

    assert lost["sparsegpt"] < 0.7 * lost["magnitude"]


def test_a_pruned_model_runs_as_any_other(model: Model, statistics: InputStatistics) -> None:
    """The forward pass reads it by the same names."""
    share = Share(pattern=Pattern(2, 4))
    pruned = prune_matrices(model, statistics, share, method="wanda", keep=("layers.0.*",))

    assert forward.embed(pruned.weights, np.array([1, 2])).shape == (2, DECODER.width)
    np.testing.assert_array_equal(
        pruned.weights.matrix("layers.0.out"), model.weights.matrix("layers.0.out")
    )
    blocks = (pruned.weights.matrix("layers.1.out") != 0).reshape(-1, 4).sum(axis=1)
    assert (blocks == 2).all()


def test_what_stays_has_a_reason() -> None:
    """Every matrix is pruned or explained."""
    names, kept = pruned_names(DECODER, Share(pattern=Pattern(3, 7)), keep=("*.down",))

    assert names == ()
    assert set(kept) == set(DECODER.matrices())
    assert kept["layers.0.out"] == "64 inputs are no multiple of 7"
    assert kept["layers.0.down"] == "kept by the pattern '*.down'"


def test_statistics_must_hold_what_is_needed(model: Model, statistics: InputStatistics) -> None:
    """Without a calibration text only magnitudes are known."""
    with pytest.raises(InputError, match="whole second moments"):
        prune_matrices(model, InputStatistics(), Share(), method="wanda")
    with pytest.raises(InputError, match="method is 'luck'"):
        prune_matrices(model, statistics, Share(), method="luck")
    bare = prune_matrices(model, InputStatistics(), Share(), method="magnitude")
    assert bare == replace(model, weights=bare.weights)
