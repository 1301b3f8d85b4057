"""The figures of the benchmark of training steps."""

import pytest
from benchmarks.train_step import Side, figures
from benchmarks.train_step_work import CASES, feeds_of


def _side(seconds: list[float], losses: list[float], memory: int) -> Side:
    return Side(
        seconds=seconds, losses=losses, peak_memory_bytes=memory, torch_imported=memory > 200
    )


def test_times_memory_and_losses_are_compared_by_hand() -> None:
    """Medians over medians; the largest distance of any loss."""
    ours = _side([0.1, 0.2, 0.3], [4.0, 2.0], 100)
    sides = {"ours": ours, "torch": _side([0.2, 0.3, 0.7], [4.0, 2.5], 400)}

    found = figures(sides)

    assert found["times_as_fast_as_torch"] == pytest.approx(1.5)
    assert found["memory_share_of_torch"] == 0.25
    assert found["torch_largest_loss_error"] == pytest.approx(0.2)
    assert (found["ours_ms"], found["n_steps"]) == (200.0, 3)
    assert found["torch_imported"] is False


def test_a_batch_scores_every_token_that_has_one_before_it() -> None:
    """Weights are one over the rows, so that the loss is the usual mean."""
    feeds = feeds_of(CASES["house"], 100)

    assert feeds["tokens"].shape == (8, 48)
    assert feeds["rows"].shape == (8 * 47,)
    assert feeds["weights"].sum() == pytest.approx(1.0)
    flat = feeds["tokens"].reshape(-1)
    assert (flat[feeds["rows"] + 1] == feeds["labels"][:, 0]).all()
