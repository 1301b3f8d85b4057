"""Weights that become zero: as many as asked for, the right ones, and what makes good for them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError, SourceError
from onhand.core.sparse import Pattern
from onhand.host.sparsify import METHODS, Repair, Share, cubic_ratios, prune_rows, zero_share


def case(seed: int, n: int, k: int) -> tuple[FloatArray, FloatArray]:
    """A matrix, and second moments of inputs that hang together."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4 * k, k)) @ rng.normal(size=(k, k)) * np.exp(rng.normal(size=k))
    weight = rng.normal(size=(n, k)).astype(np.float32)
    return weight, (x.T @ x / len(x)).astype(np.float32)


def error(weight: FloatArray, pruned: FloatArray, moments: FloatArray) -> float:
    """What the outputs are off by, in the mean."""
    difference = (weight - pruned).astype(np.float64)
    return float(np.einsum("nk,nk->", difference @ moments, difference))


@settings(max_examples=30, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    k=st.integers(1, 200),
    ratio=st.floats(0, 0.99),
    seed=st.integers(0, 99),
)
def test_each_row_loses_the_share(*, method: str, k: int, ratio: float, seed: int) -> None:
    """Exactly, whatever the method and the width."""
    weight, moments = case(seed, 3, k)
    pruned = prune_rows(weight, Share(ratio), method=method, moments=moments)

    assert (pruned == 0).sum(axis=1).tolist() == [round(ratio * k)] * 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", [Pattern(2, 4), Pattern(1, 2), Pattern(3, 7)])
def test_each_block_follows_the_pattern(method: str, pattern: Pattern) -> None:
    """At most N of M stay, over the edges of whatever is taken at once."""
    weight, moments = case(1, 5, pattern.m * 45)
    pruned = prune_rows(weight, Share(pattern=pattern), method=method, moments=moments)

    here = (pruned != 0).reshape(-1, pattern.m).sum(axis=1)
    assert (here == pattern.n).all()


def test_wanda_by_hand() -> None:
    """A small weight stays where its input is large."""
    weight = np.array([[1.0, 2.0, 3.0, 4.0]], dtype=np.float32)
    squares = np.array([100.0, 1.0, 1.0, 0.01], dtype=np.float32)
    pruned = prune_rows(weight, Share(0.5), method="wanda", moments=np.diag(squares))

    assert pruned.tolist() == [[1, 0, 3, 0]]
    assert prune_rows(weight, Share(0.5), method="wanda", moments=squares).tolist() == [
        [1, 0, 3, 0]
    ]


def test_a_copy_makes_good_for_what_goes() -> None:
    """Of two inputs that are always equal, one is enough."""
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    x = np.stack([x[:, 0], x[:, 0], x[:, 1]], axis=1)
    weight = np.array([[1.0, 2.0, 4.0]], dtype=np.float32)
    pruned = prune_rows(weight, Share(1 / 3), method="sparsegpt", moments=x.T @ x / np.float32(50))

    # Damping leaves a little of it.
    np.testing.assert_allclose(pruned, [[0, 3, 4]], atol=0.05)


@pytest.mark.parametrize("pattern", [None, Pattern(2, 4)])
def test_better_methods_lose_less(pattern: Pattern | None) -> None:
    """On inputs of different sizes that hang together, in the order of their cost."""
    weight, moments = case(2, 64, 192)
    lost = {
        method: error(
            weight,
            prune_rows(weight, Share(0.5, pattern), method=method, moments=moments),
            moments,
        )
        for method in METHODS
    }

    assert lost["sparsegpt"] < 0.8 * lost["wanda"] < 0.8 * lost["magnitude"]


def test_rows_do_not_depend_on_each_other() -> None:
    """A matrix taken block by block becomes the same."""
    weight, moments = case(3, 8, 150)
    for method in METHODS:
        whole = prune_rows(weight, Share(0.4), method=method, moments=moments)
        repair = Repair.of(moments)
        parts = [prune_rows(rows, Share(0.4), method=method, moments=moments, repair=repair)
                 for rows in np.split(weight, 4)]  # fmt: skip

        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-5)


def test_inputs_that_never_move_do_no_harm() -> None:
    """Their weights go first, and nothing overflows."""
    weight, _ = case(4, 2, 6)
    moments = np.diag(np.array([0, 1, 0, 1, 0, 1], dtype=np.float32))
    pruned = prune_rows(weight, Share(0.5), method="sparsegpt", moments=moments)

    assert (pruned[:, ::2] == 0).all()
    np.testing.assert_allclose(pruned[:, 1::2], weight[:, 1::2], rtol=1e-5)
    none = prune_rows(weight, Share(0.5), method="sparsegpt", moments=0 * moments)
    assert np.isfinite(none).all()


def test_a_gradual_schedule_ends_at_the_ratio() -> None:
    """Half of it comes in the first fifth of the steps."""
    ratios = cubic_ratios(0.8, 10)

    assert ratios[-1] == pytest.approx(0.8)
    assert list(ratios) == sorted(ratios)
    assert ratios[1] == pytest.approx(0.8 * (1 - 0.8**3))
    assert cubic_ratios(0.5, 1, first=0.2) == (0.5,)
    assert zero_share(np.array([0, 1, 0, 0])) == 0.75


def test_what_cannot_be_is_refused() -> None:
    """Each with a sentence."""
    weight, moments = case(5, 2, 6)

    with pytest.raises(InputError, match="method is 'luck'"):
        prune_rows(weight, Share(), method="luck")
    with pytest.raises(InputError, match="needs the inputs' second moments"):
        prune_rows(weight, Share(), method="wanda")
    with pytest.raises(InputError, match="6 inputs are no multiple of 4"):
        prune_rows(weight, Share(pattern=Pattern(2, 4)), method="magnitude")
    with pytest.raises(InputError, match=r"ratio is 1\.0"):
        Share(1.0)
    with pytest.raises(SourceError, match="not finite"):
        Repair.of(np.full((2, 2), np.inf, dtype=np.float32))
    with pytest.raises(SourceError, match="second moments"):
        Repair.of(-moments)
