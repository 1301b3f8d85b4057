"""Places on a machine for what is timed: more at once would disturb each other's figures."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from onhand.core.errors import ResourceError

__all__ = ["slot", "slot_folder"]

_WAIT_S: Final = 0.1


def slot_folder() -> Path:
    """Return the folder that all processes of this user on this machine share."""
    user = os.getuid() if sys.platform != "win32" else 0
    return Path(tempfile.gettempdir()) / f"onhand-slots-{user}"


@contextmanager
def slot(
    at_once: int, *, folder: Path | None = None, sleep: Callable[[float], None] = time.sleep
) -> Iterator[int]:
    """Wait for one of a machine's places, and hold it while the block runs.

    A place is a file that is locked, so a process that dies gives its place back. On Windows
    there is no such lock, and nothing is waited for.

    Args:
        at_once: how many places there are.
        folder: of the files; None for the one that all processes share.
        sleep: waits some seconds.

    Yields:
        The place's number.

    Raises:
        ResourceError: if the folder cannot be used.
    """
    if sys.platform == "win32":
        yield 0
        return
    import fcntl

    place = slot_folder() if folder is None else folder
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = [(place / str(number)).open("a") for number in range(at_once)]
    except OSError as error:
        raise ResourceError(f"{place}: cannot be used: {error.strerror}") from error
    try:
        while True:
            for number, file in enumerate(files):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield number
                return
            sleep(_WAIT_S)
    finally:
        for file in files:
            file.close()
