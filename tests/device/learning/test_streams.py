"""Figures of a stream of tasks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import ShapeError
from onhand.device.learning.streams import (
    average_accuracy,
    backward_transfer,
    calibration_error,
    figures_of,
    forgetting,
)

THREE = [[0.9, 0.0, 0.1], [0.95, 0.8, 0.2], [0.5, 0.9, 0.7]]


def test_figures_of_three_tasks_by_hand() -> None:
    """(0.5 + 0.9 + 0.7) / 3; the first lost 0.45 of its best and the second won 0.1."""
    found = figures_of(THREE)

    assert found.average_accuracy == pytest.approx(0.7)
    assert found.forgetting == pytest.approx((0.45 - 0.1) / 2)
    assert found.backward_transfer == pytest.approx((-0.4 + 0.1) / 2)
    assert found.learned == pytest.approx(0.8)


def test_one_task_forgets_nothing() -> None:
    """There is none before it."""
    assert (average_accuracy([[0.4]]), forgetting([[0.4]]), backward_transfer([[0.4]])) == (
        0.4,
        0,
        0,
    )


@given(st.integers(2, 6), st.integers(0, 99))
def test_what_is_forgotten_is_at_least_what_was_taken(n: int, seed: int) -> None:
    """The best that was had is at least what was had at first."""
    matrix = np.random.default_rng(seed).random((n, n))

    assert forgetting(matrix) >= -backward_transfer(matrix) - 1e-12


def test_a_matrix_that_is_not_square_is_refused() -> None:
    """Each row must say something of each task."""
    with pytest.raises(ShapeError, match=r"\(T, T\)"):
        average_accuracy([[0.1, 0.2]])


def test_chances_that_are_right_as_often_as_they_say_are_calibrated() -> None:
    """Four of five answers with a chance of 0.8 are right."""
    chances = np.tile([0.8, 0.2], (5, 1))

    assert calibration_error(chances, np.array([0, 0, 0, 0, 1])) == pytest.approx(0)
    assert calibration_error(chances, np.array([0, 0, 1, 1, 1])) == pytest.approx(0.4)


def test_bins_do_not_make_up_for_each_other() -> None:
    """Too sure here and too modest there is not calibrated."""
    chances = np.array([[1.0, 0.0]] * 2 + [[0.5, 0.5]] * 2)

    assert calibration_error(chances, np.array([0, 1, 0, 0])) == pytest.approx(0.5)


def test_labels_must_be_one_for_each_row() -> None:
    """Else the figure would be of something else."""
    with pytest.raises(ShapeError, match=r"\(B, C\) and \(B,\)"):
        calibration_error(np.ones((2, 2)), np.array([0]))
