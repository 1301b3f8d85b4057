"""What is in pictures, as people drew it: boxes with classes."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.device.networks.pictures import picture_size

__all__ = ["BOXES_TABLE", "Truth", "class_number", "read_boxes"]

BOXES_TABLE: Final = "boxes.csv"
_COLUMNS = ("x", "y", "width", "height")


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """All that is in one picture.

    Attributes:
        height: of the picture, in pixels.
        width: likewise.
        corners: (M, 4) left, top, right, bottom, in its pixels.
        classes: (M,) numbers.
    """

    height: int
    width: int
    corners: NDArray[np.float64]
    classes: NDArray[np.int64]


def class_number(text: str, labels: Sequence[str], where: str) -> int:
    """Return the number of a class.

    Args:
        text: its name, or its number.
        labels: names of all classes, in order; empty where there are none.
        where: of the text, for messages.

    Returns:
        The number.

    Raises:
        InputError: if it is neither.
    """
    if text in labels:
        return labels.index(text)
    if text.isascii() and text.isdigit() and (not labels or int(text) < len(labels)):
        return int(text)
    raise InputError(f"{where}: {text!r} is no label of the network, and not the number of one")


def read_boxes(folder: Path, labels: Sequence[str]) -> tuple[list[Path], list[Truth]]:
    """Read `boxes.csv`: a line for each box, with `file`, `label`, `x`, `y`, `width`, `height`.

    Args:
        folder: where the table and the pictures are. A line with `file` alone is a picture without
            anything in it; pixels count from the picture's left and top, as EXIF turns it.
        labels: names of the classes.

    Returns:
        The pictures in the order of the table, and what is in each.

    Raises:
        InputError: if the table cannot be read, or a line of it does not hold.
    """
    table = folder / BOXES_TABLE
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read: {error}") from error
    sizes: dict[Path, tuple[int, int]] = {}
    boxes: dict[Path, list[tuple[list[float], int]]] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{table}: line {number}"
        place = _picture(folder, row.get("file"), where)
        if place not in sizes:
            sizes[place], boxes[place] = picture_size(place), []
        if any(row.get(key) for key in ("label", *_COLUMNS)):
            corners = _corners(row, sizes[place], where)
            boxes[place].append((corners, class_number(row.get("label") or "", labels, where)))
    truths = [
        Truth(
            height=sizes[place][0],
            width=sizes[place][1],
            corners=np.array([corners for corners, _ in found], np.float64).reshape(-1, 4),
            classes=np.array([kind for _, kind in found], np.int64),
        )
        for place, found in boxes.items()
    ]
    return list(boxes), truths


def _picture(folder: Path, name: str | None, where: str) -> Path:
    if not name:
        raise InputError(f"{where} has no file")
    place = folder / name
    if not place.resolve().is_relative_to(folder.resolve()) or not place.is_file():
        raise InputError(f"{where} names {name!r}, which is no file in {folder}")
    return place


def _corners(row: dict[str, str], size: tuple[int, int], where: str) -> list[float]:
    """Return left, top, right, bottom, within the picture.

    Raises:
        InputError: if there is no such box in it.
    """
    numbers: list[float] = []
    for key in _COLUMNS:
        try:
            numbers.append(float(row.get(key) or ""))
        except ValueError as error:
            raise InputError(f"{where}: {key} is {row.get(key)!r}, must be a number") from error
    x, y, width, height = numbers
    corners = [max(x, 0), max(y, 0), min(x + width, size[1]), min(y + height, size[0])]
    is_box = corners[0] < corners[2] and corners[1] < corners[3]
    if not all(map(math.isfinite, numbers)) or not is_box:
        raise InputError(
            f"{where}: x {x:g}, y {y:g}, width {width:g}, height {height:g} is no box in a picture "
            f"of {size[1]} x {size[0]} pixels"
        )
    return corners
