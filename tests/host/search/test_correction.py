"""Tests of `onhand.host.search.correction`."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.host.search.correction import (
    Curve,
    Observation,
    correction,
    isotonic,
    largest_below,
)

_values = st.lists(st.floats(-5, 5), min_size=1, max_size=7)
_observations = st.lists(
    st.builds(
        Observation,
        damage=st.floats(1e-4, 2),
        divergence=st.floats(1e-4, 2),
        loss_increase=st.floats(-0.01, 2),
        is_real=st.booleans(),
    ),
    max_size=6,
)


def test_without_observations_a_prediction_stands() -> None:
    """And costs as much of perplexity as of divergence."""
    assert Curve().expected_divergence(0.25) == 0.25
    assert Curve().expected_perplexity_increase(0.25) == pytest.approx(np.expm1(0.25))


def test_a_curve_goes_through_what_was_measured() -> None:
    """And on in proportion beyond both ends."""
    seen = [
        Observation(damage=d, divergence=2 * d, loss_increase=d, is_real=True) for d in (0.01, 0.1)
    ]

    curve = correction(seen)

    for damage in (0.001, 0.01, 0.05, 0.1, 1.0):
        assert curve.expected_divergence(damage) == pytest.approx(2 * damage)
        assert curve.expected_loss_increase(damage) == pytest.approx(damage)


def test_a_real_build_moves_the_simulated_points() -> None:
    """Half as much was measured as simulated: the whole curve is drawn down."""
    simulated = [
        Observation(damage=d, divergence=d, loss_increase=d, is_real=False)
        for d in (0.01, 0.1, 1.0)
    ]
    real = Observation(damage=0.1, divergence=0.05, loss_increase=0.05, is_real=True)

    curve = correction([*simulated, real])

    assert curve.expected_divergence(0.1) == pytest.approx(0.05)
    assert curve.expected_divergence(1.0) == pytest.approx(0.5)
    assert curve.expected_loss_increase(0.1) == pytest.approx(0.05)


@settings(max_examples=80, deadline=None)
@given(seen=_observations)
def test_a_curve_never_falls(seen: list[Observation]) -> None:
    """More damage is never expected to lose less."""
    curve = correction(seen)
    damages = np.geomspace(1e-6, 10, 40)

    divergence = [curve.expected_divergence(float(d)) for d in damages]
    increase = [curve.expected_loss_increase(float(d)) for d in damages]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(divergence))
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(increase))


@settings(max_examples=80, deadline=None)
@given(values=_values)
def test_pooling_gives_the_nearest_sequence_that_never_falls(values: list[float]) -> None:
    """It keeps the sum, and what rises already stays as it is."""
    found = isotonic(values, [1.0] * len(values))

    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(found))
    assert sum(found) == pytest.approx(sum(values))
    assert isotonic(sorted(values), [1.0] * len(values)) == sorted(values)


def test_the_largest_damage_within_a_limit_is_found() -> None:
    """By halving, and None where nothing is within it."""
    assert largest_below(lambda d: 2 * d, 0.5, most=20.0) == pytest.approx(0.25)
    assert largest_below(lambda d: 2 * d, 100, most=20.0) == 20.0
    assert largest_below(lambda d: d + 1, 0.5, most=20.0) is None
