"""A front: points of which none is beaten in everything, and how good a front is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.core.measurement import Measurement
from onhand.host.search.cost_table import RATES

__all__ = ["AXES", "FrontPoint", "front_json", "hypervolume", "on_front", "thinned"]

AXES: tuple[str, ...] = (
    "kl_divergence",
    "size_bytes",
    "peak_memory_bytes",
    "decode_tokens_per_s",
    "energy_j_per_token",
)
"""Quality, size, memory, time of a token, energy: the figures that a front is judged by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One way to store a whole model.

    Attributes:
        label: a short name, which a variant of a bundle may have.
        choices: group -> its choice, in words.
        predicted: name of a figure -> its value.
        measured: the same, measured; None if this point was not built.
    """

    label: str
    choices: Mapping[str, str]
    predicted: Mapping[str, float]
    measured: Mapping[str, Measurement] | None = None


def _lower_is_better(figures: Mapping[str, float], axes: Sequence[str]) -> tuple[float, ...]:
    """Return a point's place, every axis the better the lower.

    Raises:
        InputError: if a figure is missing.
    """
    if missing := [axis for axis in axes if axis not in figures]:
        raise InputError(f"a point of the front has no {missing[0]}")
    return tuple(-figures[axis] if axis in RATES else figures[axis] for axis in axes)


def on_front(points: Sequence[Mapping[str, float]], axes: Sequence[str]) -> list[bool]:
    """Say of each point whether no other is as good everywhere and better somewhere.

    Of equal points the first counts.

    Args:
        points: name of a figure -> value.
        axes: names of the figures that count.

    Raises:
        InputError: if a point lacks one of them.
    """
    places = [_lower_is_better(point, axes) for point in points]
    kept: list[bool] = []
    for number, place in enumerate(places):
        beaten = any(
            all(a <= b for a, b in zip(other, place, strict=True))
            and (other != place or at < number)
            for at, other in enumerate(places)
            if at != number
        )
        kept.append(not beaten)
    return kept


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Return the volume that points dominate, up to a reference; lower is better on every axis.

    Args:
        points: (M, axes).
        reference: the worst place that counts, one number for each axis.

    Returns:
        The volume; points that are not better than the reference on every axis add nothing.

    Raises:
        InputError: if a point has another number of axes.

    Source:
        Zitzler and Thiele 1998, doi:10.1007/BFb0056872; here by slices along the last axis.
    """
    if any(len(point) != len(reference) for point in points):
        raise InputError(f"hypervolume: every point needs {len(reference)} numbers")
    array = np.array(points, dtype=np.float64).reshape(-1, len(reference))
    worst = np.array(reference, dtype=np.float64)
    return _volume(array[(array < worst).all(axis=1)], worst)


def _volume(points: NDArray[np.float64], worst: NDArray[np.float64]) -> float:
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(worst[0] - points[:, 0].min())
    points = points[np.argsort(points[:, -1], kind="stable")]
    heights = np.append(points[1:, -1], worst[-1]) - points[:, -1]
    return sum(
        float(height) * _volume(points[: number + 1, :-1], worst[:-1])
        for number, height in enumerate(heights)
        if height > 0
    )


def thinned(points: Sequence[FrontPoint], *, by: str, most: int) -> list[FrontPoint]:
    """Return at most so many points, evenly spread along one axis, both ends among them.

    Args:
        points: at least one.
        by: name of the figure.
        most: at least 2.
    """
    ordered = sorted(points, key=lambda point: (point.predicted[by], point.label))
    if len(ordered) <= most:
        return ordered
    values = np.array([point.predicted[by] for point in ordered])
    wanted = np.linspace(values[0], values[-1], most)
    places = {int(np.abs(values - value).argmin()) for value in wanted}
    return [ordered[place] for place in sorted(places)]


def front_json(
    points: Sequence[FrontPoint], *, chosen: str, axes: Sequence[str] = AXES
) -> dict[str, object]:
    """Return what a report says of a front.

    A measured figure counts before a predicted one, in saying which points are on the front.

    Args:
        points: all that were looked at.
        chosen: label of the point that was chosen.
        axes: names of the figures that count; those that a point lacks are left out.
    """
    axes = [axis for axis in axes if all(axis in point.predicted for point in points)]
    known = [
        {
            axis: point.measured[axis].value
            if point.measured is not None and axis in point.measured
            else point.predicted[axis]
            for axis in axes
        }
        for point in points
    ]
    return {
        "axes": axes,
        "points": [
            {
                "label": point.label,
                "choices": dict(point.choices),
                "predicted": dict(point.predicted),
                "measured": None
                if point.measured is None
                else {name: figure.value for name, figure in point.measured.items()},
                "is_chosen": point.label == chosen,
                "is_on_front": best,
            }
            for point, best in zip(points, on_front(known, axes), strict=True)
        ],
    }
