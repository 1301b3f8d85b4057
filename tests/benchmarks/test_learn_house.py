"""Figures of the taught house assistant over the seeds."""

from typing import Any

import pytest
from benchmarks.learn_house import summary, table


def learned(new: float, old: float, *, energy_j: float | None = 4.0) -> dict[str, Any]:
    """What one method gave."""
    return {
        "new": {"all": new},
        "old": {"all": old},
        "duration_s": 10.0,
        "energy_j": energy_j,
        "energy_estimated": False,
        "peak_memory_bytes": 2_000_000,
        "torch_imported": False,
    }


def one_round(*, with_naive: bool = True, **changes: Any) -> dict[str, Any]:
    """One seed."""
    found = {"new_before": {"all": 0.01}, "protected": learned(0.9, 0.97, **changes)}
    return found | ({"naive": learned(0.95, 0.77, **changes)} if with_naive else {})


def test_points_lost_are_against_what_was_right_before() -> None:
    """With and without protection."""
    found = summary(0.98, [one_round(), one_round()])

    assert found["old_lost_points"] == pytest.approx(1.0)
    assert found["naive_old_lost_points"] == pytest.approx(21.0)
    assert found["new_exact_match"] == 0.9
    assert found["old_lost_points_deviation"] == 0.0
    assert "unprotected" in table(found)


def test_while_settings_are_chosen_nothing_is_unprotected() -> None:
    """Rows of it are left out, and all others are there."""
    found = summary(0.98, [one_round(with_naive=False)])

    assert "naive_old_lost_points" not in found
    assert found["torch_imported"] is False
    assert "unprotected" not in table(found)


def test_energy_that_nobody_measured_is_left_out() -> None:
    """It is no zero."""
    found = summary(0.98, [one_round(energy_j=None)])

    assert "energy_j" not in found
    assert "joules" not in table(found)
