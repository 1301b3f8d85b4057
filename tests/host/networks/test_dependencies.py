"""What goes together: channels that nobody hears can go, and nothing changes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.host.networks.prunable_nets import (
    BLOCKS,
    Block,
    Net,
    encoder_net,
    picture_net,
    samples,
    sliced,
)

from onhand.host.networks.dependencies import Dependencies, cut, find_dependencies
from onhand.host.networks.dependency_trace import IntArray
from onhand.host.networks.graph import Graph
from onhand.host.networks.observe import GraphRunner


def outputs(graph: Graph) -> np.ndarray:
    """The outputs for the same few examples."""
    examples = samples(graph, 3)
    made = GraphRunner(graph, threads=1).run(examples.batch(range(3)))
    return made[graph.output_names()[0]]


def some_units(found: Dependencies, seed: int) -> IntArray:
    """Some units of every group, never all."""
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(group.units)[: len(group.units) // 2] for group in found.groups]
    return np.concatenate([*parts, np.zeros(0, dtype=np.int64)])


def unheard(found: Dependencies, units: IntArray) -> Graph:
    """The graph in which nobody hears some units: what sums over them has zeros for them."""
    constants = dict(found.graph.constants)
    for consumer in found.consumers:
        # All groups of a convolution lose the same places.
        inside = consumer.labels[: len(consumer.labels) // consumer.groups]
        gone = np.isin(found.roots[inside], units)
        array = np.moveaxis(constants[consumer.weight].copy(), consumer.weight_axis, 0)
        array[gone] = 0
        constants[consumer.weight] = np.moveaxis(array, 0, consumer.weight_axis)
    return replace(found.graph, constants=constants)


def silent(found: Dependencies, units: IntArray) -> Graph:
    """The graph in which what makes some units makes zeros."""
    summed = {(consumer.weight, consumer.weight_axis) for consumer in found.consumers}
    constants = dict(found.graph.constants)
    for name, axes in found.axes.items():
        array = constants[name]
        for axis, labels in enumerate(axes):
            if labels is None or (name, axis) in summed or array.dtype != np.float32:
                continue
            stays = ~np.isin(found.roots[labels], units)
            array = array * np.expand_dims(stays, tuple(range(1, array.ndim - axis)))
        constants[name] = array.astype(found.graph.constants[name].dtype)
    return replace(found.graph, constants=constants)


def check(graph: Graph, seed: int = 0) -> None:
    """Both kinds of dead channels can be removed, and the network is smaller and as good."""
    found = find_dependencies(graph)
    units = some_units(found, seed)
    for dead in (unheard(found, units), silent(found, units)):
        small = cut(replace(found, graph=dead), units)

        np.testing.assert_allclose(outputs(small), outputs(dead), rtol=1e-4, atol=1e-5)
        assert small.size_bytes() < graph.size_bytes()
        assert small.outputs == graph.outputs


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_dead_channels_of_every_block_can_go(block: Block) -> None:
    """Whatever lies between two layers, the right channels go."""
    check(picture_net((block,)))


def test_parts_of_a_convolution_can_overlap() -> None:
    """Slices are moved to where their channels are now."""
    net = Net()
    x, n = sliced(net, net.conv("x", 3, 8), 8)
    check(net.graph(net.dense(net.add("ReduceMean", x, axes=(2, 3), keepdims=0), n, 5),
                    ("batch", 3, 6, 6), 5))  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(
    blocks=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4),
    flat=st.booleans(),
    seed=st.integers(0, 99),
)
def test_dead_channels_of_any_network_can_go(*, blocks: list[Block], flat: bool, seed: int) -> None:
    """Blocks in any order, so that widths meet in all ways."""
    check(picture_net(tuple(blocks), flat=flat), seed)


def test_dead_heads_and_the_width_between_can_go() -> None:
    """An encoder loses whole heads and inner channels; its own width is normalised over."""
    graph = encoder_net(n_layers=2)
    found = find_dependencies(graph)

    check(graph)
    assert sorted(len(group.units) for group in found.groups) == [4, 4, 32, 32]
    assert len(found.kept) == 5


def ends(net: Net, x: str, n: int = 8) -> Dependencies:
    """What goes together in a network that ends with a layer of 5 classes."""
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    return find_dependencies(net.graph(net.dense(x, n, 5), ("batch", 3, 6, 6), 5))


def test_channels_that_are_normalised_over_stay() -> None:
    """A mean over channels would change with their number."""
    net = Net()
    x = net.add("Transpose", net.conv("x", 3, 8), perm=(0, 2, 3, 1))
    x = net.add("LayerNormalization", x, net.weight(8), net.weight(8), axis=-1)
    found = ends(net, net.add("Transpose", x, perm=(0, 3, 1, 2)))

    assert found.groups == ()
    assert "LayerNormalization" in found.kept["c0"]


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Softmax", {"axis": 1}),
        ("DepthToSpace", {"blocksize": 2}),
        ("LpNormalization", {"axis": 1}),
    ],
)
def test_what_an_operator_may_mix_stays(op: str, attributes: dict[str, int]) -> None:
    """Operators that nothing is known of keep all that they read, and are named."""
    net = Net()
    x = net.add(op, net.conv("x", 3, 8), **attributes)
    found = ends(net, x, 2 if op == "DepthToSpace" else 8)

    assert found.groups == ()
    assert op in found.kept["c0"]


def test_what_meets_the_input_stays() -> None:
    """The input has as many channels as it has."""
    net = Net()
    found = ends(net, net.add("Add", net.conv("x", 3, 3), "x"), 3)

    assert found.groups == ()
    assert "'x'" in found.kept["c0"]


def test_a_width_that_is_computed_stays() -> None:
    """Nothing can tell what a computed shape would be."""
    net = Net()
    x = net.conv("x", 3, 8)
    size = net.add("Gather", net.add("Shape", x), net.given(1), axis=0)
    shape = net.add("Concat", net.given(-1), size, net.given(36), axis=0)
    found = ends(net, net.add("Unsqueeze", net.add("Reshape", x, shape), net.given(3)))

    assert found.groups == ()
    assert "Shape" in found.kept["c0"]


def test_sizes_that_are_put_together_follow() -> None:
    """The batch of a reshape may be computed while its heads are written down."""
    net = Net()
    x = net.dense(net.add("Flatten", net.add("GlobalAveragePool", net.conv("x", 3, 8))), 8, 12)
    batch = net.add("Gather", net.add("Shape", x), net.given(0), axis=0)
    shape = net.add("Concat", batch, net.given(4, 3), axis=0)
    apart = net.add("Reshape", x, shape)
    joined = net.add("Reshape", apart, net.add("Concat", batch, net.given(12), axis=0))
    graph = net.graph(net.dense(joined, 12, 5), ("batch", 3, 6, 6), 5)

    check(graph)
    assert sorted(len(group.units) for group in find_dependencies(graph).groups) == [4, 8]


def test_an_embedding_is_narrowed() -> None:
    """A table that is looked up makes channels as a layer does."""
    net = Net()
    net.constants["ids"] = np.array([3, 1, 4], dtype=np.int64)
    rows = net.add(
        "ReduceSum", net.add("Gather", net.weight(9, 8), "ids"), net.given(0), keepdims=0
    )
    pooled = net.add("Flatten", net.add("GlobalAveragePool", net.conv("x", 3, 8)))
    graph = net.graph(net.dense(net.add("Mul", pooled, rows), 8, 5), ("batch", 3, 6, 6), 5)

    check(graph)


def test_single_numbers_on_the_way_do_no_harm() -> None:
    """Sizes and factors that are computed, of which no shape says that they have none."""
    net = Net()
    x = net.conv("x", 3, 8)
    net.constants["one"] = np.array(1, dtype=np.int64)
    size = net.add("Gather", net.add("Shape", "x"), "one", axis=0)
    factor = net.add("ReduceMax", net.add("Sqrt", net.add("Cast", size, to=1)), keepdims=0)
    found = ends(net, net.add("Mul", factor, net.add("Relu", x)))

    check(found.graph)
    assert [len(group.units) for group in found.groups] == [8]
