"""Accepted examples, one after the other in a file that only grows: none is lost.

A first line, then records: four bytes of length, four bytes of CRC-32 of length and content, both
little-endian, then the content. A record counts when `append` returns: it is on disk then. What
follows the last whole record, as after a loss of power, is cut off when the file is next opened
for writing: it is set aside in a file of its own, and said.

Where the state folder has a vault, the content of each record is sealed and bound to its number.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from onhand.core.errors import InputError, ResourceError
from onhand.core.sealing import RECORD_EXTRA_BYTES
from onhand.device.learning.durable import sync_folder
from onhand.device.learning.locking import lock_file
from onhand.device.vault.above import keys_above, unsealed_here, write_placed

__all__ = [
    "MOST_RECORD_BYTES",
    "Journal",
    "framed",
    "read_journal",
    "read_records",
    "seal_journal",
]

FIRST: Final = b"onhand journal 1\n"
MOST_RECORD_BYTES: Final = 16 * 2**20
_FIRST_SEALED: Final = b"onhand sealed  1\n"  # as long as the other
_HEAD_BYTES: Final = 8


class Journal:
    """Appends to a journal. One process, one thread at a time.

    Attributes:
        notes: what was found damaged when it was opened, a sentence each.
    """

    def __init__(self, path: Path, *, takes_plain: bool = False) -> None:
        """Open a journal, or begin one.

        Args:
            path: the file; it and its folder are made if they are missing.
            takes_plain: whether one that is in the clear though there is a vault is sealed as it
                is; else it is refused.

        Raises:
            InputError: if the file is no journal, is in the clear though there is a vault, or
                another process appends to it.
            ResourceError: if it cannot be read or written.
        """
        self.path = path
        self.notes: list[str] = []
        self._placed = keys_above(path.parent, "memory")
        self._takes_plain = takes_plain
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Not in appending mode: a torn end is cut, and the next record takes its place.
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            # Without a buffer: what a full disk refused must not be written later.
            self._file: BinaryIO = os.fdopen(handle, "r+b", buffering=0)
        except OSError as error:
            raise ResourceError(f"{path}: cannot be opened: {error.strerror}") from error
        try:
            busy = f"{path}: another process appends to it"
            lock_file(self._file, busy=busy)
            # One that was sealed meanwhile has another file in its place.
            if not _is_there(handle, path):
                raise InputError(busy)
            self._n, self._end = self._repair()
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        """Return how many records there are."""
        return self._n

    def append(self, content: bytes) -> int:
        """Add a record; when this returns it is on disk for good.

        Args:
            content: 1 to `MOST_RECORD_BYTES` bytes.

        Returns:
            Its number, from 0 on.

        Raises:
            InputError: if it is empty or too long.
            ResourceError: if it cannot be written; the records before it stay.
        """
        if not 1 <= len(content) <= MOST_RECORD_BYTES:
            raise InputError(
                f"{self.path}: a record of {len(content)} bytes, must be 1 to {MOST_RECORD_BYTES}"
            )
        kept = content
        if self._placed is not None:
            kept = self._placed.seal(content, self.path, f"record {self._n}")
        record = framed(kept)
        try:
            self._put(record, self._end)
        except OSError as error:
            self._forget()
            raise ResourceError(
                f"{self.path}: cannot be written: {error.strerror or error}; the example was not "
                "accepted"
            ) from error
        self._end += len(record)
        self._n += 1
        return self._n - 1

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _put(self, content: bytes, place: int) -> None:
        """Write at a place, to the disk."""
        self._file.seek(place)
        left = memoryview(content)
        while left:
            left = left[self._file.write(left) :]
        os.fsync(self._file.fileno())

    def _forget(self) -> None:
        """Take back half a record, as far as a disk that fails lets us; opening would, too."""
        try:
            self._file.truncate(self._end)
        except OSError:
            return

    def _repair(self) -> tuple[int, int]:
        """Return how many records there are and where they end; cut off what follows.

        Raises:
            InputError: if it is no journal.
        """
        start = self._file.read(len(FIRST))
        first = FIRST if self._placed is None else _FIRST_SEALED
        if len(start) < len(FIRST) and (FIRST.startswith(start) or first.startswith(start)):
            self._put(first, 0)
            sync_folder(self.path.parent)
            return 0, len(first)
        if start == _FIRST_SEALED and self._placed is None:
            raise InputError(f"{self.path}: is sealed, and there is no vault")
        if start not in {FIRST, first}:
            raise InputError(f"{self.path}: is no journal of this version; move it away")
        if start != first and not self._takes_plain:
            raise InputError(unsealed_here(self.path))
        n, end = 0, len(FIRST)
        with self.path.open("rb") as file:
            file.seek(end)
            for content in read_records(file):
                n += 1
                end += _HEAD_BYTES + len(content)
            file.seek(end)
            rest = file.read()
        if rest:
            self._set_aside(rest, end)
        return (n, end) if start == first else self._seal_all()

    def _seal_all(self) -> tuple[int, int]:
        """Put a sealed journal in the place of one from before there was a vault."""
        with self.path.open("rb") as file:
            file.seek(len(FIRST))
            records = list(read_records(file))
        beside = self.path.with_name(f"{self.path.name}.sealing")
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        made: BinaryIO = os.fdopen(handle, "r+b", buffering=0)
        lock_file(made, busy=f"{self.path}: another process appends to it")
        plain, self._file = self._file, made
        self._put(_FIRST_SEALED, 0)
        self._n, self._end = 0, len(_FIRST_SEALED)
        for record in records:
            self.append(record)
        beside.replace(self.path)
        sync_folder(self.path.parent)
        plain.close()
        self.notes.append(f"{self.path.name} was not encrypted, and is sealed now")
        return self._n, self._end

    def _set_aside(self, rest: bytes, end: int) -> None:
        note = f"{self.path.name}: {len(rest)} bytes after the last whole record were cut off"
        if rest.strip(b"\0"):  # zeros are what a loss of power leaves of a file that grew
            aside = self.path.with_name(f"{self.path.name}.cut-{end}")
            write_placed(aside, rest, self._placed)
            note += f", and are kept as {aside.name}"
        self.notes.append(note)
        self._file.truncate(end)
        os.fsync(self._file.fileno())


def read_journal(path: Path) -> list[bytes]:
    """Read all whole records, also while another process appends.

    Args:
        path: the file.

    Returns:
        The records, the oldest first; none where there is no such file.

    Raises:
        InputError: if the file is no journal, or in the clear though there is a vault.
        ResourceError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(FIRST))
            if start not in {FIRST, _FIRST_SEALED}:
                if FIRST.startswith(start) or _FIRST_SEALED.startswith(start):
                    return []
                raise InputError(f"{path}: is no journal of this version; move it away")
            records = list(read_records(file))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror}") from error
    placed = keys_above(path.parent, "memory")
    if start == FIRST:
        if placed is not None:
            raise InputError(unsealed_here(path))
        return records
    if placed is None:
        raise InputError(f"{path}: is sealed, and there is no vault")
    return [placed.unseal(one, path, f"record {n}") for n, one in enumerate(records)]


def seal_journal(path: Path) -> bool:
    """Seal a journal of the time before there was a vault, taking it as it is.

    Args:
        path: the file, in a state folder with a vault; it may be missing.

    Returns:
        Whether it was in the clear.

    Raises:
        InputError: as in `Journal`.
        ResourceError: likewise.
    """
    if not path.exists():
        return False
    with Journal(path, takes_plain=True) as journal:
        return any("not encrypted" in note for note in journal.notes)


def _is_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def read_records(file: BinaryIO) -> Iterator[bytes]:
    """Yield records from here on, up to the first that is not whole.

    Args:
        file: open for reading, at the beginning of a record.

    Yields:
        Each record's content.
    """
    while True:
        head = file.read(_HEAD_BYTES)
        length = int.from_bytes(head[:4], "little")
        if len(head) < _HEAD_BYTES or not 1 <= length <= MOST_RECORD_BYTES + RECORD_EXTRA_BYTES:
            return
        content = file.read(length)
        if framed(content)[:_HEAD_BYTES] != head:
            return
        yield content


def framed(content: bytes) -> bytes:
    """Return a record: its length, its check, its content."""
    length = len(content).to_bytes(4, "little")
    check = zlib.crc32(content, zlib.crc32(length))
    return length + check.to_bytes(4, "little") + content
