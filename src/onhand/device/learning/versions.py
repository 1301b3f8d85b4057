"""The versions that a device has learned of a bundle, and which of them is in use.

    HOME/state/MANIFEST-SHA256/learned/versions/NNNN/   see `version_files`
    HOME/state/MANIFEST-SHA256/learned/current.json     the number in use, and its ancestors

Number 0 is the bundle as it was built. A version goes live by a change of the pointer, and so it
is taken back. Every file is whole or not there, whenever the process or the machine stops.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import BundleCorrupt, InputError, ResourceError
from onhand.core.lesson import Lesson
from onhand.core.outside import count, object_of, parse_json, shown
from onhand.core.scope import Scope
from onhand.device.learning.base import Values
from onhand.device.learning.durable import sync_folder
from onhand.device.learning.verdict import Verdict
from onhand.device.learning.version_files import (
    MOST_VERSIONS,
    Version,
    check_values,
    clear_unfinished,
    numbered,
    read_values,
    read_version,
    remove_version,
    write_version,
)
from onhand.device.state import folder_of, write_text_atomically

__all__ = ["BASE", "CURRENT", "Standing", "Version", "Versions", "learned_folder"]

BASE: Final = 0
"""The number of the bundle as it was built."""
CURRENT: Final = "current.json"
"""The file that points at the version in use."""
FORMAT: Final = 1
_MAX_POINTER_BYTES: Final = 2**16
_MOST_ANCESTORS: Final = 1000


def learned_folder(home: Path, key: str) -> Path:
    """Return where all that was learned of a bundle is kept; it need not exist.

    Args:
        home: the state folder.
        key: the bundle's `manifest_sha256`.

    Raises:
        InputError: if the key is no SHA-256.
    """
    return folder_of(home, key) / "learned"


@dataclass(frozen=True, slots=True)
class Standing:
    """Which version is in use.

    Attributes:
        version: it; None for the bundle as it was built.
        passed_over: sentences about versions that should be and are damaged, the newest first.
    """

    version: Version | None
    passed_over: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """Of the version in use; 0 for the bundle as it was built."""
        return BASE if self.version is None else self.version.number


@dataclass(frozen=True, slots=True)
class Versions:
    """What a device has learned of one bundle. May be shared between threads and processes.

    Attributes:
        folder: as `learned_folder` gives it.
        lesson: of the bundle.
        most: versions that are kept at most, beside the one in use and its parent.
        clock: gives seconds since 1970.
    """

    folder: Path
    lesson: Lesson
    most: int = 8
    clock: Callable[[], float] = time.time

    def propose(
        self,
        values: Values,
        *,
        start: Values,
        parent: int,
        method: str,
        counts: Mapping[str, int],
        verdict: Verdict,
        scope: Scope | None = None,
    ) -> Version:
        """Keep a candidate as a new version; it is not in use before `accept`.

        Args:
            values: of every trainable.
            start: what the bundle starts with; a tensor that is equal to it is not stored.
            parent: the number that it was learned from, 0 for the bundle as it was built.
            method: how it was learned, in one word or a few.
            counts: name -> how many: examples, steps.
            verdict: what the gate said; a refused candidate is kept with its report, too.
            scope: which prompts it answers; None for all.

        Returns:
            The version. Old ones beyond `most` are removed, refused ones first.

        Raises:
            InputError: if values do not fit the lesson or are not finite, or counts are none.
            ResourceError: if it cannot be written; all is then as it was before.
        """
        check_values(values, self.lesson, names=self.lesson.trainables)
        changed: dict[str, FloatArray] = {
            name: np.ascontiguousarray(value, dtype=np.float32)
            for name, value in values.items()
            if name in self.lesson.trainables and not np.array_equal(value, start[name])
        }
        if min(counts.values(), default=0) < 0:
            raise InputError(f"counts {shown(dict(counts))} must be whole numbers from 0")
        clear_unfinished(self._place)
        number = write_version(
            self._place,
            changed,
            parent=parent,
            made_at_s=self.clock(),
            method=method,
            counts=counts,
            verdict=verdict,
            scope=scope,
        )
        self._prune()
        return read_version(self._place, number)

    def list_versions(self) -> tuple[Version, ...]:
        """Return the versions that can be read, the oldest first; see `damaged` for others."""
        found = (self._readable(number) for number in numbered(self._place))
        return tuple(one for one in found if isinstance(one, Version))

    def damaged(self) -> dict[int, str]:
        """Return number -> what is wrong, of every version that cannot be used."""
        found = {number: self._unsound(number) for number in numbered(self._place)}
        return {number: why for number, why in found.items() if why is not None}

    def current(self) -> Standing:
        """Return the version in use: the one pointed at, or its nearest sound ancestor.

        Every file of it is checked, its tensors by their hash.
        """
        try:
            pointed = self._pointed()
        except BundleCorrupt as error:
            return Standing(None, (f"{error}; the bundle is used as it was built",))
        passed_over: list[str] = []
        for number in pointed:
            why = self._unsound(number)
            if why is None:
                return Standing(read_version(self._place, number), tuple(passed_over))
            passed_over.append(f"version {number} is damaged and not used: {why}")
        return Standing(None, tuple(passed_over))

    def values(self, version: Version) -> dict[str, FloatArray]:
        """Return the tensors of a version that differ from the bundle's start.

        Args:
            version: as another method gave it.

        Raises:
            BundleCorrupt: if they were changed, or do not fit the lesson.
        """
        return read_values(self._place, version, self.lesson)[0]

    def scope(self, version: Version | None) -> Scope | None:
        """Return which prompts a version answers; None for all, and for the bundle as it was built.

        Args:
            version: as another method gave it; None for the bundle as it was built.

        Raises:
            BundleCorrupt: if its tensors were changed, or do not fit the lesson.
        """
        if version is None:
            return None
        return read_values(self._place, version, self.lesson)[1]

    def find(self, number: int) -> Version:
        """Return a version by its number.

        Raises:
            InputError: if there is none.
            BundleCorrupt: if it is damaged.
        """
        return read_version(self._place, number)

    def accept(self, number: int) -> None:
        """Put a version that passed its gate into use.

        Args:
            number: which; 0 for the bundle as it was built.

        Raises:
            InputError: if there is none, or its gate refused it.
            BundleCorrupt: if it is damaged.
            ResourceError: if the pointer cannot be written; the one before then stays.
        """
        ancestors: list[int] = []
        if number != BASE:
            version = read_version(self._place, number)
            if not version.verdict.is_accepted:
                why = "; ".join(version.verdict.reasons) or "no reason is given"
                raise InputError(f"version {number} was refused by its gate: {why}")
            self.values(version)
            ancestors = self._ancestors(version)
        self._point(number, ancestors)

    def rollback(self, to: int | None = None) -> int:
        """Go back to an earlier version.

        Args:
            to: which; 0 for the bundle as it was built; None for the parent of the one in use.

        Returns:
            The number now in use.

        Raises:
            InputError: if there is none before, no such version, or its gate refused it.
            BundleCorrupt: if it is damaged.
            ResourceError: if the pointer cannot be written; the one before then stays.
        """
        if to is None:
            version = self.current().version
            if version is None:
                raise InputError("the bundle is already used as it was built")
            to = next((one for one in self._ancestors(version) if self._is_usable(one)), BASE)
        self.accept(to)
        return to

    @property
    def _place(self) -> Path:
        return self.folder / "versions"

    def _point(self, number: int, ancestors: list[int]) -> None:
        table = {"ancestors": ancestors, "format": FORMAT, "number": number}
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"{self.folder}: cannot be made: {error.strerror}") from error
        path = self.folder / CURRENT
        write_text_atomically(path, json.dumps(table, sort_keys=True) + "\n")
        sync_folder(self.folder)

    def _pointed(self) -> list[int]:
        """Return the number pointed at and its ancestors, without 0.

        Raises:
            BundleCorrupt: if the pointer is damaged.
        """
        path = self.folder / CURRENT
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_POINTER_BYTES + 1)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BundleCorrupt(f"{path}: cannot be read: {error.strerror}") from error
        try:
            return [number for number in _chain(content) if number != BASE]
        except InputError as error:
            raise BundleCorrupt(f"{path}: damaged: {error}") from error

    def _ancestors(self, version: Version) -> list[int]:
        """Return the numbers that a version descends from, the nearest first, without 0."""
        found: list[int] = []
        while 0 < version.parent < version.number and len(found) < _MOST_ANCESTORS:
            found.append(version.parent)
            parent = self._readable(version.parent)
            if not isinstance(parent, Version):
                break
            version = parent
        return found

    def _readable(self, number: int) -> Version | str:
        try:
            return read_version(self._place, number)
        except (InputError, BundleCorrupt) as error:
            return str(error)

    def _unsound(self, number: int) -> str | None:
        version = self._readable(number)
        if isinstance(version, str):
            return version
        try:
            self.values(version)
        except BundleCorrupt as error:
            return str(error)
        return None

    def _is_usable(self, number: int) -> bool:
        version = self._readable(number)
        if isinstance(version, str) or not version.verdict.is_accepted:
            return False
        return self._unsound(number) is None

    def _prune(self) -> None:
        """Remove old versions beyond the bound, refused ones first; not what is in use."""
        places = numbered(self._place)
        if len(places) <= self.most:
            return
        try:
            pointed = self._pointed()
        except BundleCorrupt:
            return
        standing = self.current().version
        kept = {*pointed[:2], max(places)}
        if standing is not None:
            kept |= {standing.number, standing.parent}
        refused: dict[int, bool] = {}
        for number in places:
            version = self._readable(number)
            refused[number] = isinstance(version, str) or not version.verdict.is_accepted
        oldest = sorted(places.keys() - kept, key=lambda number: (not refused[number], number))
        for number in oldest[: len(places) - self.most]:
            remove_version(self._place, number)


def _chain(content: bytes) -> list[int]:
    """Return the number that a pointer holds, then its ancestors.

    Raises:
        InputError: if it is no pointer.
    """
    if len(content) > _MAX_POINTER_BYTES:
        raise InputError(f"over {_MAX_POINTER_BYTES} bytes")
    table = object_of(parse_json(content), "pointer", {"ancestors", "format", "number"})
    if table.get("format") != FORMAT:
        raise InputError(f"format {shown(table.get('format'))}, this reader knows {FORMAT}")
    listed = table.get("ancestors")
    if not isinstance(listed, list) or len(listed) > _MOST_ANCESTORS:
        raise InputError(f"ancestors must be a list of up to {_MOST_ANCESTORS} numbers")
    named = {"number": table.get("number")} | {f"ancestor {i}": n for i, n in enumerate(listed)}
    return [count(named, key, "pointer", least=0, most=MOST_VERSIONS) for key in named]
