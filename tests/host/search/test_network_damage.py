"""What choices lose at a network's end, told beside what is measured there."""

from dataclasses import replace

import numpy as np
import pytest
from tests.host.networks.quantized_nets import bench, examples, residual_net

from onhand.core.progress import Quiet
from onhand.host.networks.quantization.accuracy import OutputJudge
from onhand.host.networks.quantization.mixed import FLOAT, MixedWork
from onhand.host.search.network_damage import (
    Damages,
    Seen,
    fit_curve,
    measure_damages,
    reused_damages,
    spread_gains,
)

CHOICES = (FLOAT, "static-8", "static-4", "weights-8", "weights-4")


@pytest.fixture(scope="module")
def work() -> MixedWork:
    """The residual network."""
    graph = residual_net()
    return MixedWork(graph, bench(graph), symmetric=False, bias_correction="none")


def measured(work: MixedWork, most_runs: int) -> Damages:
    """Damages from so many runs."""
    graph = residual_net()
    return measure_damages(
        work,
        graph,
        examples(graph, 24, seed=3),
        task="image-classification",
        threads=1,
        most_runs=most_runs,
        choices=CHOICES,
        reader=None,
        progress=Quiet(),
    )


def test_a_mix_loses_about_what_was_told(work: MixedWork) -> None:
    """Half of random mixes within a factor of two, and their order is kept."""
    graph = residual_net()
    judge = OutputJudge(graph, examples(graph, 24, seed=4), task="image-classification", threads=1)
    damages = measured(work, 24)
    rng = np.random.default_rng(0)
    told, found = [], []
    for _ in range(12):
        choices = {name: CHOICES[rng.integers(0, 4)] for name in work.layers}
        told.append(damages.total(choices))
        found.append(judge.error(work.made(choices)))

    ratios = np.log(np.array(found) / np.array(told))
    assert np.median(np.abs(ratios)) < np.log(2)
    assert np.abs(ratios).max() < np.log(2.5)
    assert np.corrcoef(np.log(told), np.log(found))[0, 1] > 0.8


def test_few_runs_tell_about_the_same(work: MixedWork) -> None:
    """Layers that were not run lie between those that were."""
    few, all_of_them = measured(work, 3), measured(work, 24)

    assert {len(found) for found in few.measured.values()} == {3}
    assert {len(found) for found in all_of_them.measured.values()} == {len(work.layers)}
    whole = dict.fromkeys(work.layers, "static-8")
    assert few.total(whole) == pytest.approx(all_of_them.total(whole), rel=0.05)


def test_a_network_that_came_of_another_begins_with_what_that_lost(work: MixedWork) -> None:
    """Its own loss is measured, and its layers' gains are the other's."""
    graph = residual_net()
    known = measured(work, 24)
    constants = {
        name: array * np.float32(1.02) if array.ndim == 4 else array
        for name, array in graph.constants.items()
    }
    changed = replace(graph, constants=constants)
    other = MixedWork(changed, bench(changed), symmetric=False, bias_correction="none")
    judge = OutputJudge(graph, examples(graph, 24, seed=3), task="image-classification", threads=1)

    found = reused_damages(other, known, judge, choices=CHOICES)

    assert found.base > 1e-4
    assert found.gains == known.gains
    assert found.total(dict.fromkeys(other.layers, FLOAT)) == pytest.approx(found.base)


def test_gains_lie_between_neighbours() -> None:
    """By hand, in the logarithm."""
    local = {name: {FLOAT: 0.0, "static-8": 1e-4} for name in "abc"}

    found = spread_gains(local, {"a": 1e-4, "c": 1e-2}, kind="activations")

    assert found == pytest.approx({"a": 1.0, "b": 10.0, "c": 100.0})
    assert spread_gains(local, {}, kind="weights") == dict.fromkeys("abc", 1.0)


def test_a_loss_goes_with_the_error_and_not_with_its_square() -> None:
    """Of classes; of similarity it goes with the square."""
    curve = fit_curve("image-classification", [Seen(0.01, 0.02), Seen(0.04, 0.04), Seen(9.0, 1.0)])

    assert curve.loss(0.01) == pytest.approx(0.02)
    assert curve.loss(0.0) == 0
    assert curve.loss(1e9) == 1
    assert curve.damage(0.04) == pytest.approx(0.04)
    assert fit_curve("text-embedding", []).loss(0.02) == pytest.approx(0.01)
