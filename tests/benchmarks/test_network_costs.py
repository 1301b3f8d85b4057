"""`benchmarks.network_costs`: how forecasts are told of the machine's speed."""

from types import SimpleNamespace
from typing import cast

from benchmarks.network_costs import slowdown

from onhand.host.search.network_front import Space

SPACE = cast(
    Space,
    SimpleNamespace(
        choices={"a": ("float32", "static-8", "weights-8")},
        predicted=lambda mix: {"latency_s": {"float32": 4.0, "static-8": 1.0}.get(mix["a"], 2.0)},
    ),
)
CORNERS = [{"a": "float32"}, {"a": "static-8"}, {"a": "weights-8"}, {"a": "dynamic-8"}]


def test_one_corner_that_was_disturbed_says_nothing() -> None:
    """The median of all counts; what the engine has no forecast for is left out."""
    assert slowdown(SPACE, CORNERS, {0: 4.4, 1: 3.0, 2: 2.2, 3: 99.0}) == 1.1


def test_without_a_corner_the_speed_is_what_it_was() -> None:
    """Nothing to judge by."""
    assert slowdown(SPACE, CORNERS, {}) == 1.0
    assert slowdown(SPACE, CORNERS, {3: 5.0}) == 1.0
