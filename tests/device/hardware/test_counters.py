"""Energy counters of made machines: a laptop, a server, boards, phones."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.device.hardware.trees import put

from onhand.core.profile_parts import EnergyCounter
from onhand.device.hardware.counters import energy_counters, nvidia_counters

RAPL = "sys/class/powercap"


def shown(root: Path, *, system: str = "linux") -> dict[str, EnergyCounter]:
    """Name -> what was found, with paths below the root."""
    return {one.name: one for one in energy_counters(root, system=system)}


def test_a_machine_that_shows_nothing(tmp_path: Path) -> None:
    """No counters, no error, on any system."""
    for system in ("linux", "win32", "freebsd14"):
        assert energy_counters(tmp_path, system=system) == ()


def test_rapl_names_package_and_memory(tmp_path: Path) -> None:
    """A domain of the package is told apart from the whole; a folder without a counter is none."""
    put(tmp_path, f"{RAPL}/intel-rapl:0", name="package-0", energy_uj="123")
    put(tmp_path, f"{RAPL}/intel-rapl:0:1", name="dram", energy_uj="45")
    put(tmp_path, f"{RAPL}/intel-rapl", enabled="1")
    found = shown(tmp_path)

    assert list(found) == ["package-0", "dram"]
    assert found["dram"].note == "memory"
    assert found["package-0"] == EnergyCounter(
        name="package-0",
        path=str(tmp_path / RAPL / "intel-rapl:0/energy_uj"),
        unit="microjoule",
        is_readable=True,
        note="one processor package, every process and idle power included",
    )


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="root and Windows read every file"
)
def test_one_that_only_root_may_read_says_so(tmp_path: Path) -> None:
    """As RAPL is on most systems."""
    place = put(tmp_path, f"{RAPL}/intel-rapl:0", name="package-0", energy_uj="1")
    (place / "energy_uj").chmod(0)

    assert not shown(tmp_path)["package-0"].is_readable
    assert "only root may read it" in shown(tmp_path)["package-0"].note


def test_a_refused_file_says_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal is made, since root is refused nothing."""
    put(tmp_path, f"{RAPL}/intel-rapl:0", name="package-0", energy_uj="1")
    put(tmp_path, f"{RAPL}/intel-rapl:1", name="package-1", energy_uj="1")
    errors = {"intel-rapl:0": PermissionError(13, "x"), "intel-rapl:1": OSError(5, "Input error")}
    read = Path.read_text

    def refuse(
        path: Path, encoding: str | None = None, errors_: str | None = None, **kw: str
    ) -> str:
        if path.name == "energy_uj":
            raise errors[path.parent.name]
        return read(path, encoding=encoding, errors="replace")

    monkeypatch.setattr(Path, "read_text", refuse)
    found = shown(tmp_path)

    assert found["package-0"].note.startswith("only root may read it: chmod")
    assert found["package-1"].note == "it cannot be read: Input error"
    assert not any(one.is_readable for one in found.values())


def test_a_jetson_has_rails(tmp_path: Path) -> None:
    """Milliamperes times millivolts are microwatts; a sum without a voltage is none."""
    put(
        tmp_path,
        "sys/class/hwmon/hwmon3",
        name="ina3221",
        in1_label="VDD_IN",
        in1_input="5056",
        curr1_input="1200",
        in2_input="5056",
        in2_label="VDD_CPU_GPU_CV",
        curr2_input="300",
        curr4_input="1500",
    )
    found = shown(tmp_path)
    place = tmp_path / "sys/class/hwmon/hwmon3"

    assert list(found) == ["VDD_IN", "VDD_CPU_GPU_CV"]
    assert found["VDD_IN"].path == f"{place}/curr1_input x {place}/in1_input"
    assert (found["VDD_IN"].unit, found["VDD_IN"].is_readable) == ("microwatt", True)


def test_an_older_jetson_tells_milliwatts(tmp_path: Path) -> None:
    """By its own driver, with the rail's name beside."""
    put(
        tmp_path, "sys/bus/iio/devices/iio:device0", rail_name_0="POM_5V_IN", in_power0_input="2500"
    )

    assert shown(tmp_path)["POM_5V_IN"].unit == "milliwatt"


def test_sensors_of_power_and_energy(tmp_path: Path) -> None:
    """Each is listed once, by its own name or its driver's."""
    put(
        tmp_path,
        "sys/class/hwmon/hwmon0",
        name="amdgpu",
        power1_average="9000000",
        power1_input="9000001",
        power1_label="PPT",
    )
    put(tmp_path, "sys/class/hwmon/hwmon1", name="amd_energy", energy1_input="77")
    found = shown(tmp_path)

    assert {name: one.unit for name, one in found.items()} == {
        "PPT": "microwatt",
        "amd_energy energy1": "microjoule",
    }
    assert found["PPT"].path.endswith("power1_input")


def test_batteries_tell_power_or_current_and_voltage(tmp_path: Path) -> None:
    """A laptop's and a phone's; a mouse's is not the device's, and mains have none."""
    supplies = "sys/class/power_supply"
    put(tmp_path, f"{supplies}/AC", type="Mains", online="1")
    put(tmp_path, f"{supplies}/BAT0", type="Battery", power_now="8000000", energy_now="50000000")
    put(
        tmp_path,
        f"{supplies}/battery",
        type="Battery",
        current_now="-350000",
        voltage_now="4100000",
    )
    put(tmp_path, f"{supplies}/mouse", type="Battery", scope="Device", power_now="1")
    found = shown(tmp_path)

    assert {name: one.unit for name, one in found.items()} == {
        "BAT0": "microwatt",
        "BAT0 charge": "microwatt-hour",
        "battery": "picowatt",
    }
    assert all(one.is_readable for one in found.values())


def test_what_holds_no_number_is_not_readable(tmp_path: Path) -> None:
    """Its text is shown, cut short."""
    put(tmp_path, f"{RAPL}/intel-rapl:0", name="package-0", energy_uj="busy" * 30)
    found = shown(tmp_path)["package-0"]

    assert not found.is_readable
    assert found.note.startswith("it holds 'busybusy")
    assert len(found.note) < 80


def test_a_mac_has_a_program_for_root(tmp_path: Path) -> None:
    """Nothing else tells there."""
    assert shown(tmp_path, system="darwin")["powermetrics"].note.endswith("only root may run it")


def test_nvidia_cards_tell_watts() -> None:
    """As its program writes them; a card that tells none says so (made answers)."""
    answer = "0, NVIDIA Something, Rev 2, 61.52\n1, Old Card, [N/A]\nnonsense\n, x, 1\n"
    asked: list[Sequence[str]] = []

    def ask(command: Sequence[str]) -> str:
        asked.append(command)
        return answer

    found = nvidia_counters(ask)

    assert [(one.name, one.is_readable) for one in found] == [
        ("NVIDIA Something, Rev 2, GPU 0", True),
        ("Old Card, GPU 1", False),
    ]
    assert asked[0][0] == "nvidia-smi"
    assert nvidia_counters(lambda _: "") == []


def test_this_machine_can_be_asked() -> None:
    """Whatever it has: each says if it can be read, and why not."""
    assert all(one.is_readable or one.note for one in energy_counters())
