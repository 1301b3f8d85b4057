"""Energy counters, from fake trees of files such as Linux shows them, and the estimate."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from onhand.core.errors import ResourceError
from onhand.core.profile import DeviceProfile
from onhand.device.energy import choose_meter, find_counter
from onhand.device.probe import current_profile

RANGE = 262143328850


def put(root: Path, zone: str, *, name: str, energy: int | str) -> Path:
    """Write one zone of the powercap folder; return its counter."""
    folder = root / "sys/class/powercap" / zone
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    return folder / "energy_uj"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A laptop: one package with its parts, the same package again, and the whole board."""
    put(tmp_path, "intel-rapl:0:0", name="core", energy=7)
    put(tmp_path, "intel-rapl:0:1", name="dram", energy=7)
    put(tmp_path, "intel-rapl:1", name="psys", energy=7)
    put(tmp_path, "intel-rapl-mmio:0", name="package-0", energy=7)
    return put(tmp_path, "intel-rapl:0", name="package-0", energy=5_000_000)


def profile(root: Path) -> DeviceProfile:
    return replace(current_profile(), energy_counter=find_counter(root))


def bump_everything_else(root: Path) -> None:
    for path in (root / "sys/class/powercap").glob("*/energy_uj"):
        if path.parent.name != "intel-rapl:0":
            path.write_text("999999999\n")


def test_only_the_package_counts(tmp_path: Path, package: Path) -> None:
    """Its parts, its second reading and the whole board would count the same joules again."""
    meter = choose_meter(profile(tmp_path))
    bump_everything_else(tmp_path)
    package.write_text("7500000\n")

    assert not meter.estimated
    assert meter.read_j() == pytest.approx(2.5)
    assert str(package) in meter.how
    assert "1 processor package" in meter.how


def test_the_counter_wraps_round(tmp_path: Path, package: Path) -> None:
    """After its range it starts at 0 again; the joules go on."""
    package.write_text(f"{RANGE - 1_000_000}\n")
    meter = choose_meter(profile(tmp_path))
    package.write_text("2000000\n")
    first = meter.read_j()
    package.write_text("2500000\n")

    assert first == pytest.approx(3.0)
    assert meter.read_j() == pytest.approx(3.5)
    assert meter.read_j() == pytest.approx(3.5)


def test_two_packages_add_up(tmp_path: Path, package: Path) -> None:
    """A server with two sockets draws the energy of both; each wraps on its own."""
    second = put(tmp_path, "intel-rapl:2", name="package-1", energy=RANGE - 10)
    meter = choose_meter(profile(tmp_path))
    package.write_text("6000000\n")
    second.write_text("3999990\n")

    assert meter.read_j() == pytest.approx(5.0)


def test_no_powercap_is_no_counter(tmp_path: Path) -> None:
    """Most machines have none: then an estimate, which says what it is made of."""
    meter = choose_meter(replace(profile(tmp_path), watts=12.5, watts_source="a table"))

    assert find_counter(tmp_path) == ""
    assert meter.estimated
    assert "joules = 12.5 W x CPU seconds of the process /" in meter.how
    assert "a table" in meter.how


@pytest.mark.parametrize("content", ["", "abc", "-5", "1.5"])
def test_a_counter_of_garbage_is_not_used(tmp_path: Path, package: Path, content: str) -> None:
    """What is no number of microjoules is no counter, also when it only became so later."""
    known = profile(tmp_path)
    package.write_text(content)

    assert find_counter(tmp_path) == ""
    assert choose_meter(known).estimated


def test_a_second_package_that_cannot_be_read_leaves_none(tmp_path: Path, package: Path) -> None:
    """Half of the energy would be a wrong figure."""
    put(tmp_path, "intel-rapl:2", name="package-1", energy=1).unlink()

    assert package.exists()
    assert find_counter(tmp_path) == ""


def test_a_counter_that_goes_away_is_an_error(tmp_path: Path, package: Path) -> None:
    """A figure cannot be made up half way."""
    meter = choose_meter(profile(tmp_path))
    package.unlink()

    with pytest.raises(ResourceError, match=r"energy_uj: cannot be read"):
        meter.read_j()


def test_the_estimate_is_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 W of 4 cores, 2 CPU seconds: 30 * 2 / 4 = 15 J."""
    now = [100.0]
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    device = replace(current_profile(), watts=30.0, physical_cores=4, energy_counter="")
    meter = choose_meter(device)
    assert meter.read_j() == 0
    now[0] += 2

    assert meter.read_j() == pytest.approx(15.0)
