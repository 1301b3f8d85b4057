"""Notes each file that a process opens for writing, and keeps what it removes or replaces."""

import itertools
import os
import sys
from typing import Any

__all__ = ["LIST", "watch"]

LIST = "written.list"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND


def watch(attic: str) -> None:
    """Begin.

    Args:
        attic: folder of the list, and of second names for what is removed.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    noted = os.open(os.path.join(attic, LIST), flags, 0o600)  # noqa: PTH118 (within an audit)
    numbers = itertools.count()

    def keep(path: Any, folder: Any) -> None:
        beside = f"{attic}/{os.getpid()}-{next(numbers)}"
        try:
            if folder in {None, -1}:
                os.link(path, beside)
            else:
                os.link(path, beside, src_dir_fd=folder)
        except OSError:
            return

    def saw(event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = given
            if isinstance(path, str | bytes) and (flags or 0) & _WRITING:
                os.write(noted, os.fsencode(os.path.abspath(path)) + b"\n")  # noqa: PTH100
        elif event == "os.remove":
            keep(*given)
        elif event == "os.rename":
            keep(given[1], given[3])

    sys.addaudithook(saw)
