"""Providers that are not here: what each would need."""

from pathlib import Path

import pytest
from tests.device.hardware.trees import put

from onhand.core.profile_parts import Provider
from onhand.device.hardware.known_providers import KNOWN, absent_providers, seen_vendors


def absent(
    root: Path, *, system: str, machine: str, present: str = "", installed: str = ""
) -> dict[str, Provider]:
    """Name -> what is said of it."""
    found = absent_providers(
        root,
        system=system,
        machine=machine,
        present=frozenset(present.split()),
        installed=frozenset(installed.split()),
    )
    return {one.name.removesuffix("ExecutionProvider"): one for one in found}


@pytest.mark.parametrize(
    ("system", "machine", "names"),
    [
        ("linux", "x86_64", "CUDA Tensorrt MIGraphX GPU NPU WebGpu"),
        ("linux", "aarch64", "CUDA Tensorrt WebGpu QNN Xnnpack"),
        ("windows", "AMD64", "CUDA Tensorrt GPU NPU WebGpu Dml"),
        ("windows", "ARM64", "CUDA Tensorrt WebGpu Dml QNN Xnnpack"),
        ("darwin", "arm64", "WebGpu CoreML Xnnpack"),
        ("android", "aarch64", "QNN Nnapi Xnnpack"),
        ("plan9", "mips", ""),
    ],
)
def test_what_a_system_could_have(tmp_path: Path, system: str, machine: str, names: str) -> None:
    """Those that no package has for it are left out."""
    found = absent(tmp_path, system=system, machine=machine)

    assert list(found) == names.split()
    assert not any(one.is_usable or one.is_present for one in found.values())


def test_each_says_what_installs_it(tmp_path: Path) -> None:
    """And what it needs."""
    note = absent(tmp_path, system="linux", machine="x86_64")["CUDA"].note

    assert note == (
        "not installed: pip install onnxruntime-gpu in place of onnxruntime; it needs an NVIDIA GPU"
    )


def test_a_device_on_the_bus_says_so(tmp_path: Path) -> None:
    """A network card is none, nor a GPU of a vendor that nothing here knows."""
    devices = "sys/bus/pci/devices"
    put(tmp_path, f"{devices}/0000:01:00.0", **{"class": "0x030200", "vendor": "0x10de"})
    put(tmp_path, f"{devices}/0000:02:00.0", **{"class": "0x120000", "vendor": "0x8086"})
    put(tmp_path, f"{devices}/0000:03:00.0", **{"class": "0x020000", "vendor": "0x8086"})
    put(tmp_path, f"{devices}/0000:04:00.0", **{"class": "0x030000", "vendor": "0x1234"})
    found = absent(tmp_path, system="linux", machine="x86_64")

    assert ("0x03", "0x10de") in seen_vendors(tmp_path)
    assert found["CUDA"].note.startswith("an NVIDIA GPU is there, but nothing that is installed")
    assert found["NPU"].note.startswith("an Intel neural processor is there")
    assert found["GPU"].note.startswith("not installed")


def test_a_package_without_its_device_says_so(tmp_path: Path) -> None:
    """Installing it again would not help."""
    found = absent(tmp_path, system="linux", machine="x86_64", installed="openvino", present="GPU")

    assert "GPU" not in found
    assert found["NPU"].note.startswith("openvino is installed, but finds no device")


def test_names_are_told_once() -> None:
    """And each says what to do."""
    assert len({one.name for one in KNOWN}) == len(KNOWN)
    assert all(one.install and one.needs and one.systems for one in KNOWN)
