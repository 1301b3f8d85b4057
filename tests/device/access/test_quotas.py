"""Quotas, on a clock that the test moves."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.access.quotas import Bucket, Meter, Meters, Quota


@dataclass
class Clock:
    """Seconds that the test sets."""

    now_s: float = 100.0

    def __call__(self) -> float:
        """Return them."""
        return self.now_s


def met(meter: Meter) -> tuple[str, int]:
    """Which ceiling a request meets, and for how many seconds."""
    found = meter.enter()
    assert found is not None
    return found[0], round(found[1])


def test_a_bucket_fills_steadily() -> None:
    """60 a minute are one a second, and never more than 60 at once."""
    bucket = Bucket(60, now_s=0)
    bucket.take(60, now_s=0)

    assert bucket.wait_s(1, now_s=0) == pytest.approx(1)
    assert bucket.wait_s(1, now_s=0.5) == pytest.approx(0.5)
    assert bucket.wait_s(1, now_s=1) == 0
    assert bucket.wait_s(1000, now_s=1000) == 0


@given(
    per_minute=st.integers(1, 1000),
    steps=st.lists(st.floats(0, 30, allow_nan=False), max_size=60),
)
def test_no_more_goes_out_than_came_in(per_minute: int, steps: list[float]) -> None:
    """Over any time: the bucket's worth, and what came back in that time."""
    bucket, now_s, taken = Bucket(per_minute, now_s=0), 0.0, 0
    for step in steps:
        now_s += step
        if bucket.wait_s(1, now_s=now_s) == 0:
            bucket.take(1, now_s=now_s)
            taken += 1

    assert taken <= per_minute * (1 + now_s / 60) + 1e-6


def test_a_clock_that_goes_back_gives_nothing() -> None:
    """Neither now nor when it has come on again."""
    bucket = Bucket(60, now_s=100)
    bucket.take(60, now_s=100)

    assert bucket.wait_s(1, now_s=50) == pytest.approx(1)
    assert bucket.wait_s(1, now_s=100) == pytest.approx(1)


def test_requests_wait_for_their_minute() -> None:
    """Two at once, then one each half minute."""
    clock = Clock()
    meter = Meter(Quota(requests_per_minute=2), clock=clock)

    assert [meter.enter() for _ in range(2)] == [None, None]
    assert met(meter) == ("requests_per_minute", 30)
    clock.now_s += 30
    assert meter.enter() is None


def test_tokens_are_counted_at_the_end_and_paid_back() -> None:
    """An answer may go over; then the key waits until the debt is paid."""
    clock = Clock()
    meter = Meter(Quota(tokens_per_minute=60), clock=clock)
    assert meter.enter() is None
    meter.leave(120)

    found = met(meter)

    assert found == ("tokens_per_minute", 61)
    clock.now_s += 62
    assert meter.enter() is None


def test_as_many_at_once_as_may_be() -> None:
    """One more comes in when one has left; a refused one does not count."""
    meter = Meter(Quota(at_once=1), clock=Clock())

    assert meter.enter() is None
    assert meter.enter() == ("at_once", 1.0)
    meter.leave(0)
    assert meter.enter() is None
    assert meter.n_active == 1


def test_each_key_has_a_meter_of_its_own() -> None:
    """And the same one as long as its quota is the same."""
    meters = Meters(clock=Clock())
    quota = Quota(at_once=1)

    assert meters.of("a", quota) is meters.of("a", quota)
    assert meters.of("a", quota) is not meters.of("b", quota)
    assert meters.of("a", Quota(at_once=2)).quota.at_once == 2


def test_negative_ceilings_are_refused() -> None:
    """They would be none."""
    with pytest.raises(InputError, match="at_once is -1"):
        Quota(at_once=-1)
