"""Networks whose layers compute in several ways at once."""

import numpy as np
import pytest
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
from onhand.host.networks.graph import Graph
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.passes.quantize_mixed import QuantizeMixed, mixed_pass
from onhand.host.networks.quantization.mixed import FLOAT, TURNED, MixedWork


def two_readers() -> Graph:
    """Two products of the same values, added."""
    draw = Drawing(x=("N", 32))
    data = draw.node("Relu", "x")
    first, second = (
        draw.node("Gemm", data, draw.constant(weight(16, 32, seed=i)), transB=1) for i in range(2)
    )
    return draw.graph(draw.node("Add", first, second))


def work(symmetric: bool = False) -> MixedWork:
    """The residual network with its examples."""
    graph = residual_net()
    return MixedWork(graph, bench(graph), symmetric=symmetric, bias_correction="none")


def test_no_choice_leaves_every_answer() -> None:
    """All in float is the network as it was."""
    graph, feeds = residual_net(), dict(stacked(examples(residual_net(), 4, seed=1)))

    found = computed(work().made({}), feeds)[0]

    assert relative_error(found, computed(graph, feeds)[0]) < 1e-5


@pytest.mark.parametrize(
    "choice", ["static-8", "static-8-symmetric", "static-4", "weights-8", "weights-4"]
)
def test_every_choice_stays_near_the_original(choice: str) -> None:
    """Eight bits nearer than four."""
    graph, feeds = residual_net(), dict(stacked(examples(residual_net(), 4, seed=1)))
    # As engines run it: MatMulNBits wants its scales folded.
    made = GraphRunner(work().made(dict.fromkeys(work().layers, choice)), threads=1).run(feeds)

    error = relative_error(next(iter(made.values())), computed(graph, feeds)[0])

    assert 1e-4 < error < (0.6 if choice.endswith("4") else 0.05)


@pytest.mark.parametrize("symmetric", [False, True])
def test_activations_lie_the_other_way_where_a_layer_asks_for_it(symmetric: bool) -> None:
    """All layers so is the other scheme bit for bit; the choice that is the scheme is not there."""
    mixed, other = work(symmetric), work(not symmetric)
    names = list(mixed.layers)
    turned = TURNED[symmetric]

    made = mixed.made(dict.fromkeys(names, turned))
    wanted = other.made(dict.fromkeys(names, "static-8"))

    assert TURNED[not symmetric] not in mixed.choices(names[0])
    feeds = dict(stacked(examples(residual_net(), 4, seed=1)))
    own = computed(mixed.made(dict.fromkeys(names, "static-8")), feeds)[0]
    assert np.array_equal(computed(made, feeds)[0], computed(wanted, feeds)[0])
    assert not np.array_equal(computed(made, feeds)[0], own)


def test_values_that_another_layer_reads_stay_as_they_are() -> None:
    """One tensor has one grid: of two readers both must ask for the other way."""
    graph = two_readers()
    mixed = MixedWork(graph, bench(graph), symmetric=False, bias_correction="none")
    first, _ = mixed.layers
    static = dict.fromkeys(mixed.layers, "static-8")

    alone = mixed.made(static | {first: "static-8-symmetric"})
    together = mixed.made(dict.fromkeys(mixed.layers, "static-8-symmetric"))

    feeds = dict(stacked(examples(graph, 4, seed=1)))
    as_it_was = computed(mixed.made(static), feeds)[0]
    assert np.array_equal(computed(alone, feeds)[0], as_it_was)
    assert not np.array_equal(computed(together, feeds)[0], as_it_was)


def test_layers_have_choices_of_their_own() -> None:
    """One on integers, one with weights of 8 bits, one of 4; all others in float."""
    mixed = work()
    first, second, third, *_ = mixed.layers
    sizes = {name: layer.weight_of(mixed.graph).shape for name, layer in mixed.layers.items()}

    made = mixed.made({first: "static-8", second: "weights-8", third: "static-4"})

    bits = {array.shape: array.dtype.name for array in made.constants.values() if array.ndim == 4}
    assert bits[sizes[first]] == "int8"
    assert bits[sizes[second]] == "int8"
    assert bits[sizes[third]] == "int4"
    assert sum(dtype == "float32" for dtype in bits.values()) == len(mixed.layers) - 3


def test_what_is_cut_behind_a_convolution_is_rounded_behind_the_cut() -> None:
    """Else the grid would reach over values that nothing keeps: a layer alone is nearer so."""
    mixed, feeds = work(), dict(stacked(examples(residual_net(), 16, seed=1)))
    wanted = computed(mixed.graph, feeds)[0]
    first = next(iter(mixed.layers))

    found = computed(mixed.made({first: "static-8"}), feeds)[0]

    assert relative_error(found, wanted) < 0.01


def test_errors_told_by_statistics_rise_with_fewer_bits() -> None:
    """And float has none."""
    for symmetric in (False, True):
        for errors in work(symmetric).local_errors().values():
            assert errors[FLOAT] == 0
            assert 0 < errors["weights-8"] <= errors["static-8"] < errors["static-4"]
            assert errors["weights-8"] <= errors[TURNED[symmetric]]


def test_errors_told_by_statistics_are_those_that_are_measured() -> None:
    """A single product with random inputs: what is told is near what comes out."""
    graph = dense_net(64, 32)
    samples = examples(graph, 64)
    mixed = MixedWork(graph, bench(graph, samples), symmetric=False, bias_correction="none")
    (name,) = mixed.layers
    feeds = dict(stacked(samples))
    wanted = np.asarray(computed(graph, feeds)[0]) - graph.constants["c1"]
    told = mixed.local_errors()[name]

    for choice in ("weights-8", "static-8", "static-8-symmetric", "static-4"):
        made = np.asarray(computed(mixed.made({name: choice}), feeds)[0]) - graph.constants["c1"]
        assert relative_error(made, wanted) ** 2 == pytest.approx(told[choice], rel=0.7)


def test_a_pass_gives_what_the_search_saw() -> None:
    """Bit for bit: the recipe is the answer."""
    mixed = work()
    names = list(mixed.layers)
    choices = {
        names[0]: "static-8",
        names[1]: "static-8-symmetric",
        names[3]: "weights-4",
    }
    made = mixed_pass(choices, activations="asymmetric", bias_correction="none")
    graph = residual_net()

    result = made.apply(graph, bench(graph))

    assert result.changed == choices
    assert len(result.kept) == len(names) - 3
    assert result.graph.nodes == mixed.made(choices).nodes
    for name, array in mixed.made(choices).constants.items():
        assert np.array_equal(result.graph.constants[name], array)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"static": ("nothing",)}, "'nothing' fits no layer"),
        ({"activations": "odd"}, "activations is 'odd'"),
        ({"bias_correction": "auto"}, "bias_correction is 'auto'"),
        ({"weights": "abc"}, "must be a list of patterns"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    """With what was found."""
    graph = residual_net()
    with pytest.raises(InputError, match=message):
        QuantizeMixed(**options).apply(graph, bench(graph))  # type: ignore[arg-type]


def test_a_layer_has_no_choice_that_is_not_its_own() -> None:
    """Convolutions have no ranges that a run finds."""
    mixed = work()
    with pytest.raises(InputError, match="must be one of float32, static-8"):
        mixed.made({next(iter(mixed.layers)): "dynamic-8"})
    with pytest.raises(InputError, match="has no layer 'odd'"):
        mixed.made({"odd": "static-8"})
