"""The sums of the benchmark of probes, from made profiles."""

from dataclasses import replace

import pytest
from benchmarks.probing import figures, summary
from tests.core.test_profile import FULL

QUIET = replace(FULL, read_bandwidth=(10e9,), slow_read_bandwidth=(9e9,))


def test_figures_are_named_by_what_they_are_of() -> None:
    """Bandwidths by threads, products by shape."""
    found = figures(QUIET)

    assert found["read_bandwidth 1"] == 10e9
    assert found["slow_read_bandwidth 1"] == 9e9
    assert found["int4 1 x 2048 x 2048"] == 4e10


def test_a_slow_probe_between_two_quiet_ones_is_told_twice() -> None:
    """Down and up again; one of three later medians is below an earlier slow state."""
    slow = replace(QUIET, read_bandwidth=(5e9,), slow_read_bandwidth=(4e9,))
    found = summary([QUIET, slow, QUIET])

    assert found["told_wrongly"] == [["read_bandwidth, 1 thread(s)"]] * 2
    assert found["told_wrongly_share"] == pytest.approx(2 / (2 * 4))
    assert found["largest_over_smallest"]["read_bandwidth 1"] == pytest.approx(2)
    assert found["reached_share"] == pytest.approx(2 / 3)


def test_like_probes_tell_nothing() -> None:
    """No change, all reached."""
    found = summary([QUIET, QUIET])

    assert (found["told_wrongly_share"], found["reached_share"]) == (0, 1)
