"""Memory that was freed and that the C library keeps for later."""

import sys

__all__ = ["give_back_memory"]


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
