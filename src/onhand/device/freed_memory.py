"""Memory that was freed and that the C library keeps for later."""

import sys
from typing import Final

__all__ = ["give_back_memory", "use_few_heaps"]


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
