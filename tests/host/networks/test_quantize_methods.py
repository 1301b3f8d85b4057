"""Methods that win back what rounding loses, each beside what it promises."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.host.networks.graphs import Drawing, computed
from tests.host.networks.quantized_nets import (
    bench,
    dense_net,
    examples,
    relative_error,
    residual_net,
    stacked,
    weight,
)

from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Quiet
from onhand.host.networks.graph import Graph
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.quantization.accuracy import OutputJudge, revert_worst
from onhand.host.networks.quantization.adaround import (
    Moments,
    input_moments,
    round_adaptively,
)
from onhand.host.networks.quantization.bias_correction import correct_at_once, correct_in_order
from onhand.host.networks.quantization.calibration import Ranges, channel_means
from onhand.host.networks.quantization.grid import Grid, round_weight
from onhand.host.networks.quantization.plan import Plan, make_plan
from onhand.host.networks.quantization.qdq import RoundedLayer, quantised_graph

Floats = NDArray[np.float32]


def coarse(graph: Graph, *, bits: int = 4) -> tuple[Plan, dict[str, Grid], dict[str, RoundedLayer]]:
    """A plan, its grids, and layers rounded to few bits."""
    plan = make_plan(graph)
    grids = Ranges(
        graph, examples(graph), method="min-max", symmetric=False, percentile=99.9, threads=1,
        progress=Quiet(),
    ).grids(plan)  # fmt: skip
    layers = {
        name: RoundedLayer(
            weight=round_weight(
                layer.weight_of(graph), axis=layer.axis, bits=bits, per_channel=False
            ),
            bias=layer.bias_of(graph),
        )
        for name, layer in plan.layers.items()
    }
    return plan, grids, layers


@pytest.mark.parametrize("way", ["full", "fast"])
def test_bias_correction_removes_the_mean_error(way: str) -> None:
    """Of the outputs of each channel: all of it layer by layer, most of it in one run."""
    graph = residual_net()
    plan, grids, layers = coarse(graph)
    samples = examples(graph)
    if way == "full":
        after = correct_in_order(graph, plan, grids, layers, samples, threads=1, progress=Quiet())
    else:
        after = correct_at_once(graph, plan, grids, layers, samples, threads=1)
    axes = dict.fromkeys(plan.layers, 1)
    true = channel_means(graph, axes, samples, threads=1)

    def error(found: dict[str, RoundedLayer]) -> float:
        made = channel_means(quantised_graph(graph, plan, grids, found), axes, samples, threads=1)
        return sum(float(np.abs(made[name] - true[name]).sum()) for name in axes)

    # What is left is that a bias is rounded, and for one run what earlier layers lose.
    assert error(after) < error(layers) * (0.02 if way == "full" else 0.6)
    assert set(after) == set(layers)


def test_a_layer_that_is_an_output_is_corrected_before_it_is_rounded() -> None:
    """A convolution that the network gives away, and that another one reads."""
    draw = Drawing(x=("N", 4, 6, 6))
    first = draw.node("Conv", "x", draw.constant(weight(8, 4, 1, 1)))
    last = draw.node("Conv", first, draw.constant(weight(4, 8, 1, 1)))
    graph = draw.graph(first, last, rank=4)
    plan, grids, layers = coarse(graph)
    samples = examples(graph)
    made = correct_in_order(graph, plan, grids, layers, samples, threads=1, progress=Quiet())

    axes = {first: 1, last: 1}
    true = channel_means(graph, axes, samples, threads=1)
    found = channel_means(quantised_graph(graph, plan, grids, made), axes, samples, threads=1)
    for name in axes:
        np.testing.assert_allclose(found[name], true[name], atol=0.01)


def test_a_layer_without_a_bias_gets_one_and_a_product_none() -> None:
    """A MatMul has no place for it."""
    draw = Drawing(x=("N", 6))
    first = draw.node("Gemm", "x", draw.constant(weight(6, 6)))
    graph = draw.graph(draw.node("MatMul", first, draw.constant(weight(6, 6, seed=1))))
    plan, grids, layers = coarse(graph)
    made = correct_in_order(
        graph, plan, grids, layers, examples(graph), threads=1, progress=Quiet()
    )

    assert made[first].bias is not None
    assert made[graph.nodes[1].name].bias is None


def test_auto_takes_the_correction_that_loses_least() -> None:
    """It says what each lost, and its result is the best of the three."""
    graph = residual_net()
    results = {
        way: QuantizeNetwork(bits=4, bias_correction=way).apply(graph, bench(graph))
        for way in ("none", "fast", "full", "auto")
    }
    judge = OutputJudge(graph, examples(graph), task="features", threads=1)
    errors = {way: judge.error(result.graph) for way, result in results.items()}

    assert errors["auto"] == pytest.approx(min(errors.values()))
    assert "full" in results["auto"].notes[0]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), bits=st.sampled_from([2, 3, 4]), groups=st.sampled_from([1, 3]))
def test_learned_rounding_loses_no_more_than_the_nearest(seed: int, bits: int, groups: int) -> None:
    """On correlated inputs; and each code stays beside its weight."""
    random = np.random.default_rng(seed)
    w = random.standard_normal((6, 4, 2, 1)).astype(np.float32)
    x = random.standard_normal((groups, 200, 8)) + 2 * random.standard_normal((groups, 200, 1))
    gram = (x.transpose(0, 2, 1) @ x / 200).astype(np.float32)
    nearest = round_weight(w, axis=0, bits=bits, per_channel=True)
    made = round_adaptively(w, nearest, Moments(rounded=gram, cross=gram), steps=100)

    def loss(values: Floats) -> float:
        lost = (w - values).reshape(groups, -1, 8).astype(np.float64)
        return float(np.einsum("gnk,gkl,gnl->", lost, gram.astype(np.float64), lost))

    assert loss(made.values()) <= loss(nearest.values()) * 1.0001
    top = 2 ** (bits - 1) - 1
    assert np.abs(made.codes).max() <= top
    inside = np.abs(w) < nearest.scales[:, None, None, None] * top
    step = np.broadcast_to(nearest.scales[:, None, None, None], w.shape)
    assert np.all(np.abs(made.values() - w)[inside] <= step[inside] * 1.0001)


def test_learned_rounding_gains_much_on_correlated_inputs() -> None:
    """Half of the nearest's error or less, where inputs go together."""
    random = np.random.default_rng(3)
    w = random.standard_normal((16, 32)).astype(np.float32)
    x = random.standard_normal((500, 32)) * 0.3 + random.standard_normal((500, 1))
    gram = (x.T @ x / 500).astype(np.float32)[None]
    nearest = round_weight(w, axis=0, bits=4, per_channel=True)
    made = round_adaptively(w, nearest, Moments(rounded=gram, cross=gram), steps=400)
    lost = [np.square(x @ (w - one.values()).T).sum() for one in (nearest, made)]

    assert lost[1] < 0.5 * lost[0]


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((6, 4, 3, 3), {"pads": (1, 0, 1, 2), "strides": (2, 1)}),
        ((4, 1, 3, 3), {"group": 4, "dilations": (1, 2)}),
        ((6, 2, 1, 1), {"group": 2}),
    ],
)
def test_moments_of_a_convolution_are_those_of_what_it_multiplies(
    shape: tuple[int, ...], attributes: dict[str, int | tuple[int, ...]]
) -> None:
    """The mean square of its outputs, from the moments, is what ONNX Runtime computes."""
    draw = Drawing(x=("N", 4, 7, 7))
    graph = draw.graph(draw.node("Conv", "x", draw.constant(weight(*shape)), **attributes), rank=4)
    plan, _, _ = coarse(graph)
    samples = examples(graph, 3)
    fine = {root: Grid.of(-5.0, 5.0, symmetric=False) for root in plan.grids.values()}
    (moments,) = input_moments(graph, plan, fine, plan.layers, samples, threads=1).values()
    w = weight(*shape).reshape(moments.rounded.shape[0], -1, moments.rounded.shape[1])

    found = np.einsum("gnk,gkl,gnl->gn", w, moments.rounded, w).reshape(-1)
    wanted = np.square(computed(graph, stacked(samples))[0]).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(found, wanted, rtol=0.05)


def test_4_bits_with_learned_rounding_lose_less() -> None:
    """The whole network, by the squared error of its outputs."""
    graph = residual_net()
    judge = OutputJudge(graph, examples(graph), task="features", threads=1)
    errors = [
        judge.error(
            QuantizeNetwork(bits=4, bias_correction="none", adaround=steps)
            .apply(graph, bench(graph))
            .graph
        )
        for steps in (0, 200)
    ]

    assert errors[1] < 0.7 * errors[0]


def test_rounding_that_cannot_be_learned_says_why() -> None:
    """Where moments would not fit the memory, and where paddings are not written down."""
    draw = Drawing(x=("N", 460, 4, 4))
    first = draw.node("Conv", "x", draw.constant(weight(4, 460, 3, 3)), pads=(1, 1, 1, 1))
    same = draw.node("Conv", first, draw.constant(weight(4, 4, 3, 3)), auto_pad="SAME_UPPER")
    graph = draw.graph(draw.node("Conv", same, draw.constant(weight(4, 4, 1, 1))), rank=4)
    result = QuantizeNetwork(bits=4, adaround=2).apply(graph, bench(graph, examples(graph, 4)))

    assert "4140 inputs" in result.kept[first]
    assert "padding" in result.kept[same]
    assert len(result.kept) == 2


def poisoned() -> Graph:
    """A network one of whose layers no 8 bits can hold: one channel is a million times another."""
    graph = dense_net(12, 12, 12, 6)
    w = np.array(graph.constants["c2"], np.float32)
    w[:, 0] *= 1e-4
    first, b = (np.array(graph.constants[name], np.float32) for name in ("c0", "c1"))
    first[0] *= 1e4
    b[0] *= 1e4
    return replace(graph, constants={**graph.constants, "c0": first, "c1": b, "c2": w})


def test_the_layer_that_was_made_bad_goes_back_to_float() -> None:
    """It alone: its input needs far more than 256 steps."""
    graph = poisoned()
    free = QuantizeNetwork(bias_correction="none", range="min-max")
    strict = replace(free, accuracy=0.0)
    bad = free.apply(graph, bench(graph, examples(graph, 80)))
    good = strict.apply(graph, bench(graph, examples(graph, 80)))
    feeds = stacked(examples(graph, 40, seed=5))
    wanted = computed(graph, feeds)[0]

    (name,) = [layer for layer, why in good.kept.items() if why == "it loses too much"]
    assert name == "n2.Gemm"
    assert relative_error(computed(bad.graph, feeds)[0], wanted) > 0.3
    assert relative_error(computed(good.graph, feeds)[0], wanted) < 0.05
    assert "1 of 3 layers back in float" in good.notes[0]


def test_a_network_that_agrees_keeps_all_its_integers() -> None:
    """Nothing is tried where nothing is wrong."""
    graph = dense_net(12, 12, 6)
    result = QuantizeNetwork(accuracy=0.9).apply(graph, bench(graph))

    assert result.kept == {}
    assert "0 of 2 layers" in result.notes[-2]


def test_no_layer_may_stay_where_nothing_may_be_lost() -> None:
    """Down to the last one: all in float lose nothing."""
    graph = dense_net(4, 4, 4)
    judge = OutputJudge(graph, examples(graph), task="features", threads=1)
    plan, grids, layers = coarse(graph, bits=2)

    def make(float_nodes: object) -> Graph:
        part = make_plan(graph, float_nodes=tuple(float_nodes))  # type: ignore[arg-type]
        return quantised_graph(graph, part, grids, layers)

    found = revert_worst(list(plan.layers), make, judge, most=0.0, progress=Quiet())

    assert set(found.nodes) == set(plan.layers)
    assert (found.loss, found.before > 0) == (0.0, True)


def test_a_dead_channel_keeps_its_bias() -> None:
    """Its weights are zeros, or next to nothing beside the bias: 32 bits still hold that."""
    graph = dense_net(6, 5)
    w, b = (np.array(graph.constants[name], np.float32) for name in ("c0", "c1"))
    w[0], w[1], b[:2] = 0, 1e-9, (3.0, -2.0)
    dead = replace(graph, constants={**graph.constants, "c0": w, "c1": b})
    feeds = stacked(examples(dead))
    found = computed(QuantizeNetwork().apply(dead, bench(dead)).graph, feeds)[0]

    np.testing.assert_allclose(np.asarray(found)[:, :2], [[3.0, -2.0]] * 24, atol=1e-3)


def test_too_few_examples_to_judge_by_are_refused() -> None:
    """Some are put aside; with seven there would be next to none."""
    graph = dense_net(4, 4)
    with pytest.raises(InputError, match="8 examples"):
        QuantizeNetwork(accuracy=0.1).apply(graph, bench(graph, examples(graph, 7)))


@pytest.mark.parametrize(
    ("machine", "sets", "switch", "most"),
    [
        ("x86_64", ("avx2",), "auto", 63),
        ("x86_64", ("avx2", "avx512_vnni"), "auto", 127),
        ("aarch64", ("neon",), "auto", 127),
        ("x86_64", ("avx2",), "off", 127),
        ("aarch64", ("neon",), "on", 63),
    ],
)
def test_weights_save_a_bit_where_sums_saturate(
    machine: str, sets: tuple[str, ...], switch: str, most: int
) -> None:
    """Judged by what the device has, unless a person says otherwise."""
    graph = dense_net(6, 5)
    profile = DeviceProfile(
        name="d", system="linux", machine=machine, processor="p", physical_cores=1,
        usable_threads=1, instruction_sets=sets, memory_bytes=1, read_bandwidth=(1.0,),
        watts=1.0, watts_source="",
    )  # fmt: skip
    result = QuantizeNetwork(reduce_range=switch).apply(
        graph, replace(bench(graph), profile=profile)
    )
    codes = [a for a in result.graph.constants.values() if a.dtype == np.int8 and a.ndim == 2]

    assert np.abs(np.asarray(codes[0], np.int32)).max() == most
    assert any("7 bits" in note for note in result.notes) is (most == 63)


def test_an_unknown_device_is_noted() -> None:
    """What is taken for granted is said."""
    graph = dense_net(6, 5)

    notes = QuantizeNetwork().apply(graph, bench(graph)).notes
    assert "not known" in notes[-1]
