"""Providers that ONNX Runtime and OpenVINO can have: where each exists and what installs it.

Source:
    https://onnxruntime.ai/docs/execution-providers/ and the packages' own pages on PyPI.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onhand.core.profile_parts import Provider
from onhand.device.control_groups import read_text

__all__ = ["KNOWN", "KnownProvider", "absent_providers", "seen_vendors"]

_ARM: Final = ("aarch64", "arm64")
_PIP: Final = "pip install "


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownProvider:
    """One provider.

    Attributes:
        name: as its package calls it.
        package: what has it.
        install: what to do to have it.
        needs: what the device must have.
        systems: where there is such a package, as `DeviceProfile.system` says.
        machines: architectures that it is made for; empty for all.
        bus: class and vendor of the device that it drives, as PCI numbers them; "" for none.
    """

    name: str
    package: str
    install: str
    needs: str
    systems: tuple[str, ...]
    machines: tuple[str, ...] = ()
    bus: tuple[str, str] = ("", "")


_PC: Final = ("linux", "windows")
_DISPLAY, _ACCELERATOR = "0x03", "0x12"
_NVIDIA, _AMD, _INTEL = "0x10de", "0x1002", "0x8086"

KNOWN: Final = (
    KnownProvider(
        name="CUDAExecutionProvider",
        package="onnxruntime-gpu",
        install=_PIP + "onnxruntime-gpu in place of onnxruntime",
        needs="an NVIDIA GPU",
        systems=_PC,
        bus=(_DISPLAY, _NVIDIA),
    ),
    KnownProvider(
        name="TensorrtExecutionProvider",
        package="onnxruntime-gpu",
        install=_PIP + "onnxruntime-gpu in place of onnxruntime, and tensorrt",
        needs="an NVIDIA GPU",
        systems=_PC,
        bus=(_DISPLAY, _NVIDIA),
    ),
    KnownProvider(
        name="MIGraphXExecutionProvider",
        package="onnxruntime-migraphx",
        install=_PIP + "onnxruntime-migraphx in place of onnxruntime; it follows ROCm's provider",
        needs="an AMD GPU with ROCm",
        systems=("linux",),
        machines=("x86_64", "amd64"),
        bus=(_DISPLAY, _AMD),
    ),
    KnownProvider(
        name="GPU",
        package="openvino",
        install=_PIP + "onhand[openvino]",
        needs="an Intel GPU and its driver",
        systems=_PC,
        machines=("x86_64", "amd64"),
        bus=(_DISPLAY, _INTEL),
    ),
    KnownProvider(
        name="NPU",
        package="openvino",
        install=_PIP + "onhand[openvino]",
        needs="an Intel neural processor and its driver",
        systems=_PC,
        machines=("x86_64", "amd64"),
        bus=(_ACCELERATOR, _INTEL),
    ),
    KnownProvider(
        name="WebGpuExecutionProvider",
        package="onnxruntime-ep-webgpu",
        install=_PIP + "onnxruntime-ep-webgpu",
        needs="a GPU with Vulkan, Metal or Direct3D 12",
        systems=("linux", "windows", "darwin"),
    ),
    KnownProvider(
        name="DmlExecutionProvider",
        package="onnxruntime-directml",
        install=_PIP + "onnxruntime-directml in place of onnxruntime",
        needs="a GPU with DirectX 12",
        systems=("windows",),
    ),
    KnownProvider(
        name="QNNExecutionProvider",
        package="onnxruntime-qnn",
        install=_PIP + "onnxruntime-qnn",
        needs="a Qualcomm Hexagon neural processor",
        systems=("windows", "linux", "android"),
        machines=_ARM,
    ),
    KnownProvider(
        name="CoreMLExecutionProvider",
        package="onnxruntime",
        install=_PIP + "onnxruntime",
        needs="macOS or iOS",
        systems=("darwin", "ios"),
    ),
    KnownProvider(
        name="NnapiExecutionProvider",
        package="onnxruntime-android",
        install="use the Android package of ONNX Runtime",
        needs="Android",
        systems=("android",),
    ),
    KnownProvider(
        name="XnnpackExecutionProvider",
        package="onnxruntime",
        install="no package for pip has it: build ONNX Runtime with --use_xnnpack",
        needs="nothing more than the processor",
        systems=("linux", "windows", "darwin", "android", "ios"),
        machines=_ARM,
    ),
)
"""Those that a device of today may have beside its processor's own."""


def absent_providers(
    root: Path, *, system: str, machine: str, present: frozenset[str], installed: frozenset[str]
) -> tuple[Provider, ...]:
    """Return what this device could have and has not, and what would change that.

    Args:
        root: folder that holds `sys`.
        system: as `DeviceProfile.system`.
        machine: as `DeviceProfile.machine`.
        present: names of providers that are there, devices' numbers left out.
        installed: packages that are installed.

    Returns:
        None of them is present.
    """
    seen = seen_vendors(root)
    found = []
    for known in KNOWN:
        fits = system in known.systems and machine.lower() in (known.machines or (machine.lower(),))
        if known.name in present or not fits:
            continue
        note = f"not installed: {known.install}; it needs {known.needs}"
        if known.package in installed:
            note = f"{known.package} is installed, but finds no device: it needs {known.needs}"
        elif known.bus in seen:
            what = known.needs.partition(" and ")[0].partition(" with ")[0]
            note = f"{what} is there, but nothing that is installed uses it: {known.install}"
        found.append(Provider(name=known.name, package=known.package, note=note, is_present=False))
    return tuple(found)


def seen_vendors(root: Path) -> frozenset[tuple[str, str]]:
    """Return the class and vendor of graphics and neural processors on the bus.

    Args:
        root: folder that holds `sys`.
    """
    found = set()
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        kind, vendor = (read_text(device / name).strip() for name in ("class", "vendor"))
        if kind.startswith((_DISPLAY, _ACCELERATOR)):
            found.add((kind[:4], vendor))
    return frozenset(found)
