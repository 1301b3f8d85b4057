"""What was kept in the clear before there was a vault: removed, or sealed where it must stay."""

import hashlib
import logging
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from onhand.core.errors import ResourceError
from onhand.device.serving.caches.database import remove
from onhand.device.serving.routing.outbox import Outbox
from onhand.device.serving.routing.waiting import Waiting
from onhand.device.serving.secret import server_secret
from onhand.device.vault.cells import Cells, SealedCells
from onhand.device.vault.vault import open_vault

__all__ = ["remove_plain_caches", "seal_outbox", "seal_outbox_of", "waiting_secret"]

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


def waiting_secret(home: Path) -> bytes:
    """Return the secret that what waits and holds personal data is sealed with.

    Args:
        home: the state folder.

    Returns:
        32 bytes: of the vault where there is one, else of the server's own file.

    Raises:
        OnhandError: if the vault is locked, or the file cannot be read or made.
    """
    vault = open_vault(home)
    return server_secret(home) if vault is None else vault.first_key("outbox")


def seal_outbox_of(home: Path) -> int:
    """Seal the outbox of a state folder that got a vault, taking it as it is; see `seal_outbox`.

    Args:
        home: the state folder, which has a vault.

    Returns:
        How many requests there were.

    Raises:
        ResourceError: if it cannot be read or written; nothing is lost then.
        InputError: if the server's own secret is no longer there as it was.
    """
    vault, plain = open_vault(home), home / "outbox" / "requests.sqlite"
    if vault is None or not plain.exists():
        return 0
    cells = SealedCells(vault.keys("outbox"), naming=vault.first_key("outbox"))
    sealed = plain.with_name("sealed.sqlite")
    Outbox(sealed, most_bytes=2**62, most_waiting=2**31, cells=cells).close()
    before, now = Waiting(server_secret(home)), Waiting(waiting_secret(home))

    def waiting(content: bytes) -> bytes:
        return now.sealed(before.opened(content)) if before.is_sealed(content) else content

    return seal_outbox(plain, sealed, cells, waiting=waiting)


def _as_it_is(content: bytes) -> bytes:
    return content


def seal_outbox(
    plain: Path, sealed: Path, cells: Cells, *, waiting: Callable[[bytes], bytes] = _as_it_is
) -> int:
    """Move requests from an outbox that is not sealed, and remove it.

    Args:
        plain: its file; it may be missing.
        sealed: the file of the sealed outbox, which has been opened once and is closed.
        cells: how requests are kept in it.
        waiting: returns a body or an answer as the server with a vault keeps it.

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
                    _sealed(row, cells, waiting),
                )
        remove(plain)
    except (sqlite3.Error, OSError) as error:
        raise ResourceError(f"{plain}: the outbox cannot be sealed: {error}") from error
    if rows:
        _LOG.warning("%d requests of the outbox were not encrypted, and are sealed now", len(rows))
    return len(rows)


def _sealed(
    row: tuple[object, ...], cells: Cells, waiting: Callable[[bytes], bytes]
) -> tuple[object, ...]:
    table = dict(zip(_COLUMNS.split(", "), row, strict=True))
    digest, body = table["digest"], table["body"]
    if isinstance(body, bytes) and body:
        digest = hashlib.sha256(waiting(body)).digest()
    table["digest"] = cells.name(digest if isinstance(digest, bytes) else b"")
    for column in ("body", "answer"):
        value = table[column]
        if isinstance(value, bytes) and value:
            place = f"requests {table['id']} {column}".encode()
            table[column] = cells.put(waiting(value), place)
    return tuple(table.values())
