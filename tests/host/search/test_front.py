"""Tests of `onhand.host.search.front`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.core.measurement import Measurement
from onhand.host.search.front import FrontPoint, front_json, hypervolume, on_front, thinned

_points = st.lists(
    st.tuples(*[st.integers(0, 9).map(float)] * 3), min_size=1, max_size=8, unique=True
)


def test_the_volume_of_two_points_is_the_area_of_their_stairs() -> None:
    """By hand: 3 by 1 and 1 by 3 below (4, 4), less the square both cover."""
    assert hypervolume([(1, 3), (3, 1)], (4, 4)) == 3 + 3 - 1


def test_a_point_beyond_the_reference_adds_nothing() -> None:
    """Only what is better than the worst that counts has a volume."""
    assert hypervolume([(5, 0), (4, 4)], (4, 4)) == 0


@settings(max_examples=60, deadline=None)
@given(points=_points)
def test_the_volume_counts_the_cells_that_are_dominated(points: list[tuple[float, ...]]) -> None:
    """On whole numbers it is the number of unit cells above some point."""
    cells = np.stack(np.meshgrid(*[np.arange(10)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    covered = np.zeros(len(cells), dtype=bool)
    for point in points:
        covered |= (cells >= np.array(point)).all(axis=1)

    assert hypervolume(points, (10, 10, 10)) == covered.sum()


@settings(max_examples=60, deadline=None)
@given(points=_points)
def test_what_is_not_on_the_front_adds_no_volume(points: list[tuple[float, ...]]) -> None:
    """And all points of the front do."""
    axes = ["a", "b", "c"]
    kept = on_front([dict(zip(axes, point, strict=True)) for point in points], axes)
    front = [point for point, best in zip(points, kept, strict=True) if best]

    assert hypervolume(front, (11, 11, 11)) == hypervolume(points, (11, 11, 11))
    for at in range(len(front)):
        fewer = [*front[:at], *front[at + 1 :]]
        assert hypervolume(fewer, (11, 11, 11)) < hypervolume(front, (11, 11, 11))


def test_more_tokens_a_second_are_better() -> None:
    """A rate counts upwards, and of equal points the first is kept."""
    points = [{"decode_tokens_per_s": 5.0}, {"decode_tokens_per_s": 9.0}] * 2

    assert on_front(points, ["decode_tokens_per_s"]) == [False, True, False, False]


def test_a_missing_figure_is_said() -> None:
    """A point without an axis cannot be judged."""
    with pytest.raises(InputError, match="no size_bytes"):
        on_front([{}], ["size_bytes"])


def point(label: str, size: float, kl: float, measured_kl: float | None = None) -> FrontPoint:
    """A point with two figures."""
    found = None
    if measured_kl is not None:
        found = {
            "kl_divergence": Measurement(
                name="kl_divergence", value=measured_kl, unit="nat", samples=1, spread=0.0, how=""
            )
        }
    return FrontPoint(
        label=label,
        choices={"embed": "int4 g32"},
        predicted={"size_bytes": size, "kl_divergence": kl},
        measured=found,
    )


def test_what_was_measured_counts_before_what_was_predicted() -> None:
    """A point that turned out worse than another of its size is off the front."""
    made = front_json([point("a", 1, 0.5), point("b", 2, 0.1, measured_kl=0.9)], chosen="a")

    assert made["axes"] == ["kl_divergence", "size_bytes"]
    rows = made["points"]
    assert isinstance(rows, list)
    assert [row["is_on_front"] for row in rows] == [True, False]
    assert [row["is_chosen"] for row in rows] == [True, False]
    assert [row["measured"] for row in rows] == [None, {"kl_divergence": 0.9}]


def test_a_long_front_is_thinned_evenly() -> None:
    """Both ends stay."""
    points = [point(str(i), float(i), 1 / (i + 1)) for i in range(101)]

    assert [one.label for one in thinned(points, by="size_bytes", most=5)] == [
        "0", "25", "50", "75", "100",
    ]  # fmt: skip
    assert thinned(points[:3], by="size_bytes", most=5) == points[:3]
