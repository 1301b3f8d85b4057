"""The vault: one data key for each store, wrapped by a key-encryption key that is elsewhere.

HOME/vault.json: where the key-encryption key comes from, and for each store the wrapped keys by
id. A key's check value tells a wrong key from a damaged file; a MAC over all of it tells a change.
Older data keys stay, to read what they sealed; what is written has the one with the highest id.
"""

import base64
import contextlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from onhand.core.errors import InputError, SealBroken, VaultError
from onhand.core.outside import object_of, parse_json
from onhand.core.sealing import (
    KEY_BYTES,
    StoreKeys,
    derived_key,
    open_record,
    seal_record,
)
from onhand.device.state import write_text_atomically
from onhand.device.vault.sources import Asking, Source, described, drop_key, make_key, obtain_key

__all__ = [
    "STORES",
    "Vault",
    "VaultFacts",
    "VaultKeys",
    "erase_vault",
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
_FORMAT: Final = 1
_FILE: Final = "vault.json"
_MOST_BYTES: Final = 2**20
_KEYS: Final = {"check", "format", "mac", "source", "stores"}


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
            _, keys = _unwrapped(self._home, self._kek)
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
        _SECRETS[0] = asking
        _OPEN.clear()


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
        if not (place / _FILE).exists():
            _OPEN.pop(place, None)
            return None
        if place not in _OPEN:
            source, _ = _read(place)
            kek = obtain_key(source, asking or _SECRETS[0])
            _, keys = _unwrapped(place, kek)
            _LOG.info("vault opened; its key comes from %s", described(source))
            _OPEN[place] = Vault(place, kek, keys)
        return _OPEN[place]


def read_facts(home: Path) -> VaultFacts | None:
    """Return what a vault says of itself, unchecked; None where there is none.

    Raises:
        VaultError: if the file is damaged.
    """
    if not (home / _FILE).exists():
        return None
    source, table = _read(home)
    stores = _stores(table, home)
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
    if (home / _FILE).exists():
        raise InputError(f"{home / _FILE} exists already; see `onhand vault rotate` and `erase`")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    source, kek = make_key(kind, place, asking)
    _write(home, source, kek, {name: {1: secrets.token_bytes(KEY_BYTES)} for name in STORES})
    return source


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
    _write(home, source, kek, keys)
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
    _write(home, source, kek, keys)
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
    path = home / _FILE
    if not path.exists():
        raise InputError(f"{home}: there is no vault")
    source, _ = _read(home)
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
    if not (home / _FILE).exists():
        raise InputError(f"{home}: there is no vault; make one by `onhand vault init`")
    source, _ = _read(home)
    kek = obtain_key(source, asking)
    return source, kek, _unwrapped(home, kek)[1]


def _write(home: Path, source: Source, kek: bytes, keys: Mapping[str, Mapping[int, bytes]]) -> None:
    stores = {
        name: {
            str(n): base64.b64encode(
                seal_record(StoreKeys(name, {1: kek}), key, context=_context(n))
            ).decode()
            for n, key in known.items()
        }
        for name, known in keys.items()
    }
    table = {"check": _check(kek), "format": _FORMAT, "source": asdict(source), "stores": stores}
    whole = {**table, "mac": _mac(kek, table)}
    write_text_atomically(home / _FILE, json.dumps(whole, sort_keys=True, indent=1) + "\n")
    with _OPENING:
        _OPEN.pop(home.absolute(), None)


def _unwrapped(home: Path, kek: bytes) -> tuple[Source, dict[str, dict[int, bytes]]]:
    source, table = _read(home)
    path = home / _FILE
    if not hmac.compare_digest(str(table["check"]), _check(kek)):
        raise VaultError(f"{path}: the key from {described(source)} is not this vault's")
    mac = _mac(kek, {key: value for key, value in table.items() if key != "mac"})
    if not hmac.compare_digest(str(table["mac"]), mac):
        raise VaultError(f"{path}: the vault is damaged: its MAC does not match; restore a copy")
    keys: dict[str, dict[int, bytes]] = {}
    try:
        for name, known in _stores(table, home).items():
            wrapping = StoreKeys(name, {1: kek})
            keys[name] = {
                n: open_record(wrapping, wrapped, context=_context(n))
                for n, wrapped in known.items()
            }
    except SealBroken as error:
        raise VaultError(f"{path}: the vault is damaged: {error}; restore a copy") from error
    return source, keys


def _read(home: Path) -> tuple[Source, Mapping[str, object]]:
    path = home / _FILE
    try:
        with path.open("rb") as file:
            table = object_of(parse_json(file.read(_MOST_BYTES)), "a vault", _KEYS)
        if table.get("format") != _FORMAT:
            raise InputError(f"format {table.get('format')!r}, this reader knows {_FORMAT}")
        given = object_of(table.get("source"), "source", {"kind", "place", "salt"})
        if missing := sorted(_KEYS - set(table)):
            raise InputError(f"{missing[0]!r} is missing")
        fields = {key: str(value) for key, value in given.items()}
        return Source(**fields), table
    except OSError as error:
        raise VaultError(f"{path}: cannot be read: {error.strerror}") from error
    except (InputError, TypeError) as error:
        raise VaultError(f"{path}: the vault is damaged: {error}; restore a copy") from error


def _stores(table: Mapping[str, object], home: Path) -> dict[str, dict[int, bytes]]:
    stores: dict[str, dict[int, bytes]] = {}
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        for name, known in table["stores"].items():  # type: ignore[attr-defined]
            stores[name] = {int(n): base64.b64decode(text) for n, text in known.items()}
            if not stores[name]:
                break
        else:
            return stores
    raise VaultError(f"{home / _FILE}: the vault is damaged: its stores are not keys by id")


def _context(key_id: int) -> bytes:
    return b"data key %d" % key_id


def _check(kek: bytes) -> str:
    return derived_key(kek, purpose="onhand vault check").hex()


def _mac(kek: bytes, table: Mapping[str, object]) -> str:
    text = json.dumps(table, sort_keys=True).encode()
    return hmac.digest(derived_key(kek, purpose="onhand vault mac"), text, "sha256").hex()
