"""Gradients tell what a channel is worth."""

from dataclasses import replace

import numpy as np
import pytest
from tests.host.networks.prunable_nets import Net, picture_net, samples, shuffle

from onhand.core.errors import InputError
from onhand.host.networks.dependencies import cut, find_dependencies
from onhand.host.networks.graph import Graph
from onhand.host.networks.moments import find_layers, measure_moments
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.samples import Samples
from onhand.host.networks.taylor import by_taylor


def outputs(graph: Graph, examples: Samples) -> np.ndarray:
    """The outputs for all examples."""
    feeds = examples.batch(range(len(examples)))
    made = GraphRunner(graph, threads=1).run(feeds)
    return made[graph.output_names()[0]].astype(np.float64)


def test_in_a_linear_network_it_is_what_the_outputs_move() -> None:
    """Against removing each channel in turn; groups of a convolution among them."""
    net = Net()
    x, n = shuffle(net, net.conv("x", 3, 4), 4)
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    graph = net.graph(net.dense(x, n, 5), ("batch", 3, 6, 6), 5)
    linear = replace(graph, nodes=tuple(replace(node, op="Identity") if node.op == "Relu" else node
                                        for node in graph.nodes))  # fmt: skip
    examples = samples(linear, 60)
    found = find_dependencies(linear)
    units = np.concatenate([group.units for group in found.groups])

    scores = by_taylor(found, examples, {}, task="features", seed=0)[units]

    first = outputs(linear, examples)
    moved = [np.square(outputs(cut(found, units[i : i + 1]), examples) - first).sum(axis=1).mean()
             for i in range(len(units))]  # fmt: skip
    # Random signs of five outputs: a spread of about a fifth over sixty examples.
    np.testing.assert_allclose(scores, moved, rtol=0.6)


def test_channels_that_never_change_are_worth_nothing_where_means_stand_in() -> None:
    """In a grouped convolution, in a padded one and in a product; without means they are."""
    net = Net()
    x, n = shuffle(net, net.conv("x", 3, 4, k=1), 4)
    x = net.add("Flatten", net.add("GlobalAveragePool", net.conv(x, n, 8, k=1)))
    graph = net.graph(net.dense(x, 8, 5), ("batch", 3, 6, 6), 5)
    still = {name: 0 * graph.constants[name].astype(np.float32) for name in ("c0", "c2")}
    graph = replace(graph, constants={**graph.constants, **still})
    found, examples = find_dependencies(graph), samples(graph, 4)
    moments = measure_moments(graph, find_layers(graph), examples, threads=1, pairs=False)
    units = np.concatenate([
        group.units for group in found.groups if set(group.weights) & set(still)
    ])

    with_means = by_taylor(found, examples, moments, task="features", seed=0)
    without = by_taylor(found, examples, {}, task="features", seed=0)

    # Only at the border of the padded convolution they are not what they are on average.
    assert with_means[units].max() < 0.1 * without[units].max()
    assert (with_means[units] < 1e-9).sum() >= 4
    assert with_means.max() > 1e-4


def test_what_the_classes_do_not_hang_on_is_worth_nothing() -> None:
    """With labels, and with classes that the network draws."""
    net = Net()
    x = net.add("Flatten", net.add("GlobalAveragePool", net.add("Relu", net.conv("x", 3, 8))))
    graph = net.graph(net.dense(x, 8, 5), ("batch", 3, 6, 6), 5)
    unheard = graph.constants["c2"].copy()
    unheard[2:4] = 0
    graph = replace(graph, constants={**graph.constants, "c2": unheard})
    found = find_dependencies(graph)
    (group,) = found.groups
    for labels in (True, False):
        examples = samples(graph, 6, labels=labels)
        scores = by_taylor(found, examples, {}, task="image-classification", seed=0)[group.units]

        assert (scores[2:4] == 0).all()
        assert (np.delete(scores, [2, 3]) > 0).any()


def test_what_cannot_be_is_refused() -> None:
    """No examples, and labels that are no class."""
    graph = picture_net(())
    found = find_dependencies(graph)
    wrong = replace(samples(graph, 1), labels=[5])

    with pytest.raises(InputError, match="needs examples"):
        by_taylor(found, Samples(feeds=[]), {}, task="features", seed=0)
    with pytest.raises(InputError, match="a label is 5, the network has 5 classes"):
        by_taylor(found, wrong, {}, task="image-classification", seed=0)
