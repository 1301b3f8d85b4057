"""Which key/value blocks there are, how they hang together, and which was unused longest.

    CREATE TABLE blocks (key, parent, place, tags, size, used)   one row a block
    CREATE TABLE total (size)                                     of all rows, kept by triggers

Whatever uses a block uses all before it, so no block is more recent than its parent: by `used`, and
by `place` from behind where that is equal, children come before their parents.
"""

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from onhand.device.serving.caches.chains import Link, Tags
from onhand.device.serving.caches.database import opened, remove

__all__ = ["ROW_BYTES", "BlockIndex", "Latest"]

ROW_BYTES: Final = 1024
"""What a row of the index counts as, beside the block's file."""

# Blocks of one parent that are looked through: conversations that part within one block.
_MOST_CHILDREN: Final = 256
_MOST_LATEST: Final = 1024
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS blocks (key BLOB PRIMARY KEY, parent BLOB NOT NULL, "
    "place INTEGER NOT NULL, tags BLOB NOT NULL, size INTEGER NOT NULL, used INTEGER NOT NULL) "
    "WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS by_parent ON blocks (parent, used)",
    "CREATE INDEX IF NOT EXISTS by_use ON blocks (used, place)",
    "CREATE TABLE IF NOT EXISTS total (size INTEGER NOT NULL)",
    "INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM total)",
    "CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON blocks "
    "BEGIN UPDATE total SET size = size + NEW.size; END",
    "CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON blocks "
    "BEGIN UPDATE total SET size = size - OLD.size; END",
)


@dataclass(frozen=True, slots=True)
class Latest:
    """A block that was used not long ago.

    Attributes:
        key: its name.
        parent: the name of the block before; the chain's start for the first.
        begin: tokens that come before it.
        size: bytes of its file and its row.
    """

    key: bytes
    parent: bytes
    begin: int
    size: int


class BlockIndex:
    """Rows in one file of SQLite. May be shared between threads, and the file between processes.

    A file that is damaged is begun anew. Every call may raise `sqlite3.Error`.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; made if it is missing.

        Args:
            path: its place; the folder exists.

        Raises:
            ResourceError: if it cannot be written.
        """
        self._lock = threading.Lock()
        self._rows = opened(path, what="index", prepare=_prepare, clear=remove)

    @property
    def n_bytes(self) -> int:
        """Of all blocks, their rows included."""
        return int(self._one("SELECT size FROM total") or 0)

    @property
    def n_blocks(self) -> int:
        """Blocks that are kept."""
        return int(self._one("SELECT count(*) FROM blocks") or 0)

    def has(self, key: bytes) -> bool:
        """Say whether there is such a block."""
        return self._one("SELECT 1 FROM blocks WHERE key = ?", key) is not None

    def keys(self) -> set[bytes]:
        """Return all of them."""
        with self._lock:
            return {row[0] for row in self._rows.execute("SELECT key FROM blocks")}

    def children(self, parent: bytes) -> list[tuple[bytes, Tags]]:
        """Return the latest blocks that follow one, with their tags."""
        asked = "SELECT key, tags FROM blocks WHERE parent = ? ORDER BY used DESC LIMIT ?"
        with self._lock:
            found = self._rows.execute(asked, (parent, _MOST_CHILDREN)).fetchall()
        return [(key, np.frombuffer(tags, dtype="<u4")) for key, tags in found]

    def add(self, link: Link, tags: Tags, *, size: int, used: int) -> None:
        """Note a block whose file is there.

        Args:
            link: its name and place.
            tags: of its tokens.
            size: bytes of its file.
            used: a time of `touch`.
        """
        row = (link.key, link.parent, link.begin, tags.tobytes(), size + ROW_BYTES, used)
        with self._lock:
            self._rows.execute("INSERT OR IGNORE INTO blocks VALUES (?, ?, ?, ?, ?, ?)", row)

    def touch(self, keys: Iterable[bytes]) -> int:
        """Note that blocks are used now.

        Args:
            keys: of one chain, from its first block on.

        Returns:
            The time: above all before.
        """
        with self._lock, self._rows:  # as one change
            self._rows.execute("BEGIN IMMEDIATE")
            now = int(self._rows.execute("SELECT max(used) FROM blocks").fetchone()[0] or 0) + 1
            asked = "UPDATE blocks SET used = ? WHERE key = ?"
            self._rows.executemany(asked, [(now, key) for key in keys])
        return now

    def oldest(self, *, before: int | None = None) -> bytes | None:
        """Return the block that was unused longest; none that is there follows it.

        Args:
            before: only one that was used before this time; None for any.

        Returns:
            Its key; None if there is none.
        """
        limit = 2**62 if before is None else before
        asked = "SELECT key FROM blocks WHERE used < ? ORDER BY used, place DESC LIMIT 1"
        found: bytes | None = self._one(asked, limit)
        return found

    def latest(self) -> list[Latest]:
        """Return some blocks, what was used last first, beginnings before ends."""
        asked = "SELECT key, parent, place, size FROM blocks ORDER BY used DESC, place LIMIT ?"
        with self._lock:
            return [Latest(*row) for row in self._rows.execute(asked, (_MOST_LATEST,))]

    def below(self, key: bytes) -> Sequence[bytes]:
        """Return a block and all that follow it, the last ones first."""
        asked = (
            "WITH RECURSIVE lost(key, place) AS (SELECT key, place FROM blocks WHERE key = ? "
            "UNION ALL SELECT blocks.key, blocks.place FROM blocks JOIN lost "
            "ON blocks.parent = lost.key) SELECT key FROM lost ORDER BY place DESC"
        )
        with self._lock:
            return [row[0] for row in self._rows.execute(asked, (key,))]

    def remove(self, key: bytes) -> None:
        """Forget a block."""
        with self._lock:
            self._rows.execute("DELETE FROM blocks WHERE key = ?", (key,))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._rows.close()

    def _one(self, asked: str, *values: object) -> Any:
        with self._lock:
            row = self._rows.execute(asked, values).fetchone()
        return None if row is None else row[0]


def _prepare(rows: sqlite3.Connection) -> None:
    for made in _TABLES:
        rows.execute(made)
    # A file of ours has these columns; one that has others is not.
    rows.execute("SELECT key, parent, place, tags, size, used FROM blocks LIMIT 1")
    if rows.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("the index is damaged")
