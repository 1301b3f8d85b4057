"""`onhand devices` and the page about them, and what a probe says beside."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tests.cli.conftest import DEVICE

from onhand.cli.devices import HEADINGS, device_row
from onhand.cli.main import main
from onhand.core.profile import DeviceProfile, render_profile
from onhand.core.profile_parts import EnergyCounter, Provider
from onhand.device.known_devices import known_device, known_devices

Capture = pytest.CaptureFixture[str]
PAGE = (Path(__file__).parents[2] / "docs" / "devices.md").read_text(encoding="utf-8")


def test_the_page_has_the_table_that_the_files_make() -> None:
    """A device that is added or changed is added or changed there."""
    rows = [HEADINGS, *(device_row(known_device(name)) for name in known_devices())]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---" * len(HEADINGS) + "|")

    assert "\n".join(lines) in PAGE


def test_all_are_listed(capsys: Capture) -> None:
    """As a table for people, and whole for programs."""
    assert main(["devices"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in known_devices())
    assert "estimates from public sources" in shown

    assert main(["devices", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == sorted(known_devices())
    assert found["macbook-m1"]["estimated"] is True


def test_one_is_shown_with_its_sources(capsys: Capture) -> None:
    """Each on a line of its own."""
    profile = known_device("raspberry-pi-5")

    assert main(["devices", "raspberry-pi-5"]) == 0
    shown = capsys.readouterr().out
    assert "raspberry-pi-5 (estimated)" in shown
    assert all(f"\n- {source}\n" in shown for source in profile.sources)

    assert main(["devices", "raspberry-pi-5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(asdict(profile)))


def test_an_unknown_one_is_refused_with_those_that_are_near(capsys: Capture) -> None:
    """One sentence on stderr."""
    assert main(["devices", "raspbery-pi-5"]) == 2
    assert "did you mean raspberry-pi-5" in capsys.readouterr().err


def probed(monkeypatch: pytest.MonkeyPatch, profile: DeviceProfile) -> None:
    """Let the probe find a made device."""

    def probe(*_: object, **__: object) -> DeviceProfile:
        return profile

    monkeypatch.setattr("onhand.device.probe.probe", probe)


def test_a_probe_shows_what_was_found(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Counters with their paths, providers, and what is absent with what installs it."""
    found = replace(
        DEVICE,
        slow_read_bandwidth=(5e8,),
        temperature_c=61.4,
        power_source="mains",
        energy_counters=(
            EnergyCounter(name="VDD_IN", path="/sys/a", unit="microwatt", is_readable=True),
            EnergyCounter(name="package-0", path="/sys/b", unit="microjoule", note="root only"),
        ),
        providers=(
            Provider(name="GPU", package="openvino", is_usable=True, falls_back=("Gelu",)),
            Provider(name="CUDA", package="x", note="pip install it", is_present=False),
        ),
    )
    probed(monkeypatch, found)

    assert main(["probe"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "(at slow moments 0.5)",
        "61 °C",
        "/sys/a in microwatts",
        "not readable: root only (/sys/b)",
        "leaves to the processor: Gelu",
        "CUDA: pip install it",
    ):
        assert text in shown


def test_a_probe_is_compared_with_an_earlier_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    """What changed is a table, or for programs a list."""
    probed(monkeypatch, DEVICE)
    old = tmp_path / "old.toml"
    old.write_text(render_profile(DEVICE), encoding="utf-8")

    assert main(["probe", "--compare", str(old)]) == 0
    assert "nothing changed since" in capsys.readouterr().out

    probed(monkeypatch, replace(DEVICE, read_bandwidth=(3e9,)))
    assert main(["probe", "--compare", str(old)]) == 0
    assert "3.00 times" in capsys.readouterr().out

    probed(monkeypatch, replace(DEVICE, read_bandwidth=(3e9,), others_busy=0.6))
    assert main(["probe", "--compare", str(old)]) == 0
    told = capsys.readouterr()
    assert "3.00 times" not in told.out
    assert "note: other programs kept 60% of the processors busy" in told.err
    assert "note: speeds were not compared" in told.err

    probed(monkeypatch, replace(DEVICE, read_bandwidth=(3e9,)))
    assert main(["probe", "--compare", str(old), "--json"]) == 0
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert [one["name"] for one in changes] == ["read_bandwidth, 1 thread(s)"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--compare", "none.toml"], "none.toml cannot be read"),
        (["--compare", "jetsn"], "neither a file nor a device"),
        (["-o", "none/board.toml"], "there is no folder none; make it first"),
        (["--jsn"], "no such option: --jsn; did you mean --json"),
    ],
)
def test_wrong_options_are_told_before_the_measuring(
    options: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    """In one sentence, and nothing is measured."""

    def probe(*_: object, **__: object) -> DeviceProfile:
        raise AssertionError("it measured")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("onhand.device.probe.probe", probe)

    assert main(["probe", *options]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
