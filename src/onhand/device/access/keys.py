"""Keys as they are kept: who, for what, how much and until when; of the secret only a hash."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from onhand.core.errors import InputError
from onhand.device.access.quotas import Quota
from onhand.device.access.scopes import Grant
from onhand.device.access.tokens import Token, hash_of

__all__ = ["TENANT_PREFIX", "ApiKey", "key_from_json", "key_of"]

TENANT_PREFIX: Final = "key:"
"""How the tenant of a key begins; its id follows. No other tenant may be named so."""

_ID: Final = re.compile(r"[0-9a-f]{16}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One key.

    Attributes:
        id: finds it; public.
        name: what people call it.
        hash: of its token.
        grant: what it may do.
        quota: how much.
        made_s: seconds since 1970.
        expires_s: when it ends, likewise; None for never.
        revoked_s: when it was taken back; None if it was not.
    """

    id: str
    name: str
    hash: str
    grant: Grant
    quota: Quota
    made_s: float
    expires_s: float | None = None
    revoked_s: float | None = None

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            InputError: if a part is none.
        """
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"name {self.name!r}: letters, digits and . _ - alone, at most 64, a letter or "
                "digit first"
            )
        if not _ID.fullmatch(self.id) or not _HASH.fullmatch(self.hash):
            raise InputError(f"key {self.name!r}: its id or hash is none")

    @property
    def tenant(self) -> str:
        """Whose caches, feedback and deferred requests it sees: its own alone."""
        return TENANT_PREFIX + self.id

    def state(self, now_s: float) -> str:
        """Return "valid", "expired" or "revoked".

        Args:
            now_s: seconds since 1970.
        """
        if self.revoked_s is not None:
            return "revoked"
        # NaN, in a file that somebody changed, must not live for ever.
        if self.expires_s is not None and not now_s < self.expires_s:
            return "expired"
        return "valid"

    def to_json(self) -> dict[str, object]:
        """Return plain values; among them no secret."""
        return {
            "actions": sorted(self.grant.actions),
            "at_once": self.quota.at_once,
            "expires_s": self.expires_s,
            "hash": self.hash,
            "id": self.id,
            "made_s": self.made_s,
            "models": list(self.grant.models),
            "name": self.name,
            "requests_per_minute": self.quota.requests_per_minute,
            "revoked_s": self.revoked_s,
            "routes": list(self.grant.routes),
            "tokens_per_minute": self.quota.tokens_per_minute,
        }


def key_of(
    token: Token,
    name: str,
    grant: Grant,
    *,
    quota: Quota | None = None,
    now_s: float,
    expires_s: float | None = None,
) -> ApiKey:
    """Make the key of a new token.

    Args:
        token: its token.
        name: what people call it.
        grant: what it may do.
        quota: how much; None for no ceiling.
        now_s: seconds since 1970.
        expires_s: when it ends, likewise; None for never.

    Raises:
        InputError: if the name is none, or it ends before it begins.
    """
    if expires_s is not None and not expires_s > now_s:
        raise InputError(f"key {name!r} would end before it begins: give a time to come")
    return ApiKey(
        id=token.id,
        name=name,
        hash=hash_of(token),
        grant=grant,
        quota=quota or Quota(),
        made_s=now_s,
        expires_s=expires_s,
    )


def key_from_json(value: object) -> ApiKey:
    """Read what `ApiKey.to_json` gave.

    Args:
        value: one entry of the file.

    Raises:
        InputError: if it is none: a part that is missing, of another type, or not known.
    """
    if not isinstance(value, Mapping) or set(value) != _KNOWN:
        raise InputError(f"a key must have {', '.join(sorted(_KNOWN))}, and nothing else")
    return ApiKey(
        id=_text(value, "id"),
        name=_text(value, "name"),
        hash=_text(value, "hash"),
        grant=Grant(
            actions=frozenset(_texts(value, "actions")),
            models=_texts(value, "models"),
            routes=_texts(value, "routes"),
        ),
        quota=Quota(
            requests_per_minute=_count(value, "requests_per_minute"),
            tokens_per_minute=_count(value, "tokens_per_minute"),
            at_once=_count(value, "at_once"),
        ),
        made_s=_time(value, "made_s") or 0.0,
        expires_s=_time(value, "expires_s"),
        revoked_s=_time(value, "revoked_s"),
    )


_KNOWN: Final = frozenset({
    *("actions", "at_once", "expires_s", "hash", "id", "made_s", "models", "name"),
    *("requests_per_minute", "revoked_s", "routes", "tokens_per_minute"),
})


def _text(value: Mapping[str, object], name: str) -> str:
    found = value[name]
    if not isinstance(found, str):
        raise InputError(f"{name} is {found!r}, must be a text")
    return found


def _texts(value: Mapping[str, object], name: str) -> tuple[str, ...]:
    found = value[name]
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InputError(f"{name} is {found!r}, must be a list of texts")
    return tuple(found)


def _count(value: Mapping[str, object], name: str) -> int:
    found = value[name]
    if type(found) is not int:
        raise InputError(f"{name} is {found!r}, must be a whole number")
    return found


def _time(value: Mapping[str, object], name: str) -> float | None:
    found = value[name]
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise InputError(f"{name} is {found!r}, must be seconds since 1970, or null")
    return float(found)
