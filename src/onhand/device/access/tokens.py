"""Tokens: what a caller sends, and what is kept of it.

    onhand_ID_SECRET

ID is 16 hexadecimal digits and finds the key; SECRET is 32 random bytes in URL-safe base64. Of the
secret only a hash is kept. It is as random as the hash is long, so there is nothing to guess that
scrypt would slow down, and each request can afford the check.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Token", "hash_of", "is_of", "new_token", "parse_token"]

_PURPOSE: Final = b"onhand api key 1\0"
_FORM: Final = re.compile(r"onhand_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Token:
    """A token in its parts.

    Attributes:
        id: finds the key; no secret.
        secret: shows that the caller has it.
    """

    id: str
    secret: str = field(repr=False)

    def text(self) -> str:
        """Return what a caller sends."""
        return f"onhand_{self.id}_{self.secret}"


def new_token(random: Callable[[int], bytes] = secrets.token_bytes) -> Token:
    """Make a token that nobody has.

    Args:
        random: gives so many random bytes.
    """
    secret = base64.urlsafe_b64encode(random(32)).rstrip(b"=").decode()
    return Token(random(8).hex(), secret)


def parse_token(text: str) -> Token | None:
    """Return the parts of a token; None for what is none."""
    found = _FORM.fullmatch(text)
    return Token(*found.groups()) if found else None


def hash_of(token: Token) -> str:
    """Return what is kept of a token: 64 hexadecimal digits, bound to its id."""
    return hashlib.sha256(_PURPOSE + token.id.encode() + token.secret.encode()).hexdigest()


def is_of(token: Token, kept: str) -> bool:
    """Say whether a token is the one that a hash is of, in a time that says nothing about it."""
    return hmac.compare_digest(hash_of(token), kept)
