"""Readings of a made machine: rates between two readings, and None where nothing is known."""

from pathlib import Path

import pytest
from tests.device.serving.governor.test_signals import V2, put

from onhand.device.hardware.power import Battery
from onhand.device.serving.governor.sensors import Sensors


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def read(self) -> float:
        """Say how late it is."""
        return self.now


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Two processors, a group with a quota, all counts at a beginning."""
    put(tmp_path, "proc/self/mountinfo", V2)
    put(tmp_path, "proc/self/cgroup", "0::/box\n")
    put(tmp_path, "proc/meminfo", "MemTotal: 4096 kB\nMemAvailable: 2048 kB\n")
    put(tmp_path, "proc/loadavg", "0.1 0.1 0.1 2/90 7\n")
    put(tmp_path, "proc/pressure/cpu", "some avg10=10.00 avg60=0 avg300=0 total=0\n")
    put(tmp_path, "proc/pressure/memory", "some avg10=1.00 avg60=0 avg300=0 total=0\n")
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "50000\n")
    put(tmp_path, "sys/fs/cgroup/box/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n")
    counted(tmp_path)
    return tmp_path


def counted(root: Path, *, busy: int = 0, idle: int = 0, own: int = 0, waited: int = 0) -> None:
    """Processor times in hundredths of a second, and nanoseconds that a thread waited."""
    put(root, "proc/stat", f"cpu {1000 + busy} 0 0 {1000 + idle} 0 0 0 0 0 0\n")
    put(root, "proc/self/stat", f"1 (onhand) S 1 1 1 0 -1 4 1 0 0 0 {500 + own} 0 0 0 20 0\n")
    put(root, "proc/self/task/1/schedstat", f"1 {waited} 1\n")


def test_rates_are_those_since_the_last_reading(machine: Path) -> None:
    """Two seconds in which others had one of two processors, and this process half of one."""
    clock = Clock()
    sensors = Sensors(machine, battery=lambda: Battery(0.5, is_plugged=False), clock=clock.read)
    clock.now += 2
    counted(machine, busy=300, idle=100, own=100, waited=1_000_000_000)
    throttled = "nr_periods 20\nnr_throttled 5\nthrottled_usec 700000\n"
    put(machine, "sys/fs/cgroup/box/cpu.stat", throttled)
    found = sensors.read()

    assert found.at_s == clock.now
    assert found.others_cpus == pytest.approx(1.0)
    assert found.waiting_threads == pytest.approx(0.5)
    assert found.throttled == pytest.approx(0.25)
    assert found.stolen == 0
    assert (found.cpu_pressure, found.memory_pressure) == pytest.approx((0.1, 0.01))
    assert (found.n_runnable, found.temperature_c) == (2, 50)
    assert (found.battery, found.is_plugged) == (0.5, False)
    assert found.memory_available_bytes == 2048 * 1024


def test_what_works_for_this_process_is_no_other(machine: Path) -> None:
    """A process that learns has half a processor, and is not what others keep busy."""
    clock, at_work = Clock(), [7]
    put(machine, "proc/7/stat", "7 (onhand) S 1 1 1 0 -1 4 1 0 0 0 900 0 0 0 20 0\n")
    sensors = Sensors(machine, helpers=lambda: at_work, clock=clock.read)
    clock.now += 2
    counted(machine, busy=300, own=100)
    put(machine, "proc/7/stat", "7 (onhand) S 1 1 1 0 -1 4 1 0 0 0 1000 0 0 0 20 0\n")
    with_it = sensors.read()
    at_work.clear()
    clock.now += 2
    counted(machine, busy=400, own=100)
    after = sensors.read()

    assert with_it.others_cpus == pytest.approx(0.5)
    assert after.others_cpus == pytest.approx(0.5)


def test_counts_that_fall_are_no_rate_below_zero(machine: Path) -> None:
    """Threads that ended take what they had waited with them."""
    counted(machine, busy=100, own=100, waited=10**12)
    clock = Clock()
    sensors = Sensors(machine, clock=clock.read)
    clock.now += 1
    counted(machine, busy=100, own=50)
    found = sensors.read()

    assert (found.others_cpus, found.waiting_threads) == (0, 0)


def test_two_readings_at_once_have_no_rates(machine: Path) -> None:
    """Too little time has passed; the next reading counts from the first."""
    clock = Clock()
    sensors = Sensors(machine, clock=clock.read)
    assert sensors.read().others_cpus is None

    clock.now += 1
    counted(machine, busy=100)
    assert sensors.read().others_cpus == pytest.approx(1.0)


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    """Everything that comes from its files alone is None."""
    clock = Clock()
    sensors = Sensors(tmp_path, clock=clock.read)
    clock.now += 1
    found = sensors.read()

    assert found.others_cpus is found.cpu_pressure is found.memory_pressure is None
    assert found.waiting_threads is found.stolen is found.throttled is found.n_runnable is None
    assert found.temperature_c is found.battery is found.is_plugged is None


def test_this_machine_can_be_read() -> None:
    """Here, whatever it has: at least its memory is known."""
    found = Sensors().read()

    assert (found.memory_available_bytes or 0) > 0
    assert found.battery is None or 0 <= found.battery <= 1
