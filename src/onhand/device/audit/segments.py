"""The files that an audit log's records lie in."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onhand.device.audit.records import MOST_LINE_BYTES

__all__ = ["Line", "Segment", "lines_of", "segment_name", "segments_in"]

_NAME: Final = re.compile(r"records-(\d{20})\.log")


@dataclass(frozen=True, slots=True)
class Segment:
    """One file.

    Attributes:
        path: its place.
        first: number of its first record, as its name says.
    """

    path: Path
    first: int


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file.

    Attributes:
        content: without its newline.
        is_whole: whether it has one; only the last of a file may lack it.
    """

    content: bytes
    is_whole: bool


def segment_name(first: int) -> str:
    """Return the name of the file whose first record has a number."""
    return f"records-{first:020d}.log"


def segments_in(folder: Path) -> Sequence[Segment]:
    """Return a log's files in order; none where the folder is missing.

    Args:
        folder: of the log.

    Returns:
        They.

    Raises:
        OSError: if the folder cannot be read.
    """
    if not folder.is_dir():
        return []
    found = ((path, _NAME.fullmatch(path.name)) for path in folder.iterdir())
    segments = [Segment(path, int(match[1])) for path, match in found if match is not None]
    return sorted(segments, key=lambda one: one.first)


def lines_of(path: Path) -> Iterator[Line]:
    """Read a file line by line; a line that is too long comes in parts, which are no records.

    Args:
        path: the file.

    Yields:
        Its lines.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        while content := file.readline(MOST_LINE_BYTES + 1):
            is_whole = content.endswith(b"\n")
            yield Line(content[:-1] if is_whole else content, is_whole)
