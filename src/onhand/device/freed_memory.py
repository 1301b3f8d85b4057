"""Memory that was freed and that the C library keeps for later."""

import os
import sys
from collections.abc import Mapping
from typing import Final

__all__ = ["give_back_memory", "use_few_heaps", "without_thread_caches"]


def give_back_memory() -> None:
    """Give the system the memory that was freed; does nothing where the C library is not glibc.

    After something large was parsed: what stays lies scattered between what went, and glibc gives
    back by itself only what lies at the end of its heap.
    """
    if sys.platform != "linux":
        return
    import ctypes

    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # musl has no such function, and keeps less
        return
    trim(ctypes.c_size_t(0))


_ARENA_MAX: Final = -8  # of malloc.h


def use_few_heaps() -> None:
    """Let all threads share two heaps; does nothing where the C library is not glibc.

    A process of many threads that live long would get one for each, and what they free lies
    scattered in all of them. To be called before the threads are there.
    """
    if sys.platform != "linux":
        return
    import ctypes

    try:
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    set_option(ctypes.c_int(_ARENA_MAX), ctypes.c_int(2))


_TUNABLES: Final = "GLIBC_TUNABLES"


def without_thread_caches(environment: Mapping[str, str]) -> dict[str, str] | None:
    """Return an environment in which threads of a process keep no freed memory for themselves.

    glibc lets each thread keep up to a quarter of a megabyte in small parts, of which it reads
    only at a process's start whether to. With dozens of threads that answer, they fill for hours:
    the process seems to leak. Heaps are told apart by `use_few_heaps` as well, so little is lost.

    Args:
        environment: as it is now.

    Returns:
        The one to start the process with; None where it already says something of these caches,
        or the C library is not glibc.
    """
    given = environment.get(_TUNABLES, "")
    if "glibc.malloc.tcache" in given or not _has_glibc():
        return None
    said = [given] if given else []
    return {**environment, _TUNABLES: ":".join([*said, "glibc.malloc.tcache_count=0"])}


def _has_glibc() -> bool:
    if sys.platform != "linux":
        return False
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (OSError, ValueError):  # musl knows no such name
        return False
