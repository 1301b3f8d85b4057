"""The processor's caches for data, as Linux shows them."""

from pathlib import Path

from onhand.core.profile_parts import CacheLevel

__all__ = ["data_caches"]

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def data_caches(root: Path) -> tuple[CacheLevel, ...]:
    """Return the caches of the first processor, the nearest first; none where they are not shown.

    Args:
        root: folder that holds `sys`.
    """
    found: dict[int, CacheLevel] = {}
    for index in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index[0-9]*")):
        kind = _text(index / "type")
        level, size = _text(index / "level"), _size(_text(index / "size"))
        if kind in {"Data", "Unified"} and level.isdecimal() and int(level) > 0 and size:
            shared = _count(_text(index / "shared_cpu_list"))
            found[int(level)] = CacheLevel(level=int(level), size_bytes=size, shared_by=shared)
    return tuple(found[level] for level in sorted(found))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _size(text: str) -> int:
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.isdecimal():
        return int(number) * _UNITS[unit]
    return int(text) if text.isdecimal() else 0


def _count(text: str) -> int:
    """Return how many processors "0-3,8" names; 1 where it names none."""
    n = 0
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first.isdecimal() and (last.isdecimal() or not dash):
            n += (int(last) if dash else int(first)) - int(first) + 1
    return max(n, 1)
