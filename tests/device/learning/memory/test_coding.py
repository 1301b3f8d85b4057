"""How fractions are kept small."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.memory.coding import RANGE, coded, decoded

fractions = arrays(
    np.float32, st.integers(2, 40), elements=st.floats(-1e4, 1e4, width=32, allow_nan=False)
)


@given(values=fractions)
@example(values=np.array([5.75e-43, 0.0], np.float32)).via("a step too small for float32")
def test_eight_bits_are_at_most_half_a_step_off(values: FloatArray) -> None:
    """A step is a 255th of the range; float32 rounds once more."""
    back = decoded(coded({"latent": values}, "uint8"))["latent"]
    step = (float(values.max()) - float(values.min())) / 255

    assert back.dtype == np.float32
    assert np.abs(back.astype(float) - values).max() <= step * 0.5001 + 1e-6 * np.abs(values).max()


@given(values=fractions)
def test_sixteen_bits_are_what_numpy_rounds_to(values: FloatArray) -> None:
    """Nothing else happens to them."""
    back = decoded(coded({"x": values}, "float16"))["x"]

    np.testing.assert_array_equal(back, values.astype(np.float16).astype(np.float32))


def test_whole_numbers_and_bytes_stay_as_they_are() -> None:
    """A picture of bytes is no fraction in eight bits."""
    item: dict[str, np.ndarray] = {
        "pixels": np.arange(6, dtype=np.uint8),
        "labels": np.array(3, np.int64),
    }

    back = decoded(coded(item, "uint8"))

    assert back.keys() == item.keys()
    assert back["pixels"].dtype == np.uint8
    np.testing.assert_array_equal(back["pixels"], item["pixels"])


def test_eight_bits_take_a_quarter() -> None:
    """Beside the range, which is two numbers."""
    made = coded({"latent": np.linspace(0, 1, 1000, dtype=np.float32)}, "uint8")

    assert made["latent"].nbytes == 1000
    assert made["latent" + RANGE].nbytes == 8


@pytest.mark.parametrize("precision", ["float32", "float16", "uint8"])
def test_attack_a_value_that_is_not_finite_is_refused(precision: str) -> None:
    """It would be drawn, and learned from, for ever."""
    with pytest.raises(InputError, match="not finite"):
        coded({"latent": np.array([1, np.nan], np.float32)}, precision)


def test_what_sixteen_bits_cannot_hold_is_refused() -> None:
    """It would become infinite in silence."""
    with pytest.raises(InputError, match="precision float32"):
        coded({"latent": np.array([1, 1e6], np.float32)}, "float16")
