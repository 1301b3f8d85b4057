"""Scales and zero points fitted to the weights alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.arrays import FloatArray
from onhand.core.quantized import GroupFormat
from onhand.host.hqq import round_half_quadratic
from onhand.host.rounding import Rounding, round_matrix

FORMS = st.builds(
    GroupFormat,
    bits=st.sampled_from(GroupFormat.BITS),
    group_size=st.sampled_from(GroupFormat.GROUP_SIZES),
    symmetric=st.booleans(),
)


def spiky(n: int, k: int, *, seed: int = 0) -> FloatArray:
    """Weights with a few outliers, as trained ones have."""
    return np.random.default_rng(seed).standard_t(4, (n, k)).astype(np.float32)


def loss(weight: FloatArray, made: Rounding) -> float:
    """Sum of |w - w^| ** 0.7."""
    return float((np.abs(weight - made.tensor.dequantize()) ** 0.7).sum(dtype=np.float64))


@settings(max_examples=30)
@given(form=FORMS, k=st.integers(1, 140), seed=st.integers(0, 9))
def test_it_is_never_worse_than_plain_rounding(form: GroupFormat, k: int, seed: int) -> None:
    """In the norm that it minimises."""
    weight = spiky(3, k, seed=seed)

    made = round_half_quadratic(weight, form)

    assert made.tensor.shape == (3, k)
    assert loss(weight, made) <= loss(weight, round_matrix(weight, form, method="rtn")) * 1.0001


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_outliers_give_way_to_the_many(bits: int, symmetric: bool) -> None:
    """On weights with outliers, as trained ones have, the fit pays."""
    weight, form = spiky(32, 256), GroupFormat(bits=bits, symmetric=symmetric, group_size=64)

    made = round_half_quadratic(weight, form)

    assert loss(weight, made) < 0.99 * loss(weight, round_matrix(weight, form, method="rtn"))


def test_size_does_not_matter() -> None:
    """Weights a thousand times smaller get the same codes."""
    weight = spiky(4, 64)

    large, small = (round_half_quadratic(weight * 2.0**e, GroupFormat()) for e in (0, -10))

    np.testing.assert_array_equal(large.tensor.codes, small.tensor.codes)


def test_zeros_stay_zero() -> None:
    """A group of zeros has no scale to fit."""
    made = round_half_quadratic(np.zeros((2, 40), dtype=np.float32), GroupFormat())

    assert not made.tensor.dequantize().any()
    assert made.squared_error == 0
