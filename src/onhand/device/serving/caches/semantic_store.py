"""Questions that were answered, with their vectors: the nearest that asks the same.

    CREATE TABLE entries (number INTEGER PRIMARY KEY, around BLOB, question BLOB, asked BLOB,
                          vector BLOB, answer BLOB, size INTEGER, used INTEGER)

`question` is what an entry is found by, `asked` its text; where there is a vault, the one is a
keyed hash, and text, vector and answer are sealed.

Whatever stands around a question, the tenant first, is in the hash `around`; only entries of the
same hash are ever looked at.
"""

import json
import logging
import secrets
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.device.serving.caches.closeness import Closeness
from onhand.device.serving.caches.database import opened, remove
from onhand.device.serving.caches.exact import Kept, kept_as_json, parse_kept
from onhand.device.serving.caches.gate.judge import REASONS, difference
from onhand.device.serving.caches.gate.lexicon import OWN_LEXICON, Lexicon
from onhand.device.serving.caches.nearest import Nearest
from onhand.device.serving.caches.questions import Question
from onhand.device.vault.cells import PLAIN, Cells

__all__ = ["Found", "SemanticStore", "why_not"]

_LOG = logging.getLogger("onhand.serving")
_FORMAT: Final = 2
_ROW_BYTES: Final = 256  # beside texts and vector, on disk and in memory
_VECTOR_BYTES: Final = 2 + 4  # of one number, on disk and in memory
_LOOKED_AT: Final = 8
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB)",
    "CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, around BLOB, question BLOB, "
    "asked BLOB, vector BLOB, answer BLOB, size INTEGER, used INTEGER)",
    "CREATE UNIQUE INDEX IF NOT EXISTS by_question ON entries (around, question)",
    "CREATE INDEX IF NOT EXISTS by_use ON entries (used)",
)


@dataclass(frozen=True, slots=True)
class Found:
    """An answer to a similar question.

    Attributes:
        kept: it.
        similarity: the cosine of the two questions.
    """

    kept: Kept
    similarity: float


def why_not(
    asked: str, earlier: str, cosine: float, *, closeness: Closeness, words: Lexicon
) -> str | None:
    """Say why the answer to an earlier question is none to another.

    Args:
        asked: the question.
        earlier: one that was answered.
        cosine: of their vectors.
        closeness: how near is near enough.
        words: what stands for what in English.

    Returns:
        None if it is one; else a reason of the gate, or "far".
    """
    found = difference(asked, earlier, words)
    if found.reason is not None:
        return found.reason
    least = closeness.reworded if found.n_loose else closeness.same
    return None if cosine >= least else "far"


class SemanticStore:
    """Answered questions in one file of SQLite, the longest unused of which go first.

    One thread at a time. A file that is damaged is put aside and begun anew.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        encoder: str,
        most_bytes: int,
        closeness: Closeness = Closeness(),  # noqa: B008 (frozen)
        words: Lexicon = OWN_LEXICON,
        cells: Cells = PLAIN,
    ) -> None:
        """Open the file.

        Args:
            path: its place; made if it is missing. None keeps all in memory.
            encoder: name of what makes the vectors; those of another one are forgotten.
            most_bytes: of all entries, on disk and in memory.
            closeness: how near is near enough.
            words: what stands for what in English.
            cells: how questions, vectors and answers are kept: sealed, where there is a vault.

        Raises:
            ResourceError: if it cannot be written.
        """
        self._cells = cells
        self._encoder = encoder
        self._most_bytes = most_bytes
        self._closeness = closeness
        self._words = words
        self._near: dict[bytes, Nearest] = {}
        self._n_bytes = self._clock = self.n_entries = 0
        self.n_hits = self.n_misses = 0
        self._rejected: Counter[str] = Counter(dict.fromkeys((*REASONS, *_OTHER_REASONS), 0))
        self._rows = opened(path, what="cache", prepare=self._prepare, clear=_put_aside)

    @property
    def n_bytes(self) -> int:
        """What is kept takes."""
        return self._n_bytes

    @property
    def salt(self) -> bytes:
        """What makes hashes of this server differ from any other's."""
        return self._salt

    @property
    def rejected(self) -> Mapping[str, int]:
        """Why -> near questions that were not taken for the same."""
        return self._rejected

    def find(self, question: Question, vector: FloatArray) -> Found | None:
        """Return the answer to the nearest question that asks the same.

        Args:
            question: what is asked, and among what.
            vector: (D,) float32, of the question's text, of length 1.

        Returns:
            None where there is none, or where two of them compete.
        """
        try:
            found = self._found(question, vector)
        except (sqlite3.Error, ValueError, KeyError, TypeError, IndexError):
            found = None  # what cannot be read is computed again
        if found is None:
            self.n_misses += 1
        else:
            self.n_hits += 1
        return found

    def keep(self, question: Question, vector: FloatArray, kept: Kept) -> None:
        """Keep an answer that came to its end, and forget others where there is no room.

        A disk that is full is no error: the answer was given.

        Args:
            question: what was asked, and among what.
            vector: (D,) float32, of the question's text, of length 1.
            kept: the answer.
        """
        if kept.ending.reason != "stop" or not kept.ending.is_repeatable:
            return
        if any(piece.call is not None for piece in kept.pieces):
            return
        answer = json.dumps(kept_as_json(kept), separators=(",", ":"))
        texts = len(answer.encode()) + len(question.text.encode())
        size = texts + _VECTOR_BYTES * vector.size + _ROW_BYTES
        if size > self._most_bytes:
            return
        try:
            self._write(question, vector, answer, size)
            while self._n_bytes > self._most_bytes:
                oldest = "SELECT number, around, size FROM entries ORDER BY used LIMIT 1"
                self._forget(*self._rows.execute(oldest).fetchone())
        except sqlite3.Error as error:
            _LOG.warning("an answer was not kept: %s", error)
            self._load()

    def close(self) -> None:
        """Close the file; safe to call twice."""
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

    def _found(self, question: Question, vector: FloatArray) -> Found | None:
        near = self._near.get(question.around)
        if near is None:
            return None
        best: tuple[int, float, str] | None = None
        for number, cosine in near.search(vector, count=_LOOKED_AT):
            # A second one competes however far below the threshold it is.
            if cosine < self._closeness.same - self._closeness.apart:
                break
            text, answer = self._texts(number)
            reason = why_not(
                question.text, text, cosine, closeness=self._closeness, words=self._words
            )
            if best is None:
                if reason is not None:
                    # A nearer question that asks something else: what comes behind it is no match.
                    if cosine >= self._closeness.same:
                        self._rejected[reason] += 1
                    return None
                best = (number, cosine, answer)
            elif best[1] - cosine >= self._closeness.apart:
                break
            elif reason in {None, "far"} and _said(answer) != _said(best[2]):
                self._rejected["ambiguous"] += 1
                return None
        if best is None:
            return None
        self._rows.execute("UPDATE entries SET used = ? WHERE number = ?", (self._tick(), best[0]))
        return Found(parse_kept(json.loads(best[2])), min(best[1], 1.0))

    def _texts(self, number: int) -> tuple[str, str]:
        """Return the question and the answer of an entry."""
        row = self._rows.execute(
            "SELECT around, asked, answer FROM entries WHERE number = ?", (number,)
        ).fetchone()
        text, answer = (
            self._cells.get(cell, what + bytes(row[0]))
            for what, cell in zip((b"question", b"answer"), row[1:], strict=True)
        )
        return str(text, "utf-8"), str(answer, "utf-8")

    def _write(self, question: Question, vector: FloatArray, answer: str, size: int) -> None:
        old = "SELECT number, around, size FROM entries WHERE around = ? AND question = ?"
        around, asked = question.around, question.text.encode()
        name = self._cells.name(asked)
        row = self._rows.execute(old, (around, name)).fetchone()
        if row is not None:
            self._forget(*row)
        numbers = vector.astype(np.float16).tobytes()
        sealed = [
            self._cells.put(content, what + around)
            for what, content in (
                (b"question", asked),
                (b"vector", numbers),
                (b"answer", answer.encode()),
            )
        ]
        number = self._rows.execute(
            "INSERT INTO entries (around, question, asked, vector, answer, size, used) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (around, name, *sealed, size, self._tick()),
        ).lastrowid
        self._add(int(number or 0), question.around, vector, size)

    def _add(self, number: int, around: bytes, vector: FloatArray, size: int) -> None:
        near = self._near.setdefault(around, Nearest(vector.size))
        near.add(number, vector)
        self._n_bytes += size
        self.n_entries += 1

    def _forget(self, number: int, around: bytes, size: int) -> None:
        self._rows.execute("DELETE FROM entries WHERE number = ?", (number,))
        near = self._near[around]
        near.remove(number)
        if not len(near):
            del self._near[around]
        self._n_bytes -= size
        self.n_entries -= 1

    def _prepare(self, rows: sqlite3.Connection) -> None:
        self._rows = rows
        for statement in _TABLES:
            rows.execute(statement)
        columns = {row[1] for row in rows.execute("PRAGMA table_info(entries)")}
        if "asked" not in columns:  # of an earlier format: it can be computed again
            rows.execute("DROP TABLE entries")
            for statement in _TABLES:
                rows.execute(statement)
        self._salt = self._fact("salt", secrets.token_bytes(32))
        made_by = f"{_FORMAT} {self._encoder}".encode()
        if self._fact("encoder", made_by) != made_by:
            rows.execute("DELETE FROM entries")
            rows.execute("UPDATE facts SET value = ? WHERE name = 'encoder'", (made_by,))
        self._load()

    def _fact(self, name: str, otherwise: bytes) -> bytes:
        self._rows.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, otherwise))
        row = self._rows.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return bytes(row[0])

    def _load(self) -> None:
        """Read all vectors.

        Raises:
            ValueError: if they are not of one width among their like, or not of length 1.
        """
        self._near, self._n_bytes, self.n_entries = {}, 0, 0
        self._clock = 0
        widths: dict[bytes, int] = {}
        every = "SELECT number, around, vector, size, used FROM entries ORDER BY number"
        for number, around, blob, size, used in self._rows.execute(every):
            content = self._cells.get(blob, b"vector" + bytes(around))
            vector = np.frombuffer(content, dtype=np.float16).astype(np.float32)  # (D,)
            widths.setdefault(bytes(around), vector.size)
            is_unit = abs(float(vector @ vector) - 1) < 0.05  # not so for NaN
            if not is_unit or widths[bytes(around)] != vector.size:
                raise ValueError("a vector is damaged")
            self._add(int(number), bytes(around), vector, int(size))
            self._clock = max(self._clock, int(used))

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


_OTHER_REASONS: Final = ("ambiguous", "far")


def _said(answer: str) -> str:
    """Return the text of an answer: two that say the same do not compete."""
    return "".join(piece.text for piece in parse_kept(json.loads(answer)).pieces)


def _put_aside(path: Path) -> None:
    """Move a file away that is damaged: whatever was in it can be computed again."""
    aside = path.with_name(path.name + ".damaged")
    _LOG.warning("%s is damaged; it was put aside as %s, and begun anew", path.name, aside.name)
    path.replace(aside)
    remove(path)
