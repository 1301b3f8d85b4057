"""The weights of ONNX's Resize along one axis: each new place as a sum of old ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.host.networks.graph import Node

__all__ = ["Grid", "interpolation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """An axis that is resized.

    Attributes:
        size: places before.
        new: places after.
        scale: how many new ones stand for an old one; not always new / size exactly.
    """

    size: int
    new: int
    scale: float


def interpolation(node: Node, grid: Grid) -> FloatArray:
    """Return the weights of a Resize along one axis.

    Args:
        node: a Resize.
        grid: the axis.

    Returns:
        (new, size); each row sums to 1.

    Raises:
        InputError: if a mode of the node is not known.

    Source:
        Resize: https://onnx.ai/onnx/operators/onnx__Resize.html
    """
    places = _places(node, grid)  # (new,)
    mode = node.text("mode", "nearest")
    rows = np.arange(grid.new)
    if mode == "nearest":
        weights = np.zeros((grid.new, grid.size))
        weights[rows, np.clip(_nearest(node, places), 0, grid.size - 1)] = 1.0
        return weights.astype(np.float32)
    if mode == "linear":
        return _taps(grid, places, lambda distance: np.maximum(0.0, 1.0 - distance), reach=1)
    if mode != "cubic":
        raise InputError(f"Resize {node.name!r}: mode {mode!r} is not known")
    a = node.number("cubic_coeff_a", -0.75)
    outside = bool(node.whole("exclude_outside", 0))
    return _taps(grid, places, lambda d: _cubic(d, a), reach=2, exclude_outside=outside)


def _places(node: Node, grid: Grid) -> FloatArray:
    # Where on the old axis each new place lies.
    kind = node.text("coordinate_transformation_mode", "half_pixel")
    new = np.arange(grid.new, dtype=np.float64)
    if kind == "half_pixel":
        return ((new + 0.5) / grid.scale - 0.5).astype(np.float32)
    if kind == "asymmetric":
        return (new / grid.scale).astype(np.float32)
    if kind == "align_corners":
        return (new * ((grid.size - 1) / max(1, grid.new - 1))).astype(np.float32)
    if kind == "pytorch_half_pixel":
        whole = (new + 0.5) / grid.scale - 0.5
        return (whole if grid.new > 1 else np.zeros_like(new)).astype(np.float32)
    if kind == "half_pixel_symmetric":
        exact = grid.size * grid.scale
        offset = grid.size / 2 * (1 - grid.new / exact)
        return (offset + (new + 0.5) / grid.scale - 0.5).astype(np.float32)
    raise InputError(f"Resize {node.name!r}: {kind!r} is not supported in torch")


def _nearest(node: Node, places: FloatArray) -> np.ndarray:
    match node.text("nearest_mode", "round_prefer_floor"):
        case "round_prefer_floor":
            found = np.ceil(places - 0.5)
        case "round_prefer_ceil":
            found = np.floor(places + 0.5)
        case "floor":
            found = np.floor(places)
        case "ceil":
            found = np.ceil(places)
        case other:
            raise InputError(f"Resize {node.name!r}: nearest_mode {other!r} is not known")
    whole: np.ndarray = found.astype(np.int64)
    return whole


def _taps(
    grid: Grid,
    places: FloatArray,
    weigh: Callable[[np.ndarray], np.ndarray],
    *,
    reach: int,
    exclude_outside: bool = False,
) -> FloatArray:
    """Spread each new place over the 2 * reach old ones around it."""
    weights = np.zeros((grid.new, grid.size))
    rows = np.arange(grid.new)
    first = np.floor(places).astype(np.int64)
    for step in range(1 - reach, reach + 1):
        taken = first + step
        amount = weigh(np.abs(places - taken))  # (new,)
        if exclude_outside:
            amount = np.where((taken >= 0) & (taken < grid.size), amount, 0.0)
        # A place outside is a copy of the border.
        np.add.at(weights, (rows, np.clip(taken, 0, grid.size - 1)), amount)
    result: FloatArray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    result: np.ndarray = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    return result
