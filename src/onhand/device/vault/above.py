"""The vault of a folder that lies somewhere below a state folder."""

from dataclasses import dataclass
from pathlib import Path

from onhand.core.errors import InputError, VaultError
from onhand.core.sealing import Keys, is_sealed, open_record, seal_record, unseal_bytes
from onhand.device.vault.vault import open_vault
from onhand.device.vault.vault_file import FILE

__all__ = ["PlacedKeys", "content_of", "keys_above"]


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


def content_of(path: Path, placed: PlacedKeys | None) -> bytes | bytearray:
    """Return the content of a file, sealed or of the time before there was a vault.

    Args:
        path: the file.
        placed: of `keys_above`.

    Raises:
        InputError: if it is sealed and does not open.
        OSError: if it cannot be read.
    """
    content = path.read_bytes()
    if not is_sealed(content):
        return content
    if placed is None:
        raise InputError(f"{path}: is sealed, and there is no vault")
    try:
        return unseal_bytes(placed.keys, content, name=placed.name(path), where=str(path))
    except VaultError as error:
        raise InputError(str(error)) from error
