"""Memory over time: seen from outside, thinned without losing the highest point."""

import itertools
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.memory_series import MemorySeries, MemoryWatch, resident_of, thin

points = st.lists(st.integers(0, 2**40), max_size=80).map(
    lambda sizes: [(i / 10, size) for i, size in enumerate(sizes)]
)


@given(points=points, most=st.integers(1, 100))
def test_thinning_keeps_the_highest_and_the_order(
    points: list[tuple[float, int]], most: int
) -> None:
    """Never more than asked for, never a point that was not there, never without the peak."""
    kept = thin(points, most)

    assert len(kept) == min(len(points), most)
    assert set(kept) <= set(points)
    assert list(kept) == sorted(kept, key=lambda point: point[0])
    assert max((size for _, size in kept), default=0) == max((s for _, s in points), default=0)


def test_nothing_can_be_kept_of_nothing() -> None:
    """A number of points below 1 is a mistake."""
    with pytest.raises(InputError, match="0 points"):
        thin([(0.0, 1)], 0)


def test_this_process_has_memory_and_an_ended_one_has_none() -> None:
    """Bytes for a living process, None for a number that nobody has."""
    assert (resident_of(os.getpid()) or 0) > 2**20
    assert resident_of(2**30) is None


def test_watching_ends_with_the_process() -> None:
    """Times come from the clock, sizes from the looks, and the end of the process is the end."""
    sizes: Iterator[int | None] = iter([10, 30, 20, None])
    times = itertools.count()
    watch = MemoryWatch(look=lambda _: next(sizes), clock=lambda: float(next(times)), every_s=0.0)

    with watch.watching(1):
        while len(watch.points) < 3:
            pass

    assert watch.points == [(1.0, 10), (2.0, 30), (3.0, 20)]


def test_a_series_is_plain_json() -> None:
    """Lists of numbers, for programs."""
    series = MemorySeries(points=((0.5, 7),), phases=(("opening", 0.1),), how="x")

    assert series.to_json() == {"points": [[0.5, 7]], "phases": [["opening", 0.1]], "how": "x"}
