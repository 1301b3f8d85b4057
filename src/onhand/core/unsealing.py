"""Sealed bundles, opened: their files come from memory, and never lie on the disk in plain.

Who has the keys is decided once for the process, as trust is: bundles are opened in many places.
"""

import contextlib
import json
import os
import sys
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final, Protocol

from onhand.core.anonymous import MemoryPath, memory_file
from onhand.core.errors import BundleCorrupt, InputError, SealBroken, VaultError
from onhand.core.manifest import MAX_MANIFEST_BYTES
from onhand.core.sealed_header import (
    MAX_HEADER_BYTES,
    SEALED,
    SEALED_MANIFEST,
    SealedHeader,
    file_keys,
    parse_header,
    unwrap_key,
)
from onhand.core.sealing import SealedReader, read_sealed, sealed_size

__all__ = ["Unsealed", "Unsealer", "handed_on", "open_seal", "take_over", "unsealing"]

_TAKEN: Final = "--unsealing"
_PART_FRAMES: Final = 16
_DECIDED: "list[Unsealer]" = []
_KNOWN: dict[bytes, bytes] = {}  # identity of a header -> content key, of what was opened here


class Unsealer(Protocol):
    """Has a device's private keys; threads share it."""

    def private_keys(self) -> Sequence[bytes]:
        """Return the private keys of X25519, 32 bytes each, the current one first.

        Raises:
            VaultError: if there is no vault, or it is locked.
        """
        ...


@contextmanager
def unsealing(unsealer: Unsealer) -> Iterator[None]:
    """Let sealed bundles open by somebody's keys as long as the block runs, for all threads.

    Args:
        unsealer: has them.

    Yields:
        Nothing.
    """
    _DECIDED.append(unsealer)
    try:
        yield
    finally:
        _DECIDED.remove(unsealer)
        if not _DECIDED:
            _KNOWN.clear()


class Unsealed:
    """A sealed bundle whose key was found; threads may share it.

    Attributes:
        header: what anybody may read of it.
    """

    def __init__(self, root: Path, header: SealedHeader, content_key: bytes) -> None:
        """Hold what opens its files.

        Args:
            root: the bundle's folder.
            header: of it.
            content_key: as `unwrap_key` gave it.
        """
        self.header = header
        self._root = root
        self._keys = file_keys(content_key, header)
        self._locks = {name: Lock() for name in header.files}
        self._opened: weakref.WeakValueDictionary[str, MemoryPath] = weakref.WeakValueDictionary()

    def manifest_bytes(self) -> bytes:
        """Return the manifest's bytes, which are not parsed.

        Raises:
            SealBroken: if they were changed.
            InputError: if they cannot be read.
        """
        place = self._root / SEALED_MANIFEST
        try:
            content = read_sealed(
                place, self._keys, name=SEALED_MANIFEST, most_bytes=MAX_MANIFEST_BYTES
            )
        except OSError as error:
            raise InputError(f"{place}: cannot be read: {error.strerror or error}") from error
        return bytes(content)

    def path(self, name: str) -> Path:
        """Return a file's content, as a place in memory; it stays as long as the path is kept.

        Args:
            name: of the file.

        Raises:
            SealBroken: if it was changed, or is another's.
            InputError: if it cannot be read.
        """
        if name not in self._locks:
            return self._root / name
        with self._locks[name]:
            known = self._opened.get(name)
            if known is None:
                known = self._opened[name] = self._read(name)
            return known

    def _read(self, name: str) -> MemoryPath:
        place = self._root / name
        try:
            with place.open("rb") as file:
                reader = SealedReader(file, self._keys, name=name, where=str(place))
                if reader.size != self.header.files[name]:
                    raise SealBroken(
                        f"{place}: {reader.size} bytes, {SEALED} says {self.header.files[name]}"
                    )
                n_frames, frame_bytes = reader.n_frames, reader.frame_bytes
            parts = [
                range(first, min(first + _PART_FRAMES, n_frames))
                for first in range(0, n_frames, _PART_FRAMES)
            ]

            def fill(room: memoryview) -> None:
                def put(frames: range) -> None:
                    # A file of its own: threads must not share a place in it.
                    with place.open("rb") as file:
                        part = SealedReader(file, self._keys, name=name, where=str(place))
                        for n in frames:
                            content = part.frame(n)
                            room[n * frame_bytes : n * frame_bytes + len(content)] = content

                # Decryption lets other threads run; one more than processors hides the reading.
                with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 1)) as pool:
                    list(pool.map(put, parts))

            return memory_file(place, reader.size, fill)
        except OSError as error:
            raise InputError(f"{place}: cannot be read: {error.strerror or error}") from error

    def size_on_disk(self, name: str) -> int:
        """Return how many bytes a file has on the disk."""
        return sealed_size(self.header.files[name])


def open_seal(root: Path) -> Unsealed | None:
    """Find the key of a sealed bundle; None if the bundle is not sealed.

    Args:
        root: the bundle's folder.

    Raises:
        BundleCorrupt: if its header is not valid.
        BundleTooNew: if its format is a later one.
        VaultError: if it is not sealed for this device, or the vault is missing or locked.
        SealBroken: if its header was changed.
    """
    place = root / SEALED
    if not place.is_file():
        return None
    if place.is_symlink():
        raise BundleCorrupt(f"{root}: {SEALED} is a link, which a bundle may not hold")
    with place.open("rb") as file:
        content = file.read(MAX_HEADER_BYTES + 1)
    if len(content) > MAX_HEADER_BYTES:
        raise BundleCorrupt(f"{root}: {SEALED} is over {MAX_HEADER_BYTES} bytes")
    header = parse_header(content, where=str(root))
    key = _KNOWN.get(header.identity)
    if key is None:
        if not _DECIDED:
            raise VaultError(f"{root}: is sealed, and nothing here has a vault's keys")
        key = unwrap_key(header, _DECIDED[-1].private_keys(), where=str(root))
        _KNOWN[header.identity] = key
    return Unsealed(root, header, key)


@contextmanager
def handed_on() -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Hand the keys of the bundles that are open on to a process that measures beside this one.

    They go through an open file that is in memory alone: neither on the disk nor in the list of
    processes.

    Yields:
        Arguments for its command line, and open files that it must inherit.
    """
    if not _KNOWN or sys.platform != "linux":
        yield [], ()
        return
    fd = os.memfd_create("onhand", os.MFD_CLOEXEC)
    try:
        table = {identity.hex(): key.hex() for identity, key in _KNOWN.items()}
        os.write(fd, json.dumps(table).encode())
        os.lseek(fd, 0, os.SEEK_SET)
        yield [_TAKEN, str(fd)], (fd,)
    finally:
        os.close(fd)


def take_over(arguments: Sequence[str]) -> None:
    """Take what `handed_on` gave, in the process that was started.

    Args:
        arguments: of its command line.
    """
    if len(arguments) != 2 or arguments[0] != _TAKEN:
        return
    with contextlib.suppress(OSError), os.fdopen(int(arguments[1]), "rb") as file:
        table = json.loads(file.read())
        _KNOWN.update({bytes.fromhex(name): bytes.fromhex(key) for name, key in table.items()})
