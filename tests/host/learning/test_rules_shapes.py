"""Reshapes, cuts, joins and look-ups against PyTorch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from onnx import NodeProto, helper
from tests.host.learning.gradients import compare, compare_open, graph, kinds, normal

from onhand.core.errors import SourceError
from onhand.host.learning.differentiate import differentiate

Tensor = torch.Tensor


def whole(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def node(kind: str, *inputs: str, **options: Any) -> NodeProto:
    return helper.make_node(kind, list(inputs), ["y"], **options)


@pytest.mark.parametrize("target", [(0, 0, 2, 3), (0, -1), (-1,), (6, 2, 4), (4, -1, 1)])
def test_reshape(target: tuple[int, ...]) -> None:
    """With sizes that are copied or inferred."""
    x = normal(2, 4, 6)
    expected = [x.shape[i] if size == 0 else size for i, size in enumerate(target)]

    compare_open(
        [node("Reshape", "x", "shape")],
        {"x": x},
        lambda x: x.reshape(expected),
        constants={"shape": whole(*target)},
    )


def test_reshape_of_heads_needs_one_node() -> None:
    """Open sizes that stay in place are copied, not computed."""
    model = compare(
        [node("Reshape", "x", "shape")],
        {"x": normal(2, 4, 6)},
        lambda x: x.reshape(2, 4, 2, 3),
        constants={"shape": whole(0, 0, 2, 3)},
        stated={"x": ["B", "T", 6]},
    )

    assert kinds(model) == ["Reshape", "Reshape"]


def test_reshape_to_a_computed_shape() -> None:
    """Where another tensor's shape is taken, the gradient goes back all the same."""
    nodes = [helper.make_node("Shape", ["like"], ["shape"]), node("Reshape", "x", "shape")]

    compare_open(
        nodes,
        {"x": normal(4, 6), "like": normal(2, 2, 6)},
        lambda x, like: x.reshape(like.shape),
        wrt=["x"],
    )


@pytest.mark.parametrize("order", [(0, 2, 1, 3), (3, 0, 1, 2), None])
def test_transpose(order: tuple[int, ...] | None) -> None:
    """Any order of the axes, and their reverse."""
    options = {} if order is None else {"perm": order}

    compare_open(
        [node("Transpose", "x", **options)],
        {"x": normal(2, 3, 4, 5)},
        lambda x: x.permute(order or (3, 2, 1, 0)),
    )


def test_squeeze_and_unsqueeze() -> None:
    """Axes of size one that come and go, named or not."""
    x, axes = normal(1, 3, 1, 5), {"axes": whole(0, -2)}
    compare_open(
        [node("Squeeze", "x", "axes")], {"x": x}, lambda x: x.squeeze((0, 2)), constants=axes
    )
    compare([node("Squeeze", "x")], {"x": x}, lambda x: x.squeeze())

    compare_open(
        [node("Unsqueeze", "x", "axes")],
        {"x": normal(3, 5)},
        lambda x: x.unsqueeze(-1)[None],
        constants={"axes": whole(0, -1)},
    )


def test_flatten() -> None:
    """All axes from one on become one."""
    compare_open([node("Flatten", "x", axis=1)], {"x": normal(2, 3, 4)}, lambda x: x.flatten(1))


@pytest.mark.parametrize("wrt", [["a", "b", "c"], ["b"], ["a", "c"]])
def test_concat(wrt: Sequence[str]) -> None:
    """Only the pieces that are asked for are cut out."""
    arrays = {"a": normal(2, 1, 4), "b": normal(2, 3, 4), "c": normal(2, 2, 4)}

    compare_open(
        [node("Concat", "a", "b", "c", axis=-2)],
        arrays,
        lambda a, b, c: torch.cat([a, b, c], 1),
        wrt=wrt,
    )


def test_split_with_a_piece_that_is_not_used() -> None:
    """What the loss does not depend on gets zeros."""
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b", "c"], axis=-1),
        node("Mul", "a", "c"),
    ]

    compare_open(
        nodes,
        {"x": normal(3, 10)},
        lambda x: x[:, :4] * x[:, 6:],
        constants={"sizes": whole(4, 2, 4)},
    )


@pytest.mark.parametrize(
    ("start", "end", "step", "index"),
    [
        (1, 4, 1, slice(1, 4)),
        (-3, 100, 1, slice(-3, None)),
        (0, -1, 1, slice(0, -1)),
        (1, 100, 2, slice(1, None, 2)),
    ],
)
def test_slice(start: int, end: int, step: int, index: slice) -> None:
    """A block, from either end, or every second number."""
    compare_open(
        [node("Slice", "x", "start", "end", "axis", "step")],
        {"x": normal(3, 6, 4)},
        lambda x: x[:, index],
        constants={
            "start": whole(start), "end": whole(end), "axis": whole(1), "step": whole(step)
        },
    )  # fmt: skip


def test_slice_backwards() -> None:
    """A negative step turns an axis round."""
    compare_open(
        [node("Slice", "x", "start", "end", "axis", "step")],
        {"x": normal(3, 6)},
        lambda x: x.flip(1),
        constants={
            "start": whole(-1), "end": whole(-100), "axis": whole(-1), "step": whole(-1)
        },
    )  # fmt: skip


def test_slice_of_two_axes() -> None:
    """Without axes and steps the first axes are meant."""
    compare_open(
        [node("Slice", "x", "start", "end")],
        {"x": normal(5, 6, 2)},
        lambda x: x[1:3, 2:],
        constants={"start": whole(1, 2), "end": whole(3, 99)},
    )


def test_expand() -> None:
    """A repeat over new axes and axes of size one is summed."""
    compare_open(
        [node("Expand", "x", "shape")],
        {"x": normal(3, 1)},
        lambda x: x.expand(2, 3, 4),
        constants={"shape": whole(2, 3, 4)},
    )


def test_pad() -> None:
    """Padding goes, also of one axis, and a negative width comes back as zeros."""
    compare_open(
        [node("Pad", "x", "widths")],
        {"x": normal(3, 5)},
        lambda x: torch.nn.functional.pad(x, (2, 1, 0, -1)),
        constants={"widths": whole(0, 2, -1, 1)},
    )


def test_padding_with_own_numbers_is_refused() -> None:
    """Reflection has no rule, and is named."""
    forward = graph(
        [node("Pad", "x", "widths", name="edge", mode="reflect")],
        {"x": [3, 5]},
        {"widths": whole(0, 1, 0, 1)},
    )

    with pytest.raises(SourceError, match=r"'edge'.*constant"):
        differentiate(forward, loss="y", wrt=["x"], starts={"y": "x"})


def test_tile_triangle_and_depth() -> None:
    """The rarer ways to move numbers."""
    compare(
        [node("Tile", "x", "times")],
        {"x": normal(3, 2)},
        lambda x: x.repeat(2, 3),
        constants={"times": whole(2, 3)},
    )
    compare([node("Trilu", "x", upper=0)], {"x": normal(4, 4)}, torch.tril)
    compare(
        [node("SpaceToDepth", "x", blocksize=2), helper.make_node("Identity", ["y"], ["z"])],
        {"x": normal(1, 3, 4, 6)},
        lambda x: x.reshape(1, 3, 2, 2, 3, 2).permute(0, 3, 5, 1, 2, 4).reshape(1, 12, 2, 3),
    )


def test_cast_there_and_back() -> None:
    """Half precision in between gives gradients of single precision."""
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=10),
        helper.make_node("Mul", ["half", "half"], ["square"]),
        node("Cast", "square", to=1),
    ]

    compare(nodes, {"x": normal(7)}, lambda x: (x.half() * x.half()).float(), close=2e-3)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_gather(axis: int, shape: tuple[int, ...]) -> None:
    """Rows that are looked up several times, some from the end, get the sum."""
    ids = np.random.default_rng(3).integers(-4, 4, shape)

    def expected(x: Tensor, ids: Tensor) -> Tensor:
        moved = x.movedim(axis, 0)[ids.long()]
        return torch.movedim(
            moved, tuple(range(ids.ndim)), tuple(i + axis % 3 for i in range(ids.ndim))
        )

    compare_open(
        [node("Gather", "x", "ids", axis=axis)],
        {"x": normal(4, 4, 4), "ids": np.asarray(ids, dtype=np.int64)},
        expected,
    )


def test_gather_elements() -> None:
    """A number that is looked up twice gets both gradients."""
    ids = np.array([[0, 2, 2], [1, 1, 0]], dtype=np.int64)

    compare_open(
        [node("GatherElements", "x", "ids", axis=1)],
        {"x": normal(2, 4), "ids": ids},
        lambda x, ids: x.gather(1, ids),
    )


def test_gather_places() -> None:
    """Look-ups by all coordinates."""
    places = np.array([[0, 1], [2, 0], [0, 1]], dtype=np.int64)

    compare_open(
        [node("GatherND", "x", "places")],
        {"x": normal(3, 4, 2), "places": places},
        lambda x, places: x[places[:, 0], places[:, 1]],
    )
