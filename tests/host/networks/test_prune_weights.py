"""Networks of which weights are zero."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.host.networks.prunable_nets import (
    dense_concat,
    encoder_net,
    inverted,
    picture_net,
    residual,
    samples,
    shuffle,
)

from onhand.core.errors import InputError
from onhand.host.networks.graph import Graph
from onhand.host.networks.moments import own_layers
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.passes.prune_weights import PruneWeights
from onhand.host.networks.samples import Samples
from onhand.host.sparsify import METHODS


def workbench(graph: Graph, n: int = 16) -> Workbench:
    """A bench with a few examples."""
    return Workbench(original=graph, calibration=samples(graph, n), task="features", threads=1)


def distance(a: Graph, b: Graph) -> float:
    """Mean square of the difference of the outputs for examples that were not seen."""
    feeds = samples(a, 32, seed=8).batch(range(32))
    name = a.output_names()[0]
    made = [GraphRunner(graph, threads=1).run(feeds)[name].astype(float) for graph in (a, b)]
    return float(np.square(made[0] - made[1]).mean())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("of", ["pictures", "text"])
def test_every_layer_loses_its_share_and_the_network_runs(method: str, of: str) -> None:
    """Convolutions, groups and products alike; depthwise ones say why not."""
    graph = encoder_net() if of == "text" else picture_net((residual, inverted, shuffle))
    made = PruneWeights(ratio=0.5, method=method).apply(graph, workbench(graph))

    for layer in own_layers(graph):
        rows = layer.matrices(made.graph.constants[layer.weight])
        if layer.weight in made.kept:
            assert "depthwise" in made.kept[layer.weight]
        else:
            zeros = (rows == 0).sum(axis=2)
            assert (zeros == round(0.5 * layer.n_inputs)).all()
            assert "% are zero" in made.changed[layer.weight]
    assert distance(graph, made.graph) > 0
    plain = PruneWeights(ratio=0.5, method=method, correct_bias=False)
    assert plain.apply(graph, workbench(graph)).graph.nodes == graph.nodes


def test_better_methods_lose_less() -> None:
    """On examples that were not seen."""
    graph = picture_net((residual, dense_concat), seed=5)
    bench = workbench(graph, 64)
    lost = [
        distance(graph, PruneWeights(ratio=0.4, method=method).apply(graph, bench).graph)
        for method in ("sparsegpt", "magnitude")
    ]

    assert lost[0] < 0.7 * lost[1]


@pytest.mark.parametrize("method", METHODS)
def test_biases_take_the_mean_error(method: str) -> None:
    """Behind a ReLU inputs have a mean, and what is lost of it moves into the next bias."""
    graph = picture_net((residual, dense_concat), seed=6)
    bench = workbench(graph, 64)
    step = PruneWeights(ratio=0.4, method=method)
    lost = [
        distance(graph, replace(step, correct_bias=corrects).apply(graph, bench).graph)
        for corrects in (True, False)
    ]

    assert lost[0] < 0.9 * lost[1]


def test_patterns_of_blocks_fit_or_say_why_not() -> None:
    """Two of four along the inputs; the first layer has 27 of them."""
    graph = picture_net((residual,))
    made = PruneWeights(pattern="2:4", method="wanda").apply(graph, workbench(graph))

    odd = {"c0": 27, "c8": 90, "c12": 7}
    assert made.kept == {name: f"{n} inputs are no multiple of 4" for name, n in odd.items()}
    layer = next(layer for layer in own_layers(graph) if layer.weight == "c2")
    blocks = (layer.matrices(made.graph.constants["c2"]) != 0).reshape(-1, 4).sum(axis=1)
    assert (blocks == 2).all()


def test_one_threshold_over_all_layers() -> None:
    """Layers of small weights lose more; in all it is the ratio."""
    graph = picture_net((residual,))
    small = {**graph.constants, "c2": graph.constants["c2"].astype(np.float32) / 10}
    graph = replace(graph, constants=small)
    step = PruneWeights(ratio=0.4, method="magnitude", scope="global")
    made = step.apply(graph, workbench(graph)).graph.constants

    weights = [layer.weight for layer in own_layers(graph)]
    zeros = {name: float((made[name] == 0).mean()) for name in weights}
    total = sum(made[name].size for name in weights)
    assert sum(zeros[n] * made[n].size for n in weights) == pytest.approx(0.4 * total, abs=1)
    assert zeros["c2"] > 0.8 > 0.3 > zeros["c0"]


def test_weights_below_a_size_go_however_many_they_are() -> None:
    """Those of just that size stay."""
    graph = picture_net((residual,))
    sizes = np.sort(np.abs(graph.constants["c2"]).reshape(-1))
    least = float(sizes[10])
    made = PruneWeights(method="magnitude", threshold=least).apply(graph, workbench(graph))

    kept = np.abs(made.graph.constants["c2"])
    assert (kept == 0).sum() == 10
    assert kept[kept > 0].min() == sizes[10]


def test_layers_are_kept_by_name() -> None:
    """The first and the last are often kept."""
    graph = picture_net((inverted,))
    made = PruneWeights(method="magnitude", keep=("c0",), depthwise=True).apply(
        graph, workbench(graph)
    )

    assert made.kept == {"c0": "kept by the pattern 'c0'"}
    assert made.graph.constants["c0"] is graph.constants["c0"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"keep": "c0"}, "keep is 'c0', must be a list"),
        ({"method": "luck"}, "method is 'luck'"),
        ({"scope": "world"}, "scope is 'world'"),
        ({"scope": "global"}, "goes with method 'magnitude'"),
        ({"threshold": -1.0}, r"threshold is -1\.0"),
        ({"threshold": 0.1}, "threshold goes with method 'magnitude'"),
        ({"ratio": 1.5}, r"ratio is 1\.5"),
        ({"pattern": "4:2"}, "pattern 4:2"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], found: str) -> None:
    """Each with a sentence that names it."""
    with pytest.raises(InputError, match=found):
        PruneWeights(**options)


def test_examples_are_needed_but_for_magnitudes() -> None:
    """An error in words."""
    graph = encoder_net()
    bench = replace(workbench(graph), calibration=Samples(feeds=[]))

    with pytest.raises(InputError, match="without examples"):
        PruneWeights().apply(graph, bench)
    assert PruneWeights(method="magnitude").apply(graph, bench).changed
