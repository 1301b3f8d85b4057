"""Requests that are answered later: taken in over HTTP, sent by the server, fetched by id."""

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from onhand.core.errors import EngineError, OnhandError, ResourceError
from onhand.device.audit.leaving import gathering
from onhand.device.serving.answering import Answer
from onhand.device.serving.api.bodies import Body, as_json
from onhand.device.serving.api.completions import read_chat, read_completion
from onhand.device.serving.api.replies import JsonReply
from onhand.device.serving.api.responses import read_response
from onhand.device.serving.api.shape import Asked
from onhand.device.serving.asks import TextModel
from onhand.device.serving.auditing import record_later
from onhand.device.serving.journal import Entry
from onhand.device.serving.refusals import BackendFailed, Refusal, RefusedRequest, refusal_of
from onhand.device.serving.routing.outbox import Deferred, Outbox
from onhand.device.serving.routing.router import RoutedModel
from onhand.device.serving.routing.sending import Outcome, Sender
from onhand.device.serving.routing.settings import OutboxSettings
from onhand.device.serving.routing.waiting import Waiting
from onhand.device.serving.state import ServerState
from onhand.device.serving.wishes import Wishes, sent_key

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope
    from starlette.types import Send as SendMessage

__all__ = ["Desk", "no_outbox"]

_READERS: Final = {"chat": read_chat, "text": read_completion, "responses": read_response}
_AGAIN: Final = frozenset({408, 409, 425, 429})


class Desk:
    """The outbox of a server, and what sends it. Of one event loop; see `Beside`."""

    def __init__(
        self,
        outbox: Outbox,
        state: ServerState,
        settings: OutboxSettings,
        *,
        waiting: Waiting | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Put it together; `start` begins to send.

        Args:
            outbox: closed by whoever opened it.
            state: the models.
            settings: when what was not answered is sent again.
            waiting: seals what holds personal data; None for a secret that ends with this.
            now: seconds since 1970.
        """
        self._outbox = outbox
        self._waiting = waiting or Waiting(secrets.token_bytes(32))
        self._state = state
        self._settings = settings
        self._now = now
        self._sender: Sender | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to send what is there."""
        self._sender = Sender(
            self._outbox, self._send, retries=self._settings.retries, now=self._now
        )
        self._task = asyncio.create_task(self._sender.run())

    async def stop(self) -> None:
        """End; what is being sent is sent again after the next start. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def answered(
        self, model: TextModel, asked: Asked, *, fields: Mapping[str, object], entry: Entry
    ) -> "ASGIApp":
        """Answer a request that may be answered later: now, if that can be, or from the outbox.

        Args:
            model: who answers.
            asked: what is asked, with the wish to defer it.
            fields: of its body, as they were given.
            entry: where its course is noted.

        Returns:
            The answer, or where it can be fetched.

        Raises:
            OnhandError: if it cannot be answered at all, or the outbox is full.
        """
        ask = asked.asks[0]
        privacy = model.privacy_of(ask) if isinstance(model, RoutedModel) else ask.wishes.privacy
        body = self._waiting.kept(_kept(asked, fields, model), privacy)
        # Tried at once or sent later, other servers know it by one key.
        name = sent_key(ask.wishes, tenant=ask.tenant) or secrets.token_hex(16)
        asked = asked.wishing(ask.wishes, sent_key=name)
        if ask.wishes.key:
            found = await asyncio.to_thread(
                self._outbox.known, body, tenant=ask.tenant, key=ask.wishes.key
            )
            if found is not None:
                return _answer_of(self._opened(found))
        if ask.wishes.defer == "must":
            if isinstance(model, RoutedModel):
                model.routed(ask)  # what can never be answered is refused now
            return await self._accepted(asked, body, entry, (name, model.name))
        answer = await Answer.begun(self._state, model, asked, entry)
        if answer.is_deferred:
            return await self._accepted(asked, body, entry, (name, model.name))

        async def now_or_later(scope: "Scope", receive: "Receive", send: "SendMessage") -> None:
            try:
                await answer(scope, receive, send)
            except (EngineError, ResourceError):
                # Nothing was sent: a whole answer goes out at its end.
                reply = await self._accepted(asked, body, entry, (name, model.name))
                await reply(scope, receive, send)

        return now_or_later

    async def one(self, name: str, *, tenant: str) -> JsonReply:
        """Say how far a request is, with its answer.

        Raises:
            RefusedRequest: if the tenant has none of that id.
        """
        found = await asyncio.to_thread(self._outbox.find, name, tenant=tenant)
        if found is None:
            raise RefusedRequest(_unknown(name))
        return JsonReply(_described(self._opened(found)))

    async def listed(self, *, tenant: str) -> JsonReply:
        """List a tenant's requests, without answers."""
        found = await asyncio.to_thread(self._outbox.listed, tenant=tenant)
        return JsonReply({"object": "list", "data": [_described(one) for one in found]})

    async def removed(self, name: str, *, tenant: str) -> JsonReply:
        """Forget a request; one that waits is not sent.

        Raises:
            RefusedRequest: if the tenant has none of that id.
        """
        if not await asyncio.to_thread(self._outbox.remove, name, tenant=tenant):
            raise RefusedRequest(_unknown(name))
        return JsonReply({"id": name, "object": "outbox.request", "deleted": True})

    def _opened(self, kept: Deferred) -> Deferred:
        return replace(kept, answer=self._waiting.opened(kept.answer))

    async def _accepted(
        self, asked: Asked, body: bytes, entry: Entry, names: tuple[str, str]
    ) -> JsonReply:
        ask, (name, model_name) = asked.asks[0], names
        kept, _ = await asyncio.to_thread(
            self._outbox.put,
            body,
            tenant=ask.tenant,
            lane=f"{ask.tenant} {model_name}",
            key=ask.wishes.key,
            now_s=self._now(),
            keep_s=self._settings.expire_s,
            name=name,
        )
        entry.note(outcome="deferred", outbox=kept.id)
        if self._sender is not None:
            self._sender.wake()
        return _answer_of(self._opened(kept))

    async def _send(self, request: Deferred) -> Outcome:
        log, entry = self._state.audit, Entry()
        if log is not None and log.is_refusing:
            return Outcome(was_sent=False)
        with gathering() as left:
            outcome = await self._sent(request, entry)
        if log is not None and (left or outcome.was_sent or outcome.status is not None):
            # Before its client can fetch it.
            await record_later(
                log,
                entry,
                request=request.id,
                tenant=request.tenant,
                status=outcome.status or 0,
                left=left,
            )
        if not outcome.answer or not self._waiting.is_sealed(request.body):
            return outcome
        return replace(outcome, answer=self._waiting.sealed(outcome.answer))

    async def _sent(self, request: Deferred, entry: Entry) -> Outcome:
        if self._state.is_draining:
            return Outcome(was_sent=False)
        try:
            answer = await self._begun(request, entry)
        except OnhandError as error:
            return _outcome(error, was_sent=False)
        await asyncio.to_thread(self._outbox.begin, request.id)
        try:
            reply = await answer.whole()
        except OnhandError as error:
            return _outcome(error, was_sent=True)
        return Outcome(status=200, answer=as_json(reply.value))

    async def _begun(self, request: Deferred, entry: Entry) -> Answer:
        kept = json.loads(self._waiting.opened(request.body))
        model = self._state.text_model(kept["model"])
        read = _READERS[kept["route"]]
        asked = read(Body(kept["fields"]), tenant=request.tenant, usual=model.usual)
        wishes = Wishes(privacy=kept["privacy"], policy=kept["policy"], key=request.id)
        return await Answer.begun(
            self._state, model, asked.wishing(wishes, sent_key=request.id), entry
        )


def no_outbox() -> RefusedRequest:
    """Return the refusal of a request for an outbox that there is not."""
    message = "this server keeps no outbox: see [outbox] in its settings"
    return RefusedRequest(Refusal(status=404, message=message, code="no_outbox"))


def _kept(asked: Asked, fields: Mapping[str, object], model: TextModel) -> bytes:
    wishes = asked.asks[0].wishes
    kept = {
        "fields": dict(fields),
        "model": model.name,
        "policy": wishes.policy,
        "privacy": wishes.privacy,
        "route": asked.route,
    }
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


def _outcome(error: OnhandError, *, was_sent: bool) -> Outcome:
    refusal = refusal_of(error)
    if refusal.status < 500 and refusal.status not in _AGAIN:
        return Outcome(status=refusal.status, answer=as_json(refusal.body()))
    after_s = error.retry_after_s if isinstance(error, BackendFailed) else None
    return Outcome(was_sent=was_sent, retry_after_s=after_s or 0.0)


def _answer_of(kept: Deferred) -> JsonReply:
    """What the client gets that asks: the answer where there is one, else where it will be."""
    headers = {"x-route": "outbox", "location": f"/v1/outbox/{kept.id}"}
    if kept.status is not None:
        return JsonReply(json.loads(kept.answer), status=kept.status, headers=headers)
    headers["retry-after"] = "5"
    return JsonReply(_described(kept), status=202, headers=headers)


def _described(kept: Deferred) -> dict[str, object]:
    answer = json.loads(kept.answer) if kept.answer else None
    is_done = kept.state == "done"
    return {
        "id": kept.id,
        "object": "outbox.request",
        "state": kept.state,
        "attempts": kept.attempts,
        "created": int(kept.created_s),
        "expires": int(kept.expires_s),
        "status": kept.status,
        "response": answer if is_done else None,
        "error": None if is_done or answer is None else answer.get("error"),
    }


def _unknown(name: str) -> Refusal:
    message = f"there is no deferred request {name[:40]!r}; answers are kept for a while only"
    return Refusal(status=404, message=message, code="outbox_unknown", param="id")
