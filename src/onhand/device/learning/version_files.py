"""The files of one learned version: written whole, and read as if somebody else had made them.

    NNNN/tensors.safetensors   the tensors that differ from the start, and its scope if it has
                               one, float32; sealed where there is a vault
    NNNN/version.json          what it is, with hashes of the other two
    NNNN/report.json           what the gate said

The folder is filled beside its place, brought to the disk and renamed, so it is whole or not there.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import BundleCorrupt, InputError, ResourceError
from onhand.core.lesson import Lesson
from onhand.core.outside import count, object_of, parse_json, shown
from onhand.core.scope import Scope, scope_from
from onhand.device.learning.base import Values
from onhand.device.learning.durable import sync_folder
from onhand.device.learning.verdict import Verdict, parse_verdict, render_verdict
from onhand.device.learning.version_tensors import read_tensors, write_tensors

__all__ = [
    "Version",
    "check_values",
    "clear_unfinished",
    "numbered",
    "read_values",
    "read_version",
    "remove_version",
    "write_version",
]

FORMAT: Final = 1
MOST_VERSIONS: Final = 999_999
MAX_TENSORS_BYTES: Final = 2 * 2**30
MAX_CLASSES: Final = 2**16
_MAX_JSON_BYTES: Final = 2**20
_TENSORS, _VERSION, _REPORT = "tensors.safetensors", "version.json", "report.json"
_FOLDER = re.compile(r"[0-9]{4,6}")
_UNFINISHED = re.compile(r"\.(?:new|gone)-([0-9]{1,10})-.*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_KEYS = {"counts", "format", "made_at_s", "method", "number", "parent", "report", "seal", "tensors"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A learned version, and what the gate said of it.

    Attributes:
        number: from 1.
        parent: what it was learned from; 0 for the bundle as it was built.
        made_at_s: when, seconds since 1970 (Unix time).
        method: how it was learned, in one word or a few.
        counts: name -> how many: examples, steps.
        sha256: over its tensors: its identity.
        size_bytes: of its tensors' file.
        verdict: of the gate.
    """

    number: int
    parent: int
    made_at_s: float
    method: str
    counts: Mapping[str, int]
    sha256: str
    size_bytes: int
    verdict: Verdict


def numbered(folder: Path) -> dict[int, Path]:
    """Return number -> folder of what lies in a folder of versions, sound or not.

    Args:
        folder: it may be missing.
    """
    try:
        names = [one.name for one in folder.iterdir() if _FOLDER.fullmatch(one.name)]
    except FileNotFoundError:
        return {}
    found = {int(name): folder / name for name in sorted(names) if name == f"{int(name):04d}"}
    return {number: path for number, path in found.items() if number > 0}


def write_version(
    folder: Path,
    changed: Values,
    *,
    parent: int,
    made_at_s: float,
    method: str,
    counts: Mapping[str, int],
    verdict: Verdict,
    scope: Scope | None = None,
) -> int:
    """Write a version under the next number.

    Args:
        folder: of versions; made if it is missing.
        changed: the tensors that differ from the start.
        parent: what it was learned from.
        made_at_s: when, seconds since 1970.
        method: how, 1 to 200 plain letters.
        counts: what is told beside it.
        verdict: of the gate.
        scope: which prompts it answers; None for all.

    Returns:
        Its number.

    Raises:
        InputError: if `method` is no such text.
        ResourceError: if it cannot be written; nothing is left behind.
    """
    if not _WORD.fullmatch(method):
        raise InputError(f"method {shown(method)} is no text of 1 to 200 plain letters")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder, prefix=f".new-{os.getpid()}-"))
        try:
            described = {
                "counts": dict(counts),
                "format": FORMAT,
                "made_at_s": made_at_s,
                "method": method,
                "parent": parent,
                "report": _write(beside / _REPORT, render_verdict(verdict)),
            }
            tensors = {**changed, **({} if scope is None else scope.arrays())}
            return _place(folder, beside, described, tensors)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _place(folder: Path, beside: Path, described: Mapping[str, object], changed: Values) -> int:
    """Rename a filled folder to the first number that is free.

    Raises:
        ResourceError: if none is.
        OSError: if it cannot be renamed.
    """
    number = max(numbered(folder), default=0) + 1
    while number <= MOST_VERSIONS:
        target = folder / f"{number:04d}"
        # Sealed, they open under their own number alone.
        tensors = write_tensors(beside / _TENSORS, changed, target=target / _TENSORS)
        table = {**described, "number": number, "tensors": tensors}
        _write(beside / _VERSION, _render(table))
        sync_folder(beside)
        try:
            beside.rename(target)
        except OSError:
            # Another process was first: its folder is not empty, so nothing was renamed over it.
            if not target.exists():
                raise
            number += 1
            continue
        sync_folder(folder)
        return number
    raise ResourceError(f"{folder}: no number up to {MOST_VERSIONS} is free")


def _render(table: Mapping[str, object]) -> bytes:
    whole = {**table, "seal": _seal(table)}
    return json.dumps(whole, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"


def _seal(table: Mapping[str, object]) -> str:
    text = json.dumps(table, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _write(path: Path, content: bytes) -> str:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def clear_unfinished(folder: Path) -> None:
    """Remove what processes that are gone left half written, or half removed.

    Args:
        folder: of versions; it may be missing.
    """
    if not folder.is_dir():
        return
    import psutil

    for one in folder.iterdir():
        begun = _UNFINISHED.fullmatch(one.name)
        if begun is not None and not psutil.pid_exists(int(begun[1])):
            shutil.rmtree(one, ignore_errors=True)


def remove_version(folder: Path, number: int) -> None:
    """Remove a version; at no moment is it half there.

    Args:
        folder: of versions.
        number: which; none of this number is no error.
    """
    gone = folder / f".gone-{os.getpid()}-{number:04d}"
    try:
        (folder / f"{number:04d}").rename(gone)
    except OSError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def read_version(folder: Path, number: int) -> Version:
    """Read what a version is; its tensors are not read.

    Args:
        folder: of versions.
        number: which.

    Returns:
        The version.

    Raises:
        InputError: if there is none of this number.
        BundleCorrupt: if it is damaged.
    """
    place = folder / f"{number:04d}"
    if not place.is_dir():
        found = [one.name for one in folder.iterdir()] if folder.is_dir() else []
        known = ", ".join(str(int(name)) for name in sorted(found) if name.isdigit())
        raise InputError(f"there is no version {number}; there is {known or 'none yet'}")
    path = place / _VERSION
    try:
        table = object_of(parse_json(_content(path)), "version", _KEYS)
        return _version(table, place, number)
    except InputError as error:
        raise BundleCorrupt(f"{path}: {error}") from error


def _version(table: Mapping[str, object], place: Path, number: int) -> Version:
    if table.get("format") != FORMAT:
        raise InputError(f"format {shown(table.get('format'))}, this reader knows {FORMAT}")
    if table.get("seal") != _seal({key: table[key] for key in table if key != "seal"}):
        raise InputError("its seal does not fit: the file was changed")
    if count(table, "number", "version", most=MOST_VERSIONS) != number:
        raise InputError(f"it is of number {table['number']}")
    content = _content(place / _REPORT)
    if hashlib.sha256(content).hexdigest() != _hash(table, "report"):
        raise BundleCorrupt(f"{place / _REPORT}: was changed after it was written")
    counts = table.get("counts")
    if not isinstance(counts, dict) or len(counts) > 100:
        raise InputError("counts must be an object of up to 100 whole numbers")
    made_at_s, method = table.get("made_at_s"), table.get("method")
    if isinstance(made_at_s, bool) or not isinstance(made_at_s, int | float):
        raise InputError(f"made_at_s is {shown(made_at_s)}, no number")
    if not isinstance(method, str) or not _WORD.fullmatch(method):
        raise InputError(f"method {shown(method)} is no text of 1 to 200 plain letters")
    return Version(
        number=number,
        parent=count(table, "parent", "version", least=0, most=MOST_VERSIONS),
        made_at_s=float(made_at_s),
        method=method,
        counts={name: count(counts, name, "counts", least=0, most=2**63) for name in counts},
        sha256=_hash(table, "tensors"),
        size_bytes=_size(place / _TENSORS),
        verdict=parse_verdict(content, where=str(place / _REPORT)),
    )


def _hash(table: Mapping[str, object], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise InputError(f"{key} is {shown(value)}, no SHA-256 in hex")
    return value


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_JSON_BYTES + 1)
    except OSError as error:
        raise BundleCorrupt(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > _MAX_JSON_BYTES:
        raise BundleCorrupt(f"{path}: over {_MAX_JSON_BYTES} bytes")
    return content


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise BundleCorrupt(f"{path}: cannot be read: {error.strerror}") from error


def read_values(
    folder: Path, version: Version, lesson: Lesson
) -> tuple[dict[str, FloatArray], Scope | None]:
    """Read the tensors of a version, once their hash was found right.

    Args:
        folder: of versions.
        version: which.
        lesson: of the bundle.

    Returns:
        values: name -> value, of those that differ from the start; the caller's own.
        scope: which prompts it answers; None for all.

    Raises:
        BundleCorrupt: if they were changed, or do not fit the lesson.
    """
    path = folder / f"{version.number:04d}" / _TENSORS
    if version.size_bytes > MAX_TENSORS_BYTES:
        raise BundleCorrupt(f"{path}: {version.size_bytes} bytes, at most {MAX_TENSORS_BYTES}")
    try:
        values = read_tensors(path, sha256=version.sha256)
    except OSError as error:
        raise BundleCorrupt(f"{path}: cannot be read: {error.strerror}") from error
    try:
        scope, values = scope_from(values)
        check_values(values, lesson, names=values)
    except InputError as error:
        raise BundleCorrupt(f"{path}: {error}") from error
    return values, scope


def check_values(values: Values, lesson: Lesson, *, names: Iterable[str]) -> None:
    """Check values against a lesson: known, of a shape that fits, and finite.

    Args:
        values: name of a trainable -> its value.
        lesson: of the bundle.
        names: which of them must be there.

    Raises:
        InputError: with the first that does not fit.
    """
    for name in names:
        wanted, value = lesson.trainables.get(name), values.get(name)
        if wanted is None:
            raise InputError(f"{shown(name)} is nothing that this bundle learns")
        if value is None:
            raise InputError(f"{shown(name)} is missing")
        fits = value.shape == wanted.shape
        if wanted.grows and not fits and value.ndim == len(wanted.shape) > 0:
            n_classes = value.shape[0]
            fits = value.shape[1:] == wanted.shape[1:]
            fits = fits and wanted.shape[0] <= n_classes <= max(MAX_CLASSES, wanted.shape[0])
        if not fits:
            raise InputError(f"{shown(name)} is {value.shape}, the lesson has {wanted.shape}")
        if not np.isfinite(value).all():
            raise InputError(f"{shown(name)} holds a NaN or an infinity")
