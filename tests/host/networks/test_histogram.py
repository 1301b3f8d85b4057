"""Streamed histograms, and the ranges judged from them: by hand and by property."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.host.networks.quantization.grid import Grid
from onhand.host.networks.quantization.histogram import Histogram
from onhand.host.networks.quantization.ranges import METHODS, choose_range

Floats = NDArray[np.float32]
# Smaller ones vanish beside greater ones, in float32 itself.
sizes = st.floats(2.0**-50, 2.0**50, width=32)
numbers = st.one_of(st.just(0.0), sizes, sizes.map(lambda size: -size))
arrays = st.lists(numbers, min_size=1, max_size=30).map(lambda n: np.array(n, np.float32))


def values(*, seed: int = 0, outlier: float = 40.0) -> Floats:
    """Activations as behind a Relu: half zeros, a bell, and one value far away."""
    made = np.maximum(np.random.default_rng(seed).standard_normal(20_000), 0).astype(np.float32)
    made[0] = outlier
    return made


def chosen(array: Floats, method: str, *, symmetric: bool = False) -> tuple[float, float]:
    """The range for an array."""
    histogram = Histogram.of(array)
    return choose_range(histogram, method, symmetric=symmetric, percentile=99.9)


def test_bins_count_by_hand() -> None:
    """Values fall into the bin whose borders, multiples of the width, are around them."""
    histogram = Histogram.of(np.array([-1.0, 0.0, 0.0, 0.3, 1.0, 1023.5], np.float32))

    assert (histogram.low, histogram.high, histogram.zeros) == (-1.0, 1023.5, 2)
    assert histogram.width() == 1.0  # 1024.5 / 2048 is above a half
    np.testing.assert_array_equal(histogram.counts[:3], [1, 1, 1])
    assert histogram.counts[1024] == 1
    assert histogram.counts.sum() == 4
    np.testing.assert_array_equal(histogram.centres()[:2], [-0.5, 0.5])


@settings(max_examples=50)
@given(first=arrays, second=arrays, third=arrays)
def test_what_is_counted_does_not_depend_on_batches(
    first: Floats, second: Floats, third: Floats
) -> None:
    """Any order and any cut gives the histogram of all values at once, bin by bin."""
    whole = Histogram.of(np.concatenate([first, second, third]))
    left = Histogram.of(first).merged(Histogram.of(second)).merged(Histogram.of(third))
    right = Histogram.of(third).merged(Histogram.of(first).merged(Histogram.of(second)))

    for found in (left, right):
        assert (found.low, found.high, found.zeros) == (whole.low, whole.high, whole.zeros)
        assert (found.exponent, found.first) == (whole.exponent, whole.first)
        np.testing.assert_array_equal(found.counts, whole.counts)


@given(array=arrays, wider=st.integers(0, 70))
def test_widening_keeps_every_value_in_few_bins(array: Floats, wider: int) -> None:
    """However wide bins get, nothing is lost, and there are never more than 2048 of them."""
    histogram = Histogram.of(array)
    wide = histogram.widened(histogram.exponent + wider)

    assert histogram.counts.size <= 2048
    assert wide.counts.size <= histogram.counts.size
    assert wide.total() == histogram.total() == array.size
    assert wide.first * wide.width() <= array.min()
    assert (wide.first + wide.counts.size) * wide.width() > min(float(array.max()), 0.0)


def test_no_value_is_a_histogram_of_zeros() -> None:
    """A network fed with nothing, or whose values are all zero, has a range all the same."""
    none, zeros = Histogram.of(np.zeros(0, np.float32)), Histogram.of(np.zeros(5, np.float32))

    assert none.total() == 0
    assert (zeros.total(), zeros.zeros) == (5, 5)
    assert chosen(np.zeros(5, np.float32), "mse") == (0.0, 0.0)
    assert Grid.of(0.0, 0.0, symmetric=False).scale == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_attack_a_value_that_is_not_finite_is_refused(bad: float) -> None:
    """It would make the range infinite; the message says where to look."""
    with pytest.raises(InputError, match="not finite"):
        Histogram.of(np.array([1.0, bad], np.float32))


def test_an_outlier_sets_min_max_alone() -> None:
    """Others clip one value in twenty thousand and keep the bell; its square is worth keeping."""
    array = values()

    assert chosen(array, "min-max") == (0.0, 40.0)
    assert chosen(array, "mse")[1] > 36.0
    for method in ("percentile", "entropy"):
        low, high = chosen(array, method)
        assert low == 0.0
        assert 2.0 < high < 20.0, method


def test_percentile_by_hand() -> None:
    """One value in a thousand may be clipped at either end."""
    array = np.concatenate([np.arange(-500, 500), [-9000, 9000]]).astype(np.float32)
    low, high = chosen(array, "percentile")

    # A bin is 16 wide.
    assert -516 <= low <= -484
    assert 484 <= high <= 516


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), outlier=st.floats(0, 50), shift=st.floats(-2, 2))
@pytest.mark.parametrize("symmetric", [False, True])
def test_mse_is_no_worse_than_min_max(
    *, symmetric: bool, seed: int, outlier: float, shift: float
) -> None:
    """Measured on the values themselves, but for the width of a bin."""
    random = np.random.default_rng(seed)
    array = np.append(random.standard_normal(2000) + shift, outlier).astype(np.float32)

    def error(method: str) -> float:
        grid = Grid.of(*chosen(array, method, symmetric=symmetric), symmetric=symmetric)
        return float(np.square(grid.rounded(array) - array).mean())

    assert error("mse") <= error("min-max") * 1.05


@settings(max_examples=50)
@given(array=arrays, method=st.sampled_from(METHODS), symmetric=st.booleans())
def test_a_range_holds_zero_and_no_more_than_the_values(
    array: Floats, method: str, *, symmetric: bool
) -> None:
    """No method reaches further than the values do, or leaves zero out."""
    low, high = chosen(array, method, symmetric=symmetric)

    assert min(float(array.min()), 0.0) <= low <= 0.0
    assert 0.0 <= high <= max(float(array.max()), 0.0)


def test_a_method_that_nobody_knows_is_refused() -> None:
    """The message lists those that there are."""
    with pytest.raises(InputError, match="known: min-max"):
        chosen(values(), "guess")
