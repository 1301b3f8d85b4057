"""Files of SQLite that hold what can be computed again."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from onhand.core.errors import ResourceError

__all__ = ["opened", "remove"]

_SET_UP = (
    "PRAGMA journal_mode = WAL",
    # What the system lost with its power is an entry less, and no more.
    "PRAGMA synchronous = NORMAL",
    "PRAGMA journal_size_limit = 4194304",
    # Rows are read one at a time; the system keeps the file's pages anyway.
    "PRAGMA cache_size = -256",
)


def opened(
    path: Path | None,
    *,
    what: str,
    prepare: Callable[[sqlite3.Connection], None],
    clear: Callable[[Path], None],
) -> sqlite3.Connection:
    """Open a file, and begin it anew where it is damaged.

    Args:
        path: its place; made if it is missing. None keeps all in memory.
        what: it is, for errors.
        prepare: makes and checks the tables; may raise `sqlite3.Error` or ValueError where the
            file is damaged, and is called again with the new one.
        clear: takes a damaged file away.

    Returns:
        The open file, for any thread.

    Raises:
        ResourceError: if it cannot be read or written.
    """
    try:
        if path is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return _connected(path, prepare)
        except (sqlite3.DatabaseError, ValueError):
            if path is not None:
                clear(path)
            return _connected(path, prepare)
    except (OSError, sqlite3.Error) as error:
        raise ResourceError(f"{path}: the {what} cannot be opened: {error}") from error


def remove(path: Path) -> None:
    """Remove a file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _connected(
    path: Path | None, prepare: Callable[[sqlite3.Connection], None]
) -> sqlite3.Connection:
    if path is not None:
        # Before SQLite makes it by the usual rights: what is kept is its owner's alone.
        path.touch(mode=0o600, exist_ok=True)
    rows = sqlite3.connect(
        ":memory:" if path is None else path, isolation_level=None, check_same_thread=False
    )
    try:
        for statement in _SET_UP:
            rows.execute(statement)
        prepare(rows)
    except (sqlite3.Error, ValueError):
        rows.close()
        raise
    return rows
