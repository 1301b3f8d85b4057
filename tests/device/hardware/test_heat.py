"""Temperatures that made sensors show."""

from pathlib import Path

import pytest
from tests.device.hardware.trees import put

from onhand.device.hardware.heat import hottest_c, psutil_hottest_c, temperature_c


def test_the_hottest_zone_counts(tmp_path: Path) -> None:
    """Sensors that cannot be right are left out."""
    assert hottest_c(tmp_path) is None
    assert temperature_c(tmp_path) is None

    for number, text in enumerate(["45000", "61500", "-273000", "999000", "", "warm"]):
        put(tmp_path, f"sys/class/thermal/thermal_zone{number}", temp=text)
    assert hottest_c(tmp_path) == pytest.approx(61.5)
    assert temperature_c(tmp_path) == pytest.approx(61.5)


def test_a_processors_own_sensor_counts_where_no_zone_shows_it(tmp_path: Path) -> None:
    """AMD's is none of the zones; a disk's heat is not the processor's."""
    put(tmp_path, "sys/class/hwmon/hwmon0", name="nvme", temp1_input="80000")
    assert hottest_c(tmp_path) is None

    put(
        tmp_path, "sys/class/hwmon/hwmon1", name="k10temp", temp1_input="52250", temp3_input="48000"
    )
    assert hottest_c(tmp_path) == pytest.approx(52.25)


def test_this_machine_can_be_asked() -> None:
    """A number that a working device may have, or nothing."""
    found = temperature_c()

    assert found is None or -40 < found < 200


@pytest.mark.parametrize("error", [AttributeError, OSError, RuntimeError, ValueError])
def test_a_failing_driver_is_no_temperature(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """MacOS and Windows have no such call."""
    psutil = pytest.importorskip("psutil")

    def fail() -> None:
        raise error

    monkeypatch.setattr(psutil, "sensors_temperatures", fail, raising=False)

    assert psutil_hottest_c() is None
