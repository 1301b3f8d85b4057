"""The vault: one data key for each store, wrapped by a key-encryption key that is elsewhere.

HOME/vault.json: where the key-encryption key comes from, and for each store the wrapped keys by
id. A key's check value tells a wrong key from a damaged file; a MAC over all of it tells a change.
Older data keys stay, to read what they sealed; what is written has the one with the highest id.
"""

import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from onhand.core.errors import InputError, VaultError
from onhand.core.sealing import KEY_BYTES, StoreKeys
from onhand.device.vault.sources import Asking, Source, described, drop_key, make_key, obtain_key
from onhand.device.vault.vault_file import FILE, read_vault, unwrapped, wrapped_keys, write_vault

__all__ = [
    "STORES",
    "Vault",
    "VaultFacts",
    "VaultKeys",
    "begin_vault",
    "erase_vault",
    "hold_open",
    "init_vault",
    "open_vault",
    "read_facts",
    "rewrap",
    "rotate_store",
    "use_secrets",
]

_LOG = logging.getLogger(__name__)
STORES: Final = (
    "access",
    "audit",
    "bundles",
    "learned",
    "memory",
    "outbox",
    "packed",
    "prefix",
    "responses",
    "signing",
)
"""What has a key of its own."""


@dataclass(frozen=True, slots=True)
class VaultFacts:
    """What a vault says without being opened.

    Attributes:
        source: where its key comes from.
        generations: store -> ids of its keys, the current one last.
    """

    source: Source
    generations: Mapping[str, tuple[int, ...]]


class Vault:
    """An open vault. May be shared between threads."""

    def __init__(self, home: Path, kek: bytes, keys: Mapping[str, Mapping[int, bytes]]) -> None:
        """Hold keys; `open_vault` gives them.

        Args:
            home: the state folder.
            kek: the key-encryption key.
            keys: store -> id -> data key.
        """
        self._home = home
        self._kek = kek
        self._keys = dict(keys)
        self._lock = Lock()

    def kek_hex(self) -> str:
        """Return the key-encryption key in hex; see `handed_key`."""
        return self._kek.hex()

    def key(self, store: str) -> bytes:
        """Return the 32 bytes for what a store writes now.

        Raises:
            InputError: if there is no such store.
        """
        return self.keys(store).current()[1]

    def key_id(self, store: str) -> int:
        """Return the id of `key`.

        Raises:
            InputError: if there is no such store.
        """
        return self.keys(store).current()[0]

    def first_key(self, store: str) -> bytes:
        """Return the store's oldest key: for names, which must not change with a rotation.

        Raises:
            InputError: if there is no such store.
        """
        known = self._of(store)
        return known[min(known)]

    def key_by_id(self, store: str, key_id: int) -> bytes:
        """Return a store's key by its id, of a rotation meanwhile as well.

        Raises:
            InputError: if there is no such store.
            VaultError: if there is no such key.
        """
        if key_id not in self._of(store):
            _, keys = unwrapped(self._home, self._kek)
            with self._lock:
                self._keys = dict(keys)
        return StoreKeys(store, self._of(store)).by_id(key_id)

    def keys(self, store: str) -> "VaultKeys":
        """Return the keys of a store, for `onhand.core.sealing`.

        Raises:
            InputError: if there is no such store.
        """
        self._of(store)
        return VaultKeys(self, store)

    def newest(self, store: str) -> tuple[int, bytes]:
        """Return the id and the bytes of a store's newest key.

        Raises:
            InputError: if there is no such store.
        """
        known = self._of(store)
        return max(known), known[max(known)]

    def _of(self, store: str) -> Mapping[int, bytes]:
        with self._lock:
            if store not in self._keys:
                raise InputError(f"the vault has no store {store!r}, but {', '.join(self._keys)}")
            return self._keys[store]


@dataclass(frozen=True, slots=True)
class VaultKeys:
    """See `onhand.core.sealing.Keys`: keys of one store of an open vault.

    Attributes:
        vault: whose.
        store: its name.
    """

    vault: Vault
    store: str

    def current(self) -> tuple[int, bytes]:
        """See `Keys`."""
        return self.vault.newest(self.store)

    def by_id(self, key_id: int) -> bytes:
        """See `Keys`.

        Raises:
            VaultError: as in `Keys`.
        """
        return self.vault.key_by_id(self.store, key_id)


_OPEN: dict[Path, Vault] = {}
_OPENING = Lock()
_SECRETS: list[Asking] = [Asking({})]


def use_secrets(asking: Asking) -> None:
    """Say how passphrases are had in this process, for vaults that are opened from now on."""
    with _OPENING:
        if _SECRETS[0].environment != asking.environment:
            _OPEN.clear()
        _SECRETS[0] = asking


def _changed(home: Path) -> None:
    with _OPENING:
        _OPEN.pop(home.absolute(), None)


def open_vault(home: Path, *, asking: Asking | None = None) -> Vault | None:
    """Open the vault of a state folder; the passphrase is asked for once in a process.

    Args:
        home: the state folder; it may be missing.
        asking: how passphrases are had; None for what `use_secrets` said.

    Returns:
        The vault, or None where there is none: nothing is encrypted then.

    Raises:
        VaultError: if it is locked or damaged, or the key is wrong.
    """
    place = home.absolute()
    with _OPENING:
        if not (place / FILE).exists():
            _OPEN.pop(place, None)
            return None
        if place not in _OPEN:
            source, _ = read_vault(place)
            kek = obtain_key(source, asking or _SECRETS[0])
            _, keys = unwrapped(place, kek)
            _LOG.info("vault opened; its key comes from %s", described(source))
            _OPEN[place] = Vault(place, kek, keys)
        return _OPEN[place]


def read_facts(home: Path) -> VaultFacts | None:
    """Return what a vault says of itself, unchecked; None where there is none.

    Raises:
        VaultError: if the file is damaged.
    """
    if not (home / FILE).exists():
        return None
    source, table = read_vault(home)
    stores = wrapped_keys(table, home)
    return VaultFacts(source, {name: tuple(sorted(keys)) for name, keys in stores.items()})


def init_vault(home: Path, *, kind: str, place: str, asking: Asking) -> Source:
    """Make a vault with a new key for each store.

    Args:
        home: the state folder; made if it is missing.
        kind: where the key-encryption key is to come from.
        place: of it.
        asking: how passphrases are had.

    Returns:
        The source.

    Raises:
        InputError: if there is a vault already.
        VaultError: if the key cannot be had.
    """
    return _made(home, kind=kind, place=place, asking=asking)[0]


def begin_vault(home: Path, *, kind: str, place: str, asking: Asking) -> Source:
    """Make a vault as `init_vault` does, and leave it open: the key is not asked for again.

    Args:
        home: likewise.
        kind: likewise.
        place: likewise.
        asking: likewise.

    Returns:
        The source.

    Raises:
        InputError: as in `init_vault`.
        VaultError: likewise.
    """
    source, vault = _made(home, kind=kind, place=place, asking=asking)
    with _OPENING:
        _OPEN[home.absolute()] = vault
    return source


def _made(home: Path, *, kind: str, place: str, asking: Asking) -> tuple[Source, Vault]:
    if (home / FILE).exists():
        raise InputError(f"{home / FILE} exists already; see `onhand vault rotate` and `erase`")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    source, kek = make_key(kind, place, asking)
    keys = {name: {1: secrets.token_bytes(KEY_BYTES)} for name in STORES}
    write_vault(home, source, kek, keys)
    return source, Vault(home.absolute(), kek, keys)


def hold_open(home: Path, kek: bytes) -> None:
    """Open a vault with a key that the caller has.

    Args:
        home: the state folder.
        kek: the key-encryption key.

    Raises:
        VaultError: if it is not this vault's key.
    """
    place = home.absolute()
    _, keys = unwrapped(place, kek)
    with _OPENING:
        _OPEN[place] = Vault(place, kek, keys)


def rotate_store(home: Path, stores: Sequence[str], *, asking: Asking) -> dict[str, int]:
    """Give stores a new key each; the older ones stay, to read what they sealed.

    Args:
        home: the state folder.
        stores: their names.
        asking: how passphrases are had.

    Returns:
        Store -> id of its new key.

    Raises:
        InputError: if there is no vault, or no such store.
        VaultError: if it does not open.
    """
    source, kek, keys = _unlocked(home, asking)
    for name in stores:
        if name not in keys:
            raise InputError(f"the vault has no store {name!r}, but {', '.join(keys)}")
        keys[name][max(keys[name]) + 1] = secrets.token_bytes(KEY_BYTES)
    write_vault(home, source, kek, keys)
    _changed(home)
    return {name: max(keys[name]) for name in stores}


def rewrap(home: Path, *, kind: str, place: str, asking: Asking) -> Source:
    """Wrap all data keys by a new key-encryption key, and remove the old one.

    Args:
        home: the state folder.
        kind: where the new key is to come from.
        place: of it.
        asking: how passphrases are had.

    Returns:
        The new source.

    Raises:
        InputError: if there is no vault, or the key file is the one in use.
        VaultError: if it does not open, or the new key cannot be had.
    """
    old, _, keys = _unlocked(home, asking)
    if kind == "key-file" and old.place == str(Path(place).absolute()):
        raise InputError(f"{place} is the key file in use; name another")
    source, kek = make_key(kind, place, asking)
    write_vault(home, source, kek, keys)
    _changed(home)
    drop_key(old)
    return source


def erase_vault(home: Path) -> Source:
    """Remove all keys: what they sealed can never be read again.

    Args:
        home: the state folder.

    Returns:
        Where the key-encryption key came from.

    Raises:
        InputError: if there is no vault.
        VaultError: if a key cannot be removed.
    """
    path = home / FILE
    if not path.exists():
        raise InputError(f"{home}: there is no vault")
    source, _ = read_vault(home)
    # The wrapped keys first: without them, whatever is left of the other key opens nothing.
    try:
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    except OSError as error:
        raise VaultError(f"{path}: cannot be erased: {error.strerror}") from error
    with _OPENING:
        _OPEN.pop(home.absolute(), None)
    drop_key(source)
    return source


def _unlocked(home: Path, asking: Asking) -> tuple[Source, bytes, dict[str, dict[int, bytes]]]:
    if not (home / FILE).exists():
        raise InputError(f"{home}: there is no vault; make one by `onhand vault init`")
    source, _ = read_vault(home)
    kek = obtain_key(source, asking)
    return source, kek, unwrapped(home, kek)[1]
