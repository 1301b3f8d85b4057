"""Channels that go: how many, which, and what stands in for them."""

from collections.abc import Callable
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
    inverted,
    picture_net,
    plain,
    residual,
    samples,
)

from onhand.core.errors import InputError
from onhand.host.networks.costs import count_operations
from onhand.host.networks.graph import Graph
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.passes.prune_channels import PruneChannels, gradual_ratios
from onhand.host.networks.samples import Samples


def workbench(graph: Graph, *, n: int = 16) -> Workbench:
    """A bench with a few examples."""
    return Workbench(original=graph, calibration=samples(graph, n), task="features", threads=1)


def outputs(graph: Graph, examples: Samples) -> np.ndarray:
    """The outputs for all examples."""
    made = GraphRunner(graph, threads=1).run(examples.batch(range(len(examples))))
    return made[graph.output_names()[0]]


def parameters(graph: Graph) -> int:
    """Numbers in float constants."""
    return sum(a.size for a in graph.constants.values() if a.dtype == np.float32)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean square of the difference."""
    return float(np.square(a - b).mean())


@settings(max_examples=10, deadline=None)
@given(
    blocks=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3),
    importance=st.sampled_from(["activation", "magnitude", "random"]),
    of=st.sampled_from(["operations", "parameters"]),
    together=st.booleans(),
)
def test_any_network_comes_down_to_what_is_asked_for(
    *, blocks: list[Block], importance: str, of: str, together: bool
) -> None:
    """The cost falls by the share, the outputs keep their shape, and the network runs."""
    graph = picture_net(tuple(blocks))
    step = PruneChannels(
        ratio=0.2, importance=importance, of=of, global_=together, multiple=1, least=0.0
    )

    made = step.apply(graph, workbench(graph, n=4))

    cost = count_operations if of == "operations" else parameters
    assert 0.3 * cost(graph) < cost(made.graph) <= 0.8 * cost(graph)
    assert outputs(made.graph, samples(graph)).shape == (8, 5)
    assert made.changed
    assert set(made.changed) <= set(graph.constants)


def test_heads_go_whole_and_widths_in_blocks() -> None:
    """An encoder of 4 heads of 16 keeps whole heads, and multiples of 16 in between."""
    graph = encoder_net(heads=4, width=64)

    made = PruneChannels(ratio=0.4, of="parameters", global_=False).apply(graph, workbench(graph))

    shapes = {made.graph.constants[node.inputs[1]].shape for node in made.graph.nodes
              if node.op == "MatMul" and node.inputs[1] in made.graph.constants}  # fmt: skip
    assert {(64, 32), (32, 64), (64, 64), (64, 3)} <= shapes
    assert all(n % 16 == 0 for shape in shapes for n in shape if n != 3)
    assert outputs(made.graph, samples(graph)).shape == (8, 3)


@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_widths_stay_multiples(multiple: int) -> None:
    """A width that is a multiple stays one; others may stay as they are."""
    graph = picture_net((plain, residual, inverted))
    made = PruneChannels(ratio=0.3, multiple=multiple, least=0).apply(graph, workbench(graph))

    for name, shape in ((name, made.graph.constants[name].shape) for name in made.changed):
        before = graph.constants[name].shape
        assert all(a == b or a % multiple == 0 for a, b in zip(shape, before, strict=True))


def test_a_width_that_cannot_shrink_says_so() -> None:
    """Widths of at most 16 have no smaller multiple; the notes say what was reached."""
    graph = picture_net((plain,))

    made = PruneChannels(ratio=0.5).apply(graph, workbench(graph))

    assert made.graph.size_bytes() == graph.size_bytes()
    assert made.changed == {}
    assert any("fewest" in why for why in made.kept.values())
    assert "no more could go" in made.notes[-1]


def test_patterns_keep_layers() -> None:
    """What fits a pattern stays, and so does what depends on it."""
    graph = picture_net((plain, residual))
    step = PruneChannels(ratio=0.3, multiple=1, keep=("c0", "c2*"))

    made = step.apply(graph, workbench(graph))

    assert made.graph.constants["c0"].shape == graph.constants["c0"].shape
    assert made.graph.constants["c2"].shape == graph.constants["c2"].shape
    assert made.kept["c0"] == "kept by the pattern 'c0'"


def test_constant_channels_go_without_a_trace() -> None:
    """What a channel gives on average moves into the next bias: here that is all it gives."""
    net = Net()
    x = net.add("Relu", net.conv("x", 3, 12, k=1))
    x = net.add("Flatten", net.add("GlobalAveragePool", net.conv(x, 12, 8, k=1)))
    graph = net.graph(net.dense(net.add("MatMul", x, net.weight(8, 6)), 6, 5),
                      ("batch", 3, 6, 6), 5)  # fmt: skip
    constants = dict(graph.constants)
    weight, bias = constants["c0"].copy(), constants["c1"].copy()
    weight[:4], bias[:4] = 0, 3
    dead, shift = constants["c2"].copy(), constants["c3"].copy()
    dead[:2], shift[:2] = 0, -2
    graph = replace(
        graph, constants=constants | {"c0": weight, "c1": bias, "c2": dead, "c3": shift}
    )

    examples = samples(graph)
    for how in ("mean", "regression"):
        step = PruneChannels(ratio=0.25, multiple=1, compensate=how)
        made = step.apply(graph, workbench(graph))

        assert made.graph.constants["c0"].shape[0] == 8
        np.testing.assert_allclose(
            outputs(made.graph, examples), outputs(graph, examples), rtol=1e-3, atol=1e-4
        )


def test_copies_of_channels_go_without_a_trace() -> None:
    """A channel that others tell of wholly moves into their weights."""
    net = Net()
    x = net.add("Relu", net.conv("x", 3, 8))
    x = net.add("Flatten", net.add("GlobalAveragePool", net.conv(x, 8, 16)))
    graph = net.graph(net.dense(x, 16, 5), ("batch", 3, 6, 6), 5)
    constants = dict(graph.constants)
    for name in ("c0", "c1"):
        constants[name] = np.tile(constants[name][:4], (2, *(1,) * (constants[name].ndim - 1)))
    graph = replace(graph, constants=constants)
    examples = samples(graph)
    step = PruneChannels(ratio=0.1, importance="random", multiple=1, keep=("c2",), least=0.7)
    first = outputs(graph, examples)

    lost = {
        how: distance(
            first,
            outputs(replace(step, compensate=how).apply(graph, workbench(graph)).graph, examples),
        )
        for how in ("regression", "mean", "none")
    }

    assert lost["regression"] < 0.5 * lost["mean"] < lost["none"]


@pytest.mark.parametrize("build", [lambda: picture_net((residual, inverted)), encoder_net])
def test_what_stands_in_helps(build: Callable[[], Graph]) -> None:
    """Means and guesses are better than nothing."""
    graph = build()
    examples = samples(graph, 64, seed=9)
    bench = replace(workbench(graph), calibration=samples(graph, 64))
    first = outputs(graph, examples)

    lost = {
        how: distance(
            first,
            outputs(
                PruneChannels(ratio=0.3, multiple=1, compensate=how).apply(graph, bench).graph,
                examples,
            ),
        )
        for how in ("regression", "mean", "none")
    }

    assert max(lost["regression"], lost["mean"]) < 0.9 * lost["none"]


@pytest.mark.parametrize("task", ["features", "image-classification"])
def test_gradients_choose_as_well(task: str) -> None:
    """The loss tells what goes; the result is as small as with any other importance."""
    graph = picture_net((residual, inverted))
    bench = replace(workbench(graph), task=task)
    step = PruneChannels(importance="taylor", ratio=0.2, multiple=1)
    made = step.apply(graph, bench).graph

    assert count_operations(made) <= 0.8 * count_operations(graph)
    assert step.apply(graph, bench).graph.nodes == made.nodes


def test_the_same_again_for_the_same() -> None:
    """Random importance has a seed, too."""
    graph = picture_net((residual,))
    step = PruneChannels(importance="random", multiple=1)
    first, second = (step.apply(graph, workbench(graph)).graph for _ in range(2))

    assert first.nodes == second.nodes
    for name, array in first.constants.items():
        np.testing.assert_array_equal(array, second.constants[name])


def test_steps_remove_as_much_in_all() -> None:
    """Several steps judge anew on the way, and together remove the ratio."""
    graph = picture_net((plain, residual, inverted))
    made = PruneChannels(ratio=0.4, multiple=1, steps=3).apply(graph, workbench(graph))

    assert gradual_ratios(0.75, 2) == (0.5, 0.5)
    assert (
        0.5 * count_operations(graph)
        < count_operations(made.graph)
        <= 0.6 * count_operations(graph)
    )


def test_without_examples_magnitudes_do() -> None:
    """Nothing stands in for what went then, and the notes say so."""
    graph = picture_net((residual,))
    bench = replace(workbench(graph), calibration=Samples(feeds=[]))

    made = PruneChannels(importance="magnitude", multiple=1).apply(graph, bench)

    assert count_operations(made.graph) <= 0.7 * count_operations(graph)
    assert "nothing could stand in" in made.notes[-1]
    with pytest.raises(InputError, match="needs examples"):
        PruneChannels().apply(graph, bench)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"keep": "c0"}, "keep is 'c0', must be a list"),
        ({"ratio": 1.0}, "ratio is 1.0"),
        ({"least": -0.1}, "least is -0.1"),
        ({"of": "watts"}, "of is 'watts'"),
        ({"importance": "luck"}, "importance is 'luck'"),
        ({"compensate": "hope"}, "compensate is 'hope'"),
        ({"multiple": 0}, "multiple is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"layers": -1}, "layers is -1"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, float], found: str) -> None:
    """Each with a sentence that names it."""
    with pytest.raises(InputError, match=found):
        PruneChannels(**options)  # type: ignore[arg-type]  # what a recipe might say
