"""Weights that pruning made zero are zero after every later step of a recipe."""

import numpy as np
import pytest
from tests.host.networks.prunable_nets import encoder_net, picture_net, residual, samples

from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.passes.base import NetworkPass, Workbench
from onhand.host.networks.passes.equalize import Equalize
from onhand.host.networks.passes.fuse import Fuse
from onhand.host.networks.passes.prune_weights import PruneWeights
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.passes.smooth import Smooth
from onhand.host.networks.quantization.adaround import Moments, round_adaptively
from onhand.host.networks.quantization.grid import WeightCodes

HALF = PruneWeights(method="wanda", ratio=0.5)


def bench(graph: Graph) -> Workbench:
    """Sixteen examples."""
    return Workbench(
        original=graph, calibration=samples(graph, 16), task="features", threads=1
    )  # fmt: skip


@pytest.fixture(scope="module", params=["pictures", "text"])
def pruned(request: pytest.FixtureRequest) -> Graph:
    """A network of which half of the weights are zero."""
    graph = encoder_net() if request.param == "text" else picture_net((residual,))
    return HALF.apply(graph, bench(graph)).graph


def shares(graph: Graph) -> list[float]:
    """Share of zeros in each large constant, the fewest first."""
    weights = [a for a in graph.constants.values() if a.ndim > 1 and a.size >= 64]
    return sorted(float(np.mean(decoded(array) == 0)) for array in weights)


def decoded(array: Array) -> Array:
    """Codes of any width as numbers around zero."""
    if array.dtype == np.uint8:  # two in a byte, around 8
        return np.stack([array & 15, array >> 4]).astype(np.int8) - 8
    return array.astype(np.float32)


@pytest.mark.parametrize(
    "step",
    [
        QuantizeNetwork(bias_correction="full"),
        QuantizeNetwork(activations="symmetric", bias_correction="fast", reduce_range="on"),
        QuantizeNetwork(adaround=60, bias_correction="none"),
        QuantizeNetwork(bits=4, adaround=60, bias_correction="none"),
        QuantizeNetwork(scheme="weights"),
        QuantizeNetwork(scheme="weights", bits=4),
        QuantizeNetwork(equalize=True, bias_correction="none"),
        Fuse(),
        Equalize(),
        Smooth(),
    ],
    ids=str,
)
def test_every_step_keeps_the_zeros(pruned: Graph, step: NetworkPass) -> None:
    """As many as before, or more where small weights are rounded to zero."""
    before = shares(pruned)

    after = shares(step.apply(pruned, bench(pruned)).graph)

    n_layers = sum(share >= 0.5 for share in before)
    assert n_layers >= 3
    assert sum(share >= 0.5 for share in after) >= n_layers


def test_a_dense_network_has_few() -> None:
    """So the test above can fail."""
    graph = picture_net((residual,))
    made = QuantizeNetwork(bits=4, bias_correction="none").apply(graph, bench(graph)).graph

    assert max(shares(made)) < 0.45


def test_learned_rounding_moves_no_zero() -> None:
    """Where inputs became smaller, larger weights would lose less: those that are there alone."""
    ones = np.ones((1, 3, 3), np.float32)
    start = WeightCodes(
        codes=np.array([[0, 1, 1]], np.int8), scales=np.ones(1, np.float32), axis=0, bits=4
    )
    weight = np.array([[0.0, 0.9, 0.9]], np.float32)
    small = np.array([[1e-3, 0.9, 0.9]], np.float32)
    moments = Moments(rounded=ones, cross=np.float32(1.7) * ones)

    found = [round_adaptively(w, start, moments, steps=400).codes for w in (weight, small)]

    assert found[0].tolist() == [[0, 1, 1]]
    assert found[1].tolist() == [[1, 1, 1]]
