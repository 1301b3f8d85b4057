"""Rounding by hand, its bounds on any weights, and where a search has to win."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onhand.core.arrays import FloatArray
from onhand.core.errors import SourceError
from onhand.core.quantized import GroupFormat
from onhand.host.descent import damped, descend, group_errors
from onhand.host.rounding import Rounding, round_matrix

FORMS = st.builds(
    GroupFormat,
    bits=st.sampled_from(GroupFormat.BITS),
    group_size=st.sampled_from(GroupFormat.GROUP_SIZES),
    symmetric=st.booleans(),
)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 140))
ELEMENTS = st.floats(-4, 4, width=32)
WEIGHTS = SHAPES.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=ELEMENTS))
few = settings(max_examples=60)


def moments_of(k: int, form: GroupFormat, *, seed: int = 0, n_tokens: int = 20) -> FloatArray:
    """Second moments of correlated random inputs, padded as calibration pads them."""
    random = np.random.default_rng(seed)
    groups, g = form.n_groups(k), form.group_size
    inputs = random.standard_normal((n_tokens, 4)) @ random.standard_normal((4, k))
    inputs = np.pad(inputs, ((0, 0), (0, groups * g - k))).reshape(n_tokens, groups, g)
    moments: FloatArray = np.einsum("tgi,tgj->gij", inputs, inputs).astype(np.float32) / n_tokens
    return moments


def stored(made: Rounding) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, zero points and scales as plain numbers."""
    codes, zeros = made.tensor.unpack()
    return codes.astype(int), zeros.astype(int), made.tensor.scales.astype(np.float64)


def weighted_error(weight: FloatArray, made: Rounding, moments: FloatArray | None) -> float:
    """What `clip` minimises: d H d over groups, with H as it is damped."""
    g = made.tensor.format.group_size
    difference = weight.astype(np.float64) - made.tensor.dequantize()
    groups = made.tensor.format.n_groups(weight.shape[1])
    wide = np.pad(difference, ((0, 0), (0, groups * g - weight.shape[1])))
    wide = wide.reshape(len(weight), groups, g)
    if moments is None:
        return float(np.square(wide).sum())
    return float(np.einsum("ngi,gij,ngj->", wide, damped(moments).astype(np.float64), wide))


def test_full_range_by_hand() -> None:
    """The largest weight gets the lowest code, and the scale its sign."""
    weight = np.zeros((1, 32), dtype=np.float32)
    weight[0, :5] = [-2.0, 1.0, 0.5, 0.13, -0.12]

    made = round_matrix(weight, GroupFormat(), method="rtn")

    codes, zeros, scales = stored(made)
    assert scales.tolist() == [[0.25]]
    assert zeros.tolist() == [[8]]
    assert codes[0, 0, :6].tolist() == [0, 12, 10, 9, 8, 8]
    assert made.tensor.dequantize()[0, :6].tolist() == [-2.0, 1.0, 0.5, 0.25, 0.0, 0.0]
    assert made.squared_error == pytest.approx(0.12**2 + 0.12**2, rel=1e-5)
    assert made.squared_norm == pytest.approx(4 + 1 + 0.25 + 0.13**2 + 0.12**2, rel=1e-5)


def test_a_positive_largest_weight_turns_the_scale_round() -> None:
    """Its code is the lowest one all the same."""
    weight = np.zeros((1, 32), dtype=np.float32)
    weight[0, :2] = [2.0, -1.0]

    codes, _, scales = stored(round_matrix(weight, GroupFormat(), method="rtn"))

    assert scales.tolist() == [[-0.25]]
    assert codes[0, 0, :3].tolist() == [0, 12, 8]


def test_zero_points_by_hand() -> None:
    """From the lowest to the highest weight, zero among them."""
    weight = np.zeros((1, 32), dtype=np.float32)
    weight[0, :3] = [-0.5, 3.25, 1.0]

    made = round_matrix(weight, GroupFormat(symmetric=False), method="rtn")

    codes, zeros, scales = stored(made)
    assert scales.tolist() == [[0.25]]
    assert zeros.tolist() == [[2]]
    assert codes[0, 0, :4].tolist() == [0, 15, 6, 2]


@few
@given(weight=WEIGHTS, form=FORMS)
def test_plain_rounding_is_off_by_half_a_step(weight: FloatArray, form: GroupFormat) -> None:
    """But for a scale that float16 rounds, and the far end of a full range, which is one step."""
    made = round_matrix(weight, form, method="rtn")

    k, g = weight.shape[1], form.group_size
    codes, _, scales = stored(made)
    steps = np.repeat(np.abs(scales), g, axis=1)[:, :k]
    wide = np.pad(weight, ((0, 0), (0, scales.shape[1] * g - k))).reshape(*scales.shape, g)
    if form.symmetric:
        exact = np.abs(wide).max(axis=2) / form.middle
    else:
        exact = (np.maximum(wide.max(axis=2), 0) - np.minimum(wide.min(axis=2), 0)) / form.top
    # All codes move by what float16 changed in the scale.
    slack = np.repeat(form.top * np.abs(exact - np.abs(scales)), g, axis=1)[:, :k]
    at_end = codes.reshape(len(weight), -1)[:, :k] == form.top
    bound = np.where(at_end & form.symmetric, 1.0, 0.5) * steps + slack + 1e-6
    assert (np.abs(weight - made.tensor.dequantize()) <= bound).all()


@few
@given(weight=WEIGHTS, form=FORMS, seed=st.none() | st.integers(0, 3))
def test_clip_is_never_worse_than_plain_rounding(
    weight: FloatArray, form: GroupFormat, seed: int | None
) -> None:
    """In the error that it minimises, with moments and without; float32 rounding aside."""
    moments = None if seed is None else moments_of(weight.shape[1], form, seed=seed)

    plain, clipped = (
        weighted_error(weight, round_matrix(weight, form, method=method, moments=moments), moments)
        for method in ("rtn", "clip")
    )

    norm = weighted_error(np.zeros_like(weight), round_matrix(weight, form, method="rtn"), moments)
    assert clipped <= plain * (1 + 1e-4) + 1e-6 * norm + 1e-12


@few
@given(weight=WEIGHTS, form=FORMS, method=st.sampled_from(["rtn", "clip"]))
def test_zeros_stay_zero(weight: FloatArray, form: GroupFormat, method: str) -> None:
    """Pruned weights, padding, and whole groups of nothing."""
    weight = weight.copy()
    weight[:, ::2] = 0
    moments = moments_of(weight.shape[1], form)

    made = round_matrix(weight, form, method=method, moments=moments if method == "rtn" else None)

    assert (made.tensor.dequantize()[:, ::2] == 0).all()
    codes, zeros, scales = stored(made)
    flat = ((codes - zeros[:, :, None]) * scales[:, :, None]).reshape(len(weight), -1)
    assert (flat[:, weight.shape[1] :] == 0).all()
    assert codes.max() <= form.top


@few
@given(
    weight=WEIGHTS,
    form=FORMS,
    size=st.sampled_from([1e-30, 1e-9, 1e-7, 1e-6, 1e-4, 1.0, 1e3, 16000.0]),
    method=st.sampled_from(["rtn", "clip"]),
)
def test_weights_of_any_size(
    weight: FloatArray, form: GroupFormat, size: float, method: str
) -> None:
    """Below float16's steps and near its end: finite, in range, never larger than they were."""
    weight = (weight * np.float32(size)).astype(np.float32)

    made = round_matrix(weight, form, method=method)

    restored = made.tensor.dequantize()
    assert np.isfinite(restored).all()
    assert np.isfinite(made.squared_error)
    largest = np.abs(weight).max()
    # Where float16 has few digits left, a scale may be half as large again.
    assert np.abs(restored - weight).max() <= 1.5 * largest + 1e-30


@pytest.mark.parametrize("method", ["rtn", "clip"])
@pytest.mark.parametrize("value", [1.0, -0.37, 3e-5, 0.0])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_constant_group_is_nearly_exact(method: str, value: float, symmetric: bool) -> None:
    """All weights alike: one code, and float16's digits."""
    weight = np.full((2, 32), value, dtype=np.float32)

    made = round_matrix(weight, GroupFormat(symmetric=symmetric), method=method)

    assert np.abs(made.tensor.dequantize() - weight).max() <= abs(value) * 2**-6


@pytest.mark.parametrize("method", ["rtn", "clip"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [2e6, 3e38])
def test_weights_beyond_float16_scales_are_refused(
    method: str, symmetric: bool, value: float
) -> None:
    """An infinite scale would come back as a NaN on the device."""
    weight = np.zeros((2, 64), dtype=np.float32)
    weight[1, 40:42] = value, -value

    with pytest.raises(SourceError, match="too large for a float16 scale"):
        round_matrix(weight, GroupFormat(symmetric=symmetric), method=method)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("moments", [True, False])
def test_the_largest_scale_that_fits_is_searched_around(symmetric: bool, moments: bool) -> None:
    """Candidates above it do not overflow."""
    form = GroupFormat(symmetric=symmetric)
    weight = np.random.default_rng(0).uniform(-1, 1, (4, 32)).astype(np.float32)
    weight *= 65000 * (form.middle if symmetric else form.top / 2) / np.abs(weight).max()
    given_moments = moments_of(32, form) if moments else None

    made = round_matrix(weight, form, method="clip", moments=given_moments)

    assert np.isfinite(made.tensor.scales).all()


def correlated(n_inputs: int) -> FloatArray:
    """Inputs that are nearly all the same number: their errors must cancel."""
    return np.full((1, n_inputs, n_inputs), 1.0, np.float32) + 0.05 * np.eye(
        n_inputs, dtype=np.float32
    )


def test_descent_lets_errors_cancel() -> None:
    """Weights of 0.4 steps all round to zero; with equal inputs their sum is what counts."""
    weight = np.full((1, 32), 0.4, dtype=np.float32)
    weight[0, 0] = -8.0
    moments = correlated(32)

    plain = round_matrix(weight, GroupFormat(), method="rtn", moments=moments)
    clipped = round_matrix(weight, GroupFormat(), method="clip", moments=moments)

    alone = round_matrix(weight, GroupFormat(), method="clip")
    assert plain.squared_error > 100
    assert clipped.squared_error < 0.05 * plain.squared_error
    assert clipped.squared_error < 0.5 * weighted_error(weight, alone, moments)


@few
@given(data=st.data(), seed=st.integers(0, 1000))
def test_descent_is_never_worse_than_its_start(data: st.DataObject, seed: int) -> None:
    """From any codes and scales, on any positive definite moments."""
    random = np.random.default_rng(seed)
    groups, g, n = 2, 32, 3
    size = data.draw(st.sampled_from([1e-3, 1.0, 1e3]))
    weight = (size * random.standard_normal((groups, g, n))).astype(np.float32)
    scales = (size * random.uniform(-0.5, 0.5, (groups, n))).astype(np.float16).astype(np.float32)
    codes = random.integers(-8, 8, (groups, g, n)).astype(np.float32)
    low, high = np.full((groups, n), -8, np.float32), np.full((groups, n), 7, np.float32)
    moments = damped(moments_of(groups * g, GroupFormat(), seed=seed))

    found, fitted = descend(weight, codes, scales, low, high, moments)

    before = group_errors(weight - codes * scales[:, None], moments)
    after = group_errors(weight - found * fitted[:, None], moments)
    assert (after <= before * (1 + 1e-5)).all()
    assert (found == np.rint(found)).all()
    assert found.min() >= -8
    assert found.max() <= 7
    assert (fitted == fitted.astype(np.float16)).all()


def test_group_errors_by_hand() -> None:
    """D H d, written out."""
    difference = np.array([[[1.0], [2.0]]], dtype=np.float32)
    moments = np.array([[[2.0, 0.5], [0.5, 3.0]]], dtype=np.float32)

    assert group_errors(difference, moments).tolist() == [[2.0 + 2 * 0.5 * 2 + 3.0 * 4]]


def test_damping_by_hand() -> None:
    """A mean diagonal of one, and a hundredth more; silence stays finite."""
    moments: Any = np.stack([np.diag([1.0, 3.0]), np.zeros((2, 2))]).astype(np.float32)

    np.testing.assert_allclose(
        damped(moments), [np.diag([0.51, 1.51]), np.diag([0.01, 0.01])], rtol=1e-6
    )
