"""Files and records that are encrypted and cannot be changed unseen: AES-256-GCM in frames.

A sealed file is a header and frames without gaps:

    magic 8 | frame size, log2: 1 | zeros 3 | key id 4 | salt 32 | frame 0 | frame 1 | ...

A frame is 1 MiB of content, encrypted, and a tag of 16 bytes; the last one has what is left, and
is empty only where the whole content is.

Nonces are never used twice: each file has a key of its own, derived by HKDF-SHA-256 from the
store's key and 32 random bytes, and within it frame n has nonce n. The nonce also says whether the
frame is the last, so what is cut or longer does not open. With every frame goes, as associated
data, the header, the store and the file's name: a frame opens at its place in its own file alone.

Source:
    Frames, counters and the mark of the last: STREAM, "Online Authenticated-Encryption and its
    Nonce-Reuse Misuse-Resistance", Hoang, Reyhanitabar, Rogaway, Vizar (2015). HKDF: RFC 5869.
"""

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from onhand.core.errors import InputError, ResourceError, SealBroken
from onhand.core.sealing_keys import (
    KEY_BYTES,
    RECORD_EXTRA_BYTES,
    Keys,
    StoreKeys,
    bound_names,
    derived_key,
    open_record,
    seal_record,
)

__all__ = [
    "FRAME_BYTES",
    "HEADER_BYTES",
    "KEY_BYTES",
    "RECORD_EXTRA_BYTES",
    "Keys",
    "SealedReader",
    "SealedWriter",
    "StoreKeys",
    "derived_key",
    "is_sealed",
    "is_sealed_file",
    "open_record",
    "read_sealed",
    "seal_bytes",
    "seal_record",
    "sealed_size",
    "unseal_bytes",
    "write_sealed",
]

FRAME_BYTES: Final = 2**20
"""Content of one frame."""
HEADER_BYTES: Final = 48
"""Bytes before the first frame."""
_MAGIC: Final = b"onhand\xf0\x01"  # the last byte is the format's number; the one before no text's
_TAG_BYTES, _SALT_BYTES = 16, 32
_LEAST_LOG2, _MOST_LOG2 = 6, 26
_PURPOSE: Final = "onhand sealed file"


def is_sealed(content: bytes | memoryview) -> bool:
    """Say whether bytes begin as a sealed file does; a record says nothing about itself."""
    return bytes(content[: len(_MAGIC)]) == _MAGIC


def is_sealed_file(path: Path) -> bool:
    """Say whether a file begins as a sealed one does; a missing one does not."""
    try:
        with path.open("rb") as file:
            return is_sealed(file.read(len(_MAGIC)))
    except OSError:
        return False


def sealed_size(size: int, *, frame_bytes: int = FRAME_BYTES) -> int:
    """Return how many bytes a sealed file has for so many of content."""
    return HEADER_BYTES + size + _TAG_BYTES * max(1, -(-size // frame_bytes))


class SealedWriter:
    """Seals a stream, piece by piece; not safe to share between threads.

    Without `close` the last frame is missing, and nothing of the file opens.
    """

    def __init__(
        self, file: BinaryIO, keys: Keys, *, name: str, frame_bytes: int = FRAME_BYTES
    ) -> None:
        """Begin a file.

        Args:
            file: where to; stays open.
            keys: of the store.
            name: what the file is, within the store: it opens under no other.
            frame_bytes: content of one frame, a power of two from 64 to 2**26.

        Raises:
            InputError: if name or frame are not valid.
        """
        log2 = max(0, frame_bytes.bit_length() - 1)
        if frame_bytes != 1 << log2 or not _LEAST_LOG2 <= log2 <= _MOST_LOG2:
            raise InputError(f"a frame of {frame_bytes} bytes, must be a power of two, 64 to 2**26")
        key_id, secret = keys.current()
        salt = os.urandom(_SALT_BYTES)
        header = _MAGIC + bytes([log2, 0, 0, 0]) + key_id.to_bytes(4, "big") + salt
        self._bound = header + bound_names(keys.store, name.encode())
        self._cipher = AESGCM(derived_key(secret, purpose=_PURPOSE, salt=salt))
        self._file = file
        self._frame_bytes = frame_bytes
        self._waiting = bytearray()
        self._n = 0
        self._is_closed = False
        file.write(header)

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """Add content.

        Raises:
            OSError: if it cannot be written.
        """
        piece = memoryview(content).cast("B")
        while len(self._waiting) + len(piece) > self._frame_bytes:
            taken = self._frame_bytes - len(self._waiting)
            if self._waiting:
                self._waiting += piece[:taken]
                self._put(self._waiting, is_last=False)
                self._waiting = bytearray()
            else:
                self._put(piece[:taken], is_last=False)
            piece = piece[taken:]
        self._waiting += piece

    def close(self) -> None:
        """Write the last frame; safe to call twice. The file stays open.

        Raises:
            OSError: if it cannot be written.
        """
        if not self._is_closed:
            self._put(self._waiting, is_last=True)
            self._is_closed = True

    def _put(self, content: bytearray | memoryview, *, is_last: bool) -> None:
        nonce = _nonce(self._n, is_last=is_last)
        self._file.write(self._cipher.encrypt(nonce, content, self._bound))
        self._n += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What broke off must not look whole.
        if kind is None:
            self.close()


class SealedReader:
    """Opens a sealed file, as a whole or by ranges; not safe to share between threads.

    Its end is checked first, so its size is certain before any of it is read.

    Attributes:
        size: bytes of content.
        key_id: of the key it is sealed by.
        n_frames: how many frames it has.
        frame_bytes: content of each but the last.
    """

    def __init__(self, file: BinaryIO, keys: Keys, *, name: str, where: str = "") -> None:
        """Read the header, and check the last frame.

        Args:
            file: the file, which can seek; stays open.
            keys: of the store.
            name: as given to the writer.
            where: the file's place, for errors; its name by default.

        Raises:
            SealBroken: if it is not sealed, is cut short or longer, or belongs elsewhere.
            VaultError: if its key is gone.
        """
        self._where = where or name
        self._file = file
        total = file.seek(0, os.SEEK_END)
        file.seek(0)
        header = file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES or not is_sealed(header):
            raise SealBroken(f"{self._where}: not a sealed file of this format, or cut short")
        if not _LEAST_LOG2 <= header[8] <= _MOST_LOG2 or any(header[9:12]):
            raise SealBroken(f"{self._where}: its header was changed")
        self.frame_bytes = 1 << header[8]
        self.key_id = int.from_bytes(header[12:16], "big")
        body = total - HEADER_BYTES
        self.n_frames = -(-body // (self.frame_bytes + _TAG_BYTES))
        self.size = body - self.n_frames * _TAG_BYTES
        last_bytes = self.size - (self.n_frames - 1) * self.frame_bytes
        if self.n_frames < 1 or last_bytes < (1 if self.n_frames > 1 else 0):
            raise SealBroken(f"{self._where}: cut short: it ends within a frame")
        self._bound = header + bound_names(keys.store, name.encode())
        self._cipher = AESGCM(
            derived_key(keys.by_id(self.key_id), purpose=_PURPOSE, salt=header[16:])
        )
        self._last = self._opened(self.n_frames - 1)

    def frame(self, n: int) -> bytes:
        """Return the content of one frame.

        Args:
            n: from 0 to `n_frames` - 1.

        Raises:
            SealBroken: if it was changed or is another's.
        """
        return self._last if n == self.n_frames - 1 else self._opened(n)

    def frames(self) -> Iterator[bytes]:
        """Give the content frame by frame, from the beginning.

        Yields:
            The content of each.
        """
        for n in range(self.n_frames):
            yield self.frame(n)

    def read(self, offset: int, size: int) -> bytes:
        """Return a range of the content; only the frames it lies in are opened.

        Args:
            offset: its first byte.
            size: how many; all of them exist.

        Raises:
            InputError: if the range is not within the content.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise InputError(
                f"{self._where}: bytes {offset} to {offset + size}, it has {self.size}"
            )
        first = offset // self.frame_bytes
        behind = max(first, -(-(offset + size) // self.frame_bytes))
        whole = b"".join(self.frame(n) for n in range(first, behind))
        start = offset - first * self.frame_bytes
        return whole[start : start + size]

    def read_into(self, room: bytearray | memoryview) -> None:
        """Put the whole content into memory of the caller's.

        Args:
            room: `size` bytes that may be written; what stands in it after an error is no content.

        Raises:
            InputError: if it has another size.
        """
        target = memoryview(room).cast("B")
        if len(target) != self.size:
            raise InputError(f"{self._where}: {self.size} bytes do not fit {len(target)}")
        place = 0
        for content in self.frames():
            target[place : place + len(content)] = content
            place += len(content)

    def _opened(self, n: int) -> bytes:
        self._file.seek(HEADER_BYTES + n * (self.frame_bytes + _TAG_BYTES))
        sealed = self._file.read(self.frame_bytes + _TAG_BYTES)
        is_last = n == self.n_frames - 1
        try:
            return self._cipher.decrypt(_nonce(n, is_last=is_last), sealed, self._bound)
        except InvalidTag as error:
            raise SealBroken(
                f"{self._where}: frame {n} of {self.n_frames} does not open: the file was changed, "
                "cut or made longer, or is another's under this name"
            ) from error


def seal_bytes(keys: Keys, content: bytes | bytearray | memoryview, *, name: str) -> bytes:
    """Return the bytes of a sealed file with some content; see `SealedWriter`."""
    made = io.BytesIO()
    with SealedWriter(made, keys, name=name) as writer:
        writer.write(content)
    return made.getvalue()


def unseal_bytes(
    keys: Keys, sealed: bytes | memoryview, *, name: str, where: str = ""
) -> bytearray:
    """Return the content of a sealed file's bytes.

    Args:
        keys: of the store.
        sealed: the file's bytes.
        name: as given to the writer.
        where: the file's place, for errors.

    Raises:
        SealBroken: as in `SealedReader`.
        VaultError: if its key is gone.
    """
    reader = SealedReader(io.BytesIO(sealed), keys, name=name, where=where)
    content = bytearray(reader.size)
    reader.read_into(content)
    return content


def write_sealed(
    path: Path,
    keys: Keys,
    write: Callable[[SealedWriter], object],
    *,
    name: str,
    sync: bool = True,
) -> None:
    """Write a sealed file beside its place, readable by its owner only, and rename it over.

    Args:
        path: its place; the folder exists.
        keys: of the store.
        write: puts the content.
        name: what the file is, within the store.
        sync: bring it to the disk itself before it is renamed.

    Raises:
        ResourceError: if it cannot be written; what was there stays.
    """
    beside: Path | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        beside = Path(temporary)
        with os.fdopen(handle, "wb") as file:
            with SealedWriter(file, keys, name=name) as writer:
                write(writer)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def read_sealed(path: Path, keys: Keys, *, name: str, most_bytes: int) -> bytearray:
    """Return the whole content of a sealed file.

    Args:
        path: the file.
        keys: of the store.
        name: as given to the writer.
        most_bytes: that its content may have.

    Raises:
        SealBroken: as in `SealedReader`, or if the content is larger.
        VaultError: if its key is gone.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        reader = SealedReader(file, keys, name=name, where=str(path))
        if reader.size > most_bytes:
            raise SealBroken(f"{path}: {reader.size} bytes, at most {most_bytes} are read")
        content = bytearray(reader.size)
        reader.read_into(content)
        return content


def _nonce(n: int, *, is_last: bool) -> bytes:
    return n.to_bytes(11, "big") + bytes([is_last])
