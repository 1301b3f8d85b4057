"""What a network lost, counted by hand."""

import numpy as np
import pytest

from onhand.core.errors import EngineError
from onhand.host.networks.judge import Answers, compare_answers


def answers(*rows: list[float]) -> Answers:
    """One output for each example."""
    return Answers([{"y": np.array([row], np.float32)} for row in rows], "onnx")


def test_classes_with_labels() -> None:
    """Both right; only the original right; both wrong in different ways; ours alone right."""
    before = answers([3, 0, 0], [3, 0, 0], [0, 3, 0], [0, 3, 0])
    after = answers([2, 0, 0], [0, 2, 0], [2, 0, 0], [0, 0, 2])

    found = compare_answers(
        before, after, task="image-classification", labels=[0, 0, 2, 2], how="x"
    )

    assert found["agreement"].value == 0.25
    assert found["accuracy"].value == 0.5
    assert found["original_accuracy"].value == 0.5
    assert found["accuracy_loss"].value == found["quality_loss"].value == 0
    assert found["quality_loss"].interval is not None
    assert found["kl_divergence"].value > 0
    assert (found["accuracy"].samples, found["accuracy"].how) == (4, "x")


def test_classes_without_labels_are_judged_by_agreement() -> None:
    """Half of the answers are others."""
    found = compare_answers(
        answers([1, 0], [0, 1]),
        answers([1, 0], [1, 0]),
        task="audio-classification",
        labels=None,
        how="",
    )

    assert "accuracy" not in found
    assert found["quality_loss"].value == 0.5


def test_probabilities_and_logits_have_one_divergence() -> None:
    """What adds up to one is taken as it is."""
    logits = answers([1.0, 2.0, 0.5])
    shares = np.exp([1.0, 2.0, 0.5]) / np.exp([1.0, 2.0, 0.5]).sum()

    found = compare_answers(
        logits, answers(shares.tolist()), task="text-classification", labels=None, how=""
    )

    assert found["kl_divergence"].value == pytest.approx(0, abs=1e-6)


def test_embeddings_are_judged_by_their_angle() -> None:
    """A longer vector is the same; one at a right angle is not."""
    found = compare_answers(
        answers([1, 0], [1, 0]), answers([2, 0], [0, 3]), task="text-embedding", labels=None, how=""
    )

    assert found["cosine_similarity"].value == 0.5
    assert found["quality_loss"].value == 0.5


def test_other_outputs_are_judged_by_their_error() -> None:
    """Relative to the original's length."""
    found = compare_answers(answers([3, 4]), answers([3, 3]), task="features", labels=None, how="")

    assert found["relative_error"].value == pytest.approx(0.2)


def test_a_nan_is_no_answer() -> None:
    """It is an error, never a figure."""
    with pytest.raises(EngineError, match="NaN"):
        compare_answers(
            answers([1, 0]), answers([float("nan"), 0]), task="features", labels=None, how=""
        )
