"""The state of long work, on disk after every step, each time whole or not there.

FOLDER/state-0.bin, state-1.bin, step-0.bin, step-1.bin, part-NAME-REVISION.bin: a line, eight bytes
of header length, a JSON header, the arrays without gaps, and the SHA-256 of all before it. A file
is written beside its place and renamed over the older one of its two, so that the younger one is
never touched. Whatever ends the process, and whenever, the last one that was written is whole; what
is damaged is set aside and said.

Files called `state` are brought to the disk itself, which takes longer than a short step and wears
flash: that is done after each step, but not more often than every quarter of a second. Between
them come files called `step`: they outlive the process, and a loss of power may cost them.

A part is what changes seldom and may be large: it is written where its revision is a new one.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.errors import InputError, ResourceError
from onhand.core.outside import parse_json
from onhand.core.sealing import SealedWriter
from onhand.device.learning.methods.kept import Part
from onhand.device.vault.above import PlacedKeys, content_of, keys_above

__all__ = ["SYNC_S", "Generations", "Saved", "sync_folder"]

_FIRST: Final = b"onhand state 1\n"
SYNC_S: Final = 0.25
"""Seconds of steps that a loss of power may cost."""
_SYNCED: Final = ("state-0.bin", "state-1.bin")
_QUICK: Final = ("step-0.bin", "step-1.bin")
_DIGEST_BYTES: Final = 32
_MOST_HEADER_BYTES: Final = 16 * 2**20
_PART = re.compile(r"[A-Za-z0-9_.]{1,64}")
_DTYPES: Final = (
    "bool",
    "float16",
    "float32",
    "float64",
    "int16",
    "int32",
    "int64",
    "int8",
    "uint16",
    "uint32",
    "uint64",
    "uint8",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """One generation.

    Attributes:
        number: it grows from one to the next.
        fields: what JSON can hold.
        arrays: name -> values; the caller's own.
        parts: name -> arrays that are written where their revision is another one.
    """

    number: int
    fields: Mapping[str, object]
    arrays: Mapping[str, np.ndarray]
    parts: Mapping[str, Part] = field(default_factory=dict)


class Generations:
    """Keeps the last generations in a folder. One process at a time."""

    def __init__(
        self,
        folder: Path,
        *,
        sync_s: float = SYNC_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use a folder, which is made when something is written.

        Args:
            folder: it.
            sync_s: seconds between two generations that are brought to the disk itself.
            clock: seconds that only grow.

        Raises:
            VaultError: if there is a vault, and it is locked or damaged.
        """
        self._folder = folder
        self._placed = keys_above(folder, "memory")
        self._sync_s = sync_s
        self._clock = clock
        self._synced_at: float | None = None
        # Of each file that is there: its number, and revisions of the parts that it is made of.
        self._there: dict[str, tuple[int, dict[str, int]]] = {}
        self._unsynced: set[Path] = set()

    def write(self, saved: Saved) -> None:
        """Write a generation over the older one; see the module for what it outlives.

        Args:
            saved: its number is above that of the one before.

        Raises:
            InputError: if JSON cannot hold a field, or an array is of another dtype.
            ResourceError: if it cannot be written; what was there stays.
        """
        now = self._clock()
        is_due = self._synced_at is None or now - self._synced_at >= self._sync_s
        name = self._older(_SYNCED if is_due else _QUICK)
        place = self._folder / name
        revisions = {part: one.revision for part, one in saved.parts.items()}
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write_parts(saved.parts)
            if is_due:
                self._sync_parts()
            content = _pieces(saved.number, dict(saved.fields), revisions, saved.arrays)
            _write(place, content, sync=is_due, placed=self._placed)
            self._there[name] = (saved.number, revisions)
            if is_due:
                self._synced_at = now
            self._tidy(is_due=is_due)
        except OSError as error:
            raise ResourceError(
                f"{place}: cannot be written: {error.strerror or error}; free some disk, and it "
                "goes on from the step before"
            ) from error

    def read(self) -> tuple[Saved | None, list[str]]:
        """Return the youngest generation that is whole.

        Returns:
            saved: None where there is none.
            notes: a sentence for each one that was damaged; such a file is renamed, not removed.

        Raises:
            ResourceError: if a file cannot be read.
        """
        found: list[Saved] = []
        notes: list[str] = []
        self._there = {}
        for name in (*_SYNCED, *_QUICK):
            place = self._folder / name
            try:
                saved, revisions = _parse(content_of(place, self._placed))
                parts = {part: self._read_part(part, n) for part, n in revisions.items()}
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ResourceError(f"{place}: cannot be read: {error.strerror}") from error
            except InputError as error:
                aside = place.with_suffix(".damaged")
                with contextlib.suppress(OSError):
                    place.replace(aside)
                notes.append(f"{place.name} was damaged ({error}); it is kept as {aside.name}")
                continue
            found.append(replace(saved, parts=parts))
            self._there[name] = (saved.number, revisions)
        return max(found, key=lambda one: one.number, default=None), notes

    def forget(self) -> None:
        """Remove what is there: it is somebody else's, and nothing of it is used again.

        Raises:
            ResourceError: if it cannot be removed.
        """
        self._there = {}
        try:
            for name in (*_SYNCED, *_QUICK):
                (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise ResourceError(f"{self._folder}: cannot be emptied: {error.strerror}") from error

    def _older(self, names: tuple[str, str]) -> str:
        return min(names, key=lambda name: self._there.get(name, (-1, {}))[0])

    def _part_place(self, name: str, revision: int) -> Path:
        if not _PART.fullmatch(name):
            raise InputError(f"state: a part is called {name!r}, which is no name of a file")
        return self._folder / f"part-{name}-{revision}.bin"

    def _write_parts(self, parts: Mapping[str, Part]) -> None:
        for name, part in parts.items():
            if any(known.get(name) == part.revision for _, known in self._there.values()):
                continue
            place = self._part_place(name, part.revision)
            pieces = _pieces(part.revision, {}, {}, part.arrays)
            _write(place, pieces, sync=False, placed=self._placed)
            self._unsynced.add(place)

    def _sync_parts(self) -> None:
        for place in self._unsynced:
            with place.open("rb+") as file:
                os.fsync(file.fileno())
        self._unsynced.clear()

    def _read_part(self, name: str, revision: int) -> Part:
        place = self._part_place(name, revision)
        try:
            content = content_of(place, self._placed)
        except FileNotFoundError as error:
            raise InputError(f"its part {place.name} is missing") from error
        saved, _ = _parse(content)
        if saved.number != revision:
            raise InputError(f"its part {place.name} is another one")
        return Part(revision, saved.arrays)

    def _tidy(self, *, is_due: bool) -> None:
        """Remove what is older than the generation on the disk, and parts that nobody needs."""
        if is_due:
            for name in _QUICK:
                if self._there.pop(name, None) is not None:
                    (self._folder / name).unlink(missing_ok=True)
        needed = {
            self._part_place(name, revision)
            for _, known in self._there.values()
            for name, revision in known.items()
        }
        for path in self._folder.glob("part-*.bin"):
            if path not in needed:
                path.unlink(missing_ok=True)
                self._unsynced.discard(path)


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder last; where the system knows no such thing, do nothing."""
    if os.name == "nt":  # pragma: no cover
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(
    place: Path, pieces: list[bytes | memoryview], *, sync: bool, placed: PlacedKeys | None
) -> None:
    beside = place.with_suffix(".new")
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    try:
        with beside.open("wb") as file:
            whole = [*pieces, digest.digest()]
            if placed is None:
                file.writelines(whole)
            else:
                with SealedWriter(file, placed.keys, name=placed.name(place)) as writer:
                    for piece in whole:
                        writer.write(piece)
            if sync:
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        # What fitted of it must not keep the disk full.
        beside.unlink(missing_ok=True)
        raise
    beside.replace(place)
    if sync:
        sync_folder(place.parent)


def _pieces(
    number: int,
    fields: dict[str, object],
    revisions: dict[str, int],
    given: Mapping[str, np.ndarray],
) -> list[bytes | memoryview]:
    """Return a file's content but for its checksum.

    Raises:
        InputError: if JSON cannot hold a field, or an array is of another dtype.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in given.items()}
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise InputError(f"state: {name!r} is {array.dtype}, which is not kept")
    table = {
        "arrays": [[name, a.dtype.name, list(given[name].shape)] for name, a in arrays.items()],
        "fields": fields,
        "number": number,
        "parts": revisions,
    }
    try:
        header = json.dumps(table, sort_keys=True, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"state: a field is not JSON: {error}") from error
    flat = [array.reshape(-1).view(np.uint8).data for array in arrays.values() if array.size]
    return [_FIRST, len(header).to_bytes(8, "little"), header, *flat]


def _parse(content: bytes | bytearray) -> tuple[Saved, dict[str, int]]:
    """Read a generation, and which revisions of its parts it is made of.

    Raises:
        InputError: if it is not whole.
    """
    start = len(_FIRST) + 8
    if len(content) < start + _DIGEST_BYTES or not content.startswith(_FIRST):
        raise InputError("it is cut short, or no state")
    body = memoryview(content)[:-_DIGEST_BYTES]
    if hashlib.sha256(body).digest() != content[-_DIGEST_BYTES:]:
        raise InputError("its checksum does not match")
    length = int.from_bytes(content[len(_FIRST) : start], "little")
    if length > min(_MOST_HEADER_BYTES, len(body) - start):
        raise InputError(f"its header claims {length} bytes")
    table = parse_json(bytes(body[start : start + length]))
    if not isinstance(table, dict) or set(table) != {"arrays", "fields", "number", "parts"}:
        raise InputError("its header is not one")
    arrays: dict[str, np.ndarray] = {}
    place = start + length
    for name, dtype, shape in table["arrays"]:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        flat = np.frombuffer(body[place : place + size], dtype=dtype)
        arrays[name] = flat.reshape(shape).copy()
        place += size
    saved = Saved(number=table["number"], fields=table["fields"], arrays=arrays)
    return saved, table["parts"]
