"""Every profile that comes with onhand: valid, estimated, with its sources, and plausible."""

import re
from pathlib import Path

import pytest

from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile, render_profile
from onhand.core.units import parse_bytes
from onhand.device.known_devices import known_device, known_devices, near_devices, read_device

NAMES = known_devices()
URL = re.compile(r"https?://[a-z0-9.-]+\.[a-z]+(?:/[^\s,;()]*)?")
SYSTEMS = {"linux", "windows", "darwin", "ios", "android"}
# Each is a figure whose source must be told; others follow from these or are not known.
TOLD = (
    "processor",
    "physical_cores",
    "usable_threads",
    "instruction_sets",
    "memory_bytes",
    "read_bandwidth",
    "matrix_rates",
)


@pytest.fixture(params=NAMES)
def device(request: pytest.FixtureRequest) -> DeviceProfile:
    """Each in turn."""
    return known_device(request.param)


def test_the_devices_that_were_promised_are_there() -> None:
    """Boards, phones, mini PCs and laptops."""
    assert {
        "raspberry-pi-4-4gb",
        "raspberry-pi-4-8gb",
        "raspberry-pi-5",
        "jetson-orin-nano",
        "jetson-orin-nano-super",
        "iphone-a15",
        "iphone-a17-pro",
        "iphone-a18",
        "android-snapdragon-8-gen-3",
        "mini-pc-n100",
        "laptop-core-ultra-258v",
        "macbook-m1",
    } <= set(NAMES)
    assert list(NAMES) == sorted(NAMES)


def test_it_is_named_as_its_file_and_estimated(device: DeviceProfile) -> None:
    """No figure of these was measured by a probe."""
    assert device.name in NAMES
    assert device.estimated
    assert device.energy_counter == ""
    assert device.temperature_c is None
    assert not any(one.is_usable for one in device.providers)
    assert {one.engine for one in device.matrix_rates} == {"estimate"}


def test_every_figure_has_a_source(device: DeviceProfile) -> None:
    """A link, or the word that it is assumed; every field that says something is named."""
    for source in device.sources:
        head, _, rest = source.partition(": ")
        assert head == "assumed" or URL.search(source), source
        assert rest
        names = (*TOLD, "caches", "providers", "storage_read")
        assert head == "assumed" or set(head.split(", ")) <= set(names), source
    told = " ".join(device.sources)
    present = {
        "caches": device.caches,
        "providers": device.providers,
        "storage_read": device.storage_read,
    }
    for name in (*TOLD, *(name for name, value in present.items() if value)):
        assert name in told, name
    assert URL.search(device.watts_source)


def test_its_figures_are_plausible(device: DeviceProfile) -> None:
    """Of a device that one holds or carries, with a sum that is right."""
    assert device.system in SYSTEMS
    assert 1 <= device.usable_threads <= device.physical_cores <= 24
    assert parse_bytes("2GiB") <= device.memory_bytes <= parse_bytes("64GiB")
    assert 2 <= device.watts <= 60
    assert len(device.read_bandwidth) in {0, device.usable_threads}
    assert list(device.read_bandwidth) == sorted(device.read_bandwidth)
    assert all(2e9 <= one <= 200e9 for one in device.read_bandwidth)
    assert {one.kind for one in device.matrix_rates} == {"fp32", "int8", "int4"}
    rates = {one.kind: one.rate for one in device.matrix_rates}
    assert 10e9 <= rates["fp32"] < rates["int8"] == rates["int4"] <= 5e12
    sizes = [one.size_bytes for one in device.caches]
    assert sizes == sorted(sizes)


def test_no_core_reads_more_than_the_whole_peak(device: DeviceProfile) -> None:
    """What is told of the peak holds every figure."""
    peaks = [re.search(r"the peak is ([0-9.]+) GB/s", one) for one in device.sources]
    found = [float(one[1]) for one in peaks if one]

    assert len(found) == bool(device.read_bandwidth)
    assert all(rate <= found[0] * 1e9 for rate in device.read_bandwidth)


def test_rates_are_what_their_formula_says(device: DeviceProfile) -> None:
    """The formula in the source, computed again."""
    rates = {one.kind: one.rate for one in device.matrix_rates}
    formulas = [
        re.fullmatch(r"matrix_rates: (\w+) = 0\.5 x \(([0-9. x+]+)\) = .*", one)
        for one in device.sources
    ]
    found = {one[1]: one[2] for one in formulas if one}

    assert set(found) == {"fp32", "int8"}
    for kind, formula in found.items():
        total = 0.0
        for product in formula.split(" + "):
            value = 0.5e9
            for factor in product.split(" x "):
                value *= float(factor)
            total += value
        assert rates[kind] == pytest.approx(total, rel=1e-6)


def test_its_file_is_as_a_probe_would_write_it(device: DeviceProfile) -> None:
    """So that a person who saves one changes nothing by it."""
    folder = Path(__file__).parents[2] / "src/onhand/device/devices"

    assert (folder / f"{device.name}.toml").read_text(encoding="utf-8") == render_profile(device)


def test_a_name_is_read_as_a_device_and_a_path_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that has a device's name is read with its folder before it."""
    monkeypatch.chdir(tmp_path)
    own = render_profile(known_device("macbook-m1"))
    (tmp_path / "mini-pc-n100").write_text(own, encoding="utf-8")
    (tmp_path / "mine").write_text(own, encoding="utf-8")

    assert read_device("mini-pc-n100").name == "mini-pc-n100"
    assert read_device("./mini-pc-n100").name == "macbook-m1"
    assert read_device("mine").name == "macbook-m1"


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("raspberry-pi5", "did you mean raspberry-pi-5"),
        ("jetson", "did you mean jetson-orin-nano or jetson-orin-nano-super?"),
        ("Snapdragon 8 Gen 3", "did you mean android-snapdragon-8-gen-3"),
        ("zzz", "`onhand devices` lists those that are"),
        ("", "neither a file nor a device"),
        ("board.toml", "device profile board.toml cannot be read"),
        ("folder/board", "cannot be read"),
    ],
)
def test_an_unknown_device_is_one_sentence(given: str, near: str) -> None:
    """It says which are near, and what lists all."""
    with pytest.raises(InputError) as caught:
        read_device(given)

    assert near in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_device_by_a_wrong_name_is_refused() -> None:
    """Even one that is a path."""
    with pytest.raises(InputError, match=r"unknown device '\.\./x'"):
        known_device("../x")
    assert near_devices("") == ()
