"""Convolutions and poolings against PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from tests.host.learning.gradients import compare, graph, kinds, normal
from torch.nn import functional

from onhand.core.errors import SourceError
from onhand.host.learning.differentiate import differentiate

Tensor = torch.Tensor
CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


@dataclass(frozen=True)
class Case:
    """A convolution.

    Attributes:
        x: shape of its input.
        outputs: channels it gives.
        kernel: sizes of its kernels.
        pads: before each axis, then after each.
        options: strides, dilations, group.
    """

    x: tuple[int, ...]
    outputs: int
    kernel: tuple[int, ...]
    pads: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "1x1": Case((2, 3, 5, 4), 6, (1, 1)),
    "1x1 strided": Case((2, 3, 5, 6), 4, (1, 1), (), {"strides": [2, 2]}),
    "3x3": Case((2, 3, 5, 6), 4, (3, 3), (1, 1, 1, 1)),
    "3x3 strided": Case((2, 3, 7, 7), 4, (3, 3), (1, 1, 1, 1), {"strides": [2, 2]}),
    "3x3 ragged": Case((2, 3, 8, 6), 4, (3, 3), (1, 1, 1, 1), {"strides": [2, 2]}),
    "3x3 very ragged": Case((1, 2, 9, 10), 3, (2, 3), (0, 1, 0, 1), {"strides": [4, 3]}),
    "5x5 without padding": Case((2, 3, 7, 9), 2, (5, 5)),
    "depthwise": Case((2, 4, 6, 5), 4, (3, 3), (1, 1, 1, 1), {"group": 4}),
    "depthwise strided": Case(
        (2, 4, 6, 7), 4, (3, 3), (1, 1, 1, 1), {"group": 4, "strides": [2, 2]}
    ),
    "depthwise, two each": Case((2, 3, 6, 5), 6, (3, 3), (1, 1, 1, 1), {"group": 3}),
    "depthwise dilated": Case(
        (2, 4, 9, 8), 4, (3, 2), (1, 0, 2, 1), {"group": 4, "dilations": [2, 3], "strides": [1, 2]}
    ),
    "depthwise, long rows": Case((2, 3, 4, 70), 3, (2, 3), (0, 1, 0, 1), {"group": 3}),
    "depthwise of sound": Case((2, 3, 20), 3, (5,), (2, 2), {"group": 3, "strides": [2]}),
    "depthwise of a volume": Case((1, 2, 4, 5, 3), 2, (2, 3, 2), (0, 1, 0, 0, 1, 0), {"group": 2}),
    "grouped": Case((2, 4, 5, 5), 6, (3, 3), (1, 1, 1, 1), {"group": 2}),
    "grouped strided": Case((2, 4, 6, 5), 6, (3, 3), (0, 0, 0, 0), {"group": 2, "strides": [2, 1]}),
    "dilated": Case((2, 3, 9, 8), 4, (3, 2), (2, 0, 2, 0), {"dilations": [2, 3]}),
    "dilated strided": Case(
        (1, 3, 10, 9), 2, (3, 3), (2, 2, 2, 2), {"dilations": [2, 2], "strides": [2, 3]}
    ),
    "padding of one side": Case((2, 3, 5, 6), 4, (3, 2), (2, 0, 0, 1)),
    "padding beyond the kernel": Case((1, 2, 4, 4), 3, (2, 2), (3, 3, 3, 3)),
    "of sound": Case((2, 3, 20), 5, (7,), (3, 3), {"strides": [3]}),
    "of a volume": Case((1, 2, 4, 5, 3), 3, (2, 3, 1), (0, 1, 0, 0, 1, 0)),
}  # fmt: skip


def padded(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad as ONNX says it: all beginnings, then all ends."""
    n = len(pads) // 2
    pairs = [pads[i + half * n] for i in reversed(range(n)) for half in (0, 1)]
    return functional.pad(x, pairs, value=value)


def convolve(case: Case) -> Any:
    """Return the case in PyTorch."""
    options = case.options

    def compute(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return CONVOLUTIONS[len(case.kernel)](
            padded(x, case.pads),
            w,
            b,
            stride=options.get("strides", 1),
            dilation=options.get("dilations", 1),
            groups=options.get("group", 1),
        )

    return compute


@pytest.mark.parametrize("sizes", ["known", "open"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_convolution(name: str, sizes: str) -> None:
    """Gradients of input, kernels and bias, with picture sizes known and open."""
    case = CASES[name]
    inputs = case.x[1] // case.options.get("group", 1)
    arrays = {
        "x": normal(*case.x),
        "w": normal(case.outputs, inputs, *case.kernel),
        "b": normal(case.outputs),
    }
    stated: dict[str, list[int | str | None]] = {n: list(a.shape) for n, a in arrays.items()}
    if sizes == "open":
        stated["x"] = ["B", case.x[1], *(f"size{i}" for i in range(len(case.kernel)))]
    options = case.options | ({"pads": case.pads} if case.pads else {})

    compare(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], **options)],
        arrays,
        convolve(case),
        stated=stated,
    )


def test_a_head_of_one_place_with_any_number_of_classes() -> None:
    """The number of results may be open: a head that grows."""
    arrays = {"x": normal(2, 3, 4, 4), "w": normal(5, 3, 1, 1), "b": normal(5)}
    stated: dict[str, list[int | str | None]] = {
        "x": ["B", 3, 4, 4],
        "w": ["C", 3, 1, 1],
        "b": ["C"],
    }

    compare(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        arrays,
        convolve(CASES["1x1"]),
        stated=stated,
    )


@pytest.mark.parametrize(
    ("mode", "pads"), [("SAME_UPPER", (0, 1, 1, 2)), ("SAME_LOWER", (1, 2, 0, 1)), ("VALID", ())]
)
def test_automatic_padding(mode: str, pads: tuple[int, ...]) -> None:
    """Padding that the operator finds for itself."""
    case = Case((2, 3, 6, 7), 4, (3, 4), pads, {"strides": [2, 1]})
    arrays = {"x": normal(2, 3, 6, 7), "w": normal(4, 3, 3, 4), "b": normal(4)}
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], auto_pad=mode, strides=[2, 1])

    compare([node], arrays, convolve(case))


def test_automatic_padding_of_open_sizes_is_refused() -> None:
    """With strides it depends on sizes that nobody knows."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], "c", auto_pad="SAME_UPPER", strides=[2])
    forward = graph([node], {"x": ["B", 3, "T"], "w": [4, 3, 3]}, {})

    with pytest.raises(SourceError, match=r"'c' \(Conv\).*padding depends"):
        differentiate(forward, loss="y", wrt=["x"], starts={"y": "x"})


def test_only_what_is_learned_is_computed() -> None:
    """The bias of a frozen convolution costs one sum."""
    arrays = {"x": normal(2, 3, 5, 4), "w": normal(6, 3, 1, 1), "b": normal(6)}
    model = compare(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        arrays,
        convolve(CASES["1x1"]),
        wrt=["b"],
    )

    assert kinds(model) == ["Conv", "ReduceSum"]


@pytest.mark.parametrize("sizes", [[2, 4, 3, 5], ["B", 4, "height", "width"]])
@pytest.mark.parametrize(
    ("groups", "strides", "pads", "extra", "dilations"),
    [(1, [1, 1], [0, 0], [0, 0], [1, 1]), (2, [2, 3], [1, 0], [1, 2], [1, 2])],
)
def test_transposed_convolution(
    sizes: list[int | str | None],
    groups: int,
    strides: list[int],
    pads: list[int],
    extra: list[int],
    dilations: list[int],
) -> None:
    """Gradients of input, kernels and bias of what makes pictures larger."""
    node = helper.make_node(
        "ConvTranspose",
        ["x", "w", "b"],
        ["y"],
        strides=strides,
        pads=[*pads, *pads],
        output_padding=extra,
        dilations=dilations,
        group=groups,
    )
    arrays = {"x": normal(2, 4, 3, 5), "w": normal(4, 3, 3, 2), "b": normal(3 * groups)}

    compare(
        [node],
        arrays,
        lambda x, w, b: functional.conv_transpose2d(
            x, w, b, strides, pads, extra, groups, dilations
        ),
        stated={"x": sizes, "w": [4, 3, 3, 2], "b": [3 * groups]},
    )


POOLS: dict[str, dict[str, Any]] = {
    "apart": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "overlapping": {"kernel_shape": [3, 2], "strides": [2, 1]},
    "padded": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
}


@pytest.mark.parametrize("name", sorted(POOLS))
@pytest.mark.parametrize("sizes", [[2, 3, 7, 6], ["B", 3, "height", "width"]])
def test_max_pool(name: str, sizes: list[int | str | None]) -> None:
    """The largest number of a window gets its gradient."""
    options = POOLS[name]
    pads = options.get("pads", [0] * 4)

    compare(
        [helper.make_node("MaxPool", ["x"], ["y"], **options)],
        {"x": normal(2, 3, 7, 6)},
        lambda x: functional.max_pool2d(
            padded(x, pads, -1e9), options["kernel_shape"], options["strides"]
        ),
        stated={"x": sizes},
    )


@pytest.mark.parametrize("name", sorted(POOLS))
@pytest.mark.parametrize("whole", [0, 1])
@pytest.mark.parametrize("sizes", [[2, 3, 7, 6], ["B", 3, "height", "width"]])
def test_average_pool(name: str, whole: int, sizes: list[int | str | None]) -> None:
    """Each number of a window gets its share, padding counted or not."""
    options = POOLS[name]
    pads = options.get("pads", [0] * 4)

    compare(
        [helper.make_node("AveragePool", ["x"], ["y"], count_include_pad=whole, **options)],
        {"x": normal(2, 3, 7, 6)},
        lambda x: functional.avg_pool2d(
            x, options["kernel_shape"], options["strides"], pads[:2], count_include_pad=bool(whole)
        ),
        stated={"x": sizes},
    )


@pytest.mark.parametrize("whole", [0, 1])
def test_average_pool_rounded_up(whole: int) -> None:
    """A last window that reaches over the edge averages what it holds."""
    node = helper.make_node(
        "AveragePool",
        ["x"],
        ["y"],
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        ceil_mode=1,
        count_include_pad=whole,
    )

    compare(
        [node],
        {"x": normal(1, 2, 6, 8)},
        lambda x: functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=bool(whole)),
    )


@pytest.mark.parametrize("name", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("sizes", [[2, 3, 4, 5], ["B", 3, "height", "width"]])
def test_global_pool(name: str, sizes: list[int | str | None]) -> None:
    """Over whole pictures of any size."""
    average = name == "GlobalAveragePool"

    compare(
        [helper.make_node(name, ["x"], ["y"])],
        {"x": normal(2, 3, 4, 5)},
        lambda x: x.mean((2, 3), keepdim=True) if average else x.amax((2, 3), keepdim=True),
        stated={"x": sizes},
    )


def test_a_small_network() -> None:
    """Convolution, norm, activation, depthwise convolution, pooling and head in a row."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["a", "g", "b", "m", "v"], ["n"], epsilon=1e-3),
        helper.make_node("HardSwish", ["n"], ["h"]),
        helper.make_node("Conv", ["h", "d"], ["s"], pads=[1, 1, 1, 1], group=4),
        helper.make_node("GlobalAveragePool", ["s"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "o", "c"], ["y"], transB=1),
    ]
    arrays = {"x": normal(2, 3, 8, 8), "w": normal(4, 3, 3, 3), "g": normal(4), "b": normal(4)}
    arrays |= {"m": normal(4), "v": np.abs(normal(4)) + 1, "d": normal(4, 1, 3, 3)}
    arrays |= {"o": normal(5, 4), "c": normal(5)}

    def expected(*given: Tensor) -> Tensor:
        x, w, g, b, m, v, d, o, c = given
        a = functional.conv2d(x, w, None, 2, 1)
        h = functional.hardswish(functional.batch_norm(a, m, v, g, b, eps=1e-3))
        s = functional.conv2d(h, d, None, 1, 1, groups=4)
        return functional.linear(s.mean((2, 3)), o, c)

    stated: dict[str, list[int | str | None]] = {n: list(a.shape) for n, a in arrays.items()}
    stated["x"] = ["B", 3, 8, 8]
    learned = [name for name in arrays if name not in {"m", "v"}]
    compare(nodes, arrays, expected, wrt=learned, stated=stated)
