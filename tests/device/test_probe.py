"""What a device says of itself, from fake files and from this machine."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from tests.device.hardware.trees import put

from onhand.core.errors import InputError, ResourceError
from onhand.core.profile import read_profile
from onhand.device.probe import (
    current_profile,
    default_buffer_bytes,
    measure_read_bandwidth,
    probe,
    sample_read_bandwidth,
    save_profile,
)
from onhand.device.processor import (
    last_cache_bytes,
    processor,
    read_cpuinfo,
    read_sysctl,
    read_windows,
    watts_of,
)

X86 = """processor\t: 0
model name\t: AMD EPYC 9755 128-Core Processor
flags\t\t: fpu sse4_2 avx avx2 fma f16c avx512f avx_vnni avx512_vnni avx512_bf16 amx_int8 erms

processor\t: 1
model name\t: another
flags\t\t: sve
"""
ARM = """processor\t: 0
Features\t: fp asimd aes asimdhp asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd4f
"""
APPLE = """machdep.cpu.brand_string: Apple M2
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
hw.optional.AdvSIMD: 1
garbage
"""


def test_linux_on_x86() -> None:
    """Name and flags of the first processor; flags that no kernel asks for are left out."""
    assert read_cpuinfo(X86) == (
        "AMD EPYC 9755 128-Core Processor",
        (
            "amx_int8",
            "avx",
            "avx2",
            "avx512_bf16",
            "avx512_vnni",
            "avx512f",
            "avx_vnni",
            "f16c",
            "fma",
            "sse4_2",
        ),
    )


def test_linux_on_arm() -> None:
    """Linux calls NEON and the dot products by other names, and the core by a number."""
    assert read_cpuinfo(ARM) == (
        "Neoverse-V2",
        ("bf16", "dotprod", "fp16", "i8mm", "neon", "sve"),
    )


def test_macos() -> None:
    """A set counts where sysctl says 1."""
    assert read_sysctl(APPLE) == ("Apple M2", ("dotprod", "i8mm", "neon"))


def test_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows tells of few sets; those that it confirms are named."""
    monkeypatch.setattr(platform, "processor", lambda: "Intel64 Family 6")

    assert read_windows(lambda number: number in {38, 40}) == (
        "Intel64 Family 6",
        ("avx2", "sse4_2"),
    )


@pytest.mark.parametrize("text", ["", "\x00", ":::", "flags", "model name :\nflags :"])
def test_garbage_names_nothing(text: str) -> None:
    """An unreadable file is no processor and no error."""
    assert read_cpuinfo(text) == ("", ())
    assert read_sysctl(text) == ("", ())


def test_a_board_names_itself_where_the_processor_does_not(tmp_path: Path) -> None:
    """Boards have a device tree; where nothing has a name, the architecture stands in."""
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text("Features : asimd\n")
    assert processor(tmp_path, system="linux", machine="aarch64") == ("aarch64", ("neon",))

    (tmp_path / "proc/device-tree/model").write_text("Some Board Model 5\0")
    assert processor(tmp_path, system="linux", machine="aarch64")[0] == "Some Board Model 5"


def test_each_system_is_asked_in_its_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sysctl answers on macOS; where nothing answers, no set is claimed."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, stdout=APPLE)

    def missing(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", run)
    assert processor(tmp_path, system="darwin") == ("Apple M2", ("dotprod", "i8mm", "neon"))

    monkeypatch.setattr(subprocess, "run", missing)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert processor(tmp_path, system="darwin", machine="arm64") == ("arm64", ())
    if sys.platform != "win32":
        assert processor(tmp_path, system="win32", machine="AMD64") == ("AMD64", ())
    assert processor(tmp_path, system="plan9") == ("unknown", ())


@pytest.mark.parametrize(("machine", "watts"), [("x86_64", 20.0), ("arm64", 8.0), ("riscv64", 8.0)])
def test_unknown_processors_have_stated_watts(machine: str, watts: float) -> None:
    """An assumption is called one."""
    found, source = watts_of("AMD EPYC", machine=machine, cores=4)

    assert found == watts
    assert "assumed" in source
    assert "'AMD EPYC'" in source


def test_the_quick_profile_reads_the_files(tmp_path: Path) -> None:
    """Processor, memory, cores and counter come from the folder given; nothing is measured."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(X86)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1024 kB\n")
    profile = current_profile(tmp_path)

    assert profile.processor == "AMD EPYC 9755 128-Core Processor"
    assert profile.name == "amd-epyc-9755-128-core-processor"
    assert profile.memory_bytes == 2**20
    assert profile.read_bandwidth == ()
    assert profile.energy_counter == ""
    assert not profile.estimated


def test_the_largest_cache_is_found(tmp_path: Path) -> None:
    """Sizes are written with K and M; garbage and missing files count as nothing."""
    assert last_cache_bytes(tmp_path) == 0
    for number, size in enumerate(["48K\n", "32M\n", "lots\n", "1024K\n"]):
        folder = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{number}"
        folder.mkdir(parents=True)
        (folder / "size").write_text(size)

    assert last_cache_bytes(tmp_path) == 32 * 2**20


@pytest.mark.parametrize(
    ("memory_gib", "cache", "mib"), [(64, "32M", 256), (64, "384M", 1536), (1, "1M", 128)]
)
def test_the_buffer_is_larger_than_the_cache_and_smaller_than_memory(
    tmp_path: Path, memory_gib: int, cache: str, mib: int
) -> None:
    """Four times the last cache, at least 256 MiB, but an eighth of the memory at most."""
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cache/index3"
    folder.mkdir(parents=True)
    (folder / "size").write_text(cache)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: {memory_gib * 2**20} kB\n")

    assert default_buffer_bytes(tmp_path) == mib * 2**20


def test_bandwidth_is_a_measurement() -> None:
    """Bytes per second, one sample for each pass, and how it was made."""
    found = measure_read_bandwidth(2, buffer_bytes=8 * 2**20, runs=3)

    assert (found.name, found.unit, found.samples) == ("read_bandwidth", "byte/s", 3)
    assert found.value > 0
    assert "2 thread(s) read 8388608 bytes, median of 3 passes" in found.how


@pytest.mark.parametrize(
    ("threads", "size", "runs"), [(0, 64, 1), (1, 3, 1), (2, 7, 1), (1, 64, 0)]
)
def test_bandwidth_of_nothing_is_refused(threads: int, size: int, runs: int) -> None:
    """No thread, no bytes or no pass cannot be measured."""
    with pytest.raises(InputError, match="read bandwidth"):
        sample_read_bandwidth(threads, buffer_bytes=size, runs=runs)


def test_a_buffer_beyond_memory_is_refused() -> None:
    """The system's refusal becomes one sentence."""
    with pytest.raises(ResourceError, match="no memory for"):
        sample_read_bandwidth(1, buffer_bytes=2**60)


def test_a_probe_is_saved_and_read_back(tmp_path: Path) -> None:
    """One bandwidth for each number of threads; the file gives the same profile."""
    profile = probe(tmp_path)
    save_profile(profile, tmp_path / "device.toml")

    assert len(profile.read_bandwidth) == profile.usable_threads
    quick = current_profile()
    static = ("name", "processor", "usable_threads", "memory_bytes", "caches", "quota_cpus")
    assert [getattr(profile, key) for key in static] == [getattr(quick, key) for key in static]
    assert profile.storage_write > 0
    assert profile.free_bytes > 0
    assert {one.kind for one in profile.matrix_rates} == {"fp32", "int8", "int4"}
    pairs = zip(profile.slow_read_bandwidth, profile.read_bandwidth, strict=True)
    assert all(slow <= median for slow, median in pairs)
    assert profile.power_source in {"mains", "battery", "unknown"}
    assert all(one.note for one in profile.providers if not one.is_present)
    assert read_profile(tmp_path / "device.toml") == profile


def test_a_profile_is_not_saved_into_nowhere(tmp_path: Path) -> None:
    """A missing folder is an error that names the file."""
    with pytest.raises(ResourceError, match=r"device\.toml: cannot be written"):
        save_profile(current_profile(), tmp_path / "none" / "device.toml")


def test_a_probe_of_a_made_machine_tells_its_power_heat_and_counters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All from the files below the root; what takes long is left out."""
    root = tmp_path / "root"
    put(root, "proc", meminfo="MemTotal: 65536 kB\nMemAvailable: 32768 kB")
    put(root, "sys/class/thermal/thermal_zone0", temp="51000")
    put(root, "sys/class/power_supply/BAT0", type="Battery", status="Discharging", power_now="9")
    put(root, "sys/class/powercap/intel-rapl:0", name="package-0", energy_uj="1")
    monkeypatch.setattr("onhand.device.probe.measure_rates", lambda *_, **__: ())
    monkeypatch.setattr("onhand.device.probe.find_providers", lambda *_, **__: ())
    profile = probe(tmp_path / "home", root=root)

    assert (profile.power_source, profile.temperature_c) == ("battery", 51.0)
    assert [(one.name, one.is_readable) for one in profile.energy_counters] == [
        ("package-0", True),
        ("BAT0", True),
    ]
    assert len(profile.slow_read_bandwidth) == len(profile.read_bandwidth) > 0
    assert profile.free_bytes == 32768 * 1024
    assert 0 <= (profile.others_busy or 0.0) <= 1
