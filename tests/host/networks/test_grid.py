"""Grids of activations and codes of weights: by hand, by property, and beside ONNX Runtime."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.host.networks.graphs import Drawing, computed

from onhand.core.errors import ShapeError
from onhand.host.networks.quantization.grid import Grid, least_scales, round_weight

Floats = NDArray[np.float32]
ends = st.floats(0, 1e6, width=32, allow_subnormal=False)


def test_a_grid_by_hand() -> None:
    """From -1 to 1 in 255 steps: zero is code 128 or 127, never between."""
    grid = Grid.of(-1.0, 1.0, symmetric=False)

    assert grid.scale == pytest.approx(2 / 255)
    assert grid.zero in {127, 128}
    assert Grid.of(0.0, 6.0, symmetric=False).zero == 0
    assert Grid.of(2.0, 6.0, symmetric=False).low() == 0.0
    assert Grid.of(-6.0, -2.0, symmetric=False).high() == 0.0


def test_a_symmetric_grid_by_hand() -> None:
    """Around zero, as far as the further end."""
    grid = Grid.of(-1.0, 12.7, symmetric=True)

    assert (grid.zero, grid.signed) == (0, True)
    assert grid.scale == pytest.approx(0.1)


@given(low=ends, high=ends, symmetric=st.booleans(), share=st.floats(0, 1))
def test_no_value_inside_moves_more_than_half_a_step(
    low: float, high: float, *, symmetric: bool, share: float
) -> None:
    """But for a zero point that is rounded: then a whole one at the ends."""
    grid = Grid.of(-low, high, symmetric=symmetric)
    value = np.array([-low + share * (low + high), 0.0], np.float32)
    rounded = grid.rounded(value)

    assert rounded[1] == 0.0
    inside = grid.low() <= value[0] <= grid.high()
    assert abs(rounded[0] - value[0]) <= grid.scale * (0.5001 if inside else 1.0001)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_grid_rounds_as_onnx_runtime_does(*, symmetric: bool) -> None:
    """The same values, bit for bit, behind QuantizeLinear and DequantizeLinear."""
    grid = Grid.of(-1.7, 3.1, symmetric=symmetric)
    draw = Drawing(x=("N", 64))
    scale = draw.constant(grid.scale)
    zero = draw.constant(grid.zero, np.int8 if symmetric else np.uint8)
    codes = draw.node("QuantizeLinear", "x", scale, zero)
    graph = draw.graph(draw.node("DequantizeLinear", codes, scale, zero))
    x = np.random.default_rng(0).uniform(-4, 4, (50, 64)).astype(np.float32)

    np.testing.assert_array_equal(computed(graph, {"x": x})[0], grid.rounded(x))


def test_weights_by_hand() -> None:
    """Each channel by its own scale, and zeros stay zeros."""
    weight = np.array([[12.7, -6.35, 0.0], [0.127, 0.05, 0.0], [0, 0, 0]], np.float32)
    made = round_weight(weight, axis=0, bits=8, per_channel=True)

    np.testing.assert_allclose(made.scales[:2], [0.1, 0.001], rtol=1e-6)
    np.testing.assert_array_equal(made.codes, [[127, -64, 0], [127, 50, 0], [0, 0, 0]])
    np.testing.assert_array_equal(
        round_weight(weight, axis=0, bits=8, per_channel=False).codes[1], [1, 0, 0]
    )


@given(seed=st.integers(0, 10**6), axis=st.integers(0, 2), bits=st.integers(2, 8))
def test_8_bits_move_no_weight_more_than_half_a_step(seed: int, axis: int, bits: int) -> None:
    """With fewer bits the greatest may be clipped, but the squared error is no worse for it."""
    weight = np.random.default_rng(seed).standard_normal((3, 4, 5)).astype(np.float32)
    made = round_weight(weight, axis=axis, bits=bits, per_channel=True)
    top = 2 ** (bits - 1) - 1
    others = tuple(i for i in range(3) if i != axis)
    plain = np.abs(weight).max(axis=others, keepdims=True) / top
    nearest = np.clip(np.rint(weight / plain), -top, top) * plain

    assert np.abs(made.codes).max() <= top
    assert made.scales.shape == (weight.shape[axis],)
    assert np.square(made.values() - weight).sum() <= np.square(nearest - weight).sum() * 1.0001
    if bits == 8:
        assert np.all(np.abs(made.values() - weight) <= plain * 0.5001)


def test_a_bias_too_large_for_32_bits_widens_the_scale() -> None:
    """A channel of tiny weights with a bias would overflow; its scale grows until it does not."""
    weight = np.array([[1e-9, 2e-9], [1.0, 2.0]], np.float32)
    bias = np.array([3.0, 3.0], np.float32)
    made = round_weight(weight, axis=0, bits=8, per_channel=True, least=least_scales(bias, 0.01))

    assert np.abs(bias / (made.scales * 0.01)).max() <= 2**30 * 1.0001
    assert made.scales[1] == pytest.approx(2 / 127)


def test_an_axis_that_is_not_there_is_refused() -> None:
    """A vector has no second axis."""
    with pytest.raises(ShapeError, match="no axis 1"):
        round_weight(np.ones(3, np.float32), axis=1, bits=8, per_channel=True)
