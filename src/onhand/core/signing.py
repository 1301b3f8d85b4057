"""Signatures of bundles: Ed25519 over a statement that names the manifest by its hash.

The file `signature` is a DSSE envelope around an in-toto statement:

    {"payloadType": "application/vnd.in-toto+json", "payload": BASE64,
     "signatures": [{"keyid": SHA-256 of the public key, "sig": BASE64}]}

The manifest names every other file by size and hash, so the statement binds them all.

Source:
    DSSE v1.0.2 (github.com/secure-systems-lab/dsse), in-toto Statement v1, RFC 8032.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from onhand.core.errors import BundleUntrusted, InputError
from onhand.core.outside import parse_json

__all__ = [
    "KEY_BYTES",
    "MAX_SIGNATURE_BYTES",
    "Rotation",
    "Signature",
    "dsse_encoded",
    "key_id",
    "parse_rotation",
    "parse_signature",
    "public_key",
    "sign_manifest",
    "sign_rotation",
    "verify_signature",
]

KEY_BYTES: Final = 32
"""Of a private key (its seed), and of a public one."""

MAX_SIGNATURE_BYTES: Final = 64 * 1024
_FORMAT: Final = 1
_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_RELEASE: Final = "urn:onhand:bundle-release"
_ROTATION: Final = "urn:onhand:key-rotation"
_MANIFEST: Final = "manifest.json"
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_MOST: Final = 2**53  # numbers that every reader of JSON holds exactly


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A signature that was parsed, and not verified.

    Attributes:
        key: id of the key that it says it is by.
        payload: what is signed.
        sig: the signature's 64 bytes.
        manifest_sha256: hash of the manifest that it is of.
        release: counter; a later release of the same bundle has a higher one.
        expires_s: seconds since 1970 after which it is of no use; None for never.
    """

    key: str
    payload: bytes
    sig: bytes
    manifest_sha256: str
    release: int
    expires_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """That a key's owner uses another one from now on; parsed, and verified by the old key.

    Attributes:
        old: id of the key that says so.
        new: public key, 32 bytes.
        revokes_old: whether nothing by the old key counts any more.
    """

    old: str
    new: bytes
    revokes_old: bool


def key_id(public: bytes) -> str:
    """Return a public key's id: its SHA-256, in hex."""
    return hashlib.sha256(public).hexdigest()


def public_key(seed: bytes) -> bytes:
    """Return the public key of a private one.

    Args:
        seed: 32 bytes.

    Returns:
        32 bytes.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign_manifest(
    content: bytes, seed: bytes, *, release: int, expires_s: int | None = None
) -> bytes:
    """Return the signature of a manifest: the same for the same arguments.

    Args:
        content: of `manifest.json`.
        seed: the private key, 32 bytes.
        release: counter, from 1 on.
        expires_s: seconds since 1970; None for never.

    Returns:
        Content of the file `signature`.

    Raises:
        InputError: if the counter or the time is out of bounds.
    """
    for name, value in (("release", release), ("expires_s", expires_s or 1)):
        if not 1 <= value < _MOST:
            raise InputError(f"{name} is {value}, must be a whole number from 1 on")
    predicate = {"expires_s": expires_s, "format": _FORMAT, "release": release}
    subject = [{"digest": {"sha256": hashlib.sha256(content).hexdigest()}, "name": _MANIFEST}]
    return _enveloped(
        {
            "_type": _STATEMENT,
            "predicate": predicate,
            "predicateType": _RELEASE,
            "subject": subject,
        },
        seed,
    )


def parse_signature(content: bytes, *, where: str) -> Signature:
    """Read a signature, which may come from outside; nothing of it is verified.

    Args:
        content: of the file `signature`.
        where: the bundle's name for messages.

    Returns:
        The signature.

    Raises:
        BundleUntrusted: if it is none, or one of a later format.
    """
    try:
        key, payload, sig, statement = _parsed(content, _RELEASE)
        predicate = statement["predicate"]
        (only,) = _listed(statement.get("subject"))
        return Signature(
            key=key,
            payload=payload,
            sig=sig,
            manifest_sha256=_hex(_object(only.get("digest")).get("sha256")),
            release=_whole(_object(predicate).get("release")),
            expires_s=_time(_object(predicate).get("expires_s")),
        )
    except InputError as error:
        raise BundleUntrusted(f"{where}: its signature cannot be read: {error}") from error


def verify_signature(signature: Signature, public: bytes, *, where: str) -> None:
    """Check that a key made a signature.

    Args:
        signature: as it was parsed.
        public: the key.
        where: the bundle's name for messages.

    Raises:
        BundleUntrusted: if it did not.
    """
    if key_id(public) != signature.key or not _is_by(public, signature.payload, signature.sig):
        raise BundleUntrusted(
            f"{where}: its signature is not by the key {signature.key[:16]} that it names; it or "
            f"the manifest was changed"
        )


def sign_rotation(seed: bytes, new: bytes, *, revokes_old: bool) -> bytes:
    """Return a statement that another key takes a key's place.

    Args:
        seed: the old private key.
        new: the new public key.
        revokes_old: whether nothing by the old key counts any more.

    Returns:
        A DSSE envelope, signed by the old key.
    """
    predicate = {"format": _FORMAT, "new": new.hex(), "revokes_old": revokes_old}
    subject = [{"digest": {"sha256": key_id(new)}, "name": "key"}]
    return _enveloped(
        {
            "_type": _STATEMENT,
            "predicate": predicate,
            "predicateType": _ROTATION,
            "subject": subject,
        },
        seed,
    )


def parse_rotation(content: bytes, known: Mapping[str, bytes]) -> Rotation:
    """Read a statement of another key's place, and check that the old key made it.

    Args:
        content: the statement.
        known: ids of keys that may say so -> public keys.

    Returns:
        The rotation.

    Raises:
        InputError: if it is none, by an unknown key, or was changed.
    """
    try:
        key, payload, sig, statement = _parsed(content, _ROTATION)
        predicate = _object(statement["predicate"])
        new = bytes.fromhex(_hex(predicate.get("new")))
        revokes_old = predicate.get("revokes_old")
    except InputError as error:
        raise InputError(f"the statement cannot be read: {error}") from error
    if key not in known:
        raise InputError(f"the statement is by the key {key[:16]}, which is not trusted here")
    if not _is_by(known[key], payload, sig) or not isinstance(revokes_old, bool):
        raise InputError(f"the statement is not by the key {key[:16]} that it names")
    return Rotation(old=key, new=new, revokes_old=revokes_old)


def _enveloped(statement: Mapping[str, object], seed: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    sig = Ed25519PrivateKey.from_private_bytes(seed).sign(dsse_encoded(payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": _PAYLOAD_TYPE,
        "signatures": [{"keyid": key_id(public_key(seed)), "sig": base64.b64encode(sig).decode()}],
    }
    return json.dumps(envelope, sort_keys=True).encode() + b"\n"


def dsse_encoded(payload: bytes) -> bytes:
    """Return what is signed of an in-toto statement in a DSSE envelope."""
    # DSSE's pre-authentication encoding: no other kind of payload can be taken for this one.
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _is_by(public: bytes, payload: bytes, sig: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(sig, dsse_encoded(payload))
    except (InvalidSignature, ValueError):
        return False
    return True


def _parsed(content: bytes, kind: str) -> tuple[str, bytes, bytes, Mapping[str, object]]:
    if len(content) > MAX_SIGNATURE_BYTES:
        raise InputError(f"over {MAX_SIGNATURE_BYTES} bytes")
    envelope = _object(parse_json(content))
    if envelope.get("payloadType") != _PAYLOAD_TYPE:
        raise InputError(f"its payload is not {_PAYLOAD_TYPE}")
    (only,) = _listed(envelope.get("signatures"))
    payload = _bytes(envelope.get("payload"))
    statement = _object(parse_json(payload))
    if statement.get("_type") != _STATEMENT or statement.get("predicateType") != kind:
        raise InputError(f"it states something else than {kind}")
    version = _object(statement.get("predicate")).get("format")
    if version != _FORMAT:
        raise InputError(f"format {version!r}, this reader knows {_FORMAT}")
    return _hex(only.get("keyid")), payload, _bytes(only.get("sig")), statement


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InputError("a JSON object is missing")
    return value


def _listed(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, list) or len(value) != 1:
        raise InputError("a list of exactly one object is missing")
    return [_object(value[0])]


def _bytes(value: object) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else "?", validate=True)
    except ValueError as error:
        raise InputError("a part is not base64") from error


def _hex(value: object) -> str:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise InputError("a hash or key is not 64 hex digits")
    return value


def _whole(value: object) -> int:
    if type(value) is not int or not 1 <= value < _MOST:
        raise InputError("a number is not whole, or out of bounds")
    return value


def _time(value: object) -> int | None:
    return None if value is None else _whole(value)
