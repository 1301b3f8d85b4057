"""Codes without zeros: back again bit for bit, as small as promised, and nothing else read."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.arrays import ByteArray
from onhand.core.errors import InputError, ShapeError
from onhand.core.sparse import (
    Pattern,
    SparseCodes,
    best_layout,
    dense_bytes,
    parse_pattern,
    sparse_bytes,
)

patterns = st.tuples(st.integers(2, 8), st.integers(1, 7)).map(
    lambda pair: Pattern(min(pair[1], pair[0] - 1), pair[0])
)


def sparse(rng: np.random.Generator, shape: tuple[int, ...], bits: int, share: float) -> ByteArray:
    """Codes of which about a share is 1."""
    codes = rng.integers(0, 1 << bits, size=shape, dtype=np.uint8)
    return np.where(rng.random(shape) < share, np.uint8(1), codes)


def followed(codes: ByteArray, zeros: ByteArray, pattern: Pattern) -> ByteArray:
    """Codes of which the last ones of each block are zero."""
    late = np.arange(codes.shape[-1]) % pattern.m >= pattern.n
    return np.where(late, np.broadcast_to(zeros, codes.shape), codes).astype(np.uint8)


@settings(deadline=None)
@given(
    bits=st.integers(1, 8),
    rows=st.integers(0, 5),
    blocks=st.integers(0, 7),
    pattern=patterns,
    share=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_codes_come_back_bit_for_bit(
    *, bits: int, rows: int, blocks: int, pattern: Pattern, share: float, seed: int
) -> None:
    """In both layouts, whatever stands for zero in each row; the size is as it was told."""
    rng = np.random.default_rng(seed)
    codes = sparse(rng, (rows, blocks * pattern.m), bits, share)
    zeros = rng.integers(0, 1 << bits, size=(rows, 1), dtype=np.uint8)
    for kind, given_codes in ((None, codes), (pattern, followed(codes, zeros, pattern))):
        packed = SparseCodes.pack(given_codes, zeros, bits=bits, pattern=kind)

        np.testing.assert_array_equal(packed.unpack(zeros), given_codes)
        n_here = int((given_codes != zeros).sum())
        assert packed.size_bytes == sparse_bytes(codes.size, n_here, bits, kind)


def test_a_case_by_hand() -> None:
    """Five codes of 4 bits, of which two are there."""
    codes = np.array([8, 3, 8, 8, 15], dtype=np.uint8)
    packed = SparseCodes.pack(codes, np.array(8, dtype=np.uint8), bits=4)

    assert packed.places.tolist() == [0b10010]
    assert packed.codes.tolist() == [0xF3]


def test_a_pattern_by_hand() -> None:
    """Places 1 and 3 are the fifth of six pairs; a block with one code takes a zero along."""
    codes = np.array([8, 3, 8, 15, 8, 8, 8, 2], dtype=np.uint8)
    packed = SparseCodes.pack(codes, np.array(8, dtype=np.uint8), bits=4, pattern=Pattern(2, 4))

    # Pairs in order: 01 02 03 12 13 23.
    assert packed.places.tolist() == [4 | 2 << 3]
    assert packed.codes.tolist() == [0xF3, 0x28]


@pytest.mark.parametrize(("bits", "share"), [(4, 0.5), (8, 0.5), (4, 0.2), (2, 0.9), (8, 0.05)])
def test_the_smallest_layout_is_taken(bits: int, share: float, rng: np.random.Generator) -> None:
    """Nothing is stored sparsely that would be larger for it."""
    zeros = np.array(1, dtype=np.uint8)
    codes = sparse(rng, (64, 64), bits, share)
    best = best_layout(codes, zeros, bits=bits, patterns=[Pattern(2, 4)])

    wins = (codes == 1).mean() > 1 / bits
    assert (best is not None) == wins
    if best is not None:
        assert best.size_bytes < dense_bytes(codes.size, bits)
        np.testing.assert_array_equal(best.unpack(zeros), codes)


def test_two_of_four_takes_eleven_bits_of_sixteen(rng: np.random.Generator) -> None:
    """Codes of 4 bits, for which a mask takes twelve."""
    zeros = np.array(8, dtype=np.uint8)
    codes = followed(rng.integers(0, 16, (32, 64), dtype=np.uint8), zeros, Pattern(2, 4))
    best = best_layout(codes, zeros, bits=4, patterns=[Pattern(1, 4), Pattern(2, 4), Pattern(3, 7)])

    assert best is not None
    assert best.pattern == Pattern(2, 4)
    assert best.size_bytes * 16 == 11 * dense_bytes(codes.size, 4)


def test_codes_that_do_not_fit_are_refused() -> None:
    """Too wide, too many in a block, or blocks that do not fill a row."""
    codes, zeros = np.array([1, 2, 3, 0], dtype=np.uint8), np.zeros(4, dtype=np.uint8)

    with pytest.raises(ShapeError, match="a code is 3, must fit 1 bits"):
        SparseCodes.pack(codes, zeros, bits=1)
    with pytest.raises(ShapeError, match="3 of 4 codes are not zero"):
        SparseCodes.pack(codes, zeros, bits=2, pattern=Pattern(2, 4))
    with pytest.raises(ShapeError, match="multiple of 3"):
        SparseCodes.pack(codes, zeros, bits=2, pattern=Pattern(2, 3))
    with pytest.raises(ShapeError, match="do not fit codes"):
        SparseCodes.pack(codes, zeros, bits=2).unpack(np.zeros(3, dtype=np.uint8))


def test_codes_of_another_dtype_are_refused() -> None:
    """A float's bits are as wide as it is; nothing is wider."""
    codes = np.zeros(8, np.uint16)

    with pytest.raises(ShapeError, match="codes of 8 bits are uint16, must be uint8"):
        SparseCodes.pack(codes, codes[:1], bits=8)
    with pytest.raises(ShapeError, match="codes of 12 bits, must be 1 to 8, 16 or 32"):
        SparseCodes.pack(codes, codes[:1], bits=12)


def test_patterns_are_read_as_people_write_them() -> None:
    """Anything else is refused."""
    assert parse_pattern("2:4") == Pattern(2, 4)
    assert Pattern(4, 8).text == "4:8"
    for text in ("", "4", "4:2", "0:4", "4:4", "8:16", "-1:4", "2:4:8", "a:b", "2: 4", "²:4"):
        with pytest.raises(InputError, match="pattern"):
            parse_pattern(text)


def packed(pattern: Pattern | None) -> SparseCodes:
    """Nine codes of 3 bits in blocks of 3."""
    codes = np.array([[1, 0, 0], [0, 5, 0], [0, 0, 0]], dtype=np.uint8)
    return SparseCodes.pack(codes, np.zeros(1, dtype=np.uint8), bits=3, pattern=pattern)


@pytest.mark.parametrize("pattern", [None, Pattern(1, 3)])
@pytest.mark.parametrize("field", ["places", "codes"])
def test_attack_streams_of_another_length(pattern: Pattern | None, field: str) -> None:
    """Too short a stream would read what is not there, too long a one hides something."""
    whole = packed(pattern)
    stream = getattr(whole, field)

    for other in (stream[:-1], np.append(stream, np.uint8(0)), stream[None], stream.view(np.int8)):
        with pytest.raises(ShapeError, match=r"places|codes|mask"):
            replace(whole, **{field: other})  # type: ignore[arg-type]


def test_attack_a_mask_that_claims_more_codes_than_there_are() -> None:
    """Each bit of the mask is a code that must be there."""
    with pytest.raises(ShapeError, match="codes: 1 bytes, must be 4"):
        replace(packed(None), places=np.array([255, 1], dtype=np.uint8))


@pytest.mark.parametrize(("field", "value"), [("places", [17, 2]), ("codes", [0b11101001])])
def test_attack_bits_behind_the_end(field: str, value: list[int]) -> None:
    """One content has one form: what is behind the last value is zero."""
    with pytest.raises(ShapeError, match="bits are set behind"):
        replace(packed(None), **{field: np.array(value, dtype=np.uint8)})  # type: ignore[arg-type]


def test_attack_a_combination_that_does_not_exist() -> None:
    """One of three places takes 2 bits, which could say 3 as well."""
    with pytest.raises(ShapeError, match="3 is no combination of 1:3"):
        replace(packed(Pattern(1, 3)), places=np.array([3], dtype=np.uint8))


@pytest.mark.parametrize("changes", [{"bits": 0}, {"bits": 9}, {"shape": (-1, 3)}, {"shape": (3,)}])
def test_attack_shapes_and_widths(changes: dict[str, object]) -> None:
    """What the arrays do not hold is refused."""
    with pytest.raises(ShapeError):
        replace(packed(None), **changes)  # type: ignore[arg-type]


def test_codes_of_more_than_one_part_come_back(rng: np.random.Generator) -> None:
    """Large tensors are expanded part by part."""
    codes = sparse(rng, (3, 2**19), 3, 0.5)
    zeros = np.array(1, dtype=np.uint8)

    np.testing.assert_array_equal(SparseCodes.pack(codes, zeros, bits=3).unpack(zeros), codes)
