"""Averages, quantiles, budgets."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.serving.routing.meters import (
    Average,
    Meter,
    Purse,
    SlidingQuantile,
    TokenBucket,
)


def test_an_average_follows() -> None:
    """The newest counts a fifth."""
    average = Average()
    assert average.value is None
    average.add(1.0)
    average.add(2.0)

    assert average.value == pytest.approx(1.2)


def test_a_quantile_says_nothing_of_a_few() -> None:
    """A delay learned from three answers would be chance."""
    quantile = SlidingQuantile(0.95, window=100, least=20)
    for n in range(19):
        quantile.add(n)
    assert quantile.value is None
    quantile.add(19)

    assert quantile.value == 18


def test_a_quantile_forgets() -> None:
    """What lies before the window does not count."""
    quantile = SlidingQuantile(0.5, window=3, least=1)
    for value in (100.0, 100.0, 1.0, 2.0, 3.0):
        quantile.add(value)

    assert quantile.value == 2.0


@settings(max_examples=40)
@given(
    values=st.lists(st.floats(0, 1e6), min_size=20, max_size=60),
    share=st.floats(0.01, 0.99),
)
def test_a_share_of_values_does_not_exceed_the_quantile(values: list[float], share: float) -> None:
    """At least so many, and it is one of them."""
    quantile = SlidingQuantile(share, window=60)
    for value in values:
        quantile.add(value)

    found = quantile.value
    assert found in values
    assert sum(value <= found for value in values) >= math.floor(share * len(values))


@given(n=st.integers(0, 500), share=st.floats(0.01, 1.0))
def test_a_bucket_never_gives_more_than_its_share(n: int, share: float) -> None:
    """But for the one that it begins with."""
    bucket = TokenBucket(share, most=5)
    spent = 0
    for _ in range(n):
        bucket.earn()
        spent += bucket.spend()

    assert spent <= 1 + share * n + 1e-6


def test_a_bucket_of_five_percent() -> None:
    """One in twenty, after the first."""
    bucket = TokenBucket(0.05)
    spent = []
    for _ in range(100):
        bucket.earn()
        spent.append(bucket.spend())

    assert sum(spent) == 6


def test_a_bucket_does_not_save_up_for_an_outage() -> None:
    """However long nothing was hedged."""
    bucket = TokenBucket(0.05, most=5)
    for _ in range(10_000):
        bucket.earn()

    assert sum(bucket.spend() for _ in range(100)) == 5


def test_a_bucket_of_nothing_gives_nothing() -> None:
    """Not even the first."""
    bucket = TokenBucket(0.0)
    bucket.earn()

    assert not bucket.spend()


def test_a_purse_begins_anew_every_day() -> None:
    """By the clock of the world."""
    now_s = [86400.0 * 3 + 5]
    purse = Purse(1.0, now=lambda: now_s[0])
    purse.pay(0.7)
    purse.pay(0.7)
    assert purse.left == 0.0
    now_s[0] += 86400

    assert purse.left == 1.0
    assert purse.spent == 0.0


def test_without_a_budget_nothing_is_left_or_short() -> None:
    """0 is no limit."""
    assert Purse(0.0, now=lambda: 0.0).left is None


def test_a_meter_learns_its_delay_from_enough_answers() -> None:
    """And its speeds from each."""
    assert Meter().slow_s is None
    meter = Meter(quantile=0.95)
    for n in range(1, 101):
        meter.saw_first(n / 100)
    meter.saw_answer(2.0, 5)
    meter.saw_answer(9.0, 1)  # one token alone says nothing of the next

    assert meter.slow_s == 0.95
    assert meter.expected.token_s == 0.5


@pytest.mark.parametrize(("share", "window", "least"), [(0.0, 9, 1), (1.0, 9, 1), (0.5, 3, 4)])
def test_bounds_of_a_quantile(share: float, window: int, least: int) -> None:
    """Slips are errors."""
    with pytest.raises(InputError, match="out of bounds"):
        SlidingQuantile(share, window=window, least=least)


def test_bounds_of_a_bucket() -> None:
    """Likewise."""
    with pytest.raises(InputError, match="budget of 2"):
        TokenBucket(2)
