"""The vault's file, `vault.json`: wrapped keys, and where the key that wraps them comes from."""

import base64
import contextlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError, SealBroken, VaultError
from onhand.core.outside import object_of, parse_json
from onhand.core.sealing import StoreKeys, derived_key, open_record, seal_record
from onhand.device.state import write_text_atomically
from onhand.device.vault.sources import Source, described

__all__ = ["FILE", "read_vault", "unwrapped", "wrapped_keys", "write_vault"]

FILE: Final = "vault.json"
_FORMAT: Final = 1
_MOST_BYTES: Final = 2**20
_KEYS: Final = {"check", "format", "mac", "source", "stores"}


def write_vault(
    home: Path, source: Source, kek: bytes, keys: Mapping[str, Mapping[int, bytes]]
) -> None:
    """Write the file whole: data keys, wrapped.

    Raises:
        ResourceError: if it cannot be written; what was there stays.
    """
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
    write_text_atomically(home / FILE, json.dumps(whole, sort_keys=True, indent=1) + "\n")


def unwrapped(home: Path, kek: bytes) -> tuple[Source, dict[str, dict[int, bytes]]]:
    """Return the source, and store -> id -> data key.

    Raises:
        VaultError: if the key is another one, or the file is damaged.
    """
    source, table = read_vault(home)
    path = home / FILE
    if not hmac.compare_digest(str(table["check"]), _check(kek)):
        raise VaultError(f"{path}: the key from {described(source)} is not this vault's")
    mac = _mac(kek, {key: value for key, value in table.items() if key != "mac"})
    if not hmac.compare_digest(str(table["mac"]), mac):
        raise VaultError(f"{path}: the vault is damaged: its MAC does not match; restore a copy")
    keys: dict[str, dict[int, bytes]] = {}
    try:
        for name, known in wrapped_keys(table, home).items():
            wrapping = StoreKeys(name, {1: kek})
            keys[name] = {
                n: open_record(wrapping, wrapped, context=_context(n))
                for n, wrapped in known.items()
            }
    except SealBroken as error:
        raise VaultError(f"{path}: the vault is damaged: {error}; restore a copy") from error
    return source, keys


def read_vault(home: Path) -> tuple[Source, Mapping[str, object]]:
    """Return the source and the file's table, unchecked but for their form.

    Raises:
        VaultError: if the file is damaged or of another format.
    """
    path = home / FILE
    try:
        with path.open("rb") as file:
            return _parsed(file.read(_MOST_BYTES))
    except OSError as error:
        raise VaultError(f"{path}: cannot be read: {error.strerror}") from error
    except (InputError, TypeError) as error:
        raise VaultError(f"{path}: the vault is damaged: {error}; restore a copy") from error


def _parsed(content: bytes) -> tuple[Source, Mapping[str, object]]:
    table = object_of(parse_json(content), "a vault", _KEYS)
    if table.get("format") != _FORMAT:
        raise InputError(f"format {table.get('format')!r}, this reader knows {_FORMAT}")
    if missing := sorted(_KEYS - set(table)):
        raise InputError(f"{missing[0]!r} is missing")
    given = object_of(table["source"], "source", {"kind", "place", "salt"})
    return Source(**{key: str(value) for key, value in given.items()}), table


def wrapped_keys(table: Mapping[str, object], home: Path) -> dict[str, dict[int, bytes]]:
    """Return store -> id -> wrapped key.

    Raises:
        VaultError: if the table holds something else.
    """
    stores: dict[str, dict[int, bytes]] = {}
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        for name, known in table["stores"].items():  # type: ignore[attr-defined]
            stores[name] = {int(n): base64.b64decode(text) for n, text in known.items()}
            if not stores[name]:
                break
        else:
            return stores
    raise VaultError(f"{home / FILE}: the vault is damaged: its stores are not keys by id")


def _context(key_id: int) -> bytes:
    return b"data key %d" % key_id


def _check(kek: bytes) -> str:
    return derived_key(kek, purpose="onhand vault check").hex()


def _mac(kek: bytes, table: Mapping[str, object]) -> str:
    text = json.dumps(table, sort_keys=True).encode()
    return hmac.digest(derived_key(kek, purpose="onhand vault mac"), text, "sha256").hex()
