"""Codes, scales and zero points: packing and what they stand for."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onhand.core.arrays import ByteArray
from onhand.core.errors import InputError, ShapeError
from onhand.core.quantized import GroupFormat, QuantTensor, pack_bits, unpack_bits

MakeTensor = Callable[[tuple[int, int], GroupFormat], QuantTensor]
FORMATS = [
    GroupFormat(bits=bits, group_size=group, symmetric=symmetric)
    for bits in GroupFormat.BITS
    for group in GroupFormat.GROUP_SIZES
    for symmetric in (True, False)
]


@st.composite
def codes_of(draw: st.DrawFn) -> tuple[int, ByteArray]:
    """A width in bits, and an array of codes that fill whole bytes."""
    bits = draw(st.sampled_from(GroupFormat.BITS))
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 5)) * 8)
    return bits, draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 2**bits - 1)))


@given(codes_of())
def test_unpacking_undoes_packing(drawn: tuple[int, ByteArray]) -> None:
    """For every width, exactly, and the packed array has no spare byte."""
    bits, codes = drawn
    packed = pack_bits(codes, bits)

    assert packed.dtype == np.uint8
    assert packed.shape == (codes.shape[0], codes.shape[1] * bits // 8)
    np.testing.assert_array_equal(unpack_bits(packed, bits), codes)


@pytest.mark.parametrize(
    ("bits", "codes", "packed"),
    [
        (8, [1, 255], [1, 255]),
        (4, [0x1, 0xF, 0xA, 0x2], [0xF1, 0x2A]),
        (2, [0b01, 0b10, 0b11, 0b00], [0b00111001]),
        (3, [1, 2, 3, 4, 5, 6, 7, 0], [0b11010001, 0b01011000, 0b00011111]),
    ],
)
def test_order_of_bits_by_hand(bits: int, codes: list[int], packed: list[int]) -> None:
    """The first code is in the lowest bits of the first byte, as MatMulNBits reads it."""
    found = pack_bits(np.array(codes, dtype=np.uint8), bits)

    assert found.tolist() == packed


@pytest.mark.parametrize("symmetric", [True, False])
def test_stacking_joins_rows(make_tensor: MakeTensor, symmetric: bool) -> None:
    """Parts of one matrix become the whole, byte for byte."""
    form = GroupFormat(bits=3, group_size=32, symmetric=symmetric)
    whole = make_tensor((5, 70), form)
    pieces = [
        replace(
            whole,
            shape=(high - low, 70),
            codes=whole.codes[low:high],
            scales=whole.scales[low:high],
            zeros=None if whole.zeros is None else whole.zeros[low:high],
        )
        for low, high in ((0, 2), (2, 5))
    ]

    found = QuantTensor.stack(pieces)

    assert found.shape == whole.shape
    np.testing.assert_array_equal(found.dequantize(), whole.dequantize())
    np.testing.assert_array_equal(found.codes, whole.codes)


@pytest.mark.parametrize(("bits", "count"), [(2, 3), (3, 4), (4, 1)])
def test_codes_that_do_not_fill_bytes_are_refused(bits: int, count: int) -> None:
    """No code is padded in silence."""
    with pytest.raises(ShapeError, match=f"{count} codes of {bits} bits do not fill whole bytes"):
        pack_bits(np.zeros(count, dtype=np.uint8), bits)


def test_dequantize_by_hand_with_zero_points_and_a_short_last_group() -> None:
    """One row of 34 inputs in groups of 32: the second group holds two inputs and padding."""
    codes = np.full((1, 2, 32), 9, dtype=np.uint8)
    codes[0, 0, :3] = [0, 5, 15]
    codes[0, 1, :2] = [2, 12]
    scales = np.array([[0.5, -2.0]], dtype=np.float16)
    zeros = np.array([[5, 9]], dtype=np.uint8)
    form = GroupFormat(bits=4, group_size=32, symmetric=False)

    made = QuantTensor.pack(codes, scales, zeros, n_inputs=34, format=form)

    expected = [-2.5, 0.0, 5.0, *[2.0] * 29, 14.0, -6.0]
    assert made.shape == (1, 34)
    assert made.zeros is not None
    assert made.zeros.tolist() == [[5 | 9 << 4]]
    assert made.dequantize().tolist() == [expected]


def test_a_symmetric_tensor_has_its_zero_in_the_middle() -> None:
    """Codes 0, 8 and 15 of four bits stand for -8, 0 and 7 steps."""
    codes = np.full((1, 1, 32), 8, dtype=np.uint8)
    codes[0, 0, [0, 31]] = [0, 15]

    made = QuantTensor.pack(
        codes, np.array([[0.25]], dtype=np.float16), None, n_inputs=32, format=GroupFormat()
    )

    row = made.dequantize()[0]
    assert (row[0], row[31]) == (-2.0, 1.75)
    assert not row[1:31].any()


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("n_inputs", [1, 32, 100, 257])
def test_every_format_keeps_what_was_packed(
    form: GroupFormat, n_inputs: int, make_tensor: MakeTensor
) -> None:
    """Formula and tensor agree, and the size is the one promised beforehand."""
    made = make_tensor((5, n_inputs), form)
    codes, zeros = made.unpack()

    steps = codes.astype(np.float32) - zeros[:, :, None].astype(np.float32)
    expected = (steps * made.scales.astype(np.float32)[:, :, None]).reshape(5, -1)[:, :n_inputs]
    np.testing.assert_array_equal(made.dequantize(), expected)
    assert made.size_bytes == form.size_bytes((5, n_inputs))
    assert int(codes.max()) <= form.top
    assert (zeros == form.middle).all() or not form.symmetric


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_rows_are_those_of_the_whole(form: GroupFormat, make_tensor: MakeTensor) -> None:
    """In the order asked for, repeats included."""
    made = make_tensor((7, 50), form)
    ids = np.array([6, 0, 3, 3], dtype=np.int64)

    np.testing.assert_array_equal(made.rows(ids), made.dequantize()[ids])


@pytest.mark.parametrize("bits", [0, 1, 5, 16, -4])
def test_other_widths_are_refused(bits: int) -> None:
    """Widths that no engine reads."""
    with pytest.raises(InputError, match=f"bits is {bits}, must be one of"):
        GroupFormat(bits=bits)


@pytest.mark.parametrize("group_size", [0, 16, 48, 256])
def test_other_groups_are_refused(group_size: int) -> None:
    """Group sizes that no engine reads."""
    with pytest.raises(InputError, match=f"group_size is {group_size}, must be one of"):
        GroupFormat(group_size=group_size)


def test_arrays_that_do_not_fit_each_other_are_refused() -> None:
    """Shapes, dtypes, and zero points where there should be none."""
    form = GroupFormat(symmetric=False)
    codes = np.zeros((3, 2, 32), dtype=np.uint8)
    scales = np.ones((3, 2), dtype=np.float16)
    zeros = np.zeros((3, 2), dtype=np.uint8)
    good = QuantTensor.pack(codes, scales, zeros, n_inputs=64, format=form)

    for n_inputs in (32, 65):
        with pytest.raises(ShapeError, match="codes"):
            QuantTensor.pack(codes, scales, zeros, n_inputs=n_inputs, format=form)
    with pytest.raises(ShapeError, match="scales: float32"):
        QuantTensor.pack(
            codes,
            scales.astype(np.float32),
            zeros,
            n_inputs=64,
            format=form,
        )
    for wrong in (zeros[:1], zeros[:, :1], zeros.astype(np.int64)):
        with pytest.raises(ShapeError, match="zeros"):
            QuantTensor.pack(codes, scales, wrong, n_inputs=64, format=form)  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(ShapeError, match="zero points go with asymmetric tensors"):
        QuantTensor.pack(codes, scales, None, n_inputs=64, format=form)
    with pytest.raises(ShapeError, match="zero points go with asymmetric tensors"):
        QuantTensor.pack(codes, scales, zeros, n_inputs=64, format=GroupFormat())
    with pytest.raises(ShapeError, match="zeros"):
        QuantTensor(shape=good.shape, format=form, codes=good.codes, scales=scales, zeros=zeros)
