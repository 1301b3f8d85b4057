"""A record of each request, in the audit log's hands before the answer ends.

Who asked, what for, which bundle and version answered and from where, what left the device, and how
it ended; what was asked and answered only where the settings say so, and sealed.
"""

import asyncio
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from onhand.core.errors import OnhandError
from onhand.device.audit.bodies import seal_bodies
from onhand.device.audit.elsewhere import kept_elsewhere
from onhand.device.audit.keys import audit_keys, vault_of
from onhand.device.audit.leaving import Departed, gathering
from onhand.device.audit.log import AuditLog, open_audit
from onhand.device.audit.settings import AuditSettings
from onhand.device.serving.guard import refuse
from onhand.device.serving.journal import Entry, entry_of
from onhand.device.serving.refusals import Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from onhand.device.serving.metrics import Metrics

__all__ = ["Audited", "kept_audit", "record_later", "show_audit"]

# Asked every second by pages and monitors; what is refused is noted all the same.
_POLLED: Final = frozenset({"/", "/health", "/metrics", "/ready", "/v1/governor"})
_KNOWN: Final = (
    *("id", "model", "bundle", "version", "cache", "source", "stream", "outcome", "inputs"),
    *("prompt_tokens", "cached_tokens", "generated_tokens", "outbox"),
)
_OUTCOME: Final = "outcome"


class Audited:
    """An ASGI application around another. Of one event loop."""

    def __init__(self, app: "ASGIApp", log: AuditLog, *, paths: Collection[str]) -> None:
        """Wrap an application.

        Args:
            app: what answers.
            log: where records go; closed by its owner.
            paths: those that it has; others are written as "unknown".
        """
        self._app = app
        self._log = log
        self._paths = frozenset(paths)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, and record it before its end goes out."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._log.is_refusing and scope["path"] not in _POLLED:
            await refuse(send, _unwritable())
            return
        with gathering() as left:
            one = _Request(self._log, scope, left, paths=self._paths)
            try:
                await self._app(scope, one.receiving(receive), one.sending(send))
            finally:
                # Whose client left, or whose answer broke off.
                if not one.is_recorded:
                    await asyncio.shield(one.record())


@dataclass(slots=True)
class _Request:
    """One request on its way."""

    log: AuditLog
    scope: "Scope"
    left: list[Departed]
    paths: frozenset[str] = field(kw_only=True)
    entry: Entry = field(init=False)
    status: int = 0
    begun: "Message | None" = None
    is_recorded: bool = False
    asked: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.entry = entry_of(self.scope)

    def receiving(self, receive: "Receive") -> "Receive":
        """Return what hands on what is received."""
        if not self.log.settings.bodies:
            return receive

        async def received() -> "Message":
            message = await receive()
            if message["type"] == "http.request":
                self._gather(self.asked, message.get("body", b""))
            return message

        return received

    def sending(self, send: "Send") -> "Send":
        """Return what hands on what is sent; the beginning waits for what follows it."""

        async def sent(message: "Message") -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.begun = message
                return
            if self.log.settings.bodies:
                self._gather(self.answered, message.get("body", b""))
            is_last = not message.get("more_body", False) or _OUTCOME in self.entry.facts
            if is_last and not await self.record() and self.begun is not None:
                self.begun = None
                await refuse(send, _unwritable())
                return
            if self.begun is not None:
                begun, self.begun = self.begun, None
                await send(begun)
            await send(message)

        return sent

    async def record(self) -> bool:
        """Record the request if it is not; say whether its answer may go out.

        Raises:
            OnhandError: if it may not, and has begun.
        """
        path, method = self.scope["path"], self.scope["method"]
        is_polled = path in _POLLED and method in {"GET", "HEAD"} and self.status in {200, 304}
        if self.is_recorded or is_polled:
            return True
        self.is_recorded = True
        try:
            done = self.log.record(self._facts())
            if done.done():  # as nearly always: no turn of the event loop is spent
                done.result()
            else:
                await asyncio.wrap_future(done)
        except OnhandError:
            if self.begun is None and self.status:
                raise
            return False
        return True

    def _facts(self) -> Mapping[str, object]:
        path, method = self.scope["path"], self.scope["method"]
        state = self.scope.get("state", {})
        known = self.entry.facts
        facts: dict[str, object] = {name: known[name] for name in _KNOWN if name in known}
        facts.setdefault("id", secrets.token_hex(12))
        facts |= {
            "who": str(state.get("key_id") or state.get("tenant") or "unknown"),
            "action": method if method in {"DELETE", "GET", "POST"} else "other",
            "route": path if path in self.paths else _template(path, self.paths),
            "status": self.status,
            "left": list(self.left),
        }
        if self.log.settings.bodies:
            bodies = {"asked": bytes(self.asked), "answered": bytes(self.answered)}
            facts["cut"] = max(map(len, bodies.values())) > self.log.settings.most_body_bytes
            most = self.log.settings.most_body_bytes
            bodies = {name: one[:most] for name, one in bodies.items()}
            request = str(facts["id"])
            facts["bodies"] = seal_bodies(bodies, self.log.keys.body, request=request)
        return facts

    def _gather(self, into: bytearray, part: bytes) -> None:
        # One byte more than is kept says that there was more.
        into += part[: self.log.settings.most_body_bytes + 1 - len(into)]


async def record_later(
    log: AuditLog, entry: Entry, *, request: str, tenant: str, status: int, left: list[Departed]
) -> None:
    """Record one attempt to answer a request that was deferred.

    Args:
        log: where.
        entry: its course.
        request: its id, which the record of its acceptance has as well.
        tenant: whose it is.
        status: of the answer; 0 where it is to be tried again.
        left: what was sent for it.

    Raises:
        ResourceError: if it cannot be recorded, and requests are refused then.
    """
    facts: dict[str, object] = {name: entry.facts[name] for name in _KNOWN if name in entry.facts}
    facts |= {
        "id": secrets.token_hex(12),
        "outbox": request,
        "who": tenant,
        "action": "deferred",
        "route": "/v1/outbox/{id}",
        "status": status,
        "left": list(left),
    }
    facts.setdefault(_OUTCOME, "ok" if status == 200 else "failed" if status else "again")
    await asyncio.wrap_future(log.record(facts))


def show_audit(log: AuditLog, metrics: "Metrics") -> None:
    """Show how the audit log stands.

    Args:
        log: it.
        metrics: where.
    """
    gauge = metrics.gauge
    gauge("onhand_audit_records", "Records written.", lambda: log.counts.written)
    gauge("onhand_audit_lost", "Records that could not be written.", lambda: log.counts.lost)
    gauge("onhand_audit_writes", "Writes of one or more records.", lambda: log.counts.writes)
    over = "Records that the log's own thread wrote, as the disk was busy."
    gauge("onhand_audit_handed_over", over, lambda: log.counts.handed_over)
    gauge("onhand_audit_heads", "Heads signed and kept.", lambda: log.counts.heads)
    gauge("onhand_audit_heads_failed", "Heads not kept.", lambda: log.counts.heads_failed)


@contextmanager
def kept_audit(
    settings: AuditSettings, home: Path, *, metrics: "Metrics", told: Callable[[str], None]
) -> Iterator[AuditLog]:
    """Keep an audit log as long as the block runs.

    Args:
        settings: how.
        home: the state folder.
        metrics: where it is shown.
        told: where its key lies, and where its records and heads.

    Yields:
        The log.

    Raises:
        OnhandError: as in `open_audit`.
    """
    keys = audit_keys(home, vault_of(home))
    log = open_audit(settings, home, keys)
    folder, heads = settings.folders(home)
    elsewhere = kept_elsewhere(home)
    also = "" if elsewhere is None else f" and in {elsewhere.place}"
    told(f"audit: records in {folder}, signed heads in {heads}{also}, key in {keys.source}")
    show_audit(log, metrics)
    try:
        yield log
    finally:
        log.close()


def _template(path: str, paths: Collection[str]) -> str:
    """Return the route that a path with a name in it has; what somebody wrote is not kept."""
    for one in paths:
        before, _, after = one.partition("{")
        if after and path.startswith(before) and path.endswith(after.partition("}")[2]):
            return one
    return "unknown"


def _unwritable() -> Refusal:
    message = "the audit log of this server cannot be written, and nothing is answered without"
    return Refusal(status=503, message=message, code="audit", headers={"Retry-After": "10"})
