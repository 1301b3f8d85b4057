"""The doorkeeper: from a request's token, method and path to who it is, or why it is refused.

Everything that is not allowed is refused, in this order: no token or one of nobody, a path that is
in no scope, an action or a path that the key is not for, a ceiling that it meets.
"""

import hashlib
import hmac
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from onhand.core.errors import OnhandError
from onhand.device.access.keys import ApiKey
from onhand.device.access.quotas import Meter, Meters, Quota
from onhand.device.access.scopes import EVERYTHING, Grant, action_of
from onhand.device.access.tokens import hash_of, is_of, new_token, parse_token

__all__ = ["Admission", "Denial", "Doorkeeper", "FoundKeys"]

_LOG = logging.getLogger("onhand.access")
_DECOY = hash_of(new_token())


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Why a request is refused.

    Attributes:
        status: of HTTP.
        code: a word for a program.
        message: one sentence for a person.
        headers: of the answer.
    """

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A request that may be answered.

    Attributes:
        tenant: whose caches and deferred requests it sees.
        grant: what its key may do, for what only the request's body says.
        meter: what its key has used; None where it has no ceiling.
    """

    tenant: str
    grant: Grant
    meter: Meter | None = None

    def leave(self, n_tokens: int) -> None:
        """Say that the request has ended.

        Args:
            n_tokens: of its prompt and answer.
        """
        if self.meter is not None:
            self.meter.leave(n_tokens)


class FoundKeys(Protocol):
    """Where keys are looked up; `KeyStore` is one."""

    def find(self, id: str) -> ApiKey | None:
        """Return a key by its id; None if there is none."""
        ...


class Doorkeeper:
    """Admits requests. May be shared between threads."""

    def __init__(
        self,
        keys: FoundKeys | None = None,
        *,
        digests: Mapping[str, str] | None = None,
        managers: frozenset[str] = frozenset(),
        everybody: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take what opens.

        Args:
            keys: those of the state folder; None for none.
            digests: SHA-256 of a token in hex -> tenant; for tokens that settings name.
            managers: those of these tenants who may manage.
            everybody: tenant of whoever asks without any key, for all but management; None lets
                nobody in.
            clock: seconds that only grow, for quotas.
            now: seconds since 1970, for expiry.
        """
        self._keys, self._digests = keys, dict(digests or {})
        self._managers, self._everybody = managers, everybody
        self._now = now
        self._meters = Meters(clock=clock)

    def admit(self, token: str | None, *, method: str, path: str) -> Admission | Denial:
        """Let a request in, or say why not.

        Args:
            token: its bearer token; None for none.
            method: of HTTP.
            path: as the router sees it.

        Returns:
            Where it is admitted, `Admission.leave` has to follow.
        """
        found = self._who(token)
        if isinstance(found, Denial):
            return found
        tenant, grant, quota = found
        action = action_of(method, path)
        if action is None:
            return Denial(
                status=404,
                code="path",
                message="there is no such path; the API's begin with /v1",
            )
        if action == "":
            return Denial(status=405, code="method", message="this path has no such method")
        if action not in grant.actions:
            way = "; without one, send the process SIGHUP" if action == "manage" else ""
            return _forbidden(f"this needs a key for {action!r}{way}", "action")
        if not grant.allows_route(path):
            return _forbidden("this key is not for this path: ask for one that is", "route")
        if quota is None or quota == Quota():
            return Admission(tenant=tenant, grant=grant)
        meter = self._meters.of(tenant, quota)
        met = meter.enter()
        if met is not None:
            return _over(*met)
        return Admission(tenant=tenant, grant=grant, meter=meter)

    def _who(self, token: str | None) -> "tuple[str, Grant, Quota | None] | Denial":
        """Return tenant, grant and quota of a token."""
        if token is None and self._everybody is not None:
            return self._everybody, _WITHOUT_MANAGE, None
        parsed = parse_token(token or "")
        if parsed is not None and self._keys is not None:
            try:
                key = self._keys.find(parsed.id)
            except OnhandError as error:
                _LOG.error("nobody is admitted: %s", error)
                return Denial(
                    status=503,
                    code="keys",
                    message="the server cannot read its keys; see its log",
                    headers={"Retry-After": "5"},
                )
            # A decoy where there is no such key: the time does not say which ids there are.
            is_right = is_of(parsed, key.hash if key is not None else _DECOY)
            if key is not None and is_right:
                state = key.state(self._now())
                if state == "valid":
                    return key.tenant, key.grant, key.quota
                return _unknown(f"this API key is {state}", f"{state}_api_key")
        if (tenant := self._configured(token or "")) is not None:
            manages = tenant in self._managers
            grant = EVERYTHING if manages else _WITHOUT_MANAGE
            return tenant, grant, None
        if self._everybody is not None:
            return self._everybody, _WITHOUT_MANAGE, None
        message = "the API key is missing or unknown; send it as 'Authorization: Bearer'"
        return _unknown(message, "invalid_api_key")

    def _configured(self, token: str) -> str | None:
        digest = hashlib.sha256(token.encode()).hexdigest()
        found = None
        for known, tenant in self._digests.items():
            # All of them, so that the time says nothing about which is near.
            if hmac.compare_digest(digest, known):
                found = tenant
        return found


_WITHOUT_MANAGE = Grant(actions=EVERYTHING.actions - {"manage"})


def _unknown(message: str, code: str) -> Denial:
    return Denial(status=401, code=code, message=message, headers={"WWW-Authenticate": "Bearer"})


def _forbidden(message: str, what: str) -> Denial:
    return Denial(status=403, code=f"{what}_not_allowed", message=message)


def _over(ceiling: str, wait_s: float) -> Denial:
    what = {
        "at_once": "as many of its requests are answered at once as may be",
        "tokens_per_minute": "it has used its tokens of this minute",
        "requests_per_minute": "it has used its requests of this minute",
    }[ceiling]
    return Denial(
        status=429,
        code="rate_limit_exceeded",
        message=f"this key has to wait: {what}",
        headers={"Retry-After": str(max(1, math.ceil(wait_s)))},
    )
