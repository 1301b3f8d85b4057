"""Layers as products of thinner ones."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.host.networks.prunable_nets import Net, encoder_net, picture_net, residual, samples

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.host.networks.costs import count_operations
from onhand.host.networks.graph import Graph
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.passes.factorize import Factorize
from onhand.host.networks.samples import Samples


def workbench(graph: Graph, n: int = 16) -> Workbench:
    """A bench with a few examples."""
    return Workbench(original=graph, calibration=samples(graph, n), task="features", threads=1)


def outputs(graph: Graph) -> FloatArray:
    """The outputs for examples that were not seen."""
    feeds = samples(graph, 16, seed=8).batch(range(16))
    made = GraphRunner(graph, threads=1).run(feeds)
    return made[graph.output_names()[0]].astype(np.float32)


def parameters(graph: Graph) -> int:
    """Numbers in float constants."""
    return sum(a.size for a in graph.constants.values() if a.dtype == np.float32)


def wide_net(k: tuple[int, int] = (3, 3), **attributes: Any) -> Graph:
    """A convolution of 3 channels to 24, one to 32, and classes."""
    net = Net(4)
    x = net.add("Relu", net.conv("x", 3, 24))
    x = net.add("Conv", x, net.weight(32, 24, *k), net.weight(32), kernel_shape=k, **attributes)
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    x = net.add("Relu", net.add("Gemm", x, net.weight(48, 32), net.weight(48), transB=1))
    x = net.add("Relu", net.add("Gemm", x, net.weight(48, 40), net.weight(40)))
    return net.graph(net.dense(x, 40, 5), ("batch", 3, 6, 6), 5)


def low_rank(graph: Graph, name: str, rank: int) -> Graph:
    """The graph with a weight that is a product of this rank, seen as outputs by inputs."""
    weight = graph.constants[name].astype(np.float32)
    rows = weight.reshape(weight.shape[0], -1)
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    thin = (left[:, :rank] * values[:rank]) @ right[:rank]
    return replace(graph, constants={**graph.constants, name: thin.reshape(weight.shape)})


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("svd", wide_net),
        ("spatial", wide_net),
        ("tucker", wide_net),
        ("depthwise", wide_net),
        ("cp", wide_net),
        ("svd", encoder_net),
    ],
)
@pytest.mark.parametrize("of", ["operations", "parameters"])
def test_the_network_comes_down_to_the_budget(kind: str, source: Any, of: str) -> None:
    """Its outputs keep their shape, and every layer is changed or explained."""
    graph = source()
    step = Factorize(ratio=0.15, of=of, kinds=(kind,), multiple=2, most_lost=1.0)
    made = step.apply(graph, workbench(graph))

    cost = count_operations if of == "operations" else parameters
    assert 0.5 * cost(graph) < cost(made.graph) <= 0.85 * cost(graph)
    assert outputs(made.graph).shape == outputs(graph).shape
    assert made.changed
    assert not made.changed.keys() & made.kept.keys()


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(["svd", "spatial"]),
    kernel=st.tuples(st.integers(2, 3), st.integers(2, 3)),
    stride=st.integers(1, 2),
    step=st.integers(1, 2),
    pad=st.integers(1, 2),
)
def test_a_kernel_of_low_rank_is_taken_apart_without_loss(
    *, kind: str, kernel: tuple[int, int], stride: int, step: int, pad: int
) -> None:
    """With any stride, dilation and padding."""
    graph = wide_net(kernel, strides=(stride, 1), dilations=(1, step), pads=(pad, 1, 1, pad))
    rng = np.random.default_rng(0)
    high, low = rng.normal(size=(32, 8, 1, kernel[1])), rng.normal(size=(8, 24, kernel[0], 1))
    weight = np.einsum("nrow,rcho->nchw", high, low) / 20
    if kind == "svd":
        graph = low_rank(graph, "c2", 8)
    else:
        graph = replace(graph, constants={**graph.constants, "c2": weight.astype(np.float32)})
    step_made = Factorize(ratio=0.01, kinds=(kind,), keep=("c0", "c4", "c6"), most_lost=0.001)
    made = step_made.apply(graph, workbench(graph))

    assert "c2" in made.changed
    np.testing.assert_allclose(outputs(made.graph), outputs(graph), rtol=1e-2, atol=1e-3)


def test_a_kernel_between_two_bases_is_taken_apart_without_loss() -> None:
    """Tucker-2 finds both."""
    graph = wide_net(pads=(1, 1, 1, 1))
    rng = np.random.default_rng(0)
    core, left = rng.normal(size=(8, 6, 3, 3)), rng.normal(size=(32, 8))
    weight = np.einsum("ns,srhw,rc->nchw", left, core, rng.normal(size=(6, 24))) / 50
    graph = replace(graph, constants={**graph.constants, "c2": weight.astype(np.float32)})
    step = Factorize(ratio=0.01, kinds=("tucker",), multiple=2, most_lost=0.001)
    made = step.apply(graph, workbench(graph))

    assert "Tucker-2" in made.changed["c2"]
    np.testing.assert_allclose(outputs(made.graph), outputs(graph), rtol=1e-2, atol=1e-3)


@settings(max_examples=6, deadline=None)
@given(kind=st.sampled_from(["depthwise", "cp"]), stride=st.integers(1, 2), pad=st.integers(0, 2))
def test_a_kernel_of_few_terms_is_taken_apart_without_loss(
    *, kind: str, stride: int, pad: int
) -> None:
    """Channels mixed, seen one by one and mixed again, with any stride, dilation and padding."""
    graph = wide_net((3, 2), strides=(1, stride), dilations=(2, 1), pads=(pad + 1, 1, pad, 1))
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(4, 24)), rng.normal(size=(32, 4))
    column, row, kernel = (rng.normal(size=(4, *s)) for s in ((3,), (2,), (3, 2)))
    if kind == "cp":
        kernel = np.einsum("ry,rx->ryx", column, row)
    weight = np.einsum("nr,rc,ryx->ncyx", last, first, kernel) / 20
    graph = replace(graph, constants={**graph.constants, "c2": weight.astype(np.float32)})
    step = Factorize(ratio=0.9, kinds=(kind,), multiple=4, keep=("c0", "c4", "c6"), most_lost=0.001)
    made = step.apply(graph, workbench(graph))

    assert "rank 4" in made.changed["c2"]
    assert sum(n.op == "Conv" for n in made.graph.nodes) == (4 if kind == "depthwise" else 5)
    np.testing.assert_allclose(outputs(made.graph), outputs(graph), rtol=1e-2, atol=2e-3)


def test_products_of_low_rank_are_taken_apart_without_loss() -> None:
    """In either layout of the weights."""
    graph = low_rank(low_rank(wide_net(), "c4", 4), "c6", 4)
    step = Factorize(ratio=0.3, of="parameters", multiple=4, keep=("c[028]",), most_lost=0.001)
    made = step.apply(graph, workbench(graph))

    assert {"c4", "c6"} <= made.changed.keys()
    assert "rank 4" in made.changed["c4"]
    np.testing.assert_allclose(outputs(made.graph), outputs(graph), rtol=1e-2, atol=1e-3)


def test_examples_help() -> None:
    """Knowing the inputs loses less than counting all the same."""
    net = Net(7)
    # Channels that hang together: 24 of them out of 4.
    x = net.add("Relu", net.conv(net.conv("x", 3, 4), 4, 24, k=1))
    x = net.add("Flatten", net.add("GlobalAveragePool", net.conv(x, 24, 32)))
    graph = net.graph(net.dense(x, 32, 5), ("batch", 3, 6, 6), 5)
    step = Factorize(ratio=0.4, kinds=("svd", "tucker"), keep=("c0", "c2"), most_lost=0.5)
    made = [step.apply(graph, workbench(graph, n)) for n in (24, 0)]

    with_some, without = (np.square(outputs(m.graph) - outputs(graph)).mean() for m in made)
    assert with_some < 0.5 * without
    assert "count the same" in made[1].notes[-1]


def test_what_stays_has_a_reason() -> None:
    """Thin layers, groups, names that are kept, and losses that are too large."""
    graph = picture_net((residual,))
    made = Factorize(keep=("c0",), most_lost=0.001).apply(graph, workbench(graph))

    assert made.kept["c0"] == "kept by the pattern 'c0'"
    assert "no product of lower rank" in made.kept["c12"]
    assert made.changed == {}
    assert made.notes[0] == "0.0 % of the operations removed, 20.0 % asked for"
    assert "raise most_lost" in made.notes[1]
    assert made.graph.nodes == graph.nodes


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"keep": "c0"}, "keep is 'c0', must be a list"),
        ({"of": "watts"}, "of is 'watts'"),
        ({"kinds": ()}, "kinds is"),
        ({"kinds": ("parafac",)}, "kinds is"),
        ({"ratio": -0.1}, r"ratio is -0\.1"),
        ({"most_lost": 2}, "most_lost is 2"),
        ({"multiple": 0}, "multiple is 0"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], found: str) -> None:
    """Each with a sentence that names it."""
    with pytest.raises(InputError, match=found):
        Factorize(**options)


def test_no_examples_are_needed() -> None:
    """All inputs count the same then."""
    graph = wide_net()
    bench = replace(workbench(graph), calibration=Samples(feeds=[]))

    assert Factorize(most_lost=1.0).apply(graph, bench).changed
