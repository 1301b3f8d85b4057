"""The quantised tensor in GGUF's blocks: the same weights, or a stated error."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.host.export.gguf_blocks import to_blocks

gguf = pytest.importorskip("gguf", reason="reads the blocks: needs onhand[host]")

# -scale * zero has at most 15 times the scale, rounded to 11 bits.
MOST_STEPS = 15 / 2048


def quantized(form: GroupFormat, *, n: int, k: int, seed: int) -> QuantTensor:
    """Random codes, scales of either sign, zero points."""
    rng = np.random.default_rng(seed)
    groups = form.n_groups(k)
    codes = rng.integers(0, form.top + 1, (n, groups, form.group_size), dtype=np.uint8)
    scales = rng.normal(size=(n, groups)).astype(np.float16)
    zeros = None
    if not form.symmetric:
        zeros = rng.integers(0, form.top + 1, (n, groups), dtype=np.uint8)
    return QuantTensor.pack(codes, scales, zeros, n_inputs=k, format=form)


def dequantized(data: np.ndarray, kind: str) -> FloatArray:
    """What the gguf package reads from blocks."""
    values: FloatArray = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
    return values


def test_a_block_by_hand() -> None:
    """Two bytes of scale, then weight i in the low half of byte i and i + 16 in the high half."""
    codes = np.arange(32, dtype=np.uint8)[None, None] % 16
    scales = np.array([[0.5]], dtype=np.float16)
    tensor = QuantTensor.pack(codes, scales, None, n_inputs=32, format=GroupFormat())

    row = to_blocks(tensor, "m").data[0]

    assert row.tobytes() == b"\x00\x38" + bytes(i | i << 4 for i in range(16))


@given(
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from(GroupFormat.GROUP_SIZES),
    n=st.integers(1, 5),
    blocks=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_symmetric_weights_are_the_same_to_the_last_bit(
    bits: int, group: int, n: int, blocks: int, seed: int
) -> None:
    """Read by the gguf package, any group size, last groups that the row does not fill too."""
    form = GroupFormat(bits=bits, group_size=group)
    tensor = quantized(form, n=n, k=32 * blocks, seed=seed)

    made = to_blocks(tensor, "m")

    assert (made.largest_error, made.largest_error_steps) == (0, 0)
    np.testing.assert_array_equal(dequantized(made.data, made.type), tensor.dequantize())


@given(
    group=st.sampled_from(GroupFormat.GROUP_SIZES),
    blocks=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_the_error_of_asymmetric_weights_is_stated(group: int, blocks: int, seed: int) -> None:
    """No weight moves further than the result says, and that is a small part of a step."""
    form = GroupFormat(group_size=group, symmetric=False)
    tensor = quantized(form, n=3, k=32 * blocks, seed=seed)

    made = to_blocks(tensor, "m")

    moved = np.abs(dequantized(made.data, "Q4_1") - tensor.dequantize())
    assert made.type == "Q4_1"
    # Both readers round their sums to float32.
    assert moved.max() == pytest.approx(made.largest_error, rel=1e-3, abs=1e-6)
    assert made.largest_error_steps <= MOST_STEPS


def test_asymmetric_weights_with_short_scales_are_the_same() -> None:
    """Where -scale * zero fits float16, nothing moves."""
    form = GroupFormat(symmetric=False)
    tensor = quantized(form, n=4, k=96, seed=1)
    short = replace(tensor, scales=np.exp2(np.round(tensor.scales)).astype(np.float16))

    made = to_blocks(short, "m")

    assert made.largest_error == 0
    np.testing.assert_array_equal(dequantized(made.data, "Q4_1"), short.dequantize())


def test_a_minimum_beyond_float16_is_refused() -> None:
    """It would be an infinity."""
    tensor = quantized(GroupFormat(symmetric=False), n=1, k=32, seed=0)
    wide = replace(
        tensor,
        scales=np.full((1, 1), 60000, dtype=np.float16),
        zeros=np.array([[15]], dtype=np.uint8),
    )

    with pytest.raises(InputError, match="beyond float16"):
        to_blocks(wide, "m")
