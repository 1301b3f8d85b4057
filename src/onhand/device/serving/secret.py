"""The server's own secret: what it derives names and seals from that nobody else can make."""

import contextlib
import hmac
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError, ResourceError

__all__ = ["derived", "kept_secret", "read_secret", "server_secret"]

_BYTES: Final = 32


def server_secret(home: Path) -> bytes:
    """Return the secret of a state folder; made from the system's randomness the first time.

    Args:
        home: the state folder; made if it is missing.

    Returns:
        32 bytes, the same for every server of that folder.

    Raises:
        InputError: if the file is not one of ours, or others may read it.
        ResourceError: if it cannot be made or read.
    """
    return kept_secret(home / "keys" / "serving.key")


def kept_secret(path: Path) -> bytes:
    """Return the secret that a file holds; made from the system's randomness the first time.

    Args:
        path: the file, its owner's alone; its folder is made if it is missing.

    Returns:
        32 bytes, the same for every process that asks.

    Raises:
        InputError: if the file is not one of ours, or others may read it.
        ResourceError: if it cannot be made or read.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        return read_secret(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResourceError(f"{path}: the server's secret: {reason}") from error


def derived(secret: bytes, purpose: str) -> bytes:
    """Return a secret for one purpose; it says nothing about another's.

    Args:
        secret: of `server_secret`.
        purpose: its name.

    Returns:
        32 bytes.
    """
    return hmac.digest(secret, purpose.encode(), "sha256")


def _make(path: Path) -> None:
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.")  # its owner's alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # Whole or not at all; and of two servers that begin at once, the first one's stays.
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)


def read_secret(path: Path) -> bytes:
    """Return the secret that a file holds.

    Args:
        path: of `kept_secret`.

    Returns:
        32 bytes.

    Raises:
        InputError: if the file is not one of ours, or others may read it.
        OSError: if it is not there, or cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        content = file.read(_BYTES + 1)
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(
            f"{path}: others may read it ({stat.filemode(mode)}); remove it, a new one is made"
        )
    if len(content) != _BYTES:
        raise InputError(f"{path}: has not {_BYTES} bytes; remove it, a new one is made")
    return content
