"""Times per token over a window, and the drift from the best that was seen."""

import pytest

from onhand.device.serving.governor.pace import Baseline, TokenTimes


def test_the_slowest_twentieth_counts() -> None:
    """Of a hundred tokens the sixth slowest; of too few none."""
    times = TokenTimes(window_s=5)
    times.add(0, [0.01] * 30)
    assert times.slow() is None

    times.add(1, [0.01] * 64 + [0.5] * 6)
    assert times.slow() == 0.5
    assert times.slow(0.5) == 0.01


def test_what_is_old_is_forgotten() -> None:
    """Five seconds later a reading no longer counts; cleared, none does."""
    times = TokenTimes(window_s=5)
    times.add(0, [1.0] * 100)
    times.add(4.9, [0.1] * 70)
    assert times.slow() == 1.0

    times.add(5, [])
    assert times.slow() == 0.1
    times.clear()
    assert times.slow() is None


def test_drift_is_the_time_over_the_best_of_the_same_way() -> None:
    """Other sizes of a step and other threads are compared with their own."""
    baseline = Baseline()
    assert baseline.drift((), {}) is None
    assert baseline.drift(("a", 2), {1: 0.010, 4: 0.020}) == 1
    assert baseline.drift(("a", 1), {1: 0.030}) == 1

    assert baseline.drift(("a", 2), {1: 0.020}) == pytest.approx(2, rel=0.01)
    assert baseline.drift(("a", 2), {1: 0.010, 4: 0.040}) == pytest.approx(1.5, rel=0.01)


def test_the_best_is_soon_lower_and_hardly_higher() -> None:
    """A device that has warmed up drifts for minutes, until it is taken for what it can do."""
    baseline = Baseline()
    for _ in range(20):
        baseline.drift((), {1: 0.020})
    for _ in range(20):
        baseline.drift((), {1: 0.010})
    assert baseline.drift((), {1: 0.010}) == pytest.approx(1, rel=0.01)

    minute = [baseline.drift((), {1: 0.020}) for _ in range(60)]
    assert minute[-1] is not None
    assert 1.8 < minute[-1] < 2
    hour = [baseline.drift((), {1: 0.020}) for _ in range(5000)]
    assert hour[-1] == pytest.approx(1, rel=0.05)
