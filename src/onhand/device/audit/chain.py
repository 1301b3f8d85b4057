"""A chain of records in a folder, as the one process that appends to it has it.

    FOLDER/records-FIRST.log   records from number FIRST on; a new file begins when one is large
    FOLDER/lock                held by the process that writes

The first record of each file names the log. Files go from the front alone, and not before a record
says up to which number and with which hash they went.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from onhand.core.errors import InputError
from onhand.device.audit.records import Record, hash_of, line_of, origin, parse
from onhand.device.audit.segments import Segment, lines_of, segment_name, segments_in
from onhand.device.learning.locking import held

__all__ = ["Chain", "ChainBusy", "Event"]

Event = tuple[str, Mapping[str, Any]]
"""A record's kind and its facts."""

_FORMAT: Final = 1


class ChainBusy(InputError):
    """Another process writes a chain; there may be room in another one."""


class Chain:
    """May be shared between threads. Every call may raise `OSError`; nothing is half-written then.

    Attributes:
        log: its name.
        count: number of the last record.
        hash: of it.
    """

    def __init__(
        self, folder: Path, key: bytes, *, segment_bytes: int, now: Callable[[], datetime]
    ) -> None:
        """Open a folder, and mend what a process left that ended while it wrote.

        Args:
            folder: made if it is missing.
            key: of the records' codes.
            segment_bytes: after which a new file begins.
            now: the time in UTC.

        Raises:
            ChainBusy: if another process writes there.
            InputError: if the last file holds no records.
            ResourceError: if the lock cannot be made.
            OSError: if it cannot be written.
        """
        self._folder, self._key, self._now = folder, key, now
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._stack = ExitStack()
        busy = f"{folder}: another process writes this audit log"
        try:
            self._stack.enter_context(held(folder / "lock", busy=busy))
        except InputError as error:
            raise ChainBusy(busy) from error
        self._handle = -1
        self._size = 0
        self._unsynced: list[int] = []  # handles of files that are full
        self._is_torn = False
        try:
            self.log, self.count, self.hash = self._resume()
        except BaseException:
            self.close()
            raise

    def append(self, events: Sequence[Event]) -> None:
        """Add records with one write; the system has them when this returns.

        Args:
            events: in order.

        Raises:
            OSError: if they cannot be written; none of them is.
        """
        with self._lock:
            self._append(events)

    def sync(self) -> tuple[int, str]:
        """See what was written on the disk itself.

        Returns:
            Number and hash of the last record that surely is.

        Raises:
            OSError: if the disk refuses.
        """
        with self._lock:
            count, digest = self.count, self.hash
            handles, self._unsynced = [*self._unsynced, os.dup(self._handle)], []
        try:
            for handle in handles:
                os.fsync(handle)
        finally:
            for handle in handles:
                os.close(handle)
        return count, digest

    def prune(self, *, keep_s: float, most_bytes: int) -> Sequence[Path]:
        """Say in a record which of the oldest files are to go.

        Args:
            keep_s: seconds that records stay at least, unless there are too many; 0 for ever.
            most_bytes: of all files; 0 for any number.

        Returns:
            The files; the caller removes them when the record is on the disk.

        Raises:
            OSError: if it cannot be read or written.
        """
        with self._lock:
            segments = segments_in(self._folder)
            n = self._n_old(segments, keep_s, most_bytes)
            if n == 0:
                return []
            last = _first_of(segments[n])
            facts = {
                "log": self.log,
                "through": last.seq - 1,
                "hash": last.previous,
                "records": last.seq - segments[0].first,
            }
            self._append([("prune", facts)])
            return [one.path for one in segments[:n]]

    def close(self) -> None:
        """Let go of the folder; safe to call twice."""
        with self._lock:
            for handle in (*self._unsynced, self._handle):
                if handle >= 0:
                    with suppress(OSError):
                        os.fsync(handle)
                    os.close(handle)
            self._unsynced, self._handle = [], -1
        self._stack.close()

    def _resume(self) -> tuple[str, int, str]:
        segments = segments_in(self._folder)
        while segments and segments[-1].path.stat().st_size == 0:
            segments[-1].path.unlink()  # begun, and ended before its first record
            segments = segments[:-1]
        if not segments:
            log = secrets.token_hex(16)
            self._open(self._folder / segment_name(1))
            return log, 0, origin(log)
        last = segments[-1]
        lines = list(lines_of(last.path))
        torn = b"" if lines[-1].is_whole else lines.pop().content
        if not lines:
            raise InputError(f"{last.path}: holds no whole record; see 'onhand audit verify'")
        try:
            log, record = str(parse(lines[0].content).facts["log"]), parse(lines[-1].content)
        except (InputError, KeyError) as error:
            raise InputError(
                f"{last.path}: is damaged, so nothing can follow it: look at it with 'onhand audit "
                f"verify', and move the folder away to begin another log"
            ) from error
        self._open(last.path)
        self.log, self.count, self.hash = log, record.seq, hash_of(lines[-1].content)
        if torn:  # nobody was told that it was written
            self._size -= len(torn)
            os.ftruncate(self._handle, self._size)
            digest = hashlib.sha256(torn).hexdigest()
            self._append([("mend", {"bytes": len(torn), "sha256": digest})])
        return self.log, self.count, self.hash

    def _open(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)
        if self._handle >= 0:
            self._unsynced.append(self._handle)
        self._handle, self._size = handle, os.fstat(handle).st_size

    def _append(self, events: Sequence[Event]) -> None:
        if self._is_torn:
            os.ftruncate(self._handle, self._size)
            self._is_torn = False
        count, digest = self.count, self.hash
        if self._size >= self._segment_bytes:
            self._open(self._folder / segment_name(count + 1))
        if self._size == 0:
            events = [("begin", {"log": self.log, "format": _FORMAT}), *events]
        time = self._now().isoformat(timespec="milliseconds")
        parts: list[bytes] = []
        for kind, facts in events:
            count += 1
            record = Record(seq=count, time=time, previous=digest, kind=kind, facts=facts)
            line = line_of(record, self._key)
            digest = hash_of(line)
            parts += [line, b"\n"]
        self._write(b"".join(parts))
        self.count, self.hash = count, digest

    def _write(self, content: bytes) -> None:
        left = memoryview(content)
        try:
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError:
            self._is_torn = True
            with suppress(OSError):
                os.ftruncate(self._handle, self._size)
                self._is_torn = False
            raise
        self._size += len(content)

    def _n_old(self, segments: Sequence[Segment], keep_s: float, most_bytes: int) -> int:
        # A file is as old as the first record after it.
        total = sum(one.path.stat().st_size for one in segments)
        n = 0
        while n + 1 < len(segments):
            begun = datetime.fromisoformat(_first_of(segments[n + 1]).time)
            is_old = keep_s > 0 and self._now() - begun > timedelta(seconds=keep_s)
            if not is_old and not 0 < most_bytes < total:
                break
            total -= segments[n].path.stat().st_size
            n += 1
        return n


def _first_of(segment: Segment) -> Record:
    try:
        return parse(next(lines_of(segment.path)).content)
    except (InputError, StopIteration) as error:
        raise OSError(f"{segment.path}: its first record is damaged") from error
