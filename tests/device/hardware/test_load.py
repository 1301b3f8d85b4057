"""What others keep busy, from made counts and here."""

import pytest

from onhand.device.hardware.load import OthersLoad


def test_moments_are_summed() -> None:
    """Two looks of which one was quiet."""
    counts = iter([(10.0, 100.0), (10.5, 101.0), (20.0, 200.0), (20.0, 201.0)])
    waited: list[float] = []
    load = OthersLoad(read=lambda: next(counts), sleep=waited.append)
    load.watch()
    load.watch()

    assert load.share() == pytest.approx(0.25)
    assert waited == [0.3, 0.3]


def test_counts_that_stand_still_tell_nothing() -> None:
    """Nor those of a system that refuses."""
    load = OthersLoad(read=lambda: (0.0, 0.0), sleep=lambda _: None)
    assert load.share() is None

    load.watch()
    assert load.share() is None


def test_a_share_is_never_more_than_all() -> None:
    """Counts are rounded."""
    counts = iter([(0.0, 0.0), (1.2, 1.0)])
    load = OthersLoad(read=lambda: next(counts), sleep=lambda _: None)
    load.watch()

    assert load.share() == 1.0


def test_this_machine_can_be_watched() -> None:
    """A share, whatever it is now."""
    load = OthersLoad()
    load.watch()

    assert 0 <= (load.share() or 0.0) <= 1


@pytest.mark.parametrize("error", [AttributeError, OSError, RuntimeError, ValueError])
def test_a_system_that_refuses_is_unknown(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """No guess."""
    psutil = pytest.importorskip("psutil")

    def fail() -> None:
        raise error

    monkeypatch.setattr(psutil, "cpu_times", fail)
    load = OthersLoad(sleep=lambda _: None)
    load.watch()

    assert load.share() is None
