"""What was kept in the clear before there was a vault: removed, or sealed where it must stay."""

import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from onhand.core.errors import ResourceError
from onhand.device.serving.caches.database import remove
from onhand.device.vault.cells import Cells

__all__ = ["remove_plain_caches", "seal_outbox"]

_LOG = logging.getLogger("onhand.serving")
_COLUMNS: Final = (
    "id, tenant, lane, key, digest, body, state, attempts, created_s, expires_s, due_s, ended_s, "
    "status, answer"
)


def remove_plain_caches(home: Path) -> None:
    """Remove caches that are not sealed: whatever was in them can be computed again.

    Args:
        home: the state folder, which has a vault.

    Raises:
        ResourceError: if one cannot be removed.
    """
    folder = home / "cache"
    names = ("answers.sqlite", "questions.sqlite", "questions.sqlite.damaged", "blocks")
    found = [folder / name for name in names if (folder / name).exists()]
    try:
        for path in found:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                remove(path)
            _LOG.warning("%s was not encrypted, and is removed: there is a vault now", path.name)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be removed: {error.strerror}") from error


def seal_outbox(plain: Path, sealed: Path, cells: Cells) -> int:
    """Move requests from an outbox that is not sealed, and remove it.

    Args:
        plain: its file; it may be missing.
        sealed: the file of the sealed outbox, which has been opened once and is closed.
        cells: how requests are kept in it.

    Returns:
        How many there were.

    Raises:
        ResourceError: if it cannot be read or written; nothing is lost then.
    """
    if not plain.exists():
        return 0
    marks = ", ".join("?" * len(_COLUMNS.split(", ")))
    try:
        with closing(sqlite3.connect(plain)) as old, closing(sqlite3.connect(sealed)) as new, new:
            old.execute("PRAGMA locking_mode = EXCLUSIVE")
            rows = old.execute(
                f"SELECT {_COLUMNS} FROM requests ORDER BY seq"  # noqa: S608 (constants alone)
            ).fetchall()
            for row in rows:
                new.execute(
                    f"INSERT OR IGNORE INTO requests ({_COLUMNS}) VALUES ({marks})",  # noqa: S608
                    _sealed(row, cells),
                )
        remove(plain)
    except (sqlite3.Error, OSError) as error:
        raise ResourceError(f"{plain}: the outbox cannot be sealed: {error}") from error
    if rows:
        _LOG.warning("%d requests of the outbox were not encrypted, and are sealed now", len(rows))
    return len(rows)


def _sealed(row: tuple[object, ...], cells: Cells) -> tuple[object, ...]:
    table = dict(zip(_COLUMNS.split(", "), row, strict=True))
    digest = table["digest"]
    table["digest"] = cells.name(digest if isinstance(digest, bytes) else b"")
    for column in ("body", "answer"):
        value = table[column]
        if isinstance(value, bytes) and value:
            table[column] = cells.put(value, f"requests {table['id']} {column}".encode())
    return tuple(table.values())
