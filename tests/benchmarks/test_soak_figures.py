"""What the soak benchmark says of its samples."""

import pytest
from benchmarks.soak import Sample, growth, summary
from benchmarks.soak_requests import Tally


def test_growth_is_that_of_a_line() -> None:
    """From its first to its last point, over its first; one point has none."""
    assert growth([(0, 100), (10, 110), (20, 120)]) == pytest.approx((0.2, 1.0))
    assert growth([(5, 100)]) == (0.0, 0.0)


@pytest.mark.parametrize(("per_request", "is_flat"), [(0, True), (20, True), (60, False)])
def test_memory_is_flat_within_two_parts_in_a_hundred(per_request: int, is_flat: bool) -> None:
    """After the first three tenths, in which it may grow as it likes."""
    samples = [
        Sample(n, 10**6 + (per_request * (n - 300) if n > 300 else 500 * (n - 300)), 9, 40)
        for n in range(10, 1001, 10)
    ]

    found = summary(samples, Tally(whole={"chat": 900}, left={"chat": 100}))

    assert found["is_flat"] is is_flat
    assert found["memory_slope_bytes_per_1000_requests"] == pytest.approx(1000 * per_request)
    assert (found["n_whole"], found["n_left"]) == (900, 100)
