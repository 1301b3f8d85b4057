"""How much memory this process has in use."""

from onhand.device.freed_memory import give_back_memory

__all__ = ["resident_bytes"]


def resident_bytes() -> int:
    """Return the memory of this process that is in use, after what was freed was given back."""
    import psutil

    give_back_memory()
    return int(psutil.Process().memory_info().rss)
