"""What was asked and answered, sealed: only who has the log's key reads it."""

import base64
import json
import os
from collections.abc import Mapping
from typing import Final

from onhand.core.errors import InputError

__all__ = ["seal_bodies", "unseal_bodies"]

_NONCE_BYTES: Final = 12


def seal_bodies(bodies: Mapping[str, bytes], key: bytes, *, request: str) -> str:
    """Return bodies as a text that a record can hold.

    Args:
        bodies: name -> content.
        key: 32 bytes.
        request: what they belong to; they are no other request's.

    Returns:
        Base64 of a nonce and what AES-256-GCM made.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    content = json.dumps({name: base64.b64encode(one).decode() for name, one in bodies.items()})
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, content.encode(), request.encode())
    return base64.b64encode(nonce + sealed).decode()


def unseal_bodies(sealed: str, key: bytes, *, request: str) -> dict[str, bytes]:
    """Undo `seal_bodies`.

    Args:
        sealed: what it returned.
        key: as there.
        request: as there.

    Returns:
        Name -> content.

    Raises:
        InputError: if it was changed, or is another request's or key's.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        content = base64.b64decode(sealed, validate=True)
        nonce, rest = content[:_NONCE_BYTES], content[_NONCE_BYTES:]
        found = json.loads(AESGCM(key).decrypt(nonce, rest, request.encode()))
        return {name: base64.b64decode(one) for name, one in found.items()}
    except (InvalidTag, ValueError) as error:
        raise InputError("sealed bodies cannot be opened with this log's key") from error
