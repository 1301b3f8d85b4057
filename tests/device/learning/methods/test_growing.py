"""Heads that grow."""

import numpy as np
import pytest
from tests.device.learning.methods.models import HeadTeachable, LowRankTeachable, latents

from onhand.core.errors import InputError
from onhand.device.learning.methods.growing import grow_head, imprinted

LESSON = HeadTeachable().lesson


def values() -> dict[str, np.ndarray]:
    """Return values of a head."""
    rng = np.random.default_rng(0)
    shapes = HeadTeachable().shapes
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_old_classes_are_answered_as_before() -> None:
    """New rows are zeros, the old ones are as they were."""
    grown = grow_head(LESSON, values(), 5)

    assert grown["weight"].shape == (5, 4)
    np.testing.assert_array_equal(grown["weight"][:3], values()["weight"])
    assert not grown["weight"][3:].any()
    assert grown["bias"].shape == (5,)


def test_an_optimizers_moments_grow_alike() -> None:
    """They are arrays by the same names; some may be missing."""
    moments = {"weight": np.ones((3, 4), np.float32)}

    assert grow_head(LESSON, moments, 4)["weight"][3].tolist() == [0, 0, 0, 0]


def test_imprinted_rows_answer_their_class_at_once() -> None:
    """Before any step, from three examples."""
    head = {"weight": 2 * np.eye(3, 4, dtype=np.float32), "bias": np.zeros(3, np.float32)}
    batch = latents([3] * 3)
    rows = imprinted(LESSON, head, batch["latent"], batch["labels"], 4)
    grown = grow_head(LESSON, head, 4, rows=rows)
    asked = latents([0, 1, 2, 3] * 10, seed=2)
    found = (asked["latent"] @ grown["weight"].T + grown["bias"]).argmax(axis=1)

    assert (found == asked["labels"]).mean() > 0.95
    assert np.linalg.norm(rows["weight"][0]) == pytest.approx(2, rel=1e-5)


def test_a_head_does_not_shrink() -> None:
    """What was known would be lost."""
    with pytest.raises(InputError, match="2 are fewer"):
        grow_head(LESSON, values(), 2)


def test_a_lesson_without_its_head_learns_no_class() -> None:
    """It says what to build instead."""
    lesson = LowRankTeachable().lesson

    with pytest.raises(InputError, match="--learnable head"):
        grow_head(lesson, LowRankTeachable().start(), 9)


def test_rows_that_do_not_fit_are_refused() -> None:
    """One row for each new class, as wide as the others."""
    with pytest.raises(InputError, match="expected"):
        grow_head(LESSON, values(), 4, rows={"weight": np.zeros((1, 9), np.float32)})
    with pytest.raises(InputError, match="has no example"):
        imprinted(LESSON, values(), np.ones((1, 4), np.float32), np.array([3]), 5)
    with pytest.raises(InputError, match="linear head"):
        imprinted(LESSON, values(), np.ones((1, 5), np.float32), np.array([3]), 4)
