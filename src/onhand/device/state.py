"""The device's own state: small facts about bundles, in one folder outside them.

    HOME/state/MANIFEST-SHA256/NAME.json
    HOME/state/MANIFEST-SHA256/NAME.bin

A bundle is written once, so whatever the device learns about it, such as the engine that was
quickest here, is kept beside the other state and is found by the bundle's hash.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path

from onhand.core.errors import InputError, ResourceError
from onhand.core.sealing import seal_bytes

__all__ = [
    "default_home",
    "folder_of",
    "recall",
    "recall_bytes",
    "remember",
    "remember_bytes",
    "write_atomically",
    "write_text_atomically",
]

FORMAT = 1
MAX_STATE_BYTES = 16 * 2**20
_SEAL_BYTES = 32
_KEY = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def default_home(system: str = sys.platform) -> Path:
    """Return the user's usual folder for state; it need not exist.

    Args:
        system: as `sys.platform`.

    Returns:
        The folder.

    Raises:
        ResourceError: if the user has no home folder.
    """
    try:
        user = Path.home()
    except RuntimeError as error:
        raise ResourceError(f"no home folder is known for this user: {error}") from error
    if system == "darwin":
        return user / "Library" / "Application Support" / "onhand"
    if system == "win32":
        return user / "AppData" / "Local" / "onhand"
    return user / ".local" / "state" / "onhand"


def folder_of(home: Path, key: str) -> Path:
    """Return the folder of what is kept for a bundle; it need not exist.

    Args:
        home: the state folder.
        key: the bundle's `manifest_sha256`.

    Raises:
        InputError: if the key is not valid.
    """
    if not _KEY.fullmatch(key):
        raise InputError(f"state: key {key!r} is not a SHA-256 in hex")
    return home / "state" / key


def remember(home: Path, key: str, name: str, value: object) -> None:
    """Keep a value for a bundle; the one before is replaced whole.

    Args:
        home: the state folder; made if it is missing.
        key: the bundle's `manifest_sha256`.
        name: what is kept, in lower-case letters, digits, _ and -.
        value: anything that JSON can hold.

    Raises:
        InputError: if key or name are not valid, or JSON cannot hold the value.
        ResourceError: if the folder cannot be written.
    """
    path = _place(home, key, name)
    try:
        text = json.dumps({"format": FORMAT, "value": value}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"state {name!r}: the value is not JSON: {error}") from error
    _make_folder(path.parent)
    write_text_atomically(path, text + "\n")


def recall(home: Path, key: str, name: str) -> object:
    """Return what `remember` kept, or None.

    Args:
        home: the state folder; it may be missing.
        key: the bundle's `manifest_sha256`.
        name: as given to `remember`.

    Returns:
        The parsed JSON value, or None where nothing was kept.

    Raises:
        InputError: if key or name are not valid, or the file is damaged or of a later format.
    """
    path = _place(home, key, name)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_STATE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        table = _parse(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged state ({error}); remove the file") from error
    if table["format"] != FORMAT:
        raise InputError(f"{path}: format {table['format']!r}, this reader knows {FORMAT}")
    return table["value"]


def remember_bytes(home: Path, key: str, name: str, content: bytes, *, made_by: str) -> None:
    """Keep bytes for a bundle, such as what an engine compiled; those before are replaced whole.

    Args:
        home: the state folder; made if it is missing.
        key: the bundle's `manifest_sha256`.
        name: as in `remember`.
        content: the bytes.
        made_by: all that they depend on beside the bundle, such as a version.

    Raises:
        InputError: if key or name are not valid.
        ResourceError: if the folder cannot be written.
    """
    path = _place(home, key, name, suffix=".bin")
    _make_folder(path.parent)
    whole = _seal(content, made_by) + content
    # Not at the top: the vault writes its own file by this module.
    from onhand.device.vault.above import keys_above

    placed = keys_above(path.parent, "packed")
    if placed is not None:
        whole = seal_bytes(placed.keys, whole, name=placed.name(path))
    write_atomically(path, whole)


def recall_bytes(home: Path, key: str, name: str, *, made_by: str) -> bytes | None:
    """Return what `remember_bytes` kept, or None: whoever asks can make it anew.

    Args:
        home: the state folder; it may be missing.
        key: the bundle's `manifest_sha256`.
        name: as given to `remember_bytes`.
        made_by: likewise.

    Returns:
        The bytes; None where nothing was kept, it is damaged, or was made by something else.

    Raises:
        InputError: if key or name are not valid.
    """
    from onhand.device.vault.above import content_of, keys_above

    path = _place(home, key, name, suffix=".bin")
    try:
        whole = bytes(content_of(path, keys_above(path.parent, "packed")))
    except (OSError, InputError):
        return None
    content = whole[_SEAL_BYTES:]
    return content if whole[:_SEAL_BYTES] == _seal(content, made_by) else None


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file beside its place and rename it over: whole, or as it was before.

    Args:
        path: the file; its folder exists.
        text: the content, written as UTF-8.

    Raises:
        ResourceError: if it cannot be written; nothing is left behind.
    """
    write_atomically(path, text.encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it over: whole, or as it was before.

    Args:
        path: the file; its folder exists.
        content: of it.

    Raises:
        ResourceError: if it cannot be written; nothing is left behind.
    """
    try:
        # A name of its own for every writer: two at once each rename a whole file.
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(beside).replace(path)
        finally:
            Path(beside).unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error.strerror or error}") from error


def _parse(content: bytes) -> dict[str, object]:
    if len(content) > MAX_STATE_BYTES:
        raise ValueError(f"it is over {MAX_STATE_BYTES} bytes")
    table = json.loads(content)
    if not isinstance(table, dict) or set(table) != {"format", "value"}:
        raise ValueError("it does not hold a format and a value")
    return table


def _seal(content: bytes, made_by: str) -> bytes:
    return hashlib.sha256(
        f"{FORMAT} {made_by}\n".encode() + hashlib.sha256(content).digest()
    ).digest()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be made: {error.strerror}") from error


def _place(home: Path, key: str, name: str, suffix: str = ".json") -> Path:
    folder = folder_of(home, key)
    if not _NAME.fullmatch(name):
        raise InputError(f"state: name {name!r} must be 1 to 64 of a-z, 0-9, _ and -")
    return folder / f"{name}{suffix}"
