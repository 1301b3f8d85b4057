"""Softmax, reductions and norms against PyTorch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnx import helper
from tests.host.learning.gradients import compare, compare_open, graph, normal
from torch.nn import functional

from onhand.core.errors import SourceError
from onhand.host.learning.differentiate import differentiate

Tensor = torch.Tensor
REDUCTIONS: dict[str, Callable[[Tensor, tuple[int, ...], bool], Tensor]] = {
    "ReduceL1": lambda x, axes, keep: torch.sum(x.abs(), axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: torch.amax(x, axes, keepdim=keep),
    "ReduceMean": lambda x, axes, keep: torch.mean(x, axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: torch.amin(x, axes, keepdim=keep),
    "ReduceSum": lambda x, axes, keep: torch.sum(x, axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: torch.sum(x * x, axes, keepdim=keep),
}


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_softmax(name: str, axis: int) -> None:
    """Along the last axis and another, with numbers large enough to overflow an exponential."""
    compute = functional.softmax if name == "Softmax" else functional.log_softmax
    node = helper.make_node(name, ["x"], ["y"], axis=axis)

    compare_open([node], {"x": 100 * normal(2, 5, 7)}, lambda x: compute(x, dim=axis))


@pytest.mark.parametrize("name", sorted(REDUCTIONS))
@pytest.mark.parametrize("axes", [(-1,), (0, 2)])
@pytest.mark.parametrize("keep", [0, 1])
def test_reduction(name: str, axes: tuple[int, ...], keep: int) -> None:
    """Over some axes or all, which stay with size one or go."""
    node = helper.make_node(name, ["x", "axes"], ["y"], keepdims=keep)

    compare_open(
        [node],
        {"x": normal(3, 4, 5)},
        lambda x: REDUCTIONS[name](x, axes, bool(keep)),
        constants={"axes": np.array(axes, dtype=np.int64)},
    )


def test_reduction_of_everything_without_axes() -> None:
    """No axes are all axes."""
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)

    compare_open([node], {"x": normal(3, 4)}, lambda x: x.sum())


def test_reduction_with_axes_as_attributes() -> None:
    """Older opsets keep the axes of a mean in the node."""
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)

    compare([node], {"x": normal(3, 4)}, lambda x: x.mean(1), opset=17)


def test_equal_maxima_share_the_gradient() -> None:
    """As in PyTorch's amax."""
    compare(
        [helper.make_node("ReduceMax", ["x", "axes"], ["y"])],
        {"x": np.array([[1, 3, 3], [2, 2, 2]], dtype=np.float32)},
        lambda x: torch.amax(x, 1, keepdim=True),
        constants={"axes": np.array([1], dtype=np.int64)},
    )


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("biased", [True, False])
def test_layer_norm(axis: int, biased: bool) -> None:
    """Over the last axis and over two, with and without a bias."""
    sizes = (5, 8) if axis == 1 else (8,)
    arrays = {"x": 2 * normal(3, 5, 8) + 1, "weight": normal(*sizes)}
    if biased:
        arrays["bias"] = normal(*sizes)
    node = helper.make_node("LayerNormalization", list(arrays), ["y"], axis=axis, epsilon=1e-3)

    def expected(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.layer_norm(x, sizes, weight, bias, 1e-3)

    compare_open([node], arrays, expected)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return functional.rms_norm(x, weight.shape, weight, 1e-3)


def test_rms_norm() -> None:
    """The norm of Llama."""
    node = helper.make_node(
        "SimplifiedLayerNormalization", ["x", "weight"], ["y"], axis=-1, epsilon=1e-3
    )

    compare_open([node], {"x": normal(3, 5, 8), "weight": normal(8)}, rms_norm)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("simple", [True, False])
def test_skip_norm(biased: bool, simple: bool) -> None:
    """A sum and its norm in one node, and the sum used once more."""
    arrays = {"x": normal(3, 5, 8), "skip": normal(3, 5, 8), "weight": normal(8)}
    if not simple:
        arrays["shift"] = normal(8)
    if biased:
        arrays["bias"] = normal(8)
    name = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
    nodes = [
        helper.make_node(
            name,
            list(arrays),
            ["normed", "", "", "sum"],
            domain="com.microsoft",
            epsilon=1e-3,
        ),
        helper.make_node("Add", ["normed", "sum"], ["y"]),
    ]

    def expected(*tensors: Tensor) -> Tensor:
        given = dict(zip(arrays, tensors, strict=True))
        total = given["x"] + given["skip"] + given.get("bias", 0)
        if simple:
            return rms_norm(total, given["weight"]) + total
        weights = (given["weight"], given["shift"])
        return functional.layer_norm(total, (8,), *weights, 1e-3) + total

    stated: dict[str, list[int | str | None]] = {
        name: ["B", "T", 8] if array.ndim == 3 else [8] for name, array in arrays.items()
    }
    compare(nodes, arrays, expected, stated=stated)
    compare(nodes, arrays, expected)


def test_a_skip_norm_whose_sum_nobody_reads() -> None:
    """The sum is asked for by the backward pass alone."""
    node = helper.make_node(
        "SkipSimplifiedLayerNormalization",
        ["x", "skip", "weight"],
        ["y"],
        domain="com.microsoft",
        epsilon=1e-3,
    )
    arrays = {"x": normal(3, 5, 8), "skip": normal(3, 5, 8), "weight": normal(8)}

    compare([node], arrays, lambda x, skip, weight: rms_norm(x + skip, weight))


@pytest.mark.parametrize("shape", [(2, 6, 3, 5), (4, 6), (2, 6, 7)])
def test_batch_norm(shape: tuple[int, ...]) -> None:
    """With the statistics of training, which stay as they are."""
    arrays = {"x": normal(*shape), "weight": normal(6), "bias": normal(6)}
    arrays |= {"mean": normal(6), "variance": np.abs(normal(6)) + 0.2}
    node = helper.make_node("BatchNormalization", list(arrays), ["y"], epsilon=1e-3)

    compare_open(
        [node],
        arrays,
        lambda x, weight, bias, mean, variance: functional.batch_norm(
            x, mean, variance, weight, bias, training=False, eps=1e-3
        ),
        wrt=["x", "weight", "bias"],
    )


def test_statistics_of_a_batch_norm_are_not_learned() -> None:
    """A mean to be learned is refused, and the node named."""
    names = ["x", "weight", "bias", "mean", "variance"]
    node = helper.make_node("BatchNormalization", names, ["y"], name="norm")
    forward = graph([node], {"x": [2, 6]} | {name: [6] for name in names[1:]}, {})

    with pytest.raises(SourceError, match=r"'norm'.*statistics"):
        differentiate(forward, loss="y", wrt=["mean"], starts={"y": "x"})


@pytest.mark.parametrize(("reverse", "exclusive"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_running_sum(reverse: int, exclusive: int) -> None:
    """From either end, with the number itself or without it."""
    node = helper.make_node("CumSum", ["x", "axis"], ["y"], reverse=reverse, exclusive=exclusive)

    def expected(x: Tensor) -> Tensor:
        turned = x.flip(1) if reverse else x
        summed = turned.cumsum(1) - (turned if exclusive else 0)
        return summed.flip(1) if reverse else summed

    compare([node], {"x": normal(3, 5)}, expected, constants={"axis": np.array(1)})


@pytest.mark.parametrize("groups", [None, 1, 3])
@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 6, 3, 4)])
def test_group_norm(groups: int | None, shape: tuple[int, ...]) -> None:
    """Groups of several channels, all in one, and each on its own."""
    options = {} if groups is None else {"num_groups": groups}
    name = "InstanceNormalization" if groups is None else "GroupNormalization"
    node = helper.make_node(name, ["x", "weight", "bias"], ["y"], epsilon=1e-3)
    node.attribute.extend(helper.make_attribute(k, v) for k, v in options.items())
    arrays = {"x": 2 * normal(*shape) + 1, "weight": normal(6), "bias": normal(6)}

    names: list[int | str | None] = ["B", 6, *(f"size{i}" for i in range(len(shape) - 2))]

    for sizes in (list[int | str | None](shape), names):
        compare(
            [node],
            arrays,
            lambda x, weight, bias: functional.group_norm(x, groups or 6, weight, bias, 1e-3),
            stated={"x": sizes, "weight": [6], "bias": [6]},
        )
