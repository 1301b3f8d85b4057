"""How a detector's outputs become boxes, as data."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from onhand.core.errors import InputError
from onhand.core.outside import count, flag, object_of, shown, word

__all__ = ["LAYOUTS", "Detection", "detection_from_json"]

LAYOUTS: Final = ("cells", "rows", "columns", "boxes-scores")
_BOXES = ("centres", "corners", "corners-yx")
_UNITS = ("pixels", "shares")
_SCORES = ("chances", "logits", "softmax")
_MOST_BOXES = 2**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What a detector's outputs mean, and which boxes are an answer.

    Attributes:
        layout: "cells": one output (1, 5 + C, h, w), a grid of cells as FastestDet gives it; it
            says all that `boxes`, `unit`, `objectness` and `scores` ask. "rows": one output
            (1, N, 4 + C), or (1, N, 5 + C) with `objectness`. "columns": the same turned,
            (1, 4 + C, N). "boxes-scores": two outputs, boxes (1, N, 4) and scores (1, N, C).
        boxes: what the four numbers of a box are: "centres" (x and y of the middle, width,
            height), "corners" (left, top, right, bottom) or "corners-yx" (top, left, bottom,
            right).
        unit: of them: "pixels" of the network's input, or "shares" of its width and height.
        objectness: whether a fifth number says how likely there is anything; scores are times it.
        scores: "chances" from 0 to 1; "logits", each by itself; or "softmax", all of a box
            together.
        background: whether class 0 means that nothing is there: it is left out, and the first
            label is that of class 1.
        least_score: of a box in an answer.
        most_overlap: of two boxes of one class, intersection over union: the less likely one of
            two that overlap more is left out.
        most_boxes: in an answer, the likeliest.
    """

    layout: str
    boxes: str = "centres"
    unit: str = "pixels"
    objectness: bool = False
    scores: str = "chances"
    background: bool = False
    least_score: float = 0.25
    most_overlap: float = 0.45
    most_boxes: int = 100

    def __post_init__(self) -> None:
        known = (("layout", LAYOUTS), ("boxes", _BOXES), ("unit", _UNITS), ("scores", _SCORES))
        for key, words in known:
            word({key: getattr(self, key)}, key, "detection", words)
        for key in ("objectness", "background"):
            flag({key: getattr(self, key)}, key, "detection")
        for key in ("least_score", "most_overlap"):
            value = getattr(self, key)
            if not _is_share(value):
                raise InputError(f"detection: {key} is {shown(value)}, must be from 0 to 1")
        most = {"most_boxes": self.most_boxes}
        count(most, "most_boxes", "detection", most=_MOST_BOXES)
        if self.layout == "cells":
            usual = {field.name: field.default for field in fields(self)}
            for key in ("boxes", "unit", "objectness", "scores", "background"):
                if getattr(self, key) != usual[key]:
                    raise InputError(f"detection: the layout 'cells' says {key}; leave it out")
        if self.layout == "boxes-scores" and self.objectness:
            raise InputError("detection: the layout 'boxes-scores' has no objectness")

    def to_json(self) -> dict[str, object]:
        """Return a JSON object that `detection_from_json` reads."""
        return asdict(self)


def detection_from_json(value: object) -> Detection:
    """Read what `Detection.to_json` wrote; it may come from outside.

    Args:
        value: a parsed JSON value, or a table of TOML.

    Returns:
        The description.

    Raises:
        InputError: if a key is missing or unknown, or a value out of bounds.
    """
    table = object_of(value, "detection", {field.name for field in fields(Detection)})
    if "layout" not in table:
        raise InputError(f"detection: layout is missing, must be one of {', '.join(LAYOUTS)}")
    # Any: the class checks each value.
    given: Mapping[str, Any] = table
    return Detection(**given)


def _is_share(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and 0 <= value <= 1
