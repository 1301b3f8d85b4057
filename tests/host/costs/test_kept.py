"""`onhand.host.costs.kept`: measured once, and found again."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.host.costs.parts import CALIBRATION, PROFILE

from onhand.core.progress import Progress
from onhand.device.probe import current_profile
from onhand.host.costs import kept
from onhand.host.costs.calibration import Calibration
from onhand.host.costs.kept import calibrate, calibrate_anew, calibration_for, kept_calibration


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was measured, in the place of measuring."""
    devices: list[str] = []

    def measure(profile: object, *, progress: Progress | None = None) -> Calibration:
        devices.append("once")
        return replace(CALIBRATION, spread=0.01 * len(devices))

    monkeypatch.setattr(kept, "measure_calibration", measure)
    return devices


def test_it_is_measured_once(tmp_path: Path, measured: list[str]) -> None:
    """The next call reads it."""
    first = calibrate(tmp_path, PROFILE)

    assert calibrate(tmp_path, PROFILE) == first == kept_calibration(tmp_path, PROFILE)
    assert measured == ["once"]


def test_it_can_be_measured_anew(tmp_path: Path, measured: list[str]) -> None:
    """The later one is kept."""
    calibrate(tmp_path, PROFILE)

    later = calibrate_anew(tmp_path, PROFILE)

    assert kept_calibration(tmp_path, PROFILE) == later
    assert len(measured) == 2


@pytest.mark.usefixtures("measured")
def test_another_processor_has_none(tmp_path: Path) -> None:
    """Nor one with other cores."""
    calibrate(tmp_path, PROFILE)

    assert kept_calibration(tmp_path, replace(PROFILE, processor="another")) is None
    assert kept_calibration(tmp_path, replace(PROFILE, usable_threads=1)) is None


@pytest.mark.usefixtures("measured")
def test_a_damaged_one_is_as_none(tmp_path: Path) -> None:
    """It is measured again, and never believed."""
    calibrate(tmp_path, PROFILE)
    (file,) = tmp_path.rglob("calibration.json")
    file.write_text('{"format": 1, "value": {"products": []}}')

    assert kept_calibration(tmp_path, PROFILE) is None


@pytest.mark.usefixtures("measured")
def test_a_plan_takes_what_is_kept_for_this_device(tmp_path: Path) -> None:
    """And says what is missing otherwise."""
    here = current_profile()

    unknown, notes = calibration_for(here, tmp_path)
    assert unknown is None
    assert "onhand probe --costs" in notes[0]

    calibrate(tmp_path, here)
    known, notes = calibration_for(here, tmp_path)
    assert known is not None
    assert notes == ()
    assert calibration_for(here, None)[0] is None


@pytest.mark.usefixtures("measured")
def test_another_device_is_estimated(tmp_path: Path) -> None:
    """What was measured here says nothing of it."""
    calibrate(tmp_path, PROFILE)

    unknown, notes = calibration_for(PROFILE, tmp_path)

    assert unknown is None
    assert "times on board are estimated from its profile" in notes[0]
