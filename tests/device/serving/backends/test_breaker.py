"""Closed, open, half-open: by a clock that the test turns."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.device.serving.backends.breaker import Breaker
from onhand.device.serving.backends.settings import BalanceSettings

SETTINGS = BalanceSettings(failures=3, eject_s=2, most_eject_s=10)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(SETTINGS, clock=clock, draw=lambda: 0.5)


def fail(breaker: Breaker, n: int) -> None:
    for _ in range(n):
        breaker.failed(breaker.begin())


def test_some_failures_in_a_row_open_it(breaker: Breaker) -> None:
    """Not those with a success between."""
    fail(breaker, 2)
    breaker.succeeded(breaker.begin())
    fail(breaker, 2)
    assert breaker.permits

    fail(breaker, 1)

    assert (breaker.state, breaker.permits, breaker.wait_s) == ("open", False, 2)


def test_half_of_the_last_requests_open_it_too(breaker: Breaker) -> None:
    """One that answers every other time is of no use."""
    for _ in range(5):
        breaker.succeeded(breaker.begin())
        fail(breaker, 1)

    assert breaker.state == "open"


def test_it_comes_back_by_one_try(breaker: Breaker, clock: Clock) -> None:
    """One request at a time; its success closes it."""
    fail(breaker, 3)
    clock.now_s += 2
    assert (breaker.state, breaker.permits) == ("half-open", True)
    tried = breaker.begin()
    assert not breaker.permits

    breaker.succeeded(tried)

    assert (breaker.state, breaker.permits) == ("closed", True)


def test_a_try_that_its_reader_left_says_nothing(breaker: Breaker, clock: Clock) -> None:
    """Another one may."""
    fail(breaker, 3)
    clock.now_s += 2

    breaker.left(breaker.begin())

    assert (breaker.state, breaker.permits) == ("half-open", True)


def test_each_time_takes_twice_as_long_up_to_a_limit(breaker: Breaker, clock: Clock) -> None:
    """And anew after it was well for long."""
    fail(breaker, 3)
    waits = [breaker.wait_s]
    for _ in range(3):
        clock.now_s += breaker.wait_s
        fail(breaker, 1)
        waits.append(breaker.wait_s)
    clock.now_s += breaker.wait_s
    breaker.succeeded(breaker.begin())
    clock.now_s += 11
    fail(breaker, 3)

    assert waits == [2, 4, 8, 10]
    assert breaker.wait_s == 2


def test_what_began_before_says_nothing_afterwards(breaker: Breaker, clock: Clock) -> None:
    """A late failure does not spoil the try, nor a late success end the wait."""
    before = [breaker.begin() for _ in range(5)]
    for epoch in before[:3]:
        breaker.failed(epoch)
    breaker.succeeded(before[3])
    assert not breaker.permits
    clock.now_s += 2
    tried = breaker.begin()

    breaker.failed(before[4])
    breaker.succeeded(tried)

    assert breaker.state == "closed"


def test_where_probes_are_sent_a_probe_comes_first(breaker: Breaker, clock: Clock) -> None:
    """No request is spent on a server that does not even answer those."""
    breaker.awaits_probe = True
    fail(breaker, 3)
    assert not breaker.wants_probe
    clock.now_s += 2
    assert (breaker.wants_probe, breaker.permits) == (True, False)

    breaker.probed(False)
    assert (breaker.wants_probe, breaker.wait_s) == (False, 4)
    clock.now_s += 4
    breaker.probed(True)

    assert (breaker.wants_probe, breaker.permits) == (False, True)


def test_it_rests_when_it_is_asked_to(breaker: Breaker, clock: Clock) -> None:
    """A server that is busy is not ejected."""
    breaker.rest(5)
    assert (breaker.state, breaker.permits, breaker.wait_s) == ("closed", False, 5)

    clock.now_s += 5

    assert breaker.permits


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from(["ok", "fail", "left", "probe", "rest"]), st.floats(0, 30)),
        max_size=60,
    ),
    st.booleans(),
)
def test_it_never_stays_shut(steps: list[tuple[str, float]], awaits_probe: bool) -> None:
    """Whatever happened, time and a probe that succeeds let a request pass."""
    clock = Clock()
    breaker = Breaker(SETTINGS, clock=clock)
    breaker.awaits_probe = awaits_probe
    for what, seconds in steps:
        clock.now_s += seconds
        match what:
            case "probe":
                breaker.probed(seconds < 15)
            case "rest":
                breaker.rest(seconds)
            case _ if breaker.permits:
                epoch = breaker.begin()
                ends = {"ok": breaker.succeeded, "fail": breaker.failed, "left": breaker.left}
                ends[what](epoch)
    assert math.isfinite(breaker.wait_s)

    clock.now_s += breaker.wait_s + 0.001
    breaker.probed(True)

    assert breaker.permits
