"""Learned weights as integers: near, and where nothing changed to the code the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import BundleCorrupt
from onhand.core.lesson import Codes, Lesson, Trainable
from onhand.device.learning.rounding import round_weight, rounded_values, rounded_weights

EACH, ALL = Codes(bits=8, axis=0), Codes(bits=8, axis=None)
LESSON = Lesson(
    kind="last-block",
    feeds="classes",
    variant="only",
    graph="g",
    trunk=None,
    start="s",
    trainables={
        "w": Trainable(shape=(2, 3), tensor="w.q", codes=EACH),
        "b": Trainable(shape=(2,), tensor="b"),
    },
)


@given(st.integers(0, 2**32 - 1), st.sampled_from([EACH, ALL, Codes(bits=8, axis=1)]))
def test_no_weight_moves_by_more_than_half_a_step(seed: int, codes: Codes) -> None:
    """Whichever axis the scales lie along."""
    random = np.random.default_rng(seed)
    weight = (random.normal(size=(5, 4, 3)) * 10 ** random.uniform(-3, 3)).astype(np.float32)

    made = round_weight(weight, codes)

    steps = np.broadcast_to(np.abs(made.floats() - weight) / _wide(made.scales, codes), (5, 4, 3))
    assert steps.max() <= 0.5001


def _wide(scales: np.ndarray, codes: Codes) -> np.ndarray:
    return scales if codes.axis is None else scales.reshape([-1 if i == codes.axis else 1
                                                             for i in range(3)])  # fmt: skip


@given(st.integers(0, 2**32 - 1), st.sampled_from([EACH, ALL]))
def test_known_scales_give_the_known_codes(seed: int, codes: Codes) -> None:
    """Of a weight that was rounded before, if its codes use half of their range."""
    random = np.random.default_rng(seed)
    before = random.integers(-128, 128, (4, 6)).astype(np.int8)
    before[:, 0] = 100
    scales = random.uniform(1e-3, 1, 4 if codes is EACH else ()).astype(np.float32)
    weight = before * (scales[:, None] if codes is EACH else scales)

    made = round_weight(weight.astype(np.float32), codes, scales)

    np.testing.assert_array_equal(made.codes, before)
    np.testing.assert_array_equal(made.scales, scales)


def test_a_scale_that_does_not_serve_is_replaced() -> None:
    """Where weights grew beyond it, or shrank to a few codes; a channel of zeros has codes of 0."""
    weight = np.array([[200.0, 1.0], [1.0, 0.5], [0.0, 0.0], [100.0, 3.0]], np.float32)

    made = round_weight(weight, EACH, np.ones(3, np.float32))

    np.testing.assert_allclose(made.scales, [200 / 127, 1 / 127, 1.0, 100 / 127], rtol=1e-6)
    assert made.codes[2].tolist() == [0, 0]


def test_what_is_stored_as_floats_stays() -> None:
    """Only weights with codes are rounded."""
    values = {"w": np.full((2, 3), 0.3, np.float32), "b": np.array([0.1, 0.2], np.float32)}

    found = rounded_values(LESSON, values, {"w": np.full(2, 0.25, np.float32)})

    np.testing.assert_array_equal(found["b"], values["b"])
    np.testing.assert_allclose(found["w"], 0.3, rtol=1e-6)
    assert rounded_weights(LESSON, values, {})["w"].codes.max() == 127


@pytest.mark.parametrize("scales", [np.ones(3, np.float32), np.array([1, -1], np.float32)])
def test_scales_that_do_not_fit_are_damage(scales: np.ndarray) -> None:
    """One for each channel, above 0."""
    values = {"w": np.ones((2, 3), np.float32), "b": np.ones(2, np.float32)}

    with pytest.raises(BundleCorrupt, match="scales of 'w'"):
        rounded_weights(LESSON, values, {"w": scales})
