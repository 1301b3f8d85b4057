"""How much more memory this process may take, control groups and its own limits included.

Everything comes from files under a `root`, as Linux shows them. What a file does not say sets no
limit; where there is no `/proc/meminfo`, psutil answers for the machine.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onhand.device.control_groups import groups, read_text, whole_number

__all__ = ["FreeMemory", "free_memory"]

HERE = Path("/")
_MACHINE = "the machine's free memory"


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """What may still be taken.

    Attributes:
        n_bytes: at least 0.
        limited_by: what allows no more, in words.
    """

    n_bytes: int
    limited_by: str


def free_memory(root: Path = HERE) -> FreeMemory:
    """Return what this process may still take before it is refused, slowed down or killed.

    The least of: memory that the machine can give without swapping; for each control group around
    the process, v1 and v2, its limit less what is in use; the process's own limits of address
    space and data. Files that nobody has read for a while do not count as used: they go first.

    Args:
        root: folder that holds `proc` and `sys`.

    Returns:
        The least of them, and which it is.
    """
    found = [FreeMemory(_of_machine(root), _MACHINE), *_of_groups(root), *_of_process(root)]
    tightest = min(found, key=lambda one: one.n_bytes)
    return FreeMemory(max(0, tightest.n_bytes), tightest.limited_by)


def _of_machine(root: Path) -> int:
    table = _table(read_text(root / "proc/meminfo"))
    if "MemAvailable" in table:
        return table["MemAvailable"]
    if "MemFree" in table:  # before Linux 3.14
        return table["MemFree"] + table.get("Buffers", 0) + table.get("Cached", 0)
    import psutil

    return int(psutil.virtual_memory().available)


def _of_groups(root: Path) -> Iterator[FreeMemory]:
    for folder in groups("memory", root):
        statistics = _statistics(read_text(folder / "memory.stat"))
        place = f"control group {folder.relative_to(root).as_posix()}"
        # v2: above `memory.high` the group is slowed down, which no answer survives well.
        used = whole_number(read_text(folder / "memory.current"))
        idle = statistics.get("inactive_file", 0)
        for name in ("memory.max", "memory.high"):
            limit = whole_number(read_text(folder / name))
            if limit is not None and used is not None:
                yield FreeMemory(limit - max(0, used - idle), f"{name} of {place}")
        # v1 writes "no limit" as a number near 2**63, which leaves more than any machine has.
        used = whole_number(read_text(folder / "memory.usage_in_bytes"))
        idle = statistics.get("total_inactive_file", statistics.get("inactive_file", 0))
        limit = whole_number(read_text(folder / "memory.limit_in_bytes"))
        if limit is not None and limit > 0 and used is not None:
            yield FreeMemory(limit - max(0, used - idle), f"memory.limit_in_bytes of {place}")


def _of_process(root: Path) -> Iterator[FreeMemory]:
    used = _table(read_text(root / "proc/self/status"))
    limits = read_text(root / "proc/self/limits")
    for name, counted in (("Max address space", "VmSize"), ("Max data size", "VmData")):
        limit = re.search(rf"^{name}\s+([0-9]{{1,20}})\s", limits, re.MULTILINE)
        if limit and counted in used:
            yield FreeMemory(int(limit[1]) - used[counted], f"{name.lower()} of this process")


def _table(text: str) -> dict[str, int]:
    """Read lines such as "VmSize:   12 kB", as bytes."""
    lines = re.findall(r"^(\w+):\s*([0-9]{1,18}) kB$", text, re.MULTILINE)
    return {name: int(number) * 1024 for name, number in lines}


def _statistics(text: str) -> dict[str, int]:
    """Read lines such as "inactive_file 12"."""
    return {name: int(number) for name, number in re.findall(r"^(\w+) ([0-9]{1,20})$", text, re.M)}
