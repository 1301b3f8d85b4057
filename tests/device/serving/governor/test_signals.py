"""What the system says about its load, from texts and made folders; what is absent is None."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.device.serving.governor.signals import (
    CpuTimes,
    Throttling,
    parse_cpu_times,
    parse_pressure,
    parse_runnable,
    parse_throttling,
    pressure_of,
    process_cpu_s,
    throttling_of,
    waited_s,
)

V2 = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n"
PRESSURE = "some avg10=13.60 avg60=43.47 avg300=54.10 total=48\nfull avg10=0.00 avg60=0 total=0\n"


def put(root: Path, place: str, text: str) -> None:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (PRESSURE, 0.136),
        ("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", 0.0),
        ("some avg10=100.00 avg60=1 total=0\n", 1.0),
        ("full avg10=9.00 avg60=1 total=0\n", None),
        ("some avg10=nan total=0\n", None),
        ("", None),
    ],
)
def test_pressure(text: str, share: float | None) -> None:
    """The share of ten seconds in which some of the work waited."""
    assert parse_pressure(text) == (None if share is None else pytest.approx(share))


def test_processor_times() -> None:
    """Busy is all but idle, waiting for disks, and what was stolen; guests are in user already."""
    line = "cpu  1000 200 300 4000 500 60 70 80 90 10\ncpu0 1 1 1 1\n"

    assert parse_cpu_times(line) == CpuTimes(busy_s=16.3, idle_s=45.0, stolen_s=0.8)
    assert parse_cpu_times("cpu 100 0 0 100\n") == CpuTimes(busy_s=1.0, idle_s=1.0, stolen_s=0.0)


@pytest.mark.parametrize("text", ["", "cpu 1 2", "intr 1 2 3 4", "cpu a b c d", "cpu -1 2 3 4"])
def test_no_processor_times(text: str) -> None:
    """What is no line of counts says nothing."""
    assert parse_cpu_times(text) is None


def test_runnable_threads() -> None:
    """The number before the slash."""
    assert parse_runnable("3.35 3.83 2.27 3/108 16109\n") == 3
    assert parse_runnable("3.35 3.83") is None
    assert parse_runnable("") is None


def test_throttling_of_both_versions() -> None:
    """v2 counts microseconds, v1 nanoseconds; a group without a quota counts none."""
    v2 = "usage_usec 9\nnr_periods 100\nnr_throttled 25\nthrottled_usec 1500000\n"
    v1 = "nr_periods 100\nnr_throttled 25\nthrottled_time 1500000000\n"

    expected = Throttling(throttled_s=1.5, n_periods=100, n_throttled=25)
    assert parse_throttling(v2) == expected
    assert parse_throttling(v1) == expected
    assert parse_throttling("usage_usec 9\n") is None
    assert parse_throttling("throttled_usec -3\n") is None


def test_the_innermost_group_that_knows_its_pressure_counts(tmp_path: Path) -> None:
    """The machine's figure stands in where a group has none."""
    put(tmp_path, "proc/self/mountinfo", V2)
    put(tmp_path, "proc/self/cgroup", "0::/box/inner\n")
    assert pressure_of("cpu", tmp_path) is None

    put(tmp_path, "proc/pressure/cpu", PRESSURE)
    assert pressure_of("cpu", tmp_path) == pytest.approx(0.136)
    assert pressure_of("memory", tmp_path) is None

    put(tmp_path, "sys/fs/cgroup/box/cpu.pressure", PRESSURE.replace("13.60", "50.00"))
    assert pressure_of("cpu", tmp_path) == pytest.approx(0.5)

    put(tmp_path, "sys/fs/cgroup/box/inner/cpu.pressure", PRESSURE.replace("13.60", "2.00"))
    assert pressure_of("cpu", tmp_path) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("mounts", "group", "place"),
    [(V2, "0::/box\n", "sys/fs/cgroup/box"), (V1, "4:cpu:/box\n", "sys/fs/cgroup/cpu/box")],
)
def test_the_group_that_was_stopped_most_counts(
    tmp_path: Path, mounts: str, group: str, place: str
) -> None:
    """A quota around a group stops it as its own does."""
    put(tmp_path, "proc/self/mountinfo", mounts)
    put(tmp_path, "proc/self/cgroup", group)
    assert throttling_of(tmp_path) is None

    put(tmp_path, f"{place}/cpu.stat", "nr_periods 5\nnr_throttled 1\nthrottled_usec 100\n")
    put(tmp_path, f"{place}/../cpu.stat", "nr_periods 9\nnr_throttled 8\nthrottled_usec 900\n")
    found = throttling_of(tmp_path)
    assert found is not None
    assert (found.n_periods, found.n_throttled) == (9, 8)


def test_threads_that_wait_are_summed(tmp_path: Path) -> None:
    """The second number of each thread's file, in nanoseconds."""
    assert waited_s(tmp_path) is None

    put(tmp_path, "proc/self/task/7/schedstat", "99 1500000000 3\n")
    put(tmp_path, "proc/self/task/8/schedstat", "99 500000000 3\n")
    put(tmp_path, "proc/self/task/9/schedstat", "")
    assert waited_s(tmp_path) == pytest.approx(2.0)


def test_own_processor_time(tmp_path: Path) -> None:
    """Counted behind the name, which may hold brackets and spaces."""
    assert process_cpu_s(tmp_path) is None

    counts = "S 1 1 1 0 -1 4194560 10 0 0 0 250 50 0 0 20 0 4 0"
    put(tmp_path, "proc/self/stat", f"12 (a) b) {counts}\n")
    assert process_cpu_s(tmp_path) == pytest.approx(3.0)


@given(text=st.text(max_size=200))
def test_attack_any_text_is_understood_or_not(text: str) -> None:
    """Whatever a file holds, a parser returns."""
    for parse in (parse_pressure, parse_cpu_times, parse_runnable, parse_throttling):
        parse(text)
        parse(f"some avg10={text}")
        parse(f"cpu {text}")
