"""Keys that a device trusts, its own among them, and the releases that it has seen.

    HOME/keys/signing.key   this device's private key: 32 bytes, readable by its owner alone
    HOME/trust/keys.json    {"format": 1, "keys": {ID: {"public", "name", "line", ...}}}
    HOME/trust/releases.json {"format": 1, "releases": {"LINE NAME": highest release seen}}

A key that takes another one's place keeps its line, so that releases go on counting.
"""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError
from onhand.core.outside import object_of, parse_json
from onhand.core.signing import KEY_BYTES, key_id, parse_rotation, public_key, sign_rotation
from onhand.device.trust.owner_file import (
    read_private,
    read_secret_file,
    read_state,
    write_secret_file,
    write_state,
)
from onhand.device.vault.above import keys_of

__all__ = ["OWN_NAME", "TrustStore", "TrustedKey", "make_seed", "parse_public", "read_seed"]

OWN_NAME: Final = "this device"
_FORMAT: Final = 1
_MOST_BYTES: Final = 4 * 2**20
_PREFIX: Final = "ed25519:"
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,80}")
_LEAST_ID: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKey:
    """A public key that was trusted once.

    Attributes:
        public: 32 bytes, in hex.
        name: whose it is, as its truster called it.
        line: id of the first key of those that took one another's place; its own id without.
        expires_s: seconds since 1970 from which on nothing by it counts; None for never.
        is_revoked: whether nothing by it counts any more.
        followed_by: id of the key that took its place; "" for none.
    """

    public: str
    name: str
    line: str
    expires_s: int | None = None
    is_revoked: bool = False
    followed_by: str = ""

    @property
    def bytes(self) -> bytes:
        """The key."""
        return bytes.fromhex(self.public)

    @property
    def id(self) -> str:
        """Its id."""
        return key_id(self.bytes)


class TrustStore:
    """One state folder's keys and releases. Read anew each time, so that processes agree."""

    def __init__(self, home: Path) -> None:
        """Name the folder; nothing is read.

        Args:
            home: the state folder.
        """
        self._home = home
        self._key = home / "keys" / "signing.key"
        self._keys = home / "trust" / "keys.json"
        self._releases = home / "trust" / "releases.json"

    def seed(self) -> bytes:
        """Return this device's private key; made at the first use, and trusted from then on.

        Raises:
            InputError: if the file is not one of ours, or others may read it.
            ResourceError: if it cannot be made or read.
        """
        placed = keys_of(self._home, "signing")
        found = read_secret_file(self._key, placed, most_bytes=KEY_BYTES)
        if found is None:
            made = secrets.token_bytes(KEY_BYTES)
            write_secret_file(self._key, made, placed, replace=False)
            found = read_secret_file(self._key, placed, most_bytes=KEY_BYTES) or b""
        if len(found) != KEY_BYTES:
            raise InputError(f"{self._key}: has not {KEY_BYTES} bytes; remove it for a new key")
        public = public_key(found)
        if key_id(public) not in self.keys():
            self.add(public, name=OWN_NAME)
        return found

    def own(self) -> str | None:
        """Return the id of this device's key; None where it has none yet.

        Raises:
            InputError: if the file is not one of ours, or others may read it.
            ResourceError: if it cannot be read.
            VaultError: if it is sealed, and the vault is locked or damaged.
        """
        placed = keys_of(self._home, "signing")
        found = read_secret_file(self._key, placed, most_bytes=KEY_BYTES)
        return None if found is None or len(found) != KEY_BYTES else key_id(public_key(found))

    def keys(self) -> Mapping[str, TrustedKey]:
        """Return all keys by their ids.

        Raises:
            InputError: if the file is damaged: what was revoked must not come back in silence.
            ResourceError: if it cannot be read.
        """
        table = self._table(self._keys, "keys")
        found: dict[str, TrustedKey] = {}
        for name, entry in table.items():
            try:
                key = TrustedKey(**entry)  # type: ignore[arg-type]
                is_right = key.id == name and len(key.bytes) == KEY_BYTES
            except (TypeError, ValueError) as error:
                raise InputError(f"{self._keys}: the key {name[:16]} cannot be read") from error
            if not is_right:
                raise InputError(f"{self._keys}: the key {name[:16]} is not the one of its id")
            found[name] = key
        return found

    def knows(self, identity: str) -> bool:
        """Say whether a key is or was trusted here.

        Args:
            identity: its whole id.
        """
        return self.keys().get(identity) is not None

    def find(self, start: str) -> TrustedKey:
        """Return a key by its id or the beginning of it, or by its name.

        Raises:
            InputError: if there is none, or more than one.
        """
        keys = self.keys()
        found = [
            key
            for name, key in keys.items()
            if key.name == start or (len(start) >= _LEAST_ID and name.startswith(start.lower()))
        ]
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"{key.id[:16]} ({key.name})" for key in keys.values()) or "none"
        raise InputError(f"key {start[:64]!r}: {len(found)} keys match; there are: {known}")

    def add(self, public: bytes, *, name: str, expires_s: int | None = None) -> TrustedKey:
        """Trust a key from now on.

        Args:
            public: 32 bytes.
            name: whose it is.
            expires_s: seconds since 1970; None for never.

        Returns:
            It.

        Raises:
            InputError: if it is no key, was revoked, or the name is taken.
            ResourceError: if that cannot be written.
        """
        keys = dict(self.keys())
        identity = key_id(public)
        if len(public) != KEY_BYTES:
            raise InputError(f"a public key has {KEY_BYTES} bytes, not {len(public)}")
        if not _NAME.fullmatch(name):
            raise InputError(f"name {name[:80]!r} must be 1 to 80 letters on one line")
        if identity in keys and keys[identity].is_revoked:
            raise InputError(f"the key {identity[:16]} was revoked, which is not taken back")
        if any(key.name == name for other, key in keys.items() if other != identity):
            raise InputError(f"there is a key named {name!r} already; choose another name")
        line = keys[identity].line if identity in keys else identity
        made = TrustedKey(public=public.hex(), name=name, line=line, expires_s=expires_s)
        self._write_keys(keys | {identity: made})
        return made

    def revoke(self, key: TrustedKey) -> None:
        """Count nothing by a key any more.

        Raises:
            ResourceError: if that cannot be written.
        """
        self._write_keys({**self.keys(), key.id: replace(key, is_revoked=True)})

    def rotate(self, *, revokes_old: bool) -> bytes:
        """Give this device a new key, and return what tells others so.

        Args:
            revokes_old: whether nothing by the old key counts any more.

        Returns:
            A statement, signed by the old key, for `accept` of other devices.

        Raises:
            InputError: if the old key cannot be used.
            ResourceError: if the new one cannot be written.
        """
        old, new = self.seed(), secrets.token_bytes(KEY_BYTES)
        statement = sign_rotation(old, public_key(new), revokes_old=revokes_old)
        self.accept(statement, now_s=0)
        write_secret_file(self._key, new, keys_of(self._home, "signing"))
        return statement

    def accept(self, statement: bytes, *, now_s: float) -> TrustedKey:
        """Trust a key that takes a trusted one's place.

        Args:
            statement: of the old key's owner.
            now_s: seconds since 1970.

        Returns:
            The new key.

        Raises:
            InputError: if the old key is not trusted here, was revoked or has expired, or the
                statement was changed.
            ResourceError: if that cannot be written.
        """
        keys = dict(self.keys())
        usable = {
            name: key.bytes
            for name, key in keys.items()
            if not key.is_revoked and (key.expires_s is None or now_s < key.expires_s)
        }
        rotation = parse_rotation(statement, usable)
        old, identity = keys[rotation.old], key_id(rotation.new)
        if identity in keys and keys[identity].is_revoked:
            raise InputError(f"the key {identity[:16]} was revoked, which is not taken back")
        made = TrustedKey(public=rotation.new.hex(), name=old.name, line=old.line)
        keys[old.id] = replace(
            old,
            name=f"{old.name[:60]}, until {identity[:8]}",
            is_revoked=rotation.revokes_old,
            followed_by=identity,
        )
        self._write_keys(keys | {identity: made})
        return made

    def release_seen(self, key: TrustedKey, name: str) -> int:
        """Return the highest release of a bundle that was opened here; 0 for none.

        Args:
            key: who signed it.
            name: of the bundle.
        """
        seen = self._table(self._releases, "releases").get(f"{key.line} {name}", 0)
        return seen if isinstance(seen, int) else 0

    def saw_release(self, key: TrustedKey, name: str, release: int) -> None:
        """Remember a release, if it is a higher one.

        Raises:
            InputError: if the file is damaged.
            ResourceError: if it cannot be written.
        """
        if release > self.release_seen(key, name):
            table = {**self._table(self._releases, "releases"), f"{key.line} {name}": release}
            _write(self._releases, "releases", table)

    def _write_keys(self, keys: Mapping[str, TrustedKey]) -> None:
        _write(self._keys, "keys", {name: asdict(key) for name, key in keys.items()})

    @staticmethod
    def _table(path: Path, what: str) -> Mapping[str, object]:
        content = read_state(path, most_bytes=_MOST_BYTES)
        if content is None:
            return {}
        table = object_of(parse_json(content), str(path), {"format", what})
        if table.get("format") != _FORMAT or not isinstance(table.get(what), dict):
            raise InputError(
                f"{path}: is not of format {_FORMAT}; install a later onhand, or restore it"
            )
        found = table[what]
        return found if isinstance(found, dict) else {}


def make_seed(path: Path) -> bytes:
    """Write a new private key into a file that its owner alone may read.

    Args:
        path: of the file, which is not there yet.

    Returns:
        Its public key, 32 bytes.

    Raises:
        ResourceError: if it cannot be written.
    """
    seed = secrets.token_bytes(KEY_BYTES)
    write_state(path, seed, replace=False)
    return public_key(seed)


def read_seed(path: Path) -> bytes:
    """Return a private key from a file.

    Args:
        path: of a file that `make_seed` wrote.

    Returns:
        32 bytes.

    Raises:
        InputError: if there is none, it is none, or others may read it.
        ResourceError: if it cannot be read.
    """
    found = read_private(path, most_bytes=KEY_BYTES)
    if found is None or len(found) != KEY_BYTES:
        raise InputError(
            f"{path}: is no private key of {KEY_BYTES} bytes; make one: onhand trust make"
        )
    return found


def parse_public(text: str) -> bytes:
    """Return a public key from the form in which `onhand trust` shows it.

    Args:
        text: "ed25519:" and 64 hex digits; or the 64 digits alone.

    Returns:
        32 bytes.

    Raises:
        InputError: if it is none.
    """
    digits = text.strip().removeprefix(_PREFIX)
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digits):
        raise InputError(f"{text.strip()[:80]!r} is no public key: {_PREFIX} and 64 hex digits")
    return bytes.fromhex(digits)


def _write(path: Path, what: str, table: Mapping[str, object]) -> None:
    text = json.dumps({"format": _FORMAT, what: table}, sort_keys=True, indent=1)
    write_state(path, text.encode() + b"\n")
