"""Sums, products, functions of numbers and activations against PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from tests.host.learning.gradients import compare, compare_open, graph, kinds, normal
from torch.nn import functional

from onhand.core.errors import SourceError
from onhand.host.learning.differentiate import differentiate

Tensor = torch.Tensor
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Max": torch.maximum,
    "Min": torch.minimum,
}
UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Identity": torch.clone,
    "Neg": torch.neg,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Softplus": functional.softplus,
    "Tanh": torch.tanh,
    "HardSwish": functional.hardswish,
}
POSITIVE: dict[str, Callable[[Tensor], Tensor]] = {
    "Log": torch.log,
    "Reciprocal": torch.reciprocal,
    "Sqrt": torch.sqrt,
}
OPTIONS: list[tuple[str, str, dict[str, Any], Callable[[Tensor], Tensor]]] = [
    ("", "Celu", {"alpha": 0.7}, lambda x: functional.celu(x, 0.7)),
    ("", "Mish", {}, functional.mish),
    ("", "Selu", {}, functional.selu),
    ("", "Softsign", {}, functional.softsign),
    ("", "ThresholdedRelu", {"alpha": 0.5}, lambda x: functional.threshold(x, 0.5, 0.0)),
    ("", "Elu", {"alpha": 0.7}, lambda x: functional.elu(x, 0.7)),
    ("", "LeakyRelu", {"alpha": 0.2}, lambda x: functional.leaky_relu(x, 0.2)),
    ("", "HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, functional.hardsigmoid),
    ("", "Gelu", {}, functional.gelu),
    ("", "Gelu", {"approximate": "tanh"}, lambda x: functional.gelu(x, approximate="tanh")),
    ("com.microsoft", "Gelu", {}, functional.gelu),
    ("com.microsoft", "FastGelu", {}, lambda x: functional.gelu(x, approximate="tanh")),
    ("com.microsoft", "QuickGelu", {"alpha": 1.0}, functional.silu),
    ("com.microsoft", "QuickGelu", {"alpha": 1.702}, lambda x: x * torch.sigmoid(1.702 * x)),
]


@pytest.mark.parametrize("name", sorted(BINARY))
@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 3, 4), (4,)), ((3, 1), (2, 1, 4)), ((), (3,))],
)
def test_two_operands(name: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    """Gradients of both operands are right whatever is known of a broadcast."""
    divisor = normal(*right)
    arrays = {"a": normal(*left), "b": np.sign(divisor) + divisor}

    compare_open([helper.make_node(name, ["a", "b"], ["y"])], arrays, BINARY[name])


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.booleans()), max_size=4),
    cut=st.integers(0, 4),
    apart=st.booleans(),
)
def test_any_broadcast_is_undone(
    sizes: list[tuple[int, bool, bool]], cut: int, apart: bool
) -> None:
    """A product's gradients have the shapes of its operands, for any pair that fits."""
    left = tuple(1 if single else size for size, single, _ in sizes)
    right = tuple(1 if single else size for size, _, single in sizes)[cut:]
    names: dict[str, list[int | str | None]] = {
        "a": [f"a{i}" if apart else size for i, size in enumerate(left)],
        "b": [f"b{i}" if apart else size for i, size in enumerate(right)],
    }

    compare(
        [helper.make_node("Mul", ["a", "b"], ["y"])],
        {"a": normal(*left), "b": normal(*right)},
        lambda a, b: a * b,
        stated=names,
    )


@pytest.mark.parametrize("name", sorted(UNARY))
def test_one_operand(name: str) -> None:
    """A function's slope is right for numbers of both signs."""
    arrays = {"x": 3 * normal(5, 7)}

    compare([helper.make_node(name, ["x"], ["y"])], arrays, UNARY[name])


@pytest.mark.parametrize("name", sorted(POSITIVE))
def test_one_positive_operand(name: str) -> None:
    """A function that only takes positive numbers has the right slope there."""
    arrays = {"x": np.abs(normal(5, 7)) + 0.1}

    compare([helper.make_node(name, ["x"], ["y"])], arrays, POSITIVE[name])


@pytest.mark.parametrize(("domain", "name", "options", "compute"), OPTIONS)
def test_activation(
    domain: str, name: str, options: dict[str, Any], compute: Callable[[Tensor], Tensor]
) -> None:
    """An activation with its options has the slope of PyTorch's."""
    node = helper.make_node(name, ["x"], ["y"], domain=domain, **options)

    compare([node], {"x": 3 * normal(6, 11)}, compute)


@pytest.mark.parametrize("name", ["FastGelu", "BiasGelu"])
def test_activation_with_a_bias(name: str) -> None:
    """A bias inside an activation is learned too."""
    kind = "tanh" if name == "FastGelu" else "none"
    node = helper.make_node(name, ["x", "bias"], ["y"], domain="com.microsoft")

    compare(
        [node],
        {"x": normal(2, 5, 6), "bias": normal(6)},
        lambda x, bias: functional.gelu(x + bias, approximate=kind),
    )


def test_prelu_learns_its_slope() -> None:
    """The slope of each channel gets a gradient."""
    node = helper.make_node("PRelu", ["x", "slope"], ["y"])

    compare(
        [node],
        {"x": normal(2, 3, 4), "slope": normal(3, 1)},
        lambda x, slope: torch.where(x > 0, x, x * slope),
    )


@pytest.mark.parametrize("bounds", [(-1.0, 0.5), (None, 0.5), (0.0, None), (None, None)])
def test_clip(bounds: tuple[float | None, float | None]) -> None:
    """Outside the bounds nothing passes."""
    low, high = bounds
    constants = {
        name: np.array(value, dtype=np.float32)
        for name, value in (("low", low), ("high", high))
        if value is not None
    }
    inputs = ["x", *(name if name in constants else "" for name in ("low", "high"))]

    compare(
        [helper.make_node("Clip", inputs, ["y"])],
        {"x": normal(40)},
        lambda x: x.clone() if low is high else torch.clamp(x, low, high),
        constants=constants,
    )


@pytest.mark.parametrize("power", [2.0, 3.0, 0.5, -1.0])
def test_power_of_a_number(power: float) -> None:
    """A known exponent has the rule from school."""
    compare(
        [helper.make_node("Pow", ["x", "c"], ["y"])],
        {"x": np.abs(normal(9)) + 0.5},
        lambda x: x**power,
        constants={"c": np.array(power, dtype=np.float32)},
    )


def test_power_of_many_numbers() -> None:
    """Exponents that are fed are broadcast."""
    compare(
        [helper.make_node("Pow", ["x", "c"], ["y"])],
        {"x": np.abs(normal(4, 1)) + 0.5, "c": normal(3)},
        lambda x, c: x**c,
        wrt=["x"],
    )


def test_a_learned_exponent_is_refused() -> None:
    """The gradient of an exponent has no rule, and the node is named."""
    forward = graph(
        [helper.make_node("Pow", ["x", "c"], ["y"], name="raise")], {"x": [2], "c": [1]}, {}
    )

    with pytest.raises(SourceError, match=r"'raise'.*exponent"):
        differentiate(forward, loss="y", wrt=["c"], starts={"y": "x"})


def test_dropout_that_drops_nothing_passes_all() -> None:
    """In a network that answers it does nothing; one that drops is refused."""
    constants = {"share": np.array(0.5, dtype=np.float32), "training": np.array(False)}
    node = helper.make_node("Dropout", ["x", "share", "training"], ["y"])
    compare([node], {"x": normal(5)}, torch.clone, constants=constants)

    forward = graph([node], {"x": [5]}, constants | {"training": np.array(True)})
    with pytest.raises(SourceError, match="drops numbers at random"):
        differentiate(forward, loss="y", wrt=["x"], starts={"y": "x"})


def test_where() -> None:
    """Each side gets the gradient where it was taken."""
    nodes = [
        helper.make_node("Greater", ["a", "zero"], ["positive"]),
        helper.make_node("Where", ["positive", "a", "b"], ["y"]),
    ]

    compare_open(
        nodes,
        {"a": normal(4, 5), "b": normal(5)},
        lambda a, b: torch.where(a > 0, a, b),
        constants={"zero": np.zeros((), dtype=np.float32)},
    )


@pytest.mark.parametrize("name", ["Sum", "Mean"])
def test_sum_of_three(name: str) -> None:
    """A sum of several broadcasts each of them."""
    share = 1 if name == "Sum" else 1 / 3

    compare_open(
        [helper.make_node(name, ["a", "b", "c"], ["y"])],
        {"a": normal(4, 5), "b": normal(5), "c": normal(1, 1)},
        lambda a, b, c: share * (a + b + c),
    )


def test_a_square_needs_two_nodes() -> None:
    """A tensor times itself is not treated as two tensors."""
    model = compare([helper.make_node("Mul", ["x", "x"], ["y"])], {"x": normal(5)}, lambda x: x * x)

    assert kinds(model) == ["Mul", "Mul", "Mul"]


def test_equal_sizes_need_no_sums() -> None:
    """Where no broadcast happened, none is undone."""
    arrays = {"a": normal(4, 5), "b": normal(4, 5)}
    model = compare(
        [helper.make_node("Mul", ["a", "b"], ["y"])],
        arrays,
        lambda a, b: a * b,
        stated={"a": ["B", "T"], "b": ["B", "T"]},
    )

    assert kinds(model) == ["Mul", "Mul", "Mul"]
