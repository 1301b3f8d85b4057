"""Files to a board: only those that it has not, from where it was cut off, checked there."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onhand.core.bundle import Bundle, sha256_of
from onhand.core.errors import InputError, ResourceError
from onhand.core.progress import Progress
from onhand.core.units import format_bytes
from onhand.host.target.link import Link

__all__ = ["Content", "copy_bundle", "copy_files", "file_content"]

PIECE_BYTES = 4 * 2**20
# What the file system and the measuring itself take beside the files.
_MARGIN_BYTES = 16 * 2**20
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Bytes that are to be on the board.

    Attributes:
        sha256: their hash, by which they are named there.
        size: how many.
        source: the file that holds them, or the bytes themselves.
    """

    sha256: str
    size: int
    source: Path | bytes

    @property
    def name(self) -> str:
        """The name on the board."""
        return f"files/{self.sha256}"


def file_content(source: Path | bytes) -> Content:
    """Return what a file, or bytes, are to the board."""
    if isinstance(source, bytes):
        digest = hashlib.sha256(source).hexdigest()
        return Content(sha256=digest, size=len(source), source=source)
    return Content(sha256=sha256_of(source), size=source.stat().st_size, source=source)


def copy_files(link: Link, files: list[Content], *, free_bytes: int, progress: Progress) -> int:
    """Copy what the board has not yet.

    Args:
        link: the connection.
        files: what it shall have.
        free_bytes: what its disk has room for.
        progress: told of each piece.

    Returns:
        The bytes that were sent.

    Raises:
        InputError: if the board's answer is of another form.
        ResourceError: if its disk is full, or the connection is lost.
    """
    wanted = {one.name: one for one in files}
    state = link.ask("state", names=sorted(wanted))
    whole, begun = state.get("whole"), state.get("begun")
    if not isinstance(whole, dict) or not isinstance(begun, dict):
        raise InputError(f"{link.address}: its answer does not say which files it has")
    missing = [one for name, one in sorted(wanted.items()) if whole.get(name) != one.sha256]
    starts = {one.name: _begun(begun, one) for one in missing}
    needed = sum(one.size - starts[one.name] for one in missing)
    if needed and needed + _MARGIN_BYTES > free_bytes:
        raise ResourceError(
            f"{link.address}: {format_bytes(needed)} must be copied and {format_bytes(free_bytes)} "
            f"are free there; make room, or name a folder on another disk"
        )
    if missing:
        progress.start(f"copying {format_bytes(needed)} to the board", max(1, needed))
    return sum(_copy(link, one, starts[one.name], progress) for one in missing)


def _begun(begun: Mapping[str, object], one: Content) -> int:
    found = begun.get(one.name)
    return found if type(found) is int and 0 < found <= one.size else 0


def _copy(link: Link, one: Content, start: int, progress: Progress) -> int:
    sent = _send(link, one, start, progress)
    if link.ask("finish", name=one.name, sha256=one.sha256)["is_whole"] is True:
        return sent
    # What was there from before was something else.
    sent += _send(link, one, 0, progress)
    if link.ask("finish", name=one.name, sha256=one.sha256)["is_whole"] is True:
        return sent
    raise ResourceError(
        f"{link.address}: what arrived is not what was sent (SHA-256 {one.sha256}): did the file "
        f"change here, or does that disk fail"
    )


def _send(link: Link, one: Content, start: int, progress: Progress) -> int:
    offset = start
    while offset < one.size or offset == 0:
        piece = _piece(one, offset)
        link.ask("put", payload=piece, name=one.name, offset=offset)
        offset += len(piece)
        progress.advance(len(piece))
        if not piece:
            break
    return offset - start


def _piece(one: Content, offset: int) -> bytes:
    if isinstance(one.source, bytes):
        return one.source[offset : offset + PIECE_BYTES]
    try:
        with one.source.open("rb") as file:
            file.seek(offset)
            return file.read(PIECE_BYTES)
    except OSError as error:
        raise InputError(f"{one.source}: cannot be read: {error.strerror}") from error


def copy_bundle(link: Link, bundle: Bundle, *, free_bytes: int, progress: Progress) -> str:
    """Copy a bundle, without its report.

    Args:
        link: the connection.
        bundle: the bundle; its files were checked when it was read.
        free_bytes: what the board's disk has room for.
        progress: told of each piece.

    Returns:
        The bundle's folder, inside the one on the board.

    Raises:
        InputError: if a file cannot be read any more.
        ResourceError: if the board's disk is full, or the connection is lost.
    """
    files = {
        name: Content(sha256=entry.sha256, size=entry.size, source=bundle.path(name))
        for name, entry in bundle.manifest.files.items()
    }
    files[_MANIFEST] = file_content((bundle.root / _MANIFEST).read_bytes())
    copy_files(link, list(files.values()), free_bytes=free_bytes, progress=progress)
    folder = f"bundles/{bundle.manifest.name}"
    link.ask("gather", folder=folder, files={name: one.name for name, one in files.items()})
    return folder
