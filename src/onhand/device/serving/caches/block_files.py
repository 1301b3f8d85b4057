"""Files of sealed blocks in one folder: written beside their place, checked when they are read."""

import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.core.errors import InputError
from onhand.device.serving.caches.chains import MOST_BLOCK_TOKENS
from onhand.device.serving.caches.seals import Sealer

__all__ = ["BlockFiles", "Room"]

_MAGIC: Final = b"onhand-block-1\n\0"
_SUFFIX: Final = ".block"
_BESIDE: Final = ".writing-"
_NAME: Final = re.compile(r"([0-9a-f]{64})\.block")
_MOST_BYTES: Final = 2**30  # of one file


class Room:
    """Memory that one file after the other is read into. One thread at a time.

    The system need not find fresh memory for each, which takes longer than to read it.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()

    def of(self, size: int) -> memoryview:
        """Return so many bytes; what was read before is gone."""
        if len(self._bytes) < size:
            self._bytes = bytearray(size)
        return memoryview(self._bytes)[:size]


class BlockFiles:
    """A block's file is named by its key and holds its tokens and its span. Shared by threads."""

    def __init__(self, folder: Path, sealer: Sealer) -> None:
        """Use a folder.

        Args:
            folder: made if it is missing; its owner's alone.
            sealer: what seals files.

        Raises:
            OSError: if it cannot be made.
        """
        self._folder = folder
        self._sealer = sealer
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def clean(self, keys: Collection[bytes]) -> set[bytes]:
        """Remove all files but those of some keys.

        Args:
            keys: of blocks.

        Returns:
            Those whose files are there.

        Raises:
            OSError: if the folder cannot be read.
        """
        found: set[bytes] = set()
        for path in self._folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is not None and (key := bytes.fromhex(match[1])) in keys:
                found.add(key)
            elif match is not None or path.name.startswith(_BESIDE):
                with contextlib.suppress(OSError):
                    path.unlink()
        return found

    def sealed(self, key: bytes, tokens: TokenArray, span: bytes) -> bytes:
        """Return a file's bytes.

        Args:
            key: the block's.
            tokens: (n,) int64, n <= `MOST_BLOCK_TOKENS`.
            span: what the session saved.
        """
        count = tokens.size.to_bytes(16, "little")
        # A multiple of 64 before the span of a full block: its numbers are read where they lie.
        content = b"".join([_MAGIC, count, tokens.astype("<u4").tobytes(), span])
        return self._sealer.seal(content, place=key)

    def write(self, key: bytes, sealed: bytes) -> None:
        """Write a file beside its place, and rename it: there whole, or not at all.

        Args:
            key: the block's.
            sealed: of `sealed`.

        Raises:
            OSError: if it cannot be written; nothing is left behind.
        """
        # Not forced to the disk: what a loss of power leaves half there has no valid seal.
        handle, beside = tempfile.mkstemp(dir=self._folder, prefix=_BESIDE)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(sealed)
            Path(beside).replace(self._place(key))
        finally:
            Path(beside).unlink(missing_ok=True)

    def read(self, key: bytes, room: Room) -> tuple[TokenArray, memoryview]:
        """Read a file.

        Args:
            key: the block's.
            room: where to.

        Returns:
            Its tokens and its span, the latter in `room`.

        Raises:
            OSError: if it is not there or cannot be read.
            InputError: if it is damaged, or another block's.
        """
        content = memoryview(self._sealer.unseal(self._content(key, room), place=key))
        start = len(_MAGIC) + 16
        n = int.from_bytes(content[len(_MAGIC) : start], "little")
        end = start + 4 * n
        if bytes(content[: len(_MAGIC)]) != _MAGIC or n > MOST_BLOCK_TOKENS or len(content) < end:
            raise InputError("a block's file is not one of this version")
        return np.frombuffer(content[start:end], dtype="<u4").astype(np.int64), content[end:]

    def remove(self, key: bytes) -> None:
        """Remove a file, if it is there.

        Args:
            key: the block's.

        Raises:
            OSError: if it cannot be removed.
        """
        self._place(key).unlink(missing_ok=True)

    def _content(self, key: bytes, room: Room) -> memoryview:
        # What somebody put in its place, as a link or a pipe, is not followed or waited for.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            handle = os.open(self._place(key), flags | getattr(os, "O_BINARY", 0))
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise InputError("a block's file is a link") from error
            raise
        with os.fdopen(handle, "rb", buffering=0) as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode) or about.st_size > _MOST_BYTES:
                raise InputError("a block's file is not one")
            content = room.of(about.st_size)
            n_read = file.readinto(content)
        return content[:n_read]

    def _place(self, key: bytes) -> Path:
        # Of a key alone, never of a text from outside: there is no way out of the folder.
        return self._folder / f"{key.hex()}{_SUFFIX}"
