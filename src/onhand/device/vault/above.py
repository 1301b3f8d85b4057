"""The vault of a folder that lies somewhere below a state folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from onhand.core.errors import InputError, VaultError
from onhand.core.sealing import (
    Keys,
    is_sealed,
    is_sealed_file,
    open_record,
    seal_record,
    unseal_bytes,
    write_sealed,
)
from onhand.device.state import write_atomically
from onhand.device.vault.vault import open_vault
from onhand.device.vault.vault_file import FILE

__all__ = [
    "PlacedKeys",
    "content_of",
    "keys_above",
    "keys_of",
    "opened",
    "seal_in_place",
    "unsealed_here",
    "write_placed",
]


@dataclass(frozen=True, slots=True)
class PlacedKeys:
    """Keys of a store, and the state folder that names of its files are relative to.

    Attributes:
        keys: of the store.
        home: the state folder.
    """

    keys: Keys
    home: Path

    def name(self, path: Path) -> str:
        """Return what a file is sealed as: its place below the state folder."""
        return path.absolute().relative_to(self.home).as_posix()

    def seal(self, content: bytes, path: Path, row: str) -> bytes:
        """Return a sealed record of a file: it opens in this row of this file alone."""
        return seal_record(self.keys, content, context=f"{self.name(path)} {row}".encode())

    def unseal(self, sealed: bytes, path: Path, row: str) -> bytes:
        """Return what `seal` sealed.

        Raises:
            InputError: if it was changed, belongs elsewhere, or its key is gone.
        """
        try:
            context = f"{self.name(path)} {row}".encode()
            return open_record(self.keys, sealed, context=context)
        except VaultError as error:
            raise InputError(f"{path}: {row}: {error}") from error


def keys_above(folder: Path, store: str) -> PlacedKeys | None:
    """Return the keys for what is kept in a folder.

    Args:
        folder: as `HOME/state/...`; it need not exist.
        store: which store it belongs to.

    Returns:
        None where the folder is not in a state folder with a vault: nothing is sealed then.

    Raises:
        VaultError: if the vault is locked or damaged.
    """
    place = folder.absolute()
    for home in place.parents:
        if (home / FILE).exists() and place.is_relative_to(home / "state"):
            vault = open_vault(home)
            return None if vault is None else PlacedKeys(vault.keys(store), home)
    return None


def keys_of(home: Path, store: str) -> PlacedKeys | None:
    """Return the keys for files of a state folder; None where it has no vault.

    Args:
        home: the state folder.
        store: which store they belong to.

    Raises:
        VaultError: if the vault is locked or damaged.
    """
    vault = open_vault(home)
    return None if vault is None else PlacedKeys(vault.keys(store), home.absolute())


def unsealed_here(path: Path) -> str:
    """Return what is said of a file that is in the clear though there is a vault."""
    return (
        f"{path}: is not sealed, and there is a vault: it is from before, or somebody put it "
        "there; remove it, or take it as it is by `onhand vault seal`"
    )


def content_of(path: Path, placed: PlacedKeys | None) -> bytes | bytearray:
    """Return the content of a file: sealed where there is a vault, and plain where there is none.

    Args:
        path: the file.
        placed: of `keys_above`.

    Raises:
        InputError: if it is sealed and does not open, or is plain though there is a vault.
        OSError: if it cannot be read.
    """
    content = path.read_bytes()
    if not is_sealed(content):
        if placed is not None:
            raise InputError(unsealed_here(path))
        return content
    if placed is None:
        raise InputError(f"{path}: is sealed, and there is no vault")
    try:
        return unseal_bytes(placed.keys, content, name=placed.name(path), where=str(path))
    except VaultError as error:
        raise InputError(str(error)) from error


def write_placed(path: Path, content: bytes, placed: PlacedKeys | None) -> None:
    """Write a file whole, or leave it as it was: sealed where there is a vault.

    Args:
        path: its place; the folder exists.
        content: of it.
        placed: of `keys_above`.

    Raises:
        ResourceError: if it cannot be written.
    """
    if placed is None:
        write_atomically(path, content)
        return
    write_sealed(path, placed.keys, lambda file: file.write(content), name=placed.name(path))


def seal_in_place(path: Path, placed: PlacedKeys) -> bool:
    """Seal a file that is in the clear, taking it as it is.

    Args:
        path: the file.
        placed: of `keys_above`.

    Returns:
        Whether it was; one that is sealed is left.

    Raises:
        ResourceError: if it cannot be written; it stays as it was.
        OSError: if it cannot be read.
    """
    if is_sealed_file(path):
        return False
    write_placed(path, path.read_bytes(), placed)
    return True


@contextmanager
def opened(path: Path, store: str) -> Iterator[BinaryIO]:
    """Open a file for reading that may be one of the state folder's, and sealed.

    Args:
        path: the file; outside of a state folder it is plain.
        store: which store it belongs to, if it is in one.

    Yields:
        The content.

    Raises:
        InputError: as in `content_of`.
        OSError: if it cannot be read.
        VaultError: if it is sealed, and the vault is locked or damaged.
    """
    placed = keys_above(path.parent, store)
    if placed is None and not is_sealed_file(path):
        with path.open("rb") as file:
            yield file
        return
    yield BytesIO(content_of(path, placed))
