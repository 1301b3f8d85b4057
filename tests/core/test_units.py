"""Sizes, times and shares as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.core.units import (
    format_bytes,
    format_seconds,
    parse_bytes,
    parse_fraction,
    parse_number,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1048576),
        ("400MiB", 400 * 1024**2),
        (" 400 mib ", 400 * 1024**2),
        ("1.5GB", 1_500_000_000),
        ("2e3kb", 2_000_000),
        (".5k", 512),
        ("3G", 3 * 1024**3),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    """Powers of 1000 and of 1024 are told apart by their names."""
    assert parse_bytes(text) == size


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.01", 0.01), ("12.5 %", 0.125)])
def test_shares_are_read(text: str, share: float) -> None:
    """A percent sign divides by a hundred."""
    assert parse_fraction(text) == pytest.approx(share, rel=1e-15)


@pytest.mark.parametrize("text", ["", "MiB", "-1", "+1", "1,5GB", "nan", "inf", "1 2", "0x10"])
def test_what_is_no_number_is_refused(text: str) -> None:
    """The message names the units that would do."""
    with pytest.raises(InputError, match=r"is not a number with a unit such as|unknown unit"):
        parse_bytes(text)


def test_an_unknown_unit_is_named() -> None:
    """A unit of another quantity is not taken for a number."""
    with pytest.raises(InputError, match=r"'5s': unknown unit 's'; known: 'b', 'kb'"):
        parse_bytes("5s")


def test_attack_a_number_beyond_floating_point_is_refused() -> None:
    """Not an overflow error, and not infinity."""
    with pytest.raises(InputError, match="'1e999' is too large"):
        parse_number("1e999", suffixes={"": 1.0})


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (-2048, "-2.0 KiB"),
        (5 * 1024**2, "5.0 MiB"),
        (3 * 1024**3, "3.00 GiB"),
    ],
)
def test_sizes_are_written(size: int, text: str) -> None:
    """In powers of 1024."""
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.000125, "0.125 ms"),
        (0.0032, "3.2 ms"),
        (4.1, "4.1 s"),
        (125, "2 min 05 s"),
        (float("inf"), "inf s"),
        (3599.7, "1 h 00 min"),
        (3 * 3600 + 25 * 60, "3 h 25 min"),
    ],
)
def test_times_are_written(seconds: float, text: str) -> None:
    """In the unit that a person would choose."""
    assert format_seconds(seconds) == text


@given(st.integers(0, 2**50))
def test_a_written_size_is_read_back_within_its_digits(size: int) -> None:
    """What is shown differs from the truth by rounding only: half of the last digit shown."""
    assert parse_bytes(format_bytes(size)) == pytest.approx(size, rel=0.05, abs=0.5)
