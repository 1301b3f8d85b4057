"""From a detector's outputs to boxes in the picture: decoded, chosen and brought back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onhand.core.detection import Detection
from onhand.core.errors import InputError, ShapeError
from onhand.core.feed import PictureFeed
from onhand.core.network import Network
from onhand.device.networks.answers import shares
from onhand.device.networks.base import Array
from onhand.device.networks.pictures import Placement, placement

__all__ = ["Box", "BoxReader", "Found", "box_reader", "overlaps"]

# Of boxes that reach the comparison of each with each, the likeliest.
_MOST_COMPARED = 3000
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One thing in a picture; in its pixels, from the left and the top.

    Attributes:
        index: number of its class.
        label: name of its class; the number where there are no names.
        score: 0 to 1.
        x: where it begins.
        y: likewise.
        width: of it; within the picture.
        height: likewise.
    """

    index: int
    label: str
    score: float
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Boxes as arrays, the likeliest first.

    Attributes:
        corners: (M, 4) left, top, right, bottom.
        scores: (M,) 0 to 1.
        classes: (M,) numbers.
    """

    corners: Doubles
    scores: Doubles
    classes: NDArray[np.int64]

    def part(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> "Found":
        """Return some of them, in that order."""
        return Found(
            corners=self.corners[chosen], scores=self.scores[chosen], classes=self.classes[chosen]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxReader:
    """Reads a detector's outputs.

    Attributes:
        detection: what they mean.
        height: of the network's input.
        width: likewise.
        outputs: names of the arrays that hold boxes, in order.
        feed: how pictures came in; None where the caller fed arrays.
    """

    detection: Detection
    height: int
    width: int
    outputs: tuple[str, ...]
    feed: PictureFeed | None = None

    def find(
        self,
        outputs: Mapping[str, Array],
        size: tuple[int, int] | None = None,
        *,
        least_score: float | None = None,
    ) -> Found:
        """Return the boxes of one example.

        Args:
            outputs: of one run with one example.
            size: height and width of the picture; None for boxes in pixels of the input.
            least_score: of a box; None for the detection's own.

        Returns:
            The boxes, within the picture, at most `most_boxes`.

        Raises:
            ShapeError: if the outputs are of other shapes than the detection says.
        """
        wanted = self.detection
        corners, scores = self._decoded([outputs[name] for name in self.outputs])
        best = scores.argmax(axis=1)
        likely = scores[np.arange(len(best)), best]
        least = wanted.least_score if least_score is None else least_score
        # A NaN is no box.
        kept = np.flatnonzero((likely >= least) & np.isfinite(corners).all(axis=1))
        order = kept[np.argsort(-likely[kept], kind="stable")][:_MOST_COMPARED]
        found = Found(corners=corners[order], scores=likely[order], classes=best[order])
        place = self._placement(size)
        found = _within(found, place, size or (self.height, self.width))
        return found.part(_apart(found, wanted.most_overlap, wanted.most_boxes))

    def boxes(
        self, outputs: Mapping[str, Array], labels: Sequence[str], size: tuple[int, int] | None
    ) -> list[Box]:
        """Return the boxes of one example with names; see `find`."""
        found = self.find(outputs, size)
        rows = zip(
            found.corners.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True
        )
        return [
            Box(
                index=index,
                label=labels[index] if index < len(labels) else str(index),
                score=score,
                x=left,
                y=top,
                width=right - left,
                height=bottom - top,
            )
            for (left, top, right, bottom), score, index in rows
        ]

    def _placement(self, size: tuple[int, int] | None) -> Placement:
        if size is None or self.feed is None:
            return Placement(down=1.0, across=1.0, top=0.0, left=0.0)
        return placement(self.feed, *size)

    def _decoded(self, arrays: Sequence[Array]) -> tuple[Doubles, Doubles]:
        """Return corners (N, 4) in pixels of the input, and chances (N, C).

        Raises:
            ShapeError: if the outputs hold no boxes.
        """
        wanted = self.detection
        if wanted.layout == "cells":
            return _cells(arrays[0], self.height, self.width)
        if wanted.layout == "boxes-scores":
            boxes, scores = _pair(*arrays)
        else:
            boxes, scores = _rows(arrays[0], wanted)
        chances = scores
        if wanted.scores == "softmax":
            chances = shares(scores)
        elif wanted.scores == "logits":
            chances = _sigmoid(scores)
        if wanted.objectness:
            chances = chances[:, :1] * chances[:, 1:]
        if wanted.background:
            chances = chances[:, 1:]
        if not chances.shape[1]:
            raise ShapeError(f"the outputs have no class: {scores.shape[1]} scores of a box")
        corners = _ordered(boxes, wanted)
        if wanted.unit == "shares":
            corners = corners * np.array([self.width, self.height] * 2)
        return corners, chances


def box_reader(network: Network) -> BoxReader | None:
    """Return what reads a network's outputs; None where nothing says that they are boxes.

    Args:
        network: its description.

    Returns:
        The reader.

    Raises:
        InputError: if input or outputs cannot be what the detection says.
    """
    detection = network.detection
    if detection is None:
        return None
    n = 2 if detection.layout == "boxes-scores" else 1
    if len(network.outputs) < n:
        raise InputError(
            f"detection: the layout {detection.layout!r} needs {n} outputs, the network has "
            f"{len(network.outputs)}"
        )
    _check_shapes(network, detection)
    height, width = _sides(network)
    return BoxReader(
        detection=detection,
        height=height,
        width=width,
        outputs=tuple(info.name for info in network.outputs[:n]),
        feed=network.feed if isinstance(network.feed, PictureFeed) else None,
    )


def _check_shapes(network: Network, detection: Detection) -> None:
    """Check what is known of the outputs' sizes.

    Raises:
        InputError: if they contradict the layout, or the number of labels.
    """
    first = network.outputs[0]
    shape, layout = first.shape, detection.layout
    n_dims = 4 if layout == "cells" else 3
    least = {"cells": 6, "boxes-scores": 4}.get(layout, 5 + detection.objectness)
    axis = 2 if layout in {"rows", "boxes-scores"} else 1
    wanted = {
        "cells": "(1, 5 + C, h, w)",
        "columns": f"(1, {4 + detection.objectness} + C, N)",
        "boxes-scores": "(1, N, 4)",
    }.get(layout, f"(1, N, {4 + detection.objectness} + C)")
    fits = len(shape) == n_dims
    if fits and (size := shape[axis]) is not None:
        fits = size == least if layout == "boxes-scores" else size >= least
    if not fits:
        raise InputError(
            f"detection: output {first.name!r} is of shape {shape}, the layout {layout!r} "
            f"needs {wanted}"
        )
    last, size = first, shape[axis]
    if layout == "boxes-scores":
        last = network.outputs[1]
        if len(last.shape) != 3:
            raise InputError(
                f"detection: output {last.name!r} is of shape {last.shape}, the layout "
                f"{layout!r} needs (1, N, C)"
            )
        size, least = last.shape[2], 1
    if network.n_labels and size is not None:
        n_classes = size - (least - 1) - detection.background
        if n_classes != network.n_labels:
            raise InputError(
                f"detection: {network.n_labels} labels for {n_classes} classes of output "
                f"{last.name!r}"
            )


def _sides(network: Network) -> tuple[int, int]:
    feed, shape = network.feed, network.inputs[0].shape
    if isinstance(feed, PictureFeed):
        if feed.resize == "none":
            raise InputError("detection: pictures must be brought to one size; resize is 'none'")
        return feed.height, feed.width
    sides = shape[2:] if len(shape) == 4 and shape[1] in {1, 3} else shape[1:3]
    if len(shape) != 4 or None in sides:
        raise InputError(
            f"detection: input {network.inputs[0].name!r} is of shape {shape}, must be a picture "
            "of one size"
        )
    height, width = (size or 0 for size in sides)
    return height, width


def overlaps(boxes: Doubles, others: Doubles) -> Doubles:
    """Return intersection over union of boxes.

    Args:
        boxes: (M, 4) left, top, right, bottom.
        others: (K, 4) likewise.

    Returns:
        (M, K) from 0 to 1; 0 where both are without area.
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)  # (M, K)
    areas = [np.maximum(b[:, 2:] - b[:, :2], 0).prod(axis=1) for b in (boxes, others)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    found: Doubles = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return found


def _apart(found: Found, most_overlap: float, most: int) -> NDArray[np.int64]:
    """Return which boxes no better one of the same class overlaps; the likeliest come first."""
    chosen: list[int] = []
    alive = np.ones(len(found.scores), dtype=np.bool_)
    for i in range(len(alive)):
        if not alive[i]:
            continue
        chosen.append(i)
        if len(chosen) == most:
            break
        rest = np.flatnonzero(alive[i + 1 :] & (found.classes[i + 1 :] == found.classes[i]))
        rest = rest + i + 1
        near = overlaps(found.corners[i : i + 1], found.corners[rest])[0] > most_overlap
        alive[rest[near]] = False
    return np.array(chosen, dtype=np.int64)


def _within(found: Found, place: Placement, size: tuple[int, int]) -> Found:
    """Bring boxes from the input back to the picture; those beside it go."""
    height, width = size
    offset = np.array([place.left, place.top] * 2)
    scale = np.array([place.across, place.down] * 2)
    limits = np.array([width, height] * 2, dtype=np.float64)
    corners = np.clip((found.corners + offset) / scale, 0, limits)
    has_area = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    moved = Found(corners=corners, scores=found.scores, classes=found.classes)
    return moved.part(np.flatnonzero(has_area))


def _cells(array: Array, height: int, width: int) -> tuple[Doubles, Doubles]:
    """Read a grid of cells: whether there is something, where its middle is, how large, and what.

    Raises:
        ShapeError: if it is no grid.

    Source:
        github.com/dog-qiuqiu/FastestDet, `utils/tool.py` `handle_preds` at 50473cd.
    """
    if array.ndim != 4 or array.shape[0] != 1 or array.shape[1] < 6:
        raise ShapeError(f"the output is of shape {array.shape}, must be (1, 5 + C, h, w)")
    channels, h, w = array.shape[1:]
    flat = np.asarray(array[0], np.float64).reshape(channels, h * w)
    cells = np.stack(np.meshgrid(np.arange(w), np.arange(h))).reshape(2, h * w)
    middle = (np.tanh(flat[1:3]) + cells) / np.array([[w], [h]])  # (2, N)
    half = _sigmoid(flat[3:5]) / 2
    corners = np.concatenate([middle - half, middle + half]).T * [width, height, width, height]
    # Integers may put a chance a little below 0.
    there, kinds = np.maximum(flat[:1], 0) ** 0.6, np.maximum(flat[5:], 0) ** 0.4
    return corners, (there * kinds).T


def _pair(boxes: Array, scores: Array) -> tuple[Doubles, Doubles]:
    fits = boxes.ndim == scores.ndim == 3 and len(boxes) == len(scores) == 1
    if not fits or boxes.shape[1:] != (scores.shape[1], 4):
        raise ShapeError(
            f"the outputs are of shapes {boxes.shape} and {scores.shape}, must be (1, N, 4) and "
            "(1, N, C)"
        )
    return np.asarray(boxes[0], np.float64), np.asarray(scores[0], np.float64)


def _rows(array: Array, wanted: Detection) -> tuple[Doubles, Doubles]:
    least = 5 + wanted.objectness
    rows = array[0] if array.ndim == 3 and len(array) == 1 else array
    if wanted.layout == "columns" and rows.ndim == 2:
        rows = rows.T
    if rows.ndim != 2 or rows.shape[1] < least:
        turned = "(1, N, %d + C)" if wanted.layout == "rows" else "(1, %d + C, N)"
        raise ShapeError(f"the output is of shape {array.shape}, must be {turned % (least - 1)}")
    wide = np.asarray(rows, np.float64)
    return wide[:, :4], wide[:, 4:]


def _ordered(boxes: Doubles, wanted: Detection) -> Doubles:
    """Return left, top, right, bottom."""
    if wanted.boxes == "corners-yx":
        return boxes[:, [1, 0, 3, 2]]
    if wanted.boxes == "centres":
        half = boxes[:, 2:] / 2
        return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
    return boxes


def _sigmoid(x: Doubles) -> Doubles:
    wide: Doubles = 1 / (1 + np.exp(-np.clip(x, -60, 60)))
    return wide
