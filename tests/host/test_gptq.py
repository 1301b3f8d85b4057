"""Columns that make good for each other: by hand, by property, and against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.arrays import FloatArray
from onhand.core.errors import SourceError
from onhand.core.quantized import GroupFormat
from onhand.host.gptq import order_columns, round_columns
from onhand.host.rounding import round_matrix

FORMS = st.builds(
    GroupFormat,
    bits=st.sampled_from([2, 3, 4]),
    group_size=st.just(32),
    symmetric=st.booleans(),
)


def moments_of(k: int, *, seed: int = 0, n_tokens: int = 200) -> FloatArray:
    """Second moments of correlated inputs of very different sizes."""
    random = np.random.default_rng(seed)
    inputs = random.standard_normal((n_tokens, k)) + 2 * random.standard_normal((n_tokens, 1))
    inputs *= np.exp(random.standard_normal(k))
    moments: FloatArray = (inputs.T @ inputs / n_tokens).astype(np.float32)
    return moments


def weights(n: int, k: int, *, seed: int = 1) -> FloatArray:
    """Random weights."""
    return np.random.default_rng(seed).standard_normal((n, k)).astype(np.float32)


def output_error(weight: FloatArray, rounded: FloatArray, moments: FloatArray) -> float:
    """Sum of d H d over rows, in float64."""
    difference = (weight - rounded).astype(np.float64)
    return float(np.einsum("nk,kl,nl->", difference, moments.astype(np.float64), difference))


@settings(max_examples=15)
@given(form=FORMS, k=st.integers(33, 130), seed=st.integers(0, 9))
def test_outputs_are_nearer_than_group_by_group(form: GroupFormat, k: int, seed: int) -> None:
    """That is what the later columns are for; groups that K does not fill are no exception."""
    weight, moments = weights(6, k), moments_of(k, seed=seed)
    groups, g = form.n_groups(k), form.group_size
    padded = np.zeros((groups * g, groups * g), dtype=np.float32)
    padded[:k, :k] = moments
    inside = np.stack([padded[i : i + g, i : i + g] for i in range(0, groups * g, g)])

    whole = round_columns(weight, form, order_columns(moments, form)).tensor
    alone = round_matrix(weight, form, method="clip", moments=inside).tensor

    assert whole.shape == (6, k)
    better = output_error(weight, whole.dequantize(), moments)
    assert better < 1.02 * output_error(weight, alone.dequantize(), moments)


def test_correlated_inputs_share_an_error() -> None:
    """Two inputs that are always equal: what one weight loses the other one makes good."""
    moments = np.ones((32, 32), dtype=np.float32)
    weight = np.full((1, 32), 0.3, dtype=np.float32)
    weight[0, 0] = -8.0
    form = GroupFormat()

    made = round_columns(weight, form, order_columns(moments, form)).tensor
    plain = round_matrix(weight, form, method="rtn").tensor

    assert abs(float(plain.dequantize().sum() - weight.sum())) > 5
    assert abs(float(made.dequantize().sum() - weight.sum())) < 0.6


def test_the_error_is_that_of_the_codes() -> None:
    """What is reported is d H d of what is stored, with the moments as they are damped."""
    weight, moments, form = weights(5, 70), moments_of(70), GroupFormat()
    columns = order_columns(moments, form)

    made = round_columns(weight, form, columns)

    damped = columns.moments[:70, :70]
    assert made.squared_error == pytest.approx(
        output_error(weight, made.tensor.dequantize(), damped), rel=1e-3
    )
    assert made.squared_norm == pytest.approx(
        output_error(weight, np.zeros_like(weight), damped), rel=1e-3
    )


def test_blocks_of_rows_give_the_same_codes() -> None:
    """Rows do not depend on each other, so threads may share a matrix."""
    weight, form = weights(7, 96), GroupFormat(symmetric=False)
    columns = order_columns(moments_of(96), form)

    whole = round_columns(weight, form, columns).tensor
    parts = [round_columns(weight[low : low + 3], form, columns).tensor for low in (0, 3, 6)]

    np.testing.assert_array_equal(whole.codes, np.concatenate([part.codes for part in parts]))
    np.testing.assert_array_equal(whole.scales, np.concatenate([part.scales for part in parts]))


def test_the_order_keeps_groups_together() -> None:
    """The strongest group first, and in it the strongest input; padding last of its group."""
    energy = np.ones(40, dtype=np.float32)
    energy[[33, 35]] = 5, 9

    order = order_columns(np.diag(energy), GroupFormat()).order

    assert order[:2].tolist() == [35, 33]
    assert set(order[:32].tolist()) == set(range(32, 64))
    assert set(order[24:32].tolist()) == set(range(56, 64)) | set() or order[31] >= 40
    assert set(order[32:].tolist()) == set(range(32))


def test_inputs_that_never_move_are_no_trouble() -> None:
    """A text may leave inputs at zero; their weights are rounded all the same."""
    moments = np.zeros((64, 64), dtype=np.float32)
    weight, form = weights(3, 64), GroupFormat()

    silent = round_columns(weight, form, order_columns(moments, form)).tensor.dequantize()
    moments[:32, :32] = moments_of(32)
    half = round_columns(weight, form, order_columns(moments, form)).tensor.dequantize()

    assert np.abs(silent - weight).max() < 0.5
    assert np.abs(half[:, 32:] - weight[:, 32:]).max() < 0.5


def test_a_group_of_zeros_stays_zero() -> None:
    """And does not divide by its scale."""
    weight, form = weights(2, 64), GroupFormat()
    weight[:, 32:] = 0

    made = round_columns(weight, form, order_columns(moments_of(64), form)).tensor.dequantize()

    assert np.isfinite(made).all()
    assert np.abs(made[:, :32] - weight[:, :32]).max() < 1


def test_moments_that_are_not_finite_are_refused() -> None:
    """An overflow on the way is said, not spread."""
    moments = moments_of(32)
    moments[3, 3] = np.inf

    with pytest.raises(SourceError, match="not finite"):
        order_columns(moments, GroupFormat())


def test_a_weight_too_large_is_refused() -> None:
    """A float16 scale cannot hold it."""
    weight = weights(1, 32)
    weight[0, 0] = 1e7

    with pytest.raises(SourceError, match="too large for a float16 scale"):
        round_columns(weight, GroupFormat(), order_columns(moments_of(32), GroupFormat()))
