"""The state of long work, on disk after every step: two generations, each whole or not there.

FOLDER/state-0.bin, FOLDER/state-1.bin, FOLDER/part-NAME-REVISION.bin: a line, eight bytes of
header length, a JSON header, the arrays without gaps, and the SHA-256 of all before it. A
generation is written beside its place and renamed over the older of the two, so that the younger
one is never touched. Whatever ends the process, and whenever, at least one of them is whole; what
is damaged is set aside and said.
A part is what changes seldom and may be large: it is written where its revision is a new one.
"""

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.errors import InputError, ResourceError
from onhand.core.outside import parse_json
from onhand.device.learning.methods.kept import Part

__all__ = ["Generations", "Saved", "sync_folder"]

_FIRST: Final = b"onhand state 1\n"
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
    """Keeps the last two generations in a folder. One process at a time."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which is made when something is written."""
        self._folder = folder
        # What the generations on the disk are made of, by the parity of their numbers.
        self._parts: dict[int, dict[str, int]] = {}

    def write(self, saved: Saved) -> None:
        """Put a generation on disk, over the older one; when this returns it is there for good.

        Args:
            saved: its number is one more than that of the one before.

        Raises:
            InputError: if JSON cannot hold a field, or an array is of another dtype.
            ResourceError: if it cannot be written; what was there stays.
        """
        revisions = {name: part.revision for name, part in saved.parts.items()}
        place = self._place(saved.number)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, part in saved.parts.items():
                if not any(known.get(name) == part.revision for known in self._parts.values()):
                    self._write_part(name, part)
            _write(place, _pieces(saved.number, dict(saved.fields), revisions, saved.arrays))
            self._parts[saved.number % 2] = revisions
            self._tidy()
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
        self._parts = {}
        for parity in (0, 1):
            place = self._place(parity)
            try:
                saved, revisions = _parse(place.read_bytes())
                parts = {name: self._read_part(name, n) for name, n in revisions.items()}
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
            self._parts[parity] = revisions
        return max(found, key=lambda one: one.number, default=None), notes

    def forget(self) -> None:
        """Take what is on the disk for somebody else's: nothing of it is used again."""
        self._parts = {}

    def _place(self, number: int) -> Path:
        return self._folder / f"state-{number % 2}.bin"

    def _part_place(self, name: str, revision: int) -> Path:
        if not _PART.fullmatch(name):
            raise InputError(f"state: a part is called {name!r}, which is no name of a file")
        return self._folder / f"part-{name}-{revision}.bin"

    def _write_part(self, name: str, part: Part) -> None:
        _write(self._part_place(name, part.revision), _pieces(part.revision, {}, {}, part.arrays))

    def _read_part(self, name: str, revision: int) -> Part:
        place = self._part_place(name, revision)
        try:
            content = place.read_bytes()
        except FileNotFoundError as error:
            raise InputError(f"its part {place.name} is missing") from error
        saved, _ = _parse(content)
        if saved.number != revision:
            raise InputError(f"its part {place.name} is another one")
        return Part(revision, saved.arrays)

    def _tidy(self) -> None:
        """Remove parts that neither generation is made of."""
        needed = {
            self._part_place(name, revision).name
            for known in self._parts.values()
            for name, revision in known.items()
        }
        for path in self._folder.glob("part-*.bin"):
            if path.name not in needed:
                path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder last; where the system knows no such thing, do nothing."""
    if os.name == "nt":  # pragma: no cover
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(place: Path, pieces: list[bytes | memoryview]) -> None:
    beside = place.with_suffix(".new")
    digest = hashlib.sha256()
    with beside.open("wb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(place)
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


def _parse(content: bytes) -> tuple[Saved, dict[str, int]]:
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
