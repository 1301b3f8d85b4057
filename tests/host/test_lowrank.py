"""Thin products: the least error on the inputs that come, and no more than promised."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError, SourceError
from onhand.core.quantized import GroupFormat
from onhand.host.lowrank import Spectrum, correct_rounding, whitening
from onhand.host.rounding import round_matrix


def case(seed: int, n: int, k: int) -> tuple[FloatArray, FloatArray]:
    """A matrix, and second moments of inputs that hang together."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4 * k, k)) @ rng.normal(size=(k, k)) * np.exp(rng.normal(size=k))
    return rng.normal(size=(n, k)).astype(np.float32), (x.T @ x / len(x)).astype(np.float32)


def energy(rows: FloatArray, moments: FloatArray) -> float:
    """Mean energy of outputs."""
    return float(np.einsum("nk,nk->", rows.astype(float) @ moments, rows))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 24), k=st.integers(1, 24), seed=st.integers(0, 99))
def test_the_loss_is_as_told(*, n: int, k: int, seed: int) -> None:
    """For every rank; all of them together are the matrix."""
    weight, moments = case(seed, n, k)
    spectrum = Spectrum.of(weight, whitening(moments))
    lost = spectrum.lost()

    assert len(lost) == min(n, k) + 1
    assert lost[0] == pytest.approx(1)
    left, right = spectrum.factors(len(lost) - 1)
    np.testing.assert_allclose(left @ right, weight, rtol=1e-2, atol=1e-3)
    for rank in range(1, len(lost)):
        left, right = spectrum.factors(rank)
        found = energy(weight - left @ right, moments) / energy(weight, moments)
        assert found == pytest.approx(lost[rank], rel=0.2, abs=2e-2)


def test_knowing_the_inputs_helps() -> None:
    """Against the plain decomposition, on the same inputs."""
    weight, moments = case(1, 48, 64)
    errors = []
    for root in (whitening(moments), None):
        left, right = Spectrum.of(weight, root).factors(12)
        errors.append(energy(weight - left @ right, moments))

    assert errors[0] < 0.7 * errors[1]


def test_a_correction_takes_most_of_a_rounding_error() -> None:
    """Codes of 3 bits, with inputs of which few directions matter."""
    weight, moments = case(2, 96, 64)
    rounded = round_matrix(weight, GroupFormat(bits=3), method="rtn").tensor.dequantize()
    before = energy(weight - rounded, moments)
    a, b = correct_rounding(weight, rounded, rank=8, moments=moments)
    plain_a, plain_b = correct_rounding(weight, rounded, rank=8)

    assert a.shape == (96, 8)
    assert b.shape == (8, 64)
    after = energy(weight - rounded - a @ b, moments)
    assert after < 0.4 * before
    assert after < energy(weight - rounded - plain_a @ plain_b, moments) < before


def test_what_cannot_be_is_refused() -> None:
    """Ranks, shapes and moments out of bounds."""
    weight, moments = case(3, 4, 6)

    with pytest.raises(InputError, match="rank is 5, must be from 1 to 4"):
        correct_rounding(weight, weight, rank=5)
    with pytest.raises(InputError, match="must be one shape"):
        correct_rounding(weight, weight[1:], rank=1)
    with pytest.raises(SourceError, match="not finite"):
        whitening(np.full((2, 2), np.nan, dtype=np.float32))
    with pytest.raises(SourceError, match="second moments"):
        whitening(-moments)
    assert np.isfinite(Spectrum.of(0 * weight, whitening(0 * moments)).lost()).all()
