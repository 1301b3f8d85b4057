"""The state of long work, on disk after every step: two generations, each whole or not there.

FOLDER/state-0.bin, FOLDER/state-1.bin: a line, eight bytes of header length, a JSON header, the
arrays without gaps, and the SHA-256 of all before it. A generation is written beside its place
and renamed over the older of the two, so that the younger one is never touched. Whatever ends the
process, and whenever, at least one of them is whole; what is damaged is set aside and said.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.errors import InputError, ResourceError
from onhand.core.outside import parse_json

__all__ = ["Generations", "Saved", "sync_folder"]

_FIRST: Final = b"onhand state 1\n"
_DIGEST_BYTES: Final = 32
_MOST_HEADER_BYTES: Final = 16 * 2**20
_DTYPES: Final = ("float32", "float64", "int64", "int32", "uint8", "bool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """One generation.

    Attributes:
        number: it grows from one to the next.
        fields: what JSON can hold.
        arrays: name -> values; the caller's own.
    """

    number: int
    fields: Mapping[str, object]
    arrays: Mapping[str, np.ndarray]


class Generations:
    """Keeps the last two generations in a folder. One process at a time."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which is made when something is written."""
        self._folder = folder

    def write(self, saved: Saved) -> None:
        """Put a generation on disk, over the older one; when this returns it is there for good.

        Args:
            saved: its number is above that of the one before.

        Raises:
            InputError: if JSON cannot hold a field, or an array is of another dtype.
            ResourceError: if it cannot be written; what was there stays.
        """
        arrays = {name: np.ascontiguousarray(array) for name, array in saved.arrays.items()}
        for name, array in arrays.items():
            if array.dtype.name not in _DTYPES:
                raise InputError(f"state: {name!r} is {array.dtype}, which is not kept")
        table = {
            "arrays": [[name, a.dtype.name, list(a.shape)] for name, a in arrays.items()],
            "fields": saved.fields,
            "number": saved.number,
        }
        try:
            header = json.dumps(table, sort_keys=True, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise InputError(f"state: a field is not JSON: {error}") from error
        place = self._place(saved.number)
        pieces = [_FIRST, len(header).to_bytes(8, "little"), header]
        pieces += [array.reshape(-1).view(np.uint8).data for array in arrays.values() if array.size]
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(place, pieces)
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
        for place in (self._place(0), self._place(1)):
            try:
                content = place.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ResourceError(f"{place}: cannot be read: {error.strerror}") from error
            try:
                found.append(_parse(content))
            except InputError as error:
                aside = place.with_suffix(".damaged")
                with contextlib.suppress(OSError):
                    place.replace(aside)
                notes.append(f"{place.name} was damaged ({error}); it is kept as {aside.name}")
        return max(found, key=lambda one: one.number, default=None), notes

    def _place(self, number: int) -> Path:
        return self._folder / f"state-{number % 2}.bin"


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


def _parse(content: bytes) -> Saved:
    """Read a generation.

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
    if not isinstance(table, dict) or set(table) != {"arrays", "fields", "number"}:
        raise InputError("its header is not one")
    arrays: dict[str, np.ndarray] = {}
    place = start + length
    for name, dtype, shape in table["arrays"]:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        flat = np.frombuffer(body[place : place + size], dtype=dtype)
        arrays[name] = flat.reshape(shape).copy()
        place += size
    return Saved(number=table["number"], fields=table["fields"], arrays=arrays)
