"""Pictures made larger or smaller."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.core.onnxgraph import OnnxNode
from onhand.device.networks.operators.kinds import Array, Operator

__all__ = ["RESIZING"]

_MOST_SIDE: Final = 2**16


def _resize(
    node: OnnxNode,
    x: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
) -> Array:
    axes = node.wholes("axes") or tuple(range(x.ndim))
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch" or node.whole("antialias", 0):
        raise InputError(
            f"Resize {node.outputs[0]!r}: only stretching, without smoothing, is known"
        )
    result = x.astype(np.float32) if x.dtype == np.float16 else x
    for number, axis in enumerate(axes):
        size = x.shape[axis]
        if sizes is not None and sizes.size:
            wanted = int(sizes.reshape(-1)[number])
            scale = wanted / size
        elif scales is not None and scales.size:
            scale = float(scales.reshape(-1)[number])
            wanted = int(np.floor(size * scale))
        else:
            raise InputError(f"Resize {node.outputs[0]!r}: has neither sizes nor scales")
        if not 0 < wanted <= _MOST_SIDE:
            raise InputError(f"Resize {node.outputs[0]!r}: to {wanted} elements")
        if wanted != size or scale != 1:
            result = _along(node, result, axis, wanted, scale)
    return result.astype(x.dtype, copy=False)


def _along(node: OnnxNode, x: Array, axis: int, wanted: int, scale: float) -> Array:
    size = x.shape[axis]
    places = _places(node, wanted, size, scale)
    mode = node.text("mode", "nearest")
    if mode == "nearest":
        return np.take(x, _nearest(node, places).clip(0, size - 1), axis=axis)
    if mode != "linear":
        raise InputError(f"Resize {node.outputs[0]!r}: mode {mode!r} is not known")
    low = np.floor(places)
    part = (places - low).astype(np.float32)
    shape = [1] * x.ndim
    shape[axis] = -1
    first = np.take(x, low.astype(np.int64).clip(0, size - 1), axis=axis)
    second = np.take(x, (low.astype(np.int64) + 1).clip(0, size - 1), axis=axis)
    weight = part.reshape(shape)
    return first * (1 - weight) + second * weight


def _places(node: OnnxNode, wanted: int, size: int, scale: float) -> NDArray[np.float64]:
    # Where each element of the result lies in the original.
    x = np.arange(wanted, dtype=np.float64)
    how = node.text("coordinate_transformation_mode", "half_pixel")
    if how == "half_pixel" or (how == "pytorch_half_pixel" and wanted > 1):
        return (x + 0.5) / scale - 0.5
    if how == "pytorch_half_pixel":
        return np.zeros(wanted)
    if how == "asymmetric":
        return x / scale
    if how == "align_corners":
        return x * (size - 1) / (wanted - 1) if wanted > 1 else np.zeros(wanted)
    raise InputError(f"Resize {node.outputs[0]!r}: coordinates {how!r} are not known")


def _nearest(node: OnnxNode, places: NDArray[np.float64]) -> NDArray[np.int64]:
    how = node.text("nearest_mode", "round_prefer_floor")
    rounded = {
        "round_prefer_floor": lambda: np.ceil(places - 0.5),
        "round_prefer_ceil": lambda: np.floor(places + 0.5),
        "floor": lambda: np.floor(places),
        "ceil": lambda: np.ceil(places),
    }.get(how)
    if rounded is None:
        raise InputError(f"Resize {node.outputs[0]!r}: rounding {how!r} is not known")
    return rounded().astype(np.int64)


RESIZING: Final[Mapping[str, Operator]] = {"Resize": _resize}
