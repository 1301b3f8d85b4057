"""Where feedback goes: into the journal of what is learned, or aside until somebody looks.

    HOME/state/MANIFEST-SHA256/learned/feedback.journal   what was taken, one record each
    HOME/state/MANIFEST-SHA256/learned/quarantine.sqlite  what waits, with the reason

What was taken is on disk before whoever gave it is told so. Several processes may use both.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from onhand.core.errors import InputError, ResourceError
from onhand.device.learning.feedback import (
    Feedback,
    parse_feedback,
    render_feedback,
    seen_of,
)
from onhand.device.learning.journal import Journal, read_journal
from onhand.device.learning.suspicion import Finding, History, Limits, judge
from onhand.device.vault.above import keys_above

__all__ = ["Held", "Intake", "feedback_journal", "read_feedback", "seal_quarantine"]

_NAME: Final = "quarantine.sqlite"
_LOCKED_S: Final = 2.0
_MOST_LOCKED: Final = 200  # tries of 10 ms
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS held (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, reason TEXT NOT NULL,
    at_s REAL NOT NULL, size INTEGER NOT NULL, content BLOB NOT NULL
)
"""


@dataclass(frozen=True, slots=True)
class Held:
    """What waits in quarantine.

    Attributes:
        feedback: it.
        reason: why.
        at_s: since when, seconds since 1970.
    """

    feedback: Feedback
    reason: str
    at_s: float


def feedback_journal(folder: Path) -> Path:
    """Return where taken feedback is; it need not exist.

    Args:
        folder: as `learned_folder` gives it.
    """
    return folder / "feedback.journal"


def read_feedback(folder: Path) -> list[Feedback]:
    """Return all feedback that was taken, the oldest first.

    Args:
        folder: as `learned_folder` gives it.

    Raises:
        InputError: if the journal is none, or a record in it is no feedback.
        ResourceError: if it cannot be read.
    """
    return [parse_feedback(record) for record in read_journal(feedback_journal(folder))]


def seal_quarantine(folder: Path) -> int:
    """Seal what waits since the time before there was a vault, taking it as it is.

    Args:
        folder: as `learned_folder` gives it, in a state folder with a vault.

    Returns:
        How many there were.

    Raises:
        ResourceError: if it cannot be read or written.
    """
    path, placed = folder / _NAME, keys_above(folder, "memory")
    if placed is None or not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=_LOCKED_S)) as rows:
            # What is written over is not left in pages that are free.
            rows.execute("PRAGMA secure_delete = ON")
            plain = [
                (placed.seal(content, path, name), name)
                for name, content in rows.execute("SELECT id, content FROM held").fetchall()
                if content[:1] == b"{"  # JSON begins so; what is sealed does once in 256 times
                and _is_feedback(content)
            ]
            rows.executemany("UPDATE held SET content = ? WHERE id = ?", plain)
            rows.execute("VACUUM")
    except sqlite3.Error as error:
        raise ResourceError(f"{path}: the quarantine cannot be sealed: {error}") from error
    return len(plain)


def _is_feedback(content: bytes) -> bool:
    try:
        parse_feedback(content)
    except InputError:
        return False
    return True


class Intake:
    """Takes feedback, or sets it aside. May be shared between threads and processes."""

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        *,
        most_held: int = 1000,
        most_held_bytes: int = 64 * 2**20,
        most_taken_bytes: int = 512 * 2**20,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Use a folder, which is made when something is kept.

        Args:
            folder: as `learned_folder` gives it.
            limits: when feedback is suspect.
            most_held: that may wait in quarantine; one more is refused.
            most_held_bytes: likewise.
            most_taken_bytes: of the journal; one more is refused.
            clock: seconds since 1970.
            sleep: waits for another process's record.
        """
        self._folder = folder
        self._limits = limits
        self._most_held = most_held
        self._most_held_bytes = most_held_bytes
        self._most_taken_bytes = most_taken_bytes
        self._clock = clock
        self._sleep = sleep
        self._lock = Lock()
        self._history = History()
        self._known = -1
        self._size = -1
        self.n_refused = 0

    @property
    def n_taken(self) -> int:
        """Feedback in the journal."""
        with self._lock:
            self._refresh()
            return max(0, self._known)

    @property
    def n_held(self) -> int:
        """Feedback in quarantine."""
        if not self._place.exists():
            return 0
        with self._rows() as rows:
            return int(rows.execute("SELECT COUNT(*) FROM held").fetchone()[0])

    def give(self, one: Feedback) -> Finding:
        """Take a feedback, set it aside, or refuse it.

        Args:
            one: what was said.

        Returns:
            What became of it; what was taken is on disk.

        Raises:
            ResourceError: if it cannot be written.
            InputError: if the journal is damaged beyond its end.
        """
        with self._lock:
            self._refresh()
            finding = judge(seen_of(one), self._history, self._limits)
            if finding.outcome == "taken" and self._size >= self._most_taken_bytes:
                why = (
                    f"the journal has {self._size} bytes, at most {self._most_taken_bytes} are kept"
                )
                finding = Finding("refused", why)
            elif finding.outcome == "taken":
                self._take(one)
            elif finding.outcome == "quarantined":
                finding = self._hold(one, finding)
            if finding.outcome == "refused":
                self.n_refused += 1
            return finding

    def hold(self, one: Feedback, reason: str) -> Finding:
        """Set a feedback aside that was taken before, such as one of extreme loss.

        Args:
            one: it stays in the journal; who learns leaves out what is held.
            reason: why.

        Returns:
            What became of it.

        Raises:
            ResourceError: if it cannot be written.
        """
        with self._lock:
            return self._hold(one, Finding("quarantined", reason))

    def held(self) -> list[Held]:
        """Return what waits in quarantine, the oldest first.

        Raises:
            ResourceError: if it cannot be read.
        """
        if not self._place.exists():
            return []
        with self._rows() as rows:
            query = "SELECT id, content, reason, at_s FROM held ORDER BY seq"
            found = rows.execute(query).fetchall()
        return [
            Held(parse_feedback(self._opened(name, kept)), reason, at_s)
            for name, kept, reason, at_s in found
        ]

    def release(self, name: str) -> Feedback:
        """Take what waited in quarantine after all; what it says counts from now on.

        Args:
            name: its id.

        Returns:
            It.

        Raises:
            InputError: if nothing of this id waits.
            ResourceError: if it cannot be written; it waits on then.
        """
        with self._lock:
            one = self._find(name)
            self._refresh()
            # Twice where the process ended between these two: whoever reads takes the latest.
            self._take(one)
            self._remove(name)
            return one

    def drop(self, name: str) -> Feedback:
        """Forget what waited in quarantine.

        Args:
            name: its id.

        Returns:
            It.

        Raises:
            InputError: if nothing of this id waits.
            ResourceError: if it cannot be written.
        """
        with self._lock:
            one = self._find(name)
            self._remove(name)
            return one

    @property
    def _place(self) -> Path:
        return self._folder / _NAME

    def _refresh(self) -> None:
        """Read the journal where another process added to it."""
        path = feedback_journal(self._folder)
        size = path.stat().st_size if path.exists() else 0
        if size == self._size:
            return
        taken = read_feedback(self._folder)
        for one in taken[max(0, self._known) :]:
            self._history.add(seen_of(one))
        self._known, self._size = len(taken), size

    def _take(self, one: Feedback) -> None:
        with self._journal() as journal:
            journal.append(render_feedback(one))
        self._refresh()

    @contextmanager
    def _journal(self) -> Iterator[Journal]:
        """Open the journal for one record; another process may be at its own just now.

        Yields:
            The journal.

        Raises:
            InputError: if it never lets go, or the journal is none.
        """
        left = _MOST_LOCKED
        while True:
            try:
                journal = Journal(feedback_journal(self._folder))
            except InputError as error:
                if left == 0 or "another process" not in str(error):
                    raise
                left -= 1
                self._sleep(0.01)
                continue
            with journal:
                yield journal
            return

    def _hold(self, one: Feedback, finding: Finding) -> Finding:
        content = render_feedback(one)
        with self._rows() as rows:
            n, size = rows.execute("SELECT COUNT(*), IFNULL(SUM(size), 0) FROM held").fetchone()
            if n >= self._most_held or size + len(content) > self._most_held_bytes:
                return Finding("refused", f"{finding.reason}; and the quarantine is full")
            rows.execute(
                "INSERT OR REPLACE INTO held (id, reason, at_s, size, content) "
                "VALUES (?, ?, ?, ?, ?)",
                (
                    one.id,
                    finding.reason,
                    self._clock(),
                    len(content),
                    self._sealed(one.id, content),
                ),
            )
        return finding

    def _find(self, name: str) -> Feedback:
        found = None
        if self._place.exists():
            with self._rows() as rows:
                query = "SELECT content FROM held WHERE id = ?"
                found = rows.execute(query, (name,)).fetchone()
        if found is None:
            raise InputError(f"nothing with the id {name[:40]!r} is in quarantine")
        return parse_feedback(self._opened(name, found[0]))

    def _sealed(self, name: str, content: bytes) -> bytes:
        placed = keys_above(self._folder, "memory")
        return content if placed is None else placed.seal(content, self._place, name)

    def _opened(self, name: str, kept: bytes) -> bytes:
        placed = keys_above(self._folder, "memory")
        return kept if placed is None else placed.unseal(kept, self._place, name)

    def _remove(self, name: str) -> None:
        with self._rows() as rows:
            rows.execute("DELETE FROM held WHERE id = ?", (name,))

    @contextmanager
    def _rows(self) -> Iterator[sqlite3.Connection]:
        """Open the quarantine.

        Yields:
            Its rows.

        Raises:
            ResourceError: if it cannot be read or written.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._place.touch(mode=0o600, exist_ok=True)
            rows = sqlite3.connect(self._place, isolation_level=None, timeout=_LOCKED_S)
            try:
                rows.execute("PRAGMA synchronous = FULL")
                rows.execute(_TABLE)
                yield rows
            finally:
                rows.close()
        except (OSError, sqlite3.Error) as error:
            raise ResourceError(f"{self._place}: the quarantine cannot be used: {error}") from error
