"""What a request says of who may answer it, and when: headers of HTTP."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from onhand.core.tables import unknown
from onhand.device.serving.refusals import Refusal, RefusedRequest

__all__ = [
    "DEFER_HEADER",
    "KEY_HEADER",
    "POLICY_HEADER",
    "PRIVACY_CLASSES",
    "PRIVACY_HEADER",
    "Defer",
    "Privacy",
    "Wishes",
    "read_wishes",
    "sent_key",
]

Privacy = Literal["public", "redact", "private"]
"""Whether a request may leave the device: as it is, without personal data, or never."""

Defer = Literal["never", "allow", "must"]
"""Whether a request may be answered later: never, where nobody can now, or in any case."""

PRIVACY_CLASSES: Final[tuple[Privacy, ...]] = ("public", "redact", "private")
"""From the loosest to the strictest."""

PRIVACY_HEADER: Final = "x-privacy"
POLICY_HEADER: Final = "x-route-policy"
DEFER_HEADER: Final = "x-defer"
KEY_HEADER: Final = "idempotency-key"
_MOST_KEY: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a request says of its way.

    Attributes:
        privacy: its class; the settings may make it stricter, never looser.
        policy: the routing policy that it chooses; "" for the route's own.
        defer: whether it may be answered later.
        key: its idempotency key; "" for none.
        is_stream: whether its client reads the answer piece by piece.
    """

    privacy: Privacy = "public"
    policy: str = ""
    defer: Defer = "never"
    key: str = ""
    is_stream: bool = False


def read_wishes(headers: Mapping[str, str], *, is_stream: bool) -> Wishes:
    """Read them.

    Args:
        headers: of the request, by names in lower case.
        is_stream: whether the answer is to come piece by piece.

    Returns:
        They.

    Raises:
        RefusedRequest: if a value is not known: a slip must not make a private request public.
    """
    privacy = headers.get(PRIVACY_HEADER, "public").strip().lower()
    defer = headers.get(DEFER_HEADER, "never").strip().lower()
    key = headers.get(KEY_HEADER, "").strip()
    if privacy not in PRIVACY_CLASSES:
        message = unknown("class", privacy[:40], PRIVACY_CLASSES)
        raise RefusedRequest(_wrong(PRIVACY_HEADER, message))
    if defer not in get_args(Defer):
        message = unknown("choice", defer[:40], get_args(Defer))
        raise RefusedRequest(_wrong(DEFER_HEADER, message))
    if len(key) > _MOST_KEY or not key.isprintable() or not key.isascii():
        message = f"must be at most {_MOST_KEY} printable characters of ASCII"
        raise RefusedRequest(_wrong(KEY_HEADER, message))
    if defer != "never" and is_stream:
        message = "an answer that may come later cannot be streamed"
        raise RefusedRequest(_wrong(DEFER_HEADER, message))
    return Wishes(
        privacy=privacy,
        policy=headers.get(POLICY_HEADER, "").strip(),
        defer=defer,  # type: ignore[arg-type] # checked above
        key=key,
        is_stream=is_stream,
    )


def sent_key(wishes: Wishes, *, tenant: str) -> str:
    """Return the idempotency key under which other servers know a request.

    Args:
        wishes: of the request.
        tenant: whose it is: two tenants may choose the same key.

    Returns:
        The same for the same tenant and key; "" for none.
    """
    if not wishes.key:
        return ""
    return hashlib.sha256(f"{tenant}\0{wishes.key}".encode()).hexdigest()[:32]


def _wrong(header: str, message: str) -> Refusal:
    return Refusal(status=400, message=f"{header}: {message}", param=header)
