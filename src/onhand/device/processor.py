"""What the processor is: its name, its instruction sets, and the power that it may draw."""

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = [
    "Watts",
    "last_cache_bytes",
    "processor",
    "read_cpuinfo",
    "read_sysctl",
    "read_windows",
    "watts_of",
]

HERE = Path("/")

# The names of Linux for x86-64; the flags of /proc/cpuinfo are already called so.
_X86 = (
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx_vnni_int8",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
)
_ARM = {
    "neon": "neon",
    "asimd": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
}
_SYSCTL = {
    "hw.optional.neon": "neon",
    "hw.optional.AdvSIMD": "neon",
    "hw.optional.arm.AdvSIMD": "neon",
    "hw.optional.arm.FEAT_FP16": "fp16",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.sse4_2": "sse4_2",
    "hw.optional.avx1_0": "avx",
    "hw.optional.f16c": "f16c",
    "hw.optional.fma": "fma",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.avx512bw": "avx512bw",
    "hw.optional.avx512vl": "avx512vl",
}
# Numbers of IsProcessorFeaturePresent. Windows answers for no others of those above, so a name
# that is absent here may still be something that the processor has.
_WINDOWS = {38: "sse4_2", 39: "avx", 40: "avx2", 41: "avx512f", 19: "neon", 43: "dotprod"}

# Cores that name themselves by a number only (Linux on ARM): implementer 0x41 is Arm itself.
_ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}

# Assumptions, and called so wherever they are used; a user who knows better writes the profile.
_WATTS_PER_CORE = {"x86_64": 5.0, "amd64": 5.0, "aarch64": 2.0, "arm64": 2.0}
_OTHER_WATTS_PER_CORE = 2.0

Watts = tuple[float, str]


def processor(
    root: Path = HERE, *, system: str = sys.platform, machine: str = ""
) -> tuple[str, tuple[str, ...]]:
    """Return the processor's own name and its instruction sets, as far as the system says.

    Args:
        root: folder that holds `proc`.
        system: as `sys.platform`.
        machine: the architecture, which stands in for a name that nobody gives.

    Returns:
        The name, and the instruction sets in alphabetical order.
    """
    found: tuple[str, tuple[str, ...]] = ("", ())
    if (text := _read(root / "proc/cpuinfo")) or system == "linux":
        name, sets = read_cpuinfo(text)
        found = (name or _read(root / "proc/device-tree/model").strip("\0 \n"), sets)
    elif system == "darwin":
        found = read_sysctl(_sysctl())
    elif system == "win32":
        found = read_windows(_windows_feature())
    return found[0] or machine or "unknown", found[1]


def read_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Read the processor's name ("" where there is none) and sets from `/proc/cpuinfo`."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", "").split())
    features = set(fields.get("Features", "").split())
    sets = {name for name in _X86 if name in flags}
    sets |= {name for flag, name in _ARM.items() if flag in features}
    part = _ARM_PARTS.get(fields.get("CPU part", ""), "")
    arm = part if fields.get("CPU implementer") == "0x41" else ""
    return fields.get("model name") or arm, tuple(sorted(sets))


def read_sysctl(text: str) -> tuple[str, tuple[str, ...]]:
    """Read the processor's name and sets from the lines of macOS's `sysctl`."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        values[key.strip()] = value.strip()
    sets = {name for key, name in _SYSCTL.items() if values.get(key) == "1"}
    return values.get("machdep.cpu.brand_string", ""), tuple(sorted(sets))


def read_windows(has_feature: Callable[[int], bool]) -> tuple[str, tuple[str, ...]]:
    """Ask Windows for the few instruction sets that it tells of.

    Args:
        has_feature: `IsProcessorFeaturePresent`.

    Returns:
        The name that Python knows, and the sets.
    """
    import platform

    sets = {name for number, name in _WINDOWS.items() if has_feature(number)}
    return platform.processor(), tuple(sorted(sets))


def watts_of(name: str, *, machine: str, cores: int) -> Watts:
    """Return the power for energy estimates, and in words where it comes from.

    Args:
        name: the processor's own name.
        machine: the architecture.
        cores: physical cores of this machine, which a virtual one may have few of.

    Returns:
        Watts of all `cores` busy, and the source of the figure.
    """
    each = _WATTS_PER_CORE.get(machine.lower(), _OTHER_WATTS_PER_CORE)
    source = (
        f"an assumed {each:g} W for each of {cores} cores of {name!r} "
        f"({machine or 'unknown machine'}), not measured"
    )
    return each * cores, source


def last_cache_bytes(root: Path = HERE) -> int:
    """Return the size of the largest cache that the first core reaches, or 0 if unknown.

    Args:
        root: folder that holds `sys`.

    Returns:
        Bytes.
    """
    units: Mapping[str, int] = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
    sizes = [0]
    for path in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        if found := re.fullmatch(r"([0-9]{1,9})([KMG]?)\s*", _read(path)):
            sizes.append(int(found[1]) * units[found[2]])
    return max(sizes)


def _sysctl() -> str:
    names = ("machdep.cpu.brand_string", "hw.optional")
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command, nothing from outside
            ["/usr/sbin/sysctl", *names], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _windows_feature() -> Callable[[int], bool]:
    if sys.platform == "win32":
        import ctypes

        return lambda number: bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(number))
    return lambda number: False


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
