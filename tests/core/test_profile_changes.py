"""What changed between two probes, and what two probes differ by anyway."""

from dataclasses import replace

import pytest
from tests.core.test_profile import BOARD, FULL

from onhand.core.profile_changes import Change, are_comparable, profile_changes
from onhand.core.profile_parts import CacheLevel, EnergyCounter, MatrixRate, Provider

RATE = MatrixRate(kind="int8", rows=1, inputs=64, outputs=64, threads=3, rate=1e9, engine="native")


def test_a_device_is_like_itself() -> None:
    """Nothing changed."""
    assert profile_changes(FULL, FULL) == ()


def test_facts_are_compared_as_they_are() -> None:
    """Each by its name."""
    now = replace(
        BOARD,
        quota_cpus=1.5,
        instruction_sets=("asimd",),
        power_source="battery",
        caches=(CacheLevel(level=1, size_bytes=64),),
    )

    assert profile_changes(BOARD, now) == (
        Change(name="instruction_sets", before="asimd asimddp", after="asimd"),
        Change(name="quota_cpus", before="0.0", after="1.5"),
        Change(name="power_source", before="unknown", after="battery"),
        Change(name="caches", before="", after="L1 64 bytes"),
    )


@pytest.mark.parametrize(
    ("before", "after", "is_told"),
    [(50.0, 59.0, False), (50.0, 60.0, True), (60.0, 45.0, True), (None, 90.0, False)],
)
def test_ten_degrees_are_told(before: float | None, after: float, *, is_told: bool) -> None:
    """Less is weather; what was not known cannot have changed."""
    found = profile_changes(
        replace(BOARD, temperature_c=before), replace(BOARD, temperature_c=after)
    )

    assert [one.name for one in found] == (["temperature_c"] if is_told else [])


def test_counters_that_became_readable_are_told() -> None:
    """And those that are no longer."""
    one = EnergyCounter(name="package-0", path="a", unit="microjoule", is_readable=True)
    other = EnergyCounter(name="BAT0", path="b", unit="microwatt", is_readable=True)
    shut = replace(other, is_readable=False)
    found = profile_changes(
        replace(BOARD, energy_counters=(one, shut)), replace(BOARD, energy_counters=(other,))
    )

    assert [(change.name, change.before, change.after) for change in found] == [
        ("energy_counters BAT0", "not readable", "readable"),
        ("energy_counters package-0", "readable", "not readable"),
    ]


@pytest.mark.parametrize(
    ("slow", "now", "is_told"),
    [
        (8e9, 9.5e9, False),  # within what nine of ten passes reached
        (8e9, 7.9e9, True),
        (9.9e9, 9.5e9, False),  # below it, but less than a tenth
        (None, 7.9e9, False),
        (None, 6.6e9, True),
    ],
)
def test_bandwidth_is_judged_by_its_slow_moments(
    slow: float | None, now: float, *, is_told: bool
) -> None:
    """Where they are known; else by half."""
    before = replace(
        BOARD, read_bandwidth=(10e9,), slow_read_bandwidth=() if slow is None else (slow,)
    )
    after = replace(BOARD, read_bandwidth=(now,))
    found = profile_changes(before, after)

    assert [one.factor for one in found] == ([now / 10e9] if is_told else [])
    assert [one.name for one in profile_changes(after, before)] == [
        "read_bandwidth, 1 thread(s)" for _ in found
    ]


def test_speeds_are_told_from_half_on() -> None:
    """Storage, and products of the same shape; what was not measured is left out."""
    before = replace(BOARD, storage_read=1e8, storage_write=1e8, matrix_rates=(RATE,))
    after = replace(
        BOARD,
        storage_read=2e8,
        storage_write=0.0,
        matrix_rates=(replace(RATE, rate=0.5e9), replace(RATE, rows=2)),
    )

    assert [(one.name, one.factor) for one in profile_changes(before, after)] == [
        ("storage_read", 2.0),
        ("matrix_rates, int8 1 x 64 x 64, 3 thread(s), native", 0.5),
    ]
    assert profile_changes(before, replace(before, storage_read=1.4e8)) == ()


@pytest.mark.parametrize(("busy", "is_told"), [((0.0, None), True), ((0.5, 0.0), False)])
def test_speeds_are_not_compared_where_others_disturbed(
    busy: tuple[float, float | None], *, is_told: bool
) -> None:
    """Facts are."""
    before = replace(BOARD, storage_read=1e8, others_busy=busy[0])
    after = replace(BOARD, storage_read=9e8, others_busy=busy[1], quota_cpus=1.0)
    names = [one.name for one in profile_changes(before, after)]

    assert names == ["quota_cpus", *(["storage_read"] if is_told else [])]
    assert are_comparable(before, after) == is_told


def test_what_may_compute_is_told_by_its_use() -> None:
    """New, gone, broken, or with fewer operators; two ways of being absent are one."""
    gpu = Provider(name="GPU", package="openvino", is_usable=True)
    npu = Provider(name="NPU", package="openvino", is_present=False)
    before = replace(BOARD, providers=(gpu, npu))
    left = replace(gpu, falls_back=("Conv", "Gelu"))
    found = profile_changes(before, replace(BOARD, providers=(left,)))

    assert [(one.name, one.before, one.after) for one in found] == [
        ("providers GPU", "usable", "usable without Conv, Gelu")
    ]
    broken = profile_changes(before, replace(BOARD, providers=(replace(gpu, is_usable=False),)))
    assert broken[0].after == "not usable"
    assert profile_changes(BOARD, before)[0].before == "not installed"
