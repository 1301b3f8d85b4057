"""What anybody may read of a sealed bundle, and for whom its content key is wrapped.

`sealed.json`: format, name, version, the files' names and sizes, and for each recipient a hint and
the bundle's content key, wrapped. All else of the bundle is sealed, each file under its own name,
by a key that is derived from the content key and from what stands in this header.

A content key is wrapped by AES-256-GCM with a key that HKDF-SHA-256 derives from the X25519 secret
of an ephemeral key and the recipient's, bound to both public keys and to the header.

Source:
    X25519: RFC 7748. HKDF: RFC 5869. The form of wrapping: "The age file encryption format"
    (https://age-encryption.org/v1), recipient stanza of X25519.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from onhand.core.errors import BundleCorrupt, BundleTooNew, InputError, SealBroken, VaultError
from onhand.core.manifest import NAME, safe_path
from onhand.core.outside import parse_json, shown
from onhand.core.sealing_keys import KEY_BYTES, StoreKeys, derived_key

__all__ = [
    "MAX_HEADER_BYTES",
    "MAX_RECIPIENTS",
    "SEALED",
    "SEALED_MANIFEST",
    "SealedHeader",
    "Wrapped",
    "file_keys",
    "hint_of",
    "parse_header",
    "parse_recipient",
    "public_of",
    "recipient_text",
    "render_header",
    "unwrap_key",
    "wrap_key",
]

SEALED: Final = "sealed.json"
SEALED_MANIFEST: Final = "manifest.sealed"
FORMAT: Final = 1
MAX_HEADER_BYTES: Final = 4 * 2**20
MAX_RECIPIENTS: Final = 4096
_WRAPPED_BYTES: Final = KEY_BYTES + 16
_MOST_FILE_BYTES: Final = 2**48
_RECIPIENT = re.compile(r"x25519:([0-9a-f]{64})-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """The content key for one recipient.

    Attributes:
        hint: first 16 hex digits of the hash of the recipient's public key.
        ephemeral: 32 bytes, the public key that was made for this alone.
        key: 48 bytes, the content key, encrypted.
    """

    hint: str
    ephemeral: bytes
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedHeader:
    """What anybody may read of a sealed bundle.

    Attributes:
        name: the bundle's.
        version: counter in its manifest.
        manifest_bytes: size of the manifest.
        files: name -> bytes of its content, of every file that the manifest lists.
        recipients: whom it opens for.
    """

    name: str
    version: int
    manifest_bytes: int
    files: Mapping[str, int]
    recipients: tuple[Wrapped, ...] = field(default=(), repr=False)

    @property
    def identity(self) -> bytes:
        """SHA-256 of all but the recipients; what is sealed is bound to it."""
        return hashlib.sha256(_rendered(_described(self))).digest()


def _described(header: SealedHeader) -> dict[str, object]:
    return {
        "files": dict(header.files),
        "format": FORMAT,
        "manifest_bytes": header.manifest_bytes,
        "name": header.name,
        "version": header.version,
    }


def _rendered(table: Mapping[str, object]) -> bytes:
    return json.dumps(table, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def render_header(header: SealedHeader) -> bytes:
    """Return the one byte string of a header."""
    recipients = [
        {"ephemeral": one.ephemeral.hex(), "hint": one.hint, "key": one.key.hex()}
        for one in header.recipients
    ]
    return _rendered({**_described(header), "recipients": recipients})


def parse_header(content: bytes, *, where: str) -> SealedHeader:
    """Read a header, which nobody vouches for yet.

    Args:
        content: of `sealed.json`.
        where: the bundle's name for messages.

    Raises:
        BundleTooNew: if its format is later than this reader knows.
        BundleCorrupt: if anything in it is missing or not valid.
    """
    try:
        table = parse_json(content)
        found = table.get("format") if isinstance(table, dict) else None
        if isinstance(table, dict) and type(found) is int and found <= FORMAT:
            return _header(table)
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise BundleCorrupt(f"{where}: {SEALED}: {detail}") from error
    if type(found) is not int:
        raise BundleCorrupt(f"{where}: {SEALED} has no format number")
    raise BundleTooNew(
        f"{where}: {SEALED}: format {found}, this reader knows up to {FORMAT}; install a later "
        "onhand"
    )


def _header(table: Mapping[str, object]) -> SealedHeader:
    name, files, recipients = table["name"], table["files"], table["recipients"]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(f"name {shown(name)} is not valid")
    if not isinstance(files, dict) or not isinstance(recipients, list):
        raise InputError("files must be an object, recipients a list")
    if not 1 <= len(recipients) <= MAX_RECIPIENTS:
        raise InputError(f"{len(recipients)} recipients, must be 1 to {MAX_RECIPIENTS}")
    return SealedHeader(
        name=name,
        version=_count(table["version"]),
        manifest_bytes=_count(table["manifest_bytes"]),
        files={safe_path(file): _count(size) for file, size in files.items()},
        recipients=tuple(
            Wrapped(
                hint=_hex(one["hint"], 8).hex(),
                ephemeral=_hex(one["ephemeral"], KEY_BYTES),
                key=_hex(one["key"], _WRAPPED_BYTES),
            )
            for one in recipients
        ),
    )


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_FILE_BYTES:
        raise InputError(f"{shown(value)} is not a size or a counter")
    return value


def _hex(value: object, n_bytes: int) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-f]{{{2 * n_bytes}}}", value):
        raise InputError(f"{shown(value)} is not {n_bytes} bytes in hex")
    return bytes.fromhex(value)


def recipient_text(public: bytes) -> str:
    """Return a device's public key as people pass it on: with digits that tell a slip.

    Args:
        public: 32 bytes, of X25519.
    """
    return f"x25519:{public.hex()}-{hashlib.sha256(public).hexdigest()[:8]}"


def parse_recipient(text: str) -> bytes:
    """Return the public key of a recipient.

    Args:
        text: as `recipient_text` wrote it.

    Returns:
        32 bytes.

    Raises:
        InputError: if it is none, or has a slip.
    """
    found = _RECIPIENT.fullmatch(text.strip())
    if found is None:
        raise InputError(
            f"recipient {shown(text)} must be x25519:, 64 hex digits, - and 8 more, as "
            "`onhand vault recipient` prints it on the device"
        )
    public = bytes.fromhex(found[1])
    if recipient_text(public) != text.strip():
        raise InputError(f"recipient {shown(text)} has a slip: its check digits do not fit")
    return public


def hint_of(public: bytes) -> str:
    """Return what says in a header whom a wrapped key is for: 16 hex digits."""
    return hashlib.sha256(public).hexdigest()[:16]


def public_of(private: bytes) -> bytes:
    """Return the public key of a private one, both 32 bytes, of X25519."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def wrap_key(content_key: bytes, public: bytes, header: SealedHeader) -> Wrapped:
    """Wrap a bundle's content key for one recipient.

    Args:
        content_key: 32 random bytes, of this bundle alone.
        public: the recipient's.
        header: of the bundle; its recipients do not matter.

    Raises:
        InputError: if the public key is none.
    """
    ephemeral = X25519PrivateKey.generate()
    own = ephemeral.public_key().public_bytes_raw()
    try:
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise InputError(f"recipient {recipient_text(public)} is no key of a device") from error
    # The wrapping key is used once, so one nonce is enough.
    cipher = AESGCM(_wrapping_key(shared, own, public))
    sealed = cipher.encrypt(bytes(12), content_key, header.identity)
    return Wrapped(hint=hint_of(public), ephemeral=own, key=sealed)


def _wrapping_key(shared: bytes, ephemeral: bytes, public: bytes) -> bytes:
    return derived_key(shared, purpose="onhand bundle recipient", salt=ephemeral + public)


def unwrap_key(header: SealedHeader, private_keys: Iterable[bytes], *, where: str) -> bytes:
    """Return a bundle's content key.

    Args:
        header: of the bundle.
        private_keys: of this device, older ones included.
        where: the bundle's name for messages.

    Raises:
        VaultError: if it is not sealed for this device.
        SealBroken: if the header was changed.
    """
    for private in private_keys:
        public = public_of(private)
        hint = hint_of(public)
        for one in header.recipients:
            if one.hint == hint:
                return _unwrapped(one, private, public, header.identity, where)
    raise VaultError(
        f"{where}: is sealed for {len(header.recipients)} other devices, not for this one: have "
        "its maker seal it for what `onhand vault recipient` prints here"
    )


def _unwrapped(one: Wrapped, private: bytes, public: bytes, identity: bytes, where: str) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private)
    try:
        shared = key.exchange(X25519PublicKey.from_public_bytes(one.ephemeral))
        cipher = AESGCM(_wrapping_key(shared, one.ephemeral, public))
        return cipher.decrypt(bytes(12), one.key, identity)
    except (InvalidTag, ValueError) as error:
        raise SealBroken(f"{where}: {SEALED} was changed: its key does not open") from error


def file_keys(content_key: bytes, header: SealedHeader) -> StoreKeys:
    """Return the keys that a bundle's files are sealed by, bound to what its header says."""
    secret = derived_key(content_key, purpose="onhand bundle files", salt=header.identity)
    return StoreKeys("bundles", {1: secret})
