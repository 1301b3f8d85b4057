"""How many threads and how much memory this process may use, container limits included.

On Linux everything comes from files under `root`: affinity from `/proc/self/status`, cores from
`/sys/devices/system/cpu`, limits from the control groups (v1 and v2) that the process is in. A
file that is missing or cannot be understood sets no limit; elsewhere psutil answers.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from onhand.device.control_groups import groups, read_text, whole_number

__all__ = [
    "affinity_cpus",
    "memory_limit_bytes",
    "physical_cores",
    "quota_cpus",
    "usable_threads",
]

HERE = Path("/")
_CPUS = Path("sys/devices/system/cpu")
_MOST_CPUS = 2**16  # bounds what a garbled list such as "0-99999999999" may ask for


def usable_threads(root: Path = HERE) -> int:
    """Return how many threads one step should use, at least 1.

    Physical cores that the process may run on (hyper-threads that share a core count once), cut
    by the control group's CPU quota. A quota of 2.5 CPUs gives 2: a thread too many is stopped
    by the quota while the others wait for it.

    Args:
        root: folder that holds `proc` and `sys`.

    Returns:
        The number of threads.
    """
    cores = _cores(_allowed_cpus(root), root)
    quota = min(_quotas(root), default=None)
    return max(1, cores if quota is None else min(cores, int(quota)))


def physical_cores(root: Path = HERE) -> int:
    """Return the machine's physical cores, at least 1, whoever may use them.

    Args:
        root: folder that holds `sys`.

    Returns:
        The number of cores.
    """
    return _cores(None, root)


def affinity_cpus(root: Path = HERE) -> int:
    """Return the logical processors that this process may run on; 0 where it is not known.

    Args:
        root: folder that holds `proc`.
    """
    return len(_allowed_cpus(root) or ())


def quota_cpus(root: Path = HERE) -> float:
    """Return the processors' worth of time that control groups grant; 0 for no limit.

    Args:
        root: folder that holds `proc` and `sys`.
    """
    return min(_quotas(root), default=0.0)


def memory_limit_bytes(root: Path = HERE) -> int:
    """Return the memory that this process may use: the machine's, cut by its control groups.

    Args:
        root: folder that holds `proc` and `sys`.

    Returns:
        Bytes.
    """
    limits = [_total_memory(root)]
    for folder in groups("memory", root):
        # v1 writes "no limit" as a number near 2**63, which is above any total.
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = whole_number(read_text(folder / name))
            if limit is not None and limit > 0:
                limits.append(limit)
    return min(limits)


def _cores(allowed: frozenset[int] | None, root: Path) -> int:
    """Count the cores behind the allowed processors (None: all that are online)."""
    online = _parse_cpus(read_text(root / _CPUS / "online"))
    # The affinity names processors that the machine may get one day; only those online run.
    cpus = online if allowed is None else (allowed & online if online else allowed)
    cores = {siblings for cpu in cpus if (siblings := _siblings(cpu, root))}
    if cores:
        return len(cores)
    import psutil

    logical = len(cpus) or psutil.cpu_count(logical=True) or 1
    return max(1, min(logical, psutil.cpu_count(logical=False) or logical))


def _siblings(cpu: int, root: Path) -> frozenset[int]:
    topology = root / _CPUS / f"cpu{cpu}" / "topology"
    for name in ("thread_siblings_list", "core_cpus_list"):
        if cpus := _parse_cpus(read_text(topology / name)):
            return cpus
    return frozenset()


def _allowed_cpus(root: Path) -> frozenset[int] | None:
    for line in read_text(root / "proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name == "Cpus_allowed_list" and (cpus := _parse_cpus(value)):
            return cpus
    import psutil

    try:
        return frozenset(psutil.Process().cpu_affinity())
    except (AttributeError, psutil.Error, OSError):
        return None  # macOS has no affinity


def _quotas(root: Path) -> Iterator[float]:
    """Yield the CPUs that each control group around the process allows."""
    for folder in groups("cpu", root):
        quota, _, period = read_text(folder / "cpu.max").strip().partition(" ")
        if (share := _share(quota, period)) is not None:
            yield share
        period = read_text(folder / "cpu.cfs_period_us")
        if (share := _share(read_text(folder / "cpu.cfs_quota_us"), period)) is not None:
            yield share


def _share(quota: str, period: str) -> float | None:
    """Return quota / period; None for "max", -1 and what is no number."""
    given, per = whole_number(quota), whole_number(period)
    return given / per if given is not None and given > 0 and per else None


def _total_memory(root: Path) -> int:
    found = re.search(r"^MemTotal:\s*([0-9]+) kB$", read_text(root / "proc/meminfo"), re.MULTILINE)
    if found and int(found[1]):
        return int(found[1]) * 1024
    import psutil

    return int(psutil.virtual_memory().total)


def _parse_cpus(text: str) -> frozenset[int]:
    """Read a list such as "0-3,8"; empty for what is no list."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.strip().partition("-")
        low = whole_number(first)
        high = whole_number(last) if dash else low
        if low is None or high is None or not 0 <= low <= high < _MOST_CPUS:
            return frozenset()
        cpus.update(range(low, high + 1))
    return frozenset(cpus)
