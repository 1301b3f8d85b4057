"""Threads and memory, from fake trees of files such as Linux shows them."""

from pathlib import Path

import psutil
import pytest

from onhand.device.threads import memory_limit_bytes, physical_cores, usable_threads

V2 = "31 23 0:28 {shows} {place} rw - cgroup2 cgroup2 rw\n"
V1 = "32 31 0:29 {shows} {place} rw shared:9 - cgroup cgroup rw,{kind}\n"
GIB = 2**30


def put(root: Path, place: str, text: str) -> None:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Eight cores with two hyper-threads each, 16 GiB, no limits."""
    put(tmp_path, "proc/meminfo", f"MemTotal:       {16 * 2**20} kB\nMemFree: 1 kB\n")
    put(tmp_path, "proc/self/status", "Name:\tpython\nCpus_allowed_list:\t0-127\n")
    put(tmp_path, "proc/self/cgroup", "0::/\n")
    put(tmp_path, "proc/self/mountinfo", V2.format(shows="/", place="/sys/fs/cgroup"))
    put(tmp_path, "sys/devices/system/cpu/online", "0-15\n")
    for cpu in range(16):
        siblings = f"{cpu % 8},{cpu % 8 + 8}\n"
        put(tmp_path, f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", siblings)
    return tmp_path


def test_hyper_threads_count_once(machine: Path) -> None:
    """Sixteen logical processors on eight cores are eight threads; those not online are none."""
    assert usable_threads(machine) == 8
    assert physical_cores(machine) == 8
    assert memory_limit_bytes(machine) == 16 * GIB


@pytest.mark.parametrize(
    ("allowed", "threads"),
    [("0", 1), ("0,8", 1), ("0-1", 2), ("6-9", 4), ("0-2,8-10", 3), ("garbage", None)],
)
def test_affinity_cuts(
    machine: Path, monkeypatch: pytest.MonkeyPatch, allowed: str, threads: int | None
) -> None:
    """Only cores that the process may run on count; a garbled list leaves it to psutil."""
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: [0, 1, 2, 3, 4], raising=False)
    put(machine, "proc/self/status", f"Cpus_allowed_list:\t{allowed}\n")

    assert usable_threads(machine) == (threads or 5)
    assert physical_cores(machine) == 8


@pytest.mark.parametrize(
    ("quota", "threads"),
    [
        ("max 100000", 8),
        ("50000 100000", 1),
        ("250000 100000", 2),
        ("300000 100000", 3),
        ("9900000 100000", 8),
        ("0 100000", 8),
        ("100000 0", 8),
        ("", 8),
        ("\x00\xff!", 8),
        ("1e9 1", 8),
        ("9" * 5000, 8),
    ],
)
def test_a_quota_of_v2_cuts(machine: Path, quota: str, threads: int) -> None:
    """Half a CPU still gives one thread; what is no quota sets no limit."""
    put(machine, "sys/fs/cgroup/cpu.max", quota)

    assert usable_threads(machine) == threads


def test_the_tightest_group_above_counts_in_v2(machine: Path) -> None:
    """A limit anywhere between the process and the top holds, whatever is set below."""
    put(machine, "proc/self/cgroup", "0::/pod/app/worker\n")
    put(machine, "sys/fs/cgroup/pod/cpu.max", "300000 100000\n")
    put(machine, "sys/fs/cgroup/pod/app/worker/cpu.max", "600000 100000\n")
    put(machine, "sys/fs/cgroup/pod/app/memory.max", f"{2 * GIB}\n")
    put(machine, "sys/fs/cgroup/pod/memory.max", "max\n")
    put(machine, "sys/fs/cgroup/other/cpu.max", "100000 100000\n")

    assert usable_threads(machine) == 3
    assert memory_limit_bytes(machine) == 2 * GIB


def v1(machine: Path, *, group: str, shows: str = "/") -> None:
    """Put the process into a group of v1, controllers mounted as most systems do."""
    put(machine, "proc/self/cgroup", f"9:memory:{group}\n4:cpu,cpuacct:{group}\n0::/unrelated\n")
    mounts = [
        V1.format(shows=shows, place=f"/sys/fs/cgroup/{kind}", kind=kind)
        for kind in ("memory", "cpu,cpuacct")
    ]
    put(machine, "proc/self/mountinfo", "".join(mounts))


@pytest.mark.parametrize(("quota", "threads"), [(-1, 8), (50000, 1), (199999, 1), (400000, 4)])
def test_a_quota_of_v1_cuts(machine: Path, quota: int, threads: int) -> None:
    """The quota of v1 is in two files; -1 is none."""
    v1(machine, group="/pod/app")
    put(machine, "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us", f"{quota}\n")
    put(machine, "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us", "100000\n")

    assert usable_threads(machine) == threads


def test_memory_of_v1_cuts_and_its_infinity_does_not(machine: Path) -> None:
    """v1 writes a number near 2**63 for no limit."""
    v1(machine, group="/pod/app")
    put(machine, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit_bytes(machine) == 16 * GIB

    put(machine, "sys/fs/cgroup/memory/pod/memory.limit_in_bytes", f"{3 * GIB}\n")
    assert memory_limit_bytes(machine) == 3 * GIB


@pytest.mark.parametrize("group", ["/docker/abc", "/docker/abc/inner", "/elsewhere", "/../up"])
def test_a_container_that_sees_its_group_as_the_top(machine: Path, group: str) -> None:
    """The mount shows only a part of the hierarchy: the limit is at the mount's top."""
    v1(machine, group=group, shows="/docker/abc")
    put(machine, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{GIB}\n")
    put(machine, "up/memory.limit_in_bytes", "1\n")

    assert memory_limit_bytes(machine) == GIB


def test_a_mount_with_a_space_in_its_name(machine: Path) -> None:
    r"""The kernel writes a space as \040."""
    put(machine, "proc/self/mountinfo", V2.format(shows="/", place=r"/my\040groups"))
    put(machine, "my groups/cpu.max", "200000 100000")

    assert usable_threads(machine) == 2


@pytest.mark.parametrize("text", ["", "\n", "::", "0:", "x\x00y - cgroup2", "1 2 3 4 5 - cgroup2"])
def test_garbage_sets_no_limit(machine: Path, text: str) -> None:
    """A table that cannot be understood is as good as none."""
    put(machine, "proc/self/cgroup", text)
    assert usable_threads(machine) == 8

    put(machine, "proc/self/cgroup", "0::/\n")
    put(machine, "proc/self/mountinfo", text)
    assert usable_threads(machine) == 8
    assert memory_limit_bytes(machine) == 16 * GIB


def elsewhere(patch: pytest.MonkeyPatch, *, physical: int | None) -> None:
    """Say what psutil says on a machine of 8 logical processors without Linux's files."""
    patch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else physical)
    patch.setattr(psutil, "virtual_memory", type("Memory", (), {"total": 8 * GIB}))


@pytest.mark.parametrize(("physical", "threads"), [(4, 4), (None, 8)])
def test_without_these_files_psutil_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, physical: int | None, threads: int
) -> None:
    """On macOS there is no affinity, and the cores may be unknown: then logical ones count."""
    elsewhere(monkeypatch, physical=physical)
    monkeypatch.delattr(psutil.Process, "cpu_affinity", raising=False)

    assert usable_threads(tmp_path) == threads
    assert physical_cores(tmp_path) == threads
    assert memory_limit_bytes(tmp_path) == 8 * GIB


def test_windows_affinity_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two allowed processors of eight give at most two threads."""
    elsewhere(monkeypatch, physical=4)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: [2, 5], raising=False)

    assert usable_threads(tmp_path) == 2


def test_this_machine_has_at_least_one() -> None:
    """The real files give sane numbers."""
    assert 1 <= usable_threads() <= physical_cores()
    assert 2**20 < memory_limit_bytes() <= psutil.virtual_memory().total
