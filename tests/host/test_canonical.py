"""Arrays as sums of products of vectors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.host.canonical import canonical_sums, columnwise


def test_columns_are_multiplied_in_pairs() -> None:
    """By hand: two factors of two columns."""
    left, right = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0], [7.0, 8.0]])

    np.testing.assert_array_equal(columnwise([left, right]), [[5, 12], [7, 16], [15, 24], [21, 32]])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), sizes=st.tuples(*[st.integers(3, 6)] * 3))
def test_an_array_of_two_terms_is_found(seed: int, sizes: tuple[int, ...]) -> None:
    """Whatever its sizes, where the terms are at right angles; columns are of one length."""
    rng = np.random.default_rng(seed)
    terms = [np.linalg.qr(rng.normal(size=(n, 2)))[0] * [2.0, 1.0] for n in sizes]
    array = columnwise(terms).sum(axis=1).reshape(sizes)
    *_, found = canonical_sums(array, [1, 2])

    again = columnwise(found).sum(axis=1).reshape(sizes)
    assert np.linalg.norm(again - array) < 1e-4 * np.linalg.norm(array)
    lengths = [np.linalg.norm(factor, axis=0) for factor in found]
    np.testing.assert_allclose(lengths[1:], [lengths[0]] * 2)


def test_more_terms_come_nearer() -> None:
    """One term of a matrix is its best; as many as it has rows lose nothing."""
    matrix = np.random.default_rng(1).normal(size=(4, 9))
    errors = [
        float(np.linalg.norm(left @ right.T - matrix))
        for left, right in canonical_sums(matrix, [1, 2, 4])
    ]
    best = np.linalg.svd(matrix, compute_uv=False)

    assert errors == sorted(errors, reverse=True)
    assert np.isclose(errors[0], np.sqrt(np.square(best[1:]).sum()), rtol=0.02)
    assert errors[2] < 1e-3


@pytest.mark.parametrize(
    ("shape", "ranks", "found"),
    [((4,), [1], "too few axes"), ((4, 4), [0, 1], "must rise"), ((4, 4), [2, 2], "must rise")],
)
def test_what_cannot_be_is_refused(shape: tuple[int, ...], ranks: list[int], found: str) -> None:
    """Too few axes, and ranks that do not rise from 1 on."""
    with pytest.raises(InputError, match=found):
        next(canonical_sums(np.ones(shape), ranks))
