"""The file of keys: `HOME/access/keys.json`, its owner's alone, and seen anew when it changes.

A running server looks at the file's stamp with every request, so a key that is taken back opens
nothing from the next request on. A file that cannot be read opens nothing either.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError, OnhandError, ResourceError
from onhand.device.access.keys import ApiKey, key_from_json, key_of
from onhand.device.access.quotas import Quota
from onhand.device.access.scopes import EVERYTHING, Grant
from onhand.device.access.tokens import Token, new_token, parse_token
from onhand.device.learning.locking import held
from onhand.device.trust.owner_file import read_secret_file, write_secret_file
from onhand.device.vault.above import keys_of

__all__ = ["LOCAL_NAME", "KeyStore", "local_token_file"]

FORMAT: Final = 1
LOCAL_NAME: Final = "local"
"""Name of the key that the first start makes for this device's own user."""
_MOST_BYTES: Final = 8 * 2**20
_MOST_KEYS: Final = 10_000
_MOST_TOKEN: Final = 200
_Stamp = tuple[int, int, int, int]


class KeyStore:
    """The keys of a state folder. May be shared between threads; several processes may write."""

    def __init__(self, home: Path) -> None:
        """Name the place; nothing is read or made yet.

        Args:
            home: the state folder.
        """
        self._home = home
        self.path = home / "access" / "keys.json"
        self._local = local_token_file(home)
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._keys: dict[str, ApiKey] = {}

    def listed(self) -> tuple[ApiKey, ...]:
        """Return all keys as the file has them now, the oldest first; none if there is no file.

        Raises:
            InputError: if the file is not one of ours, or others may write it.
            ResourceError: if it cannot be read.
        """
        with self._lock:
            return tuple(self._fresh().values())

    def find(self, id: str) -> ApiKey | None:
        """Return a key by its id; None if there is none.

        Raises:
            InputError: as `listed`.
            ResourceError: as `listed`.
        """
        with self._lock:
            return self._fresh().get(id)

    def add(
        self,
        name: str,
        grant: Grant,
        *,
        quota: Quota | None = None,
        now_s: float,
        expires_s: float | None = None,
    ) -> tuple[ApiKey, Token]:
        """Make a key, and write it.

        Args:
            name: no valid key may have it.
            grant: what it may do.
            quota: how much; None for no ceiling.
            now_s: seconds since 1970.
            expires_s: when it ends, likewise; None for never.

        Returns:
            The key, and its token, which is nowhere else.

        Raises:
            InputError: if a valid key has the name, a value is wrong, or another process writes.
            ResourceError: if it cannot be written.
        """
        token = new_token()
        made = key_of(token, name, grant, quota=quota, now_s=now_s, expires_s=expires_s)

        def added(keys: Sequence[ApiKey]) -> Sequence[ApiKey]:
            if any(one.name == name and one.state(now_s) == "valid" for one in keys):
                raise InputError(
                    f"there is a valid key {name!r} already: revoke it, or choose another name"
                )
            if len(keys) >= _MOST_KEYS:
                raise InputError(f"{self.path}: has {len(keys)} keys, as many as it may")
            return (*keys, made)

        self._change(added)
        return made, token

    def revoke(self, name: str, *, now_s: float) -> tuple[ApiKey, ...]:
        """Take a key back; it opens nothing from now on, in servers that run as well.

        Args:
            name: its name or its id.
            now_s: seconds since 1970.

        Returns:
            The keys that were taken back.

        Raises:
            InputError: if no valid key has it, or another process writes.
            ResourceError: if it cannot be written.
        """
        gone: list[ApiKey] = []

        def revoked(keys: Sequence[ApiKey]) -> Sequence[ApiKey]:
            now = {
                one.id: replace(one, revoked_s=now_s)
                for one in keys
                if name in {one.id, one.name} and one.revoked_s is None
            }
            if not now:
                raise InputError(f"there is no key {name!r} that could be revoked: see onhand keys")
            gone.extend(now.values())
            return [now.get(one.id, one) for one in keys]

        self._change(revoked)
        return tuple(gone)

    def local_token(self, *, now_s: float) -> tuple[Path, bool]:
        """Make sure that this device's own user has a valid key, in a file of that user alone.

        Args:
            now_s: seconds since 1970.

        Returns:
            The file that holds the token, and whether it was made now.

        Raises:
            InputError: if a file is not one of ours, or another process writes.
            ResourceError: if it cannot be written.
        """
        if self._has_local(now_s):
            return self._local, False
        for one in self.listed():
            if one.name == LOCAL_NAME and one.state(now_s) == "valid":
                # Its token is lost, and nobody can have another of the same name beside it.
                self.revoke(one.id, now_s=now_s)
        _, token = self.add(LOCAL_NAME, EVERYTHING, now_s=now_s)
        self._write(self._local, token.text() + "\n")
        return self._local, True

    def local_text(self) -> str:
        """Return the token of this device's own user; "" where there is none.

        Raises:
            InputError: if the file is not one of ours.
            ResourceError: if it cannot be read.
        """
        return (self._read(self._local, _MOST_TOKEN) or b"").decode("ascii", "replace").strip()

    def _has_local(self, now_s: float) -> bool:
        token = parse_token(self.local_text())
        found = None if token is None else self.find(token.id)
        return found is not None and found.state(now_s) == "valid"

    def _read(self, path: Path, most_bytes: int) -> bytes | None:
        placed = keys_of(self._home, "access")
        return read_secret_file(path, placed, most_bytes=most_bytes)

    def _write(self, path: Path, text: str) -> None:
        write_secret_file(path, text.encode(), keys_of(self._home, "access"))

    def _change(self, change: Callable[[Sequence[ApiKey]], Sequence[ApiKey]]) -> None:
        busy = f"{self.path}: another process writes keys at this moment; try again"
        with held(self.path.with_suffix(".lock"), busy=busy):
            keys = change(self.listed())
            table = {"format": FORMAT, "keys": [one.to_json() for one in keys]}
            self._write(self.path, json.dumps(table, indent=1, sort_keys=True) + "\n")

    def _fresh(self) -> dict[str, ApiKey]:
        try:
            seen = self.path.stat()
        except FileNotFoundError:
            self._stamp, self._keys = None, {}
            return self._keys
        except OSError as error:
            raise ResourceError(f"{self.path}: cannot be read: {error.strerror}") from error
        stamp = (seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino, seen.st_size)
        if stamp != self._stamp:
            # None until it was read whole: one that fails is read again, and opens nothing.
            self._stamp, self._keys = None, {}
            keys = _parse(self.path, self._read(self.path, _MOST_BYTES) or b"")
            self._stamp, self._keys = stamp, keys
        return self._keys


def local_token_file(home: Path) -> Path:
    """Return where the token of this device's own user is.

    Args:
        home: the state folder.
    """
    return home / "access" / "local.token"


def _parse(path: Path, content: bytes) -> dict[str, ApiKey]:
    """Read the file's content.

    Raises:
        InputError: if it is none, or two keys have one id.
    """
    try:
        table = json.loads(content)
        if not isinstance(table, dict) or not isinstance(table.get("keys"), list):
            raise InputError("it holds no list of keys")
        if table.get("format") != FORMAT:
            raise InputError(f"its format is {table.get('format')!r}, this reads {FORMAT}")
        keys = [key_from_json(one) for one in table["keys"]]
    except (ValueError, RecursionError, OnhandError) as error:
        raise InputError(f"{path}: is no file of keys: {error}") from error
    found = {one.id: one for one in keys}
    if len(found) != len(keys):
        raise InputError(f"{path}: is no file of keys: two have one id")
    return found
