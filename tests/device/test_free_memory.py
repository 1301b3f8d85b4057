"""What may still be taken, from fake trees of files such as Linux shows them."""

from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.device.test_threads import V1, V2, put

from onhand.device.free_memory import FreeMemory, free_memory

MIB = 2**20
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max data size             {data}            unlimited            bytes
Max address space         {space}            unlimited            bytes
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine that can give 800 MiB."""
    meminfo = f"MemTotal: {2000 * 1024} kB\nMemFree: {100 * 1024} kB\n"
    put(tmp_path, "proc/meminfo", f"{meminfo}MemAvailable:   {800 * 1024} kB\nCached: 5 kB\n")
    put(tmp_path, "proc/self/cgroup", "0::/\n")
    put(tmp_path, "proc/self/mountinfo", V2.format(shows="/", place="/sys/fs/cgroup"))
    return tmp_path


def v1(root: Path, path: str) -> None:
    put(root, "proc/self/cgroup", f"5:memory:{path}\n1:name=systemd:/\n")
    line = V1.format(shows="/", place="/sys/fs/cgroup/memory", kind="memory")
    put(root, "proc/self/mountinfo", line)


def test_without_limits_the_machine_counts(machine: Path) -> None:
    """What it can give without swapping, and the answer says so."""
    assert free_memory(machine) == FreeMemory(800 * MIB, "the machine's free memory")


def test_an_old_machine_adds_up_what_it_can_give(machine: Path) -> None:
    """Before MemAvailable there were free memory, buffers and cached files."""
    put(machine, "proc/meminfo", "MemTotal: 9 kB\nMemFree: 3 kB\nBuffers: 2 kB\nCached: 1 kB\n")

    assert free_memory(machine).n_bytes == 6 * 1024


def test_elsewhere_psutil_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without such files has its figure as well."""
    found = psutil.virtual_memory()._replace(available=77)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: found)

    assert free_memory(tmp_path).n_bytes == 77


def test_a_group_of_v2_leaves_what_it_does_not_use(machine: Path) -> None:
    """Files that nobody has read for a while do not count as used."""
    put(machine, "sys/fs/cgroup/memory.max", f"{500 * MIB}\n")
    put(machine, "sys/fs/cgroup/memory.high", "max\n")
    put(machine, "sys/fs/cgroup/memory.current", f"{300 * MIB}\n")
    put(machine, "sys/fs/cgroup/memory.stat", f"anon 5\ninactive_file {50 * MIB}\n")

    found = free_memory(machine)

    assert found == FreeMemory(250 * MIB, "memory.max of control group sys/fs/cgroup")


def test_the_tightest_group_around_counts(machine: Path) -> None:
    """A group above may have less left than the process's own, and may only slow it down."""
    put(machine, "proc/self/cgroup", "0::/pod/app\n")
    for place, high, used in (("pod", 400, 350), ("pod/app", 200, 10), ("other", 1, 1)):
        put(machine, f"sys/fs/cgroup/{place}/memory.high", f"{high * MIB}\n")
        put(machine, f"sys/fs/cgroup/{place}/memory.current", f"{used * MIB}\n")

    found = free_memory(machine)

    assert found == FreeMemory(50 * MIB, "memory.high of control group sys/fs/cgroup/pod")


def test_a_group_of_v1_leaves_what_it_does_not_use(machine: Path) -> None:
    """The figures of the group with all below it count where there are both."""
    v1(machine, "/box")
    put(machine, "sys/fs/cgroup/memory/box/memory.limit_in_bytes", f"{300 * MIB}\n")
    put(machine, "sys/fs/cgroup/memory/box/memory.usage_in_bytes", f"{100 * MIB}\n")
    idle = f"inactive_file {MIB}\ntotal_inactive_file {30 * MIB}\n"
    put(machine, "sys/fs/cgroup/memory/box/memory.stat", idle)

    assert free_memory(machine).n_bytes == 230 * MIB


def test_no_limit_of_v1_is_a_large_number(machine: Path) -> None:
    """9223372036854771712 bytes are more than any machine has."""
    v1(machine, "/")
    put(machine, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    put(machine, "sys/fs/cgroup/memory/memory.usage_in_bytes", f"{100 * MIB}\n")

    assert free_memory(machine).n_bytes == 800 * MIB


@pytest.mark.parametrize(
    ("space", "data", "left"),
    [
        (300 * MIB, "unlimited", 200),
        ("unlimited", 90 * MIB, 50),
        ("unlimited", "unlimited", 800),
        (60 * MIB, "unlimited", 0),
    ],
)
def test_limits_of_the_process_count(machine: Path, space: object, data: object, left: int) -> None:
    """`ulimit -v` and `ulimit -d`: what is over already leaves nothing, and no negative number."""
    put(machine, "proc/self/limits", LIMITS.format(space=space, data=data))
    status = f"Name:\tx\nVmSize:\t{100 * 1024} kB\nVmData:\t{40 * 1024} kB\n"
    put(machine, "proc/self/status", status)

    assert free_memory(machine).n_bytes == left * MIB


@given(text=st.text(max_size=60))
def test_garbled_files_set_no_limit(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever stands in a group's files, there is an answer that is no negative number."""
    root = tmp_path_factory.mktemp("machine")
    put(root, "proc/meminfo", f"MemAvailable: {8 * 1024} kB\n")
    put(root, "proc/self/cgroup", "0::/\n")
    put(root, "proc/self/mountinfo", V2.format(shows="/", place="/sys/fs/cgroup"))
    for name in ("memory.max", "memory.current", "memory.stat", "memory.limit_in_bytes"):
        (root / "sys/fs/cgroup").mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / name).write_bytes(text.encode("utf-8", "surrogatepass"))

    assert free_memory(root).n_bytes >= 0


def test_this_machine_has_an_answer() -> None:
    """The files as they are here are understood."""
    assert 0 <= free_memory().n_bytes <= psutil.virtual_memory().total
