"""Answers that were given before: the same request gets the same answer, at once.

    CREATE TABLE answers (key BLOB PRIMARY KEY, answer TEXT, size INTEGER, used INTEGER)

A key is the SHA-256 of everything that an answer depends on, whose it is included, so one tenant's
request never finds another's answer.
"""

import base64
import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from onhand.device.serving.asks import Ask, Ending, Piece, Score
from onhand.device.serving.caches.database import opened, remove
from onhand.device.tools.kinds import CallPart, ToolUse
from onhand.device.vault.cells import PLAIN, Cells

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["ExactCache", "Kept", "is_repeatable", "kept_as_json", "key_of", "parse_kept"]

_FORMAT: Final = 3
_ROW_BYTES: Final = 128  # beside the answer itself
_MOST_TOUCHED: Final = 64


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it was given."""

    pieces: tuple[Piece, ...]
    ending: Ending


def is_repeatable(ask: Ask) -> bool:
    """Say whether an answer is the same each time: nothing is drawn, or by a given seed."""
    return ask.sampling.temperature == 0 or ask.sampling.seed is not None


def key_of(ask: Ask, *, model: str) -> bytes:
    """Return the key of an answer.

    Args:
        ask: what is asked.
        model: what answers: the bundle's hash, the variant, and all else that changes answers.

    Returns:
        32 bytes.
    """
    parts = [
        _FORMAT,
        ask.tenant,
        model,
        ask.prompt,
        ask.max_tokens,
        ask.sampling,
        ask.stop,
        ask.grammar,
        None if ask.tools is None else _tools(ask.tools),
        ask.n_scores,
    ]
    return hashlib.sha256(_KEYS.encode(parts).encode()).digest()


def _values(value: "DataclassInstance") -> list[object]:
    # In their order, and not copied as `asdict` does: that took a third of an answer's time.
    return [getattr(value, field.name) for field in fields(value)]


_KEYS: Final = json.JSONEncoder(default=_values, check_circular=False)


def _tools(use: ToolUse) -> list[object]:
    # Order counts: models read tools and their schemas as they are written.
    told = [[json.dumps(tool.described()), tool.is_strict] for tool in use.tools]
    return [told, use.names, use.is_required, use.is_parallel]


class ExactCache:
    """Answers in one file of SQLite, the longest unused of which go first. One thread at a time.

    A file that is damaged is begun anew: whatever was in it can be computed again.
    """

    def __init__(self, path: Path | None, *, most_bytes: int, cells: Cells = PLAIN) -> None:
        """Open the file.

        Args:
            path: its place; made if it is missing. None keeps answers in memory.
            most_bytes: of all answers.
            cells: how answers are kept: sealed, where there is a vault.

        Raises:
            ResourceError: if it cannot be written.
        """
        self._cells = cells
        self._most_bytes = most_bytes
        self._hits = self._misses = 0
        self._n_bytes = self._clock = 0
        self._touched: dict[bytes, int] = {}  # not written yet
        self._rows = opened(path, what="cache", prepare=self._prepare, clear=remove)

    @property
    def n_bytes(self) -> int:
        """What is kept takes."""
        return self._n_bytes

    @property
    def n_hits(self) -> int:
        """Times that something was found."""
        return self._hits

    @property
    def n_misses(self) -> int:
        """Times that nothing was."""
        return self._misses

    def find(self, key: bytes) -> Kept | None:
        """Return the answer of a key, or None."""
        key = self._cells.name(key)
        try:
            row = self._rows.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            if row is not None:
                self._touch(key)
            kept = None if row is None else parse_kept(json.loads(self._cells.get(row[0], key)))
        except (sqlite3.Error, ValueError, KeyError, TypeError):
            kept = None  # what cannot be read is computed again
        if kept is None:
            self._misses += 1
        else:
            self._hits += 1
        return kept

    def keep(self, key: bytes, kept: Kept) -> None:
        """Keep an answer, and forget others where there is no room.

        One that is too large or may not be repeated is not kept.
        A disk that is full is no error: the answer was given.
        """
        if not kept.ending.is_repeatable:
            return
        key = self._cells.name(key)
        text = json.dumps(kept_as_json(kept), separators=(",", ":")).encode()
        answer = self._cells.put(text, key)
        size = len(answer) + _ROW_BYTES
        if size > self._most_bytes:
            return
        try:
            self._forget(key)
            self._rows.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?)", (key, answer, size, self._tick())
            )
            self._n_bytes += size
            if self._n_bytes > self._most_bytes:
                self._write_touched()
            while self._n_bytes > self._most_bytes:
                oldest = "SELECT key FROM answers ORDER BY used LIMIT 1"
                self._forget(self._rows.execute(oldest).fetchone()[0])
        except sqlite3.Error:
            self._n_bytes = self._counted()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with contextlib.suppress(sqlite3.Error):  # closed before
            self._write_touched()
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _prepare(self, rows: sqlite3.Connection) -> None:
        self._rows = rows
        rows.execute(
            "CREATE TABLE IF NOT EXISTS answers "
            "(key BLOB PRIMARY KEY, answer TEXT, size INTEGER, used INTEGER)"
        )
        rows.execute("CREATE INDEX IF NOT EXISTS by_use ON answers (used)")
        self._n_bytes = self._counted()
        self._clock = int(rows.execute("SELECT max(used) FROM answers").fetchone()[0] or 0)

    def _touch(self, key: bytes) -> None:
        # Many at once: a write takes several times what finding an answer does. A process that is
        # killed forgets what was used last, and no more.
        self._touched[key] = self._tick()
        if len(self._touched) >= _MOST_TOUCHED:
            self._write_touched()

    def _write_touched(self) -> None:
        touched, self._touched = self._touched, {}
        if touched:
            self._rows.executemany(
                "UPDATE answers SET used = ? WHERE key = ?",
                [(used, key) for key, used in touched.items()],
            )

    def _counted(self) -> int:
        return int(self._rows.execute("SELECT coalesce(sum(size), 0) FROM answers").fetchone()[0])

    def _forget(self, key: bytes) -> None:
        self._touched.pop(key, None)
        row = self._rows.execute("SELECT size FROM answers WHERE key = ?", (key,)).fetchone()
        if row is not None:
            self._rows.execute("DELETE FROM answers WHERE key = ?", (key,))
            self._n_bytes -= int(row[0])

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def kept_as_json(kept: Kept) -> dict[str, object]:
    """Return an answer as JSON; see `parse_kept`."""
    return {
        "pieces": [
            [
                piece.text,
                [_score(one) for one in piece.scores],
                None if piece.call is None else asdict(piece.call),
            ]
            for piece in kept.pieces
        ],
        "ending": asdict(kept.ending),
    }


def _score(score: Score) -> list[object]:
    token = base64.b64encode(score.token).decode()
    return [token, score.logprob, [_score(other) for other in score.others]]


def parse_kept(table: Mapping[str, Any]) -> Kept:
    """Return an answer of its JSON.

    Raises:
        KeyError: if a part is missing.
        TypeError: if one is of another type.
        ValueError: if one is of another form.
    """
    pieces = tuple(
        Piece(
            str(text),
            tuple(_parsed_score(one) for one in scores),
            None if call is None else CallPart(**call),
        )
        for text, scores, call in table["pieces"]
    )
    # Nothing leaves this device for an answer that is given again.
    return Kept(pieces, Ending(**{**table["ending"], "left": ()}))


def _parsed_score(value: Any) -> Score:
    token, logprob, others = value
    return Score(
        base64.b64decode(token), float(logprob), tuple(_parsed_score(other) for other in others)
    )
