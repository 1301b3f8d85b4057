"""Who may ask at all: checked before a request is routed, on every path.

A web page that a person has open reaches every port of the device: by a form, by a script whose
request needs no permission, or by a name that it lets point to 127.0.0.1 (DNS rebinding). So a
request must name this server in Host, must not come from a page that is not listed, and must have a
key that is for what it asks; see `onhand.device.access`.
"""

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from onhand.device.access.doorkeeper import Denial, Doorkeeper
from onhand.device.serving.journal import entry_of
from onhand.device.serving.page.files import PAGE_PATHS
from onhand.device.serving.refusals import Refusal
from onhand.device.serving.settings import ServeSettings
from onhand.device.serving.unpacking import ACCEPTED, unpacked

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "refuse"]

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
# What a browser says of a page that is neither this server's own nor the person's own doing.
_FOREIGN: Final = frozenset({"cross-site", "same-site"})


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: "ASGIApp", settings: ServeSettings, doorkeeper: Doorkeeper) -> None:
        self._app = app
        self._doorkeeper = doorkeeper
        self._settings = settings
        self._hosts = _LOOPBACK_NAMES | {name.lower() for name in settings.server.hosts}
        self._origins = frozenset(settings.server.origins)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, or hand it on with its tenant in `scope["state"]`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refuse(send, refusal)
            return
        origin = _one(headers, "origin")
        if origin is not None:
            send = _allowing(send, origin)
            if scope["method"] == "OPTIONS":
                await _preflight(send)
                return
        most = self._settings.server.max_body_bytes
        receive = _bounded(receive, most)
        if _coding(headers) == ACCEPTED:
            receive = unpacked(receive, most_bytes=most)
        if _is_open(scope):
            await self._app(scope, receive, send)
            return
        found = self._doorkeeper.admit(_bearer(headers), method=scope["method"], path=scope["path"])
        if isinstance(found, Denial):
            await refuse(send, _refusal_of(found))
            return
        state = scope.setdefault("state", {})
        state["tenant"], state["admission"] = found.tenant, found
        try:
            await self._app(scope, receive, send)
        finally:
            found.leave(_n_tokens(scope))

    def _refusal(self, scope: "Scope", headers: Mapping[str, list[str]]) -> Refusal | None:
        host = _one(headers, "host") or ""
        if _name_of(host) not in self._hosts:
            message = (
                f"Host is {host[:80]!r}, which is no name of this server: see hosts in its settings"
            )
            return Refusal(status=421, message=message, code="host")
        origin = _one(headers, "origin")
        if (
            origin is not None
            and origin not in self._origins
            and not self._is_own(scope, origin, host)
        ):
            message = "pages of this origin may not call: see origins in the server's settings"
            return Refusal(status=403, message=message, code="origin")
        if origin is None and _is_foreign(headers):
            message = "pages of other origins may not load this; open it in a tab of its own"
            return Refusal(status=403, message=message, code="origin")
        length = _one(headers, "content-length") or "0"
        if not length.isdecimal() or int(length) > self._settings.server.max_body_bytes:
            return _too_large(self._settings.server.max_body_bytes)
        kind = (_one(headers, "content-type") or "").split(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            message = "Content-Type must be application/json"
            return Refusal(status=415, message=message, code="content_type")
        if _coding(headers) not in {"identity", ACCEPTED}:
            message = f"Content-Encoding must be {ACCEPTED}, or none"
            told = {"Accept-Encoding": ACCEPTED}
            return Refusal(status=415, message=message, code="content_encoding", headers=told)
        return None

    def _is_own(self, scope: "Scope", origin: str, host: str) -> bool:
        # The page that this server itself shows.
        return origin == f"{scope['scheme']}://{host}"


async def refuse(send: "Send", refusal: Refusal) -> None:
    """Send a refusal as the whole answer.

    Args:
        send: of ASGI.
        refusal: what to say.
    """
    body = json.dumps(refusal.body()).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **refusal.headers,
    }
    await send(_start(refusal.status, headers))
    await send({"type": "http.response.body", "body": body})


def _start(status: int, headers: Mapping[str, str]) -> "Message":
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


async def _preflight(send: "Send") -> None:
    allowed = {
        "access-control-allow-methods": "DELETE, GET, POST",
        "access-control-allow-headers": (
            "authorization, content-type, idempotency-key, x-deadline-ms, x-defer, x-privacy, "
            "x-route-policy"
        ),
        "access-control-max-age": "600",
    }
    await send(_start(204, allowed))
    await send({"type": "http.response.body", "body": b""})


def _allowing(send: "Send", origin: str) -> "Send":
    async def sending(message: "Message") -> None:
        if message["type"] == "http.response.start":
            pairs = [
                (b"access-control-allow-origin", origin.encode()),
                (b"vary", b"origin"),
            ]
            message = {**message, "headers": [*message.get("headers", ()), *pairs]}
        await send(message)

    return sending


def _bounded(receive: "Receive", most: int) -> "Receive":
    """Hand a body on as long as it is no longer than allowed, whatever its headers said."""
    n_bytes = 0

    async def receiving() -> "Message":
        nonlocal n_bytes
        message = await receive()
        if message["type"] == "http.request":
            n_bytes += len(message.get("body", b""))
            if n_bytes > most:
                from onhand.device.serving.refusals import RefusedRequest

                raise RefusedRequest(_too_large(most))
        return message

    return receiving


def _too_large(most: int) -> Refusal:
    return Refusal(
        status=413, message=f"the request's body may have {most} bytes", code="body_too_large"
    )


def _is_open(scope: "Scope") -> bool:
    is_read = scope["method"] in {"GET", "HEAD"}
    # The page's files hold nothing: what it shows it asks for with a key.
    return is_read and scope["path"] in PAGE_PATHS


def _refusal_of(denial: Denial) -> Refusal:
    return Refusal(
        status=denial.status, message=denial.message, code=denial.code, headers=denial.headers
    )


def _n_tokens(scope: "Scope") -> int:
    facts = entry_of(scope).facts
    return int(facts.get("prompt_tokens", 0)) + int(facts.get("generated_tokens", 0))


def _is_foreign(headers: Mapping[str, list[str]]) -> bool:
    """Say whether another page loads this as a picture, a script or the like.

    Such requests have no Origin. A link that a person follows is none of them.
    """
    is_link = _one(headers, "sec-fetch-mode") == "navigate"
    is_tab = _one(headers, "sec-fetch-dest") == "document"
    return _one(headers, "sec-fetch-site") in _FOREIGN and not (is_link and is_tab)


def _headers(scope: "Scope") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _one(headers: Mapping[str, Collection[str]], name: str) -> str | None:
    """Return a header's value; two of one name mean different things to different readers."""
    values = list(headers.get(name, ()))
    return ", ".join(values) if values else None


def _coding(headers: Mapping[str, list[str]]) -> str:
    return (_one(headers, "content-encoding") or "identity").strip().lower()


def _name_of(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


def _bearer(headers: Mapping[str, list[str]]) -> str | None:
    kind, _, token = (_one(headers, "authorization") or "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None
