"""Bandwidth at several moments, from made passes."""

from onhand.device.hardware.bandwidth import BandwidthRounds


def test_a_slow_moment_shows_in_the_slow_figure_only() -> None:
    """Three rounds of ten passes, of which one in five is slow."""
    asked: list[tuple[int, int]] = []

    def sample(threads: int, *, buffer_bytes: int, runs: int) -> list[float]:
        asked.append((threads, buffer_bytes))
        return [2.0 * threads, *([10.0 * threads] * (runs - 1))]

    rounds = BandwidthRounds(2, buffer_bytes=64, sample=sample)
    for _ in range(3):
        rounds.run()

    assert rounds.medians() == (10.0, 20.0)
    assert rounds.slow() == (2.0, 4.0)
    assert asked == [(1, 64), (2, 64)] * 3


def test_a_quiet_machine_is_hardly_slower() -> None:
    """One pass of fifteen may be slow: nine of ten are not."""
    first = iter([True, False, False])

    def sample(threads: int, *, buffer_bytes: int, runs: int) -> list[float]:
        return [1.0 if next(first) else 10.0, *([10.0] * (runs - 1))]

    rounds = BandwidthRounds(1, buffer_bytes=64, sample=sample)
    for _ in range(3):
        rounds.run()

    assert rounds.slow() == (10.0,)
