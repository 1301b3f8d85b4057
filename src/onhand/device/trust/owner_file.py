"""Files of the state folder that are their owner's alone."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from onhand.core.errors import InputError, ResourceError, VaultError
from onhand.core.sealing import is_sealed, seal_bytes, sealed_size, unseal_bytes
from onhand.device.vault.above import PlacedKeys, unsealed_here

__all__ = ["read_private", "read_secret_file", "read_state", "write_secret_file", "write_state"]


def read_private(path: Path, *, most_bytes: int) -> bytes | None:
    """Return a secret file's content; None where there is none.

    Args:
        path: of it.
        most_bytes: that it may have.

    Returns:
        The content.

    Raises:
        InputError: if others may read it, it is a link, or too large.
        ResourceError: if it cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror}") from error
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        content = file.read(most_bytes + 1)
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(
            f"{path}: others may read it ({stat.filemode(mode)}); chmod 600, or make a new key"
        )
    if len(content) > most_bytes:
        raise InputError(f"{path}: has over {most_bytes} bytes, so it is none of ours")
    return content


def read_secret_file(path: Path, placed: PlacedKeys | None, *, most_bytes: int) -> bytes | None:
    """Return a secret file's content, sealed where there is a vault; None where there is none.

    Args:
        path: of it.
        placed: keys of its store; None where there is no vault.
        most_bytes: that its content may have.

    Returns:
        The content.

    Raises:
        InputError: as in `read_private`; if it does not open, or is in the clear though there is
            a vault.
        ResourceError: if it cannot be read.
    """
    found = read_private(path, most_bytes=sealed_size(most_bytes))
    if found is None:
        return None
    if not is_sealed(found):
        if placed is not None:
            raise InputError(unsealed_here(path))
        return found
    if placed is None:
        raise InputError(f"{path}: is sealed, and there is no vault")
    try:
        return bytes(unseal_bytes(placed.keys, found, name=placed.name(path), where=str(path)))
    except VaultError as error:
        raise InputError(str(error)) from error


def write_secret_file(
    path: Path, content: bytes, placed: PlacedKeys | None, *, replace: bool = True
) -> None:
    """Write a file that its owner alone may read, sealed where there is a vault.

    Args:
        path: its place; its folder is made.
        content: of it.
        placed: keys of its store; None where there is no vault.
        replace: as in `write_state`.

    Raises:
        ResourceError: if it cannot be written.
    """
    kept = content
    if placed is not None:
        kept = seal_bytes(placed.keys, content, name=placed.name(path))
    write_state(path, kept, replace=replace)


def read_state(path: Path, *, most_bytes: int) -> bytes | None:
    """Return a file's content; None where there is none.

    Args:
        path: of it.
        most_bytes: that it may have.

    Returns:
        The content.

    Raises:
        InputError: if it is too large.
        ResourceError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > most_bytes:
        raise InputError(f"{path}: has over {most_bytes} bytes, so it is none of ours")
    return content


def write_state(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file that its owner alone may read, beside its place, and rename it over.

    Args:
        path: its place; its folder is made.
        content: of it.
        replace: whether one that is there goes; else it stays as it is.

    Raises:
        ResourceError: if it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                Path(beside).replace(path)
            else:
                # Of two that begin at once, the first one's stays.
                with contextlib.suppress(FileExistsError):
                    os.link(beside, path)
        finally:
            Path(beside).unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error.strerror or error}") from error
