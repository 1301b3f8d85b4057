"""One process at a time: what only one may write is held by a lock of the system's."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from onhand.core.errors import InputError, ResourceError

__all__ = ["held", "lock_file"]


@contextmanager
def held(path: Path, *, busy: str) -> Iterator[None]:
    """Hold a lock while the block runs; the system lets go of it however the process ends.

    Args:
        path: a file for the lock alone; it and its folder are made if they are missing.
        busy: the sentence where another process holds it.

    Yields:
        Nothing.

    Raises:
        InputError: if another process holds it.
        ResourceError: if the file cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise ResourceError(f"{path}: cannot be opened: {error.strerror}") from error
    with file:
        lock_file(file, busy=busy)
        yield


def lock_file(file: BinaryIO, *, busy: str) -> None:
    """Lock a file until it is closed.

    Args:
        file: open for writing.
        busy: the sentence where another process holds it.

    Raises:
        InputError: if another process holds it.
    """
    try:
        if os.name == "nt":  # pragma: no cover
            import msvcrt

            # Far beyond any content: locked bytes could not be read by others.
            place = file.tell()
            file.seek(2**40)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            file.seek(place)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InputError(busy) from error
