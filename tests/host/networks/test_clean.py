"""Cleaned graphs compute what they computed before, with fewer operators."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.host.networks.graphs import Drawing, computed, ops

from onhand.host.networks.clean import clean
from onhand.host.networks.graph import Array, Graph, Node


def same(graph: Graph, rng: np.random.Generator, *, batch: int = 2) -> Graph:
    """The cleaned graph, after a check that it computes the same."""
    cleaned = clean(graph)
    feeds: dict[str, Array] = {
        value.name: rng.standard_normal([
            size if isinstance(size, int) else batch for size in value.shape
        ]).astype(value.dtype)
        for value in graph.inputs
    }
    before, after = computed(graph, feeds), computed(cleaned, feeds)
    for expected, found in zip(before, after, strict=True):
        # Folded weights are rounded to float32 once more; sums of large numbers cancel.
        most = 1e-4 * max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=0, atol=most)
        assert found.dtype == expected.dtype
    assert cleaned.output_names() == graph.output_names()
    assert cleaned.inputs == graph.inputs
    return cleaned


def norm(d: Drawing, x: str, n: int, rng: np.random.Generator) -> str:
    """A batch normalisation with random numbers."""
    parts = [rng.standard_normal(n) for _ in range(3)]
    names = [d.constant(part) for part in parts]
    return d.node("BatchNormalization", x, *names, d.constant(rng.uniform(0.5, 2, n)))


def conv(d: Drawing, x: str, shape: tuple[int, ...], rng: np.random.Generator, **kw: object) -> str:
    """A convolution with random weights."""
    return d.node("Conv", x, d.constant(rng.standard_normal(shape)), **kw)  # type: ignore[arg-type]


def test_batch_norms_on_both_sides_move_into_a_convolution(rng: np.random.Generator) -> None:
    """Before one without padding, and after any."""
    d = Drawing(x=("B", 4, 5, 5))
    x = conv(d, norm(d, "x", 4, rng), (6, 2, 3, 3), rng, group=2)
    x = d.node("Relu", norm(d, x, 6, rng))

    cleaned = same(d.graph(x, rank=4), rng)

    assert ops(cleaned) == ["Conv", "Relu"]


def test_a_shift_before_padding_stays(rng: np.random.Generator) -> None:
    """Zeros are padded in behind it: they are not shifted."""
    d = Drawing(x=("B", 4, 5, 5))
    x = conv(d, norm(d, "x", 4, rng), (6, 4, 3, 3), rng, pads=(1, 1, 1, 1))

    cleaned = same(d.graph(x, rank=4), rng)

    assert ops(cleaned) == ["BatchNormalization", "Conv"]


def test_a_scale_before_padding_moves(rng: np.random.Generator) -> None:
    """Zeros times anything are zeros."""
    d = Drawing(x=("B", 4, 5, 5))
    x = d.node("Mul", "x", d.constant(rng.standard_normal((4, 1, 1))))
    x = conv(d, x, (6, 4, 3, 3), rng, pads=(1, 1, 1, 1))

    assert ops(same(d.graph(x, rank=4), rng)) == ["Conv"]


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolutions_take_what_follows(group: int, rng: np.random.Generator) -> None:
    """Their outputs lie along another axis of the weights."""
    d = Drawing(x=("B", 4, 3, 3))
    weight = d.constant(rng.standard_normal((4, 3, 2, 2)))
    x = d.node("ConvTranspose", "x", weight, group=group, strides=(2, 2))
    x = norm(d, x, 3 * group, rng)

    assert ops(same(d.graph(x, rank=4), rng)) == ["ConvTranspose"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_batch_norms_move_into_products(transposed: int, rng: np.random.Generator) -> None:
    """Gemm with either side up, scaled bias included."""
    d = Drawing(x=("B", 4))
    weight = d.constant(rng.standard_normal((3, 4) if transposed else (4, 3)))
    bias = d.constant(rng.standard_normal(3))
    x = d.node("Gemm", norm(d, "x", 4, rng), weight, bias, transB=transposed, beta=0.5)
    x = norm(d, x, 3, rng)

    assert ops(same(d.graph(x), rng)) == ["Gemm"]


def test_batch_norm_moves_through_the_sum_behind_a_product(rng: np.random.Generator) -> None:
    """MatMul and Add, as dense layers are written, take it together."""
    d = Drawing(x=("B", 4))
    x = d.node("MatMul", "x", d.constant(rng.standard_normal((4, 3))))
    x = d.node("Add", d.constant(rng.standard_normal(3)), x)
    x = d.node("Tanh", norm(d, x, 3, rng))

    assert ops(same(d.graph(x), rng)) == ["MatMul", "Add", "Tanh"]


def test_numbers_after_a_convolution_move_into_it(rng: np.random.Generator) -> None:
    """Product, sum, difference from either side, quotient."""
    d = Drawing(x=("B", 2, 4, 4))
    x = conv(d, "x", (3, 2, 1, 1), rng)
    x = d.node("Mul", x, d.constant(rng.standard_normal((1, 3, 1, 1))))
    x = d.node("Sub", d.constant(1.5), x)
    x = d.node("Div", d.node("Add", x, d.constant(rng.standard_normal((3, 1, 1)))), d.constant(3))

    assert ops(same(d.graph(x, rank=4), rng)) == ["Conv"]


def test_the_half_of_a_gelu_stays_with_it(rng: np.random.Generator) -> None:
    """Engines know the whole: in the next weights, a part of it would be lost to them."""
    d = Drawing(x=("B", 6))
    root, one, half = (d.constant(np.array(n)) for n in (2**0.5, 1.0, 0.5))
    sum_ = d.node("Add", d.node("Erf", d.node("Div", "x", root)), one)
    x = d.node("Mul", d.node("Mul", "x", sum_), half)
    x = d.node("MatMul", x, d.constant(rng.standard_normal((6, 3))))

    cleaned = same(d.graph(x, rank=2), rng)

    assert ops(cleaned).count("Mul") == 2


def test_a_weight_of_two_nodes_stays(rng: np.random.Generator) -> None:
    """A shared weight is not doubled."""
    d = Drawing(x=("B", 2, 4, 4))
    weight = d.constant(rng.standard_normal((2, 2, 1, 1)))
    first = norm(d, d.node("Conv", "x", weight), 2, rng)
    graph = d.graph(d.node("Conv", d.node("Relu", first), weight), rank=4)

    assert ops(same(graph, rng)) == ["Conv", "BatchNormalization", "Relu", "Conv"]


def test_a_value_of_two_readers_stays(rng: np.random.Generator) -> None:
    """What is read before the normalisation as well is not normalised there."""
    d = Drawing(x=("B", 2, 4, 4))
    x = conv(d, "x", (2, 2, 1, 1), rng)
    graph = d.graph(d.node("Add", x, norm(d, x, 2, rng)), rank=4)

    assert "BatchNormalization" in ops(same(graph, rng))


def test_a_sum_along_another_axis_is_no_bias(rng: np.random.Generator) -> None:
    """A constant that differs from place to place cannot be one."""
    d = Drawing(x=("B", 3, 3, 3))
    x = d.node("Add", conv(d, "x", (3, 3, 1, 1), rng), d.constant(rng.standard_normal(3)))

    assert ops(same(d.graph(x, rank=4), rng)) == ["Conv", "Add"]


def test_constants_are_computed(rng: np.random.Generator) -> None:
    """Nodes of constants go, also where an output is one."""
    d = Drawing(x=("B", 4))
    c = d.node("Exp", d.node("Neg", d.constant(rng.standard_normal(4))))
    graph = d.graph(d.node("Max", "x", c), d.node("Sqrt", d.constant([[4.0, 9.0]])))

    assert sorted(ops(same(graph, rng))) == ["Identity", "Max"]


def test_a_constant_that_would_grow_stays_a_node(rng: np.random.Generator) -> None:
    """A small file does not become a large one."""
    d = Drawing(x=(2**20,))
    wide = d.node("Expand", d.constant([1.0]), d.constant([2**20], np.int64))
    graph = d.graph(d.node("Add", "x", wide), rank=1)

    assert "Expand" in ops(same(graph, rng))


def test_a_node_that_cannot_be_computed_stays(rng: np.random.Generator) -> None:
    """And those beside it are computed all the same."""
    d = Drawing(x=("B", 2))
    bad = d.node("Gather", d.constant([1.0, 2.0]), d.constant([7], np.int64))
    good = d.node("Exp", d.constant([0.0, 0.0]))
    cleaned = clean(d.graph(d.node("Max", d.node("Max", "x", bad), good)))

    assert ops(cleaned) == ["Gather", "Max", "Max"]


def test_chains_of_shapes_become_numbers(rng: np.random.Generator) -> None:
    """A Flatten written out by an exporter: Shape, Gather, Concat, Reshape."""
    d = Drawing(x=("B", 2, 3, 3))
    batch = d.node("Gather", d.node("Shape", "x"), d.constant([0], np.int64))
    target = d.node("Concat", batch, d.constant([-1], np.int64), axis=0)
    x = d.node("Reshape", d.node("Relu", "x"), target)

    assert ops(same(d.graph(x), rng)) == ["Relu", "Reshape"]


def test_what_does_nothing_goes(rng: np.random.Generator) -> None:
    """Identity, Dropout, casts, sums with zero, transposes that undo each other."""
    d = Drawing(x=("B", 2, 3, 3))
    x = d.node("Identity", d.node("Dropout", d.node("Cast", "x", to=1)))
    x = d.node("Transpose", d.node("Transpose", x, perm=(0, 2, 3, 1)), perm=(0, 3, 1, 2))
    x = d.node("Mul", d.node("Add", x, d.constant([0.0])), d.constant(1.0))
    x = d.node("Relu", x)
    x = d.node("Pad", x, d.constant([0] * 8, np.int64))
    x = d.node("Concat", d.node("Reshape", x, d.constant([-1, 2, 3, 3], np.int64)), axis=1)

    assert ops(same(d.graph(x, rank=4), rng)) == ["Relu"]


def test_an_input_that_is_an_output_keeps_its_node(rng: np.random.Generator) -> None:
    """Two names of one value at the borders need a node between."""
    d = Drawing(x=("B", 2))
    y = d.node("Relu", "x")
    graph = d.graph(d.node("Identity", "x"), y, d.node("Identity", y))

    assert ops(same(graph, rng)).count("Identity") == 2


def test_transposes_in_a_row_are_one(rng: np.random.Generator) -> None:
    """Their product remains where it is not nothing."""
    d = Drawing(x=("B", 2, 3, 4))
    x = d.node("Transpose", d.node("Transpose", "x", perm=(0, 2, 3, 1)), perm=(0, 2, 1, 3))

    cleaned = same(d.graph(d.node("Relu", x), rank=4), rng)

    assert ops(cleaned) == ["Transpose", "Relu"]


def test_a_flatten_undone_goes(rng: np.random.Generator) -> None:
    """A pool that is flattened and made a picture again, as gates of channels are written."""
    d = Drawing(x=("B", 3, 4, 4))
    x = d.node("Flatten", d.node("GlobalAveragePool", "x"))
    x = d.node("Sigmoid", d.node("Reshape", x, d.constant([-1, 3, 1, 1], np.int64)))

    assert ops(same(d.graph(x, rank=4), rng)) == ["GlobalAveragePool", "Sigmoid"]


@pytest.mark.parametrize(("keep", "expected"), [(1, ["GlobalAveragePool"]),
                                                (0, ["GlobalAveragePool", "Flatten"])])  # fmt: skip
@pytest.mark.parametrize("opset", [17, 18])
def test_means_over_all_places_are_pools(
    keep: int, expected: list[str], opset: int, rng: np.random.Generator
) -> None:
    """Axes are an attribute in older operators and an input in newer ones."""
    d = Drawing(x=("B", 2, 3, 4))
    if opset == 17:
        x = d.node("ReduceMean", "x", axes=(-1, 2), keepdims=keep)
    else:
        x = d.node("ReduceMean", "x", d.constant([2, -1], np.int64), keepdims=keep)

    assert ops(same(d.graph(x, rank=4 if keep else 2, opset=opset), rng)) == expected


def test_other_means_stay(rng: np.random.Generator) -> None:
    """A mean over channels is no pool."""
    d = Drawing(x=("B", 2, 3, 4))
    graph = d.graph(d.node("ReduceMean", "x", axes=(1, 2)), rank=4)

    assert ops(same(graph, rng)) == ["ReduceMean"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 0.6, ["Clip"]), (-0.5, 0.5, ["Clip"]), (0.0, None, ["Relu"]), (0.5, -0.5, ["Clip"])],
)
def test_bounds_become_one_operator(
    low: float, high: float | None, expected: list[str], rng: np.random.Generator
) -> None:
    """Where they cross, the last one wins, as it did."""
    d = Drawing(x=("B", 9))
    x = d.node("Max", d.constant(low), "x")
    if high is not None:
        x = d.node("Min", x, d.constant([high]))

    assert ops(same(d.graph(x), rng)) == expected


def test_zeros_around_a_convolution_become_its_padding(rng: np.random.Generator) -> None:
    """Together with its own; an average counts them."""
    d = Drawing(x=("B", 2, 5, 5))
    pads = d.constant([0, 0, 1, 0, 0, 0, 2, 1], np.int64)
    x = conv(d, d.node("Pad", "x", pads), (2, 2, 3, 3), rng, pads=(1, 1, 0, 0))
    x = d.node("AveragePool", d.node("Pad", x, pads), kernel_shape=(3, 3))

    assert ops(same(d.graph(x, rank=4), rng)) == ["Conv", "AveragePool"]


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_other_paddings_stay(value: float, rng: np.random.Generator) -> None:
    """Ones are no zeros, and padding of channels is none of places."""
    d = Drawing(x=("B", 2, 5, 5))
    channels = 0 if value else 1
    pads = d.constant([0, channels, 1, 0, 0, 0, 2, 1], np.int64)
    padded = d.node("Pad", "x", pads, d.constant(value))
    x = conv(d, padded, (2, 2 + channels, 3, 3), rng)

    assert ops(same(d.graph(x, rank=4), rng)) == ["Pad", "Conv"]


def test_quantised_constants_stay_small(rng: np.random.Generator) -> None:
    """A weight in int8 is not made float."""
    d = Drawing(x=("B", 4))
    codes, zero = d.constant(rng.integers(-9, 9, (4, 3)), np.int8), d.constant(0, np.int8)
    weight = d.node("DequantizeLinear", codes, d.constant(0.1), zero)

    assert ops(same(d.graph(d.node("MatMul", "x", weight)), rng)) == ["DequantizeLinear", "MatMul"]


STEPS = ("norm", "scale", "shift", "conv", "padded", "pad", "relu", "bound", "turn", "add", "drop")


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=9), seed=st.integers(0, 2**16))
def test_any_chain_computes_the_same(steps: list[str], seed: int) -> None:
    """Whatever comes before or after what: the function stays."""
    rng = np.random.default_rng(seed)
    d = Drawing(x=("B", 3, 8, 8))
    x, earlier = "x", "x"
    for step in steps:
        if step == "norm":
            x = norm(d, x, 3, rng)
        elif step == "scale":
            x = d.node(
                str(rng.choice(["Mul", "Div"])), x, d.constant(rng.uniform(0.5, 2, (3, 1, 1)))
            )
        elif step == "shift":
            sides = [x, d.constant(rng.standard_normal((1, 3, 1, 1) if seed % 2 else ()))]
            x = d.node(str(rng.choice(["Add", "Sub"])), *sides[:: int(rng.choice([1, -1]))])
        elif step in {"conv", "padded"}:
            pads = (1, 1, 1, 1) if step == "padded" else (0, 0, 0, 0)
            size = 3 if step == "padded" else 1
            group = int(rng.choice([1, 3]))
            x = conv(d, x, (3, 3 // group, size, size), rng, pads=pads, group=group)
        elif step == "pad":
            pads_name = d.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
            x = conv(d, d.node("Pad", x, pads_name), (3, 3, 3, 3), rng)
        elif step == "bound":
            x = d.node("Min", d.node("Max", x, d.constant(-1)), d.constant([1.0]))
        elif step == "turn":
            x = d.node("Transpose", x, perm=(0, 1, 3, 2))
        elif step == "add":
            x, earlier = d.node("Add", x, earlier), x
        else:
            x = d.node({"relu": "Relu", "drop": "Dropout"}[step], x)

    cleaned = same(d.graph(x, rank=4), rng)

    assert len(cleaned.nodes) <= len(steps) * 2
    assert all(isinstance(node, Node) for node in cleaned.nodes)
