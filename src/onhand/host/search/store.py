"""What a search keeps between runs, found again by its content: rounded matrices and tables."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onhand.core.errors import ResourceError
from onhand.host.work import FinishedMatrices

__all__ = ["SearchStore", "content_key"]


def content_key(content: Mapping[str, object]) -> str:
    """Return a name for what a JSON object says.

    Args:
        content: all that decides what is kept: hashes, options, versions.
    """
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class SearchStore:
    """The folder of one source, text, method and version.

    Attributes:
        root: the folder; made when something is kept.
    """

    root: Path

    @classmethod
    def at(cls, home: Path, content: Mapping[str, object]) -> "SearchStore":
        """Return the store of some content in a state folder.

        Args:
            home: the state folder.
            content: see `content_key`.
        """
        return cls(home / "search" / content_key(content))

    def matrices(self, text: str) -> FinishedMatrices:
        """Return where the matrices of one treatment are.

        Args:
            text: the treatment in words, such as "int4 g32".
        """
        return FinishedMatrices(self.root / "matrices" / re.sub(r"[^\w+]+", "-", text))

    def lend(self, name: str, text: str, to: FinishedMatrices) -> bool:
        """Put a finished matrix where a build looks for it.

        Args:
            name: the matrix, as it is stored.
            text: its treatment in words.
            to: the build's folder.

        Returns:
            Whether there was one.

        Raises:
            ResourceError: if the disk is full.
        """
        return _link(self.matrices(text), to, name)

    def take(self, name: str, text: str, made: FinishedMatrices) -> None:
        """Keep a matrix that a build has finished.

        Args:
            name: the matrix, as it is stored.
            text: its treatment in words.
            made: the build's folder.

        Raises:
            ResourceError: if the disk is full.
        """
        _link(made, self.matrices(text), name)

    def read(self, name: str) -> dict[str, object] | None:
        """Return a kept table, or None if there is none that is whole.

        Args:
            name: of the table.
        """
        try:
            found = json.loads((self.root / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, name: str, table: Mapping[str, object]) -> None:
        """Keep a table; it is there as a whole or not at all.

        Args:
            name: of the table.
            table: a JSON object.

        Raises:
            ResourceError: if it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            place = self.root / f"{name}.json"
            beside = place.with_suffix(".new")
            beside.write_text(json.dumps(table, indent=1, sort_keys=True), encoding="utf-8")
            beside.replace(place)
        except OSError as error:
            raise ResourceError(f"{self.root}: cannot be written: {error.strerror}") from error


def _link(source: FinishedMatrices, target: FinishedMatrices, name: str) -> bool:
    """Link or copy a finished matrix; return whether it is there.

    Raises:
        ResourceError: if the disk is full.
    """
    if name in target:
        return True
    if name not in source:
        return False
    place = target.folder / f"{name}.npz"
    beside = place.with_name(f"{place.name}.new")
    try:
        target.folder.mkdir(parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        try:
            # Finished matrices are never written again, so both may be one file.
            os.link(source.folder / f"{name}.npz", beside)
        except OSError:
            shutil.copyfile(source.folder / f"{name}.npz", beside)
        beside.replace(place)
    except OSError as error:
        raise ResourceError(f"{place}: cannot be written: {error.strerror}") from error
    return True
