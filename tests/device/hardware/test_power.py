"""What a device runs on: made supplies, and this machine."""

from pathlib import Path

import pytest
from tests.device.hardware.trees import put

from onhand.device.hardware.power import Battery, battery_of, power_source, psutil_battery

SUPPLIES = "sys/class/power_supply"


def test_nothing_shown_is_not_known(tmp_path: Path) -> None:
    """A board, a virtual machine, another system: no guess."""
    assert power_source(tmp_path) == "unknown"
    assert battery_of(tmp_path) is None


@pytest.mark.parametrize(
    ("online", "status", "source"),
    [
        ("1", "Charging", "mains"),
        ("1", "Discharging", "mains"),
        ("0", "Discharging", "battery"),
        ("0", "Full", "mains"),
        ("0", "Not charging", "mains"),
        ("0", "Unknown", "unknown"),
    ],
)
def test_a_laptop_tells_by_its_supplies(
    tmp_path: Path, online: str, status: str, source: str
) -> None:
    """A plugged supply counts first, then what the battery does."""
    put(tmp_path, f"{SUPPLIES}/AC", type="Mains", online=online)
    put(tmp_path, f"{SUPPLIES}/BAT0", type="Battery", status=status, capacity="62")

    assert power_source(tmp_path) == source
    plugged = {"mains": True, "battery": False, "unknown": None}[source]
    assert battery_of(tmp_path) == Battery(charge=0.62, is_plugged=plugged)


def test_a_mouse_is_not_the_device(tmp_path: Path) -> None:
    """Its battery says whose it is."""
    put(tmp_path, f"{SUPPLIES}/mouse", type="Battery", status="Discharging", scope="Device")

    assert power_source(tmp_path) == "unknown"
    assert battery_of(tmp_path) is None


@pytest.mark.parametrize("charge", ["", "full", "-1", "101", "9" * 30])
def test_attack_a_charge_that_cannot_be(tmp_path: Path, charge: str) -> None:
    """It is no battery's charge, so none is told."""
    put(tmp_path, f"{SUPPLIES}/BAT0", type="Battery", status="Full", capacity=charge)

    assert battery_of(tmp_path) is None


@pytest.mark.parametrize(("plugged", "source"), [(True, "mains"), (False, "battery")])
def test_psutil_is_asked_about_this_machine_only(
    tmp_path: Path, *, plugged: bool, source: str
) -> None:
    """MacOS and Windows have no such files; a made machine is not this one."""
    asked: list[int] = []

    def battery() -> Battery:
        asked.append(1)
        return Battery(0.5, is_plugged=plugged)

    here = power_source(battery=battery)

    assert power_source(tmp_path, battery=battery) == "unknown"
    assert here in ({source} if asked else {"mains", "battery"})


def test_this_machine_can_be_asked() -> None:
    """Whatever it has."""
    found = psutil_battery()

    assert found is None or 0 <= found.charge <= 1
    assert power_source() in {"mains", "battery", "unknown"}


@pytest.mark.parametrize("error", [AttributeError, OSError, RuntimeError, ValueError])
def test_a_failing_driver_is_no_battery(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Some systems have no way to ask."""
    psutil = pytest.importorskip("psutil")

    def fail() -> None:
        raise error

    monkeypatch.setattr(psutil, "sensors_battery", fail, raising=False)

    assert psutil_battery() is None
