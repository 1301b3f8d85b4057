"""Keys of stores, and small records sealed by them: AES-256-GCM, a derived key for each record.

A sealed record is one small value, such as a cell of a database:

    version 1 | key id 4 | salt 24 | content, encrypted, and a tag of 16 bytes

with a derived key for each record, and the store and a context of the caller's bound to it.

Source:
    HKDF: RFC 5869. AES-GCM: NIST SP 800-38D.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from onhand.core.errors import InputError, SealBroken, VaultError

__all__ = [
    "KEY_BYTES",
    "RECORD_EXTRA_BYTES",
    "Keys",
    "StoreKeys",
    "bound_names",
    "decrypt_into",
    "derived_key",
    "frame_nonce",
    "open_record",
    "seal_record",
]

KEY_BYTES: Final = 32
"""Bytes of every key."""
RECORD_EXTRA_BYTES: Final = 45
"""Bytes that a sealed record has beside its content."""
_TAG_BYTES, _SALT_BYTES = 16, 24
_MOST_NAME_BYTES: Final = 2**16 - 1
_RECORD: Final = b"\x01"
_PURPOSE: Final = "onhand sealed record"
# Six times as fast as into new memory, which the system has to give and clear for each frame.
_INTO = getattr(AESGCM, "decrypt_into", None)


class Keys(Protocol):
    """The keys of one store. May be shared between threads."""

    @property
    def store(self) -> str:
        """The store's name; what another store sealed does not open."""
        ...

    def current(self) -> tuple[int, bytes]:
        """Return the id and the 32 bytes of the key for what is written now."""
        ...

    def by_id(self, key_id: int) -> bytes:
        """Return the key that something was sealed by.

        Raises:
            VaultError: if there is no such key any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoreKeys:
    """See `Keys`: known keys of a store, the one with the highest id for what is written.

    Attributes:
        store: its name.
        secrets: id -> 32 bytes.
    """

    store: str
    secrets: Mapping[int, bytes] = field(repr=False)

    def current(self) -> tuple[int, bytes]:
        """See `Keys`."""
        newest = max(self.secrets)
        return newest, self.secrets[newest]

    def by_id(self, key_id: int) -> bytes:
        """See `Keys`.

        Raises:
            VaultError: as in `Keys`.
        """
        if key_id not in self.secrets:
            raise VaultError(
                f"sealed by key {key_id} of store {self.store!r}, which is not in this vault: it "
                "was erased, or is another device's"
            )
        return self.secrets[key_id]


def derived_key(secret: bytes, *, purpose: str, salt: bytes = b"") -> bytes:
    """Return a key for one purpose; it says nothing about another's.

    Args:
        secret: 32 random bytes.
        purpose: what it is for.
        salt: random bytes, for another key each time.

    Returns:
        32 bytes.
    """
    derive = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=purpose.encode())
    return derive.derive(secret)


def seal_record(keys: Keys, content: bytes, *, context: bytes) -> bytes:
    """Seal a small value.

    Args:
        keys: of the store.
        content: the value.
        context: where it belongs, such as table, column and row: it opens nowhere else.

    Returns:
        `RECORD_EXTRA_BYTES` more than the content.
    """
    key_id, secret = keys.current()
    head = _RECORD + key_id.to_bytes(4, "big") + os.urandom(_SALT_BYTES)
    cipher = AESGCM(derived_key(secret, purpose=_PURPOSE, salt=head[5:]))
    # The key is this record's alone, so one nonce is enough.
    return head + cipher.encrypt(bytes(12), content, head + bound_names(keys.store, context))


def open_record(keys: Keys, sealed: bytes | memoryview, *, context: bytes) -> bytes:
    """Open what `seal_record` sealed.

    Args:
        keys: of the store.
        sealed: its bytes.
        context: as given to `seal_record`.

    Returns:
        The content.

    Raises:
        SealBroken: if the record was changed, cut short, or belongs elsewhere.
        VaultError: if its key is gone.
    """
    where = f"a record of store {keys.store!r}"
    head = bytes(sealed[: RECORD_EXTRA_BYTES - _TAG_BYTES])
    if len(sealed) < RECORD_EXTRA_BYTES or head[:1] != _RECORD:
        raise SealBroken(f"{where} is not sealed, or is cut short: {len(sealed)} bytes")
    secret = keys.by_id(int.from_bytes(head[1:5], "big"))
    cipher = AESGCM(derived_key(secret, purpose=_PURPOSE, salt=head[5:]))
    try:
        return cipher.decrypt(
            bytes(12), sealed[len(head) :], head + bound_names(keys.store, context)
        )
    except InvalidTag as error:
        raise SealBroken(f"{where} was changed, or belongs to another place") from error


def bound_names(store: str, name: bytes) -> bytes:
    """Return what says which store's which file or record something is, without ambiguity.

    Raises:
        InputError: if a name is too long.
    """
    # Lengths first: no two pairs of names give the same bytes.
    parts = (store.encode(), name)
    if any(len(part) > _MOST_NAME_BYTES for part in parts):
        raise InputError(f"a name of {max(map(len, parts))} bytes, at most {_MOST_NAME_BYTES}")
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def frame_nonce(n: int, *, is_last: bool) -> bytes:
    """Return the nonce of frame n of a sealed file, which also says whether it is the last."""
    return n.to_bytes(11, "big") + bytes([is_last])


def decrypt_into(
    cipher: AESGCM, nonce: bytes, sealed: bytes | memoryview, bound: bytes, room: memoryview
) -> None:
    """Decrypt into memory of the caller's, also with releases of cryptography that cannot.

    Args:
        cipher: with its key.
        nonce: 12 bytes.
        sealed: what was encrypted, and its tag.
        bound: the associated data.
        room: as many bytes as the content has.
    """
    if _INTO is None:
        room[:] = cipher.decrypt(nonce, sealed, bound)
    else:
        _INTO(cipher, nonce, sealed, bound, room)
