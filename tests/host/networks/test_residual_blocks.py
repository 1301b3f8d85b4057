"""Blocks that a network can run without."""

from dataclasses import replace

import numpy as np
import pytest
from tests.host.networks.prunable_nets import (
    encoder_net,
    inverted,
    picture_net,
    plain,
    residual,
    samples,
)

from onhand.core.errors import InputError
from onhand.host.networks.graph import Graph
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.passes.prune_channels import PruneChannels
from onhand.host.networks.residual_blocks import block_influences, find_blocks, without_block
from onhand.host.networks.samples import Samples


def outputs(graph: Graph) -> np.ndarray:
    """The outputs for a few examples."""
    made = GraphRunner(graph, threads=1).run(samples(graph, 4).batch(range(4)))
    return made[graph.output_names()[0]]


def test_every_block_is_found_and_can_go() -> None:
    """As in ResNet and MobileNet: each alone, and all together."""
    graph = picture_net((residual, inverted, plain, residual))
    assert len(find_blocks(graph)) == 3

    for block in find_blocks(graph):
        assert outputs(without_block(graph, block)).shape == (4, 5)
    while blocks := find_blocks(graph):
        graph = without_block(graph, blocks[-1])
    assert outputs(graph).shape == (4, 5)
    assert sum(node.op == "Conv" for node in graph.nodes) == 2


def test_layers_of_encoders_are_two_blocks_each() -> None:
    """The first one reads the input, which has no norm behind it: its norm stays."""
    graph = encoder_net(n_layers=3)

    assert len(find_blocks(graph)) == 5
    small = graph
    for _ in range(2):
        small = without_block(small, find_blocks(small)[1])
    assert outputs(small).shape == (4, 3)
    assert sum(node.op == "LayerNormalization" for node in small.nodes) == 4


def test_a_block_that_adds_nothing_has_no_influence() -> None:
    """It goes first, and nothing changes."""
    graph = picture_net((residual, residual, residual))
    adds = [node for node in graph.nodes if node.op == "Add"]
    (branch,) = (node for node in graph.nodes if node.name == adds[1].inputs[0])
    quiet = {name: 0 * graph.constants[name].astype(np.float32) for name in branch.inputs[1:]}
    graph = replace(graph, constants={**graph.constants, **quiet})
    found = block_influences(graph, find_blocks(graph), samples(graph), threads=1)
    bench = Workbench(original=graph, calibration=samples(graph), task="features", threads=1)

    made = PruneChannels(ratio=0, layers=1, multiple=1).apply(graph, bench)

    assert found[1] == pytest.approx(0, abs=1e-6)
    assert min(found[0], found[2]) > 1e-4
    assert "block taken out" in made.changed[find_blocks(graph)[1].result]
    np.testing.assert_allclose(outputs(made.graph), outputs(graph), rtol=1e-4, atol=1e-5)


def test_more_blocks_than_there_are_is_an_error() -> None:
    """So it is to take out blocks without examples, or all that a pattern keeps."""
    graph = picture_net((residual,))
    bench = Workbench(original=graph, calibration=samples(graph), task="features", threads=1)
    blind = replace(bench, calibration=Samples(feeds=[]))

    with pytest.raises(InputError, match="has only 1 blocks"):
        PruneChannels(layers=2).apply(graph, bench)
    with pytest.raises(InputError, match="has only 0 blocks"):
        PruneChannels(layers=1, keep=["v*"]).apply(graph, bench)  # type: ignore[arg-type]  # a list
    with pytest.raises(InputError, match="layers needs examples"):
        PruneChannels(layers=1, importance="magnitude").apply(graph, blind)
