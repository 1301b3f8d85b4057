"""`onhand.host.costs.roofline`: devices that nobody measured."""

from dataclasses import replace

import pytest
from tests.host.costs.parts import FORMS, PROFILE

from onhand.core.profile_parts import MatrixRate
from onhand.core.quantized import GroupFormat
from onhand.host.costs.roofline import estimate_calibration


def test_it_is_called_estimated() -> None:
    """With a wide margin, and every format known."""
    found = estimate_calibration(PROFILE)

    assert found.estimated
    assert found.spread >= 0.5
    assert all(found.product(form, rows)[0] > 0 for form in [*FORMS, None] for rows in (1, 99))


def test_bandwidth_is_the_profiles() -> None:
    """Beyond the caches; within them it is quicker."""
    found = estimate_calibration(PROFILE)

    assert found.bytes_per_s(2**30, 1) == 8e9
    assert found.bytes_per_s(2**30, 2) == 10e9
    assert found.bytes_per_s(2**18, 2) > 20e9


def test_a_profile_without_bandwidth_still_gives_one() -> None:
    """More threads read more."""
    found = estimate_calibration(replace(PROFILE, read_bandwidth=(), caches=()))

    assert 0 < found.bytes_per_s(2**30, 1) < found.bytes_per_s(2**30, 2)


def test_measured_rates_count_before_instruction_sets() -> None:
    """Of one thread: the profile's are those of several."""
    rate = MatrixRate(
        kind="int4", rows=256, inputs=2048, outputs=2048, threads=2, rate=40e9, engine="native"
    )

    found = estimate_calibration(replace(PROFILE, matrix_rates=(rate,)))

    assert found.product(GroupFormat(), 256)[0] == pytest.approx(1 / 10e9)


@pytest.mark.parametrize(
    ("quicker", "slower"), [("avx512_vnni", "avx2"), ("avx2", "neon"), ("i8mm", "none of these")]
)
def test_better_instructions_are_quicker(quicker: str, slower: str) -> None:
    """In products, and in all that comes before a first token."""
    fast, slow = (
        estimate_calibration(replace(PROFILE, instruction_sets=(name,)))
        for name in (quicker, slower)
    )

    assert fast.product(GroupFormat(), 256) < slow.product(GroupFormat(), 256)
    assert fast.start.process_s <= slow.start.process_s
    assert fast.step.value_s <= slow.step.value_s
