"""The routes of a server, as an ASGI application."""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol

from onhand.core.errors import EngineError, OnhandError
from onhand.device.access.doorkeeper import Doorkeeper
from onhand.device.sampling import Sampling
from onhand.device.serving.answering import Answer
from onhand.device.serving.api.bodies import Body, as_json, parse_body
from onhand.device.serving.api.completions import read_chat, read_completion
from onhand.device.serving.api.replies import EventStream, JsonReply
from onhand.device.serving.api.responses import read_response
from onhand.device.serving.api.shape import Asked
from onhand.device.serving.api.vectors import (
    Classification,
    classified,
    compared,
    embedded,
    read_classification,
    read_embedding,
)
from onhand.device.serving.asks import TextModel
from onhand.device.serving.auditing import Audited
from onhand.device.serving.backends.remote import HOPS, hops_of
from onhand.device.serving.caches.questions import HEADER as CACHE_HEADER
from onhand.device.serving.caches.questions import read_cache_use
from onhand.device.serving.deadlines import HEADER, deadline_of, in_time
from onhand.device.serving.entrance import doorkeeper_of
from onhand.device.serving.feedback.desk import HEALTH_KEYS, no_feedback
from onhand.device.serving.guard import Guard
from onhand.device.serving.journal import Journal, entry_of
from onhand.device.serving.may import check_counted, check_may, check_model, may_ask
from onhand.device.serving.models.network import NetworkModel
from onhand.device.serving.models.shelved import ShelvedModel, ShelvedNetwork
from onhand.device.serving.models.version_facts import version_facts
from onhand.device.serving.openapi import OPENAPI_PATH, described_api
from onhand.device.serving.page.files import page_routes
from onhand.device.serving.refusals import Refusal, RefusedRequest, refusal_of
from onhand.device.serving.routing.desk import Desk, no_outbox
from onhand.device.serving.settings import ServeSettings
from onhand.device.serving.state import Served, ServerState, on_device
from onhand.device.serving.wishes import read_wishes, sent_key

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

__all__ = ["make_app", "make_routes"]

_LOG = logging.getLogger("onhand.serving")


class _Reader(Protocol):
    """Understands the body of one route."""

    def __call__(self, body: Body, *, tenant: str, usual: Sampling) -> Asked: ...


def make_app(
    state: ServerState, settings: ServeSettings, doorkeeper: Doorkeeper | None = None
) -> "ASGIApp":
    """Return the application as the network sees it.

    Args:
        state: the models, and whether requests are taken.
        settings: who may call.
        doorkeeper: knows the keys; None for those of the settings alone.

    Returns:
        What a server of ASGI runs.
    """
    from starlette.routing import Route

    routes = make_routes(state, settings)
    paths = [route.path for route in routes.routes if isinstance(route, Route)]
    guarded: ASGIApp = Guard(routes, settings, doorkeeper or doorkeeper_of(settings))
    if state.audit is not None:
        guarded = Audited(guarded, state.audit, paths=paths)
    return Journal(guarded, paths=paths)


def make_routes(state: ServerState, settings: ServeSettings) -> "Starlette":
    """Return the routes alone: who asks was checked, and is in `scope["state"]`.

    Args:
        state: the models, and whether requests are taken.
        settings: how answers are given.

    Returns:
        An application of ASGI.
    """
    from starlette.applications import Starlette
    from starlette.routing import Route

    routes = _Routes(state, settings)
    served = [
        # First, since they are looked through in order.
        Route("/v1/chat/completions", routes.chat, methods=["POST"]),
        Route("/v1/completions", routes.completions, methods=["POST"]),
        Route("/v1/responses", routes.responses, methods=["POST"]),
        Route("/v1/embeddings", routes.embeddings, methods=["POST"]),
        Route("/v1/classify", routes.classify, methods=["POST"]),
        Route("/health", routes.health, methods=["GET"]),
        Route("/ready", routes.ready, methods=["GET"]),
        Route(OPENAPI_PATH, routes.described, methods=["GET"]),
        Route("/metrics", routes.metrics, methods=["GET"]),
        Route("/v1/governor", routes.governor, methods=["GET"]),
        Route("/v1/models", routes.models, methods=["GET"]),
        Route("/v1/models/{name:path}/reload", routes.reload, methods=["POST"]),
        Route("/v1/models/{name:path}", routes.model, methods=["GET"]),
        Route("/v1/feedback", routes.feedback, methods=["GET", "POST"]),
        Route("/v1/outbox", routes.outbox, methods=["GET"]),
        Route("/v1/outbox/{id}", routes.deferred, methods=["GET", "DELETE"]),
        *page_routes(),
    ]
    handlers = {404: _unknown_path, 405: _unknown_method, OnhandError: _refused}
    return Starlette(routes=served, exception_handlers=handlers)


class _Routes:
    """What each path does."""

    def __init__(self, state: ServerState, settings: ServeSettings) -> None:
        self._state = state
        self._settings = settings

    async def health(self, request: "Request") -> "ASGIApp":
        """Say that the process lives, and how what learns stands."""
        feedback = self._state.feedback
        if feedback is None:
            return JsonReply({"status": "ok"})
        learning = await asyncio.to_thread(feedback.described)
        # Without a key: figures, and no sentences.
        figures = {
            name: {key: one[key] for key in HEALTH_KEYS if key in one}
            for name, one in learning.items()
            if may_ask(request.scope, name)
        }
        return JsonReply({"status": "ok", "learning": figures})

    async def feedback(self, request: "Request") -> "ASGIApp":
        """Take what a user says of an answer, or an example whole; or say how learning stands.

        Raises:
            RefusedRequest: if nothing is learned here, or the feedback is wrong.
        """
        self._check_open()
        desk = self._state.feedback
        if desk is None:
            raise RefusedRequest(no_feedback())
        if request.method == "GET":
            known = await asyncio.to_thread(desk.described)
            mine = {name: of for name, of in known.items() if may_ask(request.scope, name)}
            return JsonReply(mine)
        body = parse_body(await request.body())
        if "id" not in body.given:
            # An example whole teaches what no answer of this server was.
            check_may(request.scope, "learn")
        return await desk.give(
            body,
            tenant=request.state.tenant,
            may_ask=lambda name: may_ask(request.scope, name),
        )

    async def ready(self, request: "Request") -> "ASGIApp":
        """Say whether requests are taken.

        Raises:
            RefusedRequest: if the server is about to end.
        """
        self._check_open()
        names = sorted(name for name in self._state.models if may_ask(request.scope, name))
        return JsonReply({"status": "ready", "models": names})

    async def described(self, request: "Request") -> "ASGIApp":
        """Describe the API; nothing here says what this server holds."""
        return JsonReply(described_api())

    async def metrics(self, request: "Request") -> "ASGIApp":
        """Show the counts, in the text format of Prometheus."""
        from starlette.responses import Response

        return Response(self._state.metrics.text(), media_type="text/plain; version=0.0.4")

    async def governor(self, request: "Request") -> "ASGIApp":
        """Say what the governor read, what it set, and why."""
        governor = self._state.governor
        return JsonReply({"enabled": False} if governor is None else governor.described())

    async def models(self, request: "Request") -> "ASGIApp":
        """List what may be asked."""
        served = self._state.models.values()
        listed = [self._described(model) for model in served if may_ask(request.scope, model.name)]
        return JsonReply({"object": "list", "data": listed})

    async def model(self, request: "Request") -> "ASGIApp":
        """Describe one model."""
        return JsonReply(self._described(self._named(request)))

    async def reload(self, request: "Request") -> "ASGIApp":
        """See whether a model's bundle was replaced, and open the new version beside it.

        Raises:
            RefusedRequest: if the model has no bundle here.
        """
        model = on_device(self._named(request))
        if not isinstance(model, ShelvedModel | ShelvedNetwork):
            message = f"{model.name} has no bundle here that could be replaced"
            raise RefusedRequest(Refusal(status=400, message=message, code="no_bundle"))
        is_new = await asyncio.to_thread(model.reload)
        return JsonReply({**self._described(model), "is_reloading": is_new})

    async def chat(self, request: "Request") -> "ASGIApp":
        """Answer a conversation."""
        return await self._answer(request, read_chat)

    async def completions(self, request: "Request") -> "ASGIApp":
        """Continue a text."""
        return await self._answer(request, read_completion)

    async def responses(self, request: "Request") -> "ASGIApp":
        """Answer a conversation, in the newer form."""
        return await self._answer(request, read_response)

    async def embeddings(self, request: "Request") -> "ASGIApp":
        """Return vectors of texts."""
        body = parse_body(await request.body())
        network = self._network(request, body)
        wanted = read_embedding(body)
        entry = entry_of(request.scope)
        entry.note(model=network.name, **version_facts(on_device(network)))
        entry.note(inputs=len(wanted.texts))
        with self._state.metrics.counted("embeddings") as count:
            work = network.embed(wanted.texts)
            vectors, n_tokens = await in_time(work, self._deadline_s(request))
            count.end("ok")
        entry_of(request.scope).add(prompt_tokens=n_tokens)
        return JsonReply(embedded(wanted, vectors, n_tokens=n_tokens, model=network.name))

    async def classify(self, request: "Request") -> "ASGIApp":
        """Return the likeliest classes of a text or a picture."""
        body = parse_body(await request.body())
        network = self._network(request, body)
        wanted = read_classification(body)
        entry_of(request.scope).note(model=network.name, **version_facts(on_device(network)))
        with self._state.metrics.counted("classify") as count:
            found = await in_time(_classes(network, wanted), self._deadline_s(request))
            count.end("ok")
        return JsonReply(found)

    def _text_model(self, request: "Request", body: Body) -> TextModel:
        self._check_open()
        model = self._state.text_model(body.peek("model"))
        check_model(request.scope, model.name)
        return model

    def _network(self, request: "Request", body: Body) -> NetworkModel:
        self._check_open()
        network = self._state.network(body.peek("model"))
        check_model(request.scope, network.name)
        return network

    def _named(self, request: "Request") -> Served:
        model = self._state.named(request.path_params["name"])
        check_model(request.scope, model.name)
        return model

    def _check_open(self) -> None:
        if self._state.is_draining:
            raise RefusedRequest(_draining())

    async def _answer(self, request: "Request", read: _Reader) -> "ASGIApp":
        body = parse_body(await request.body())
        model = self._text_model(request, body)
        deadline_s = self._deadline_s(request)
        reading = partial(read, body, tenant=request.state.tenant, usual=model.usual)
        # Schemas of tools are compiled to see whether they can be followed.
        asked = await asyncio.to_thread(reading) if "tools" in body.given else reading()
        asked = asked.until(deadline_s)
        asked = asked.handed_on(hops_of(request.headers.get(HOPS)))
        wishes = read_wishes(request.headers, is_stream=asked.is_stream)
        self._settings.routing.allowed(wishes.policy)
        asked = asked.wishing(wishes, sent_key=sent_key(wishes, tenant=request.state.tenant))
        if wishes.defer != "never":
            check_counted(request.scope)
            desk, entry = self._desk(), entry_of(request.scope)
            return await desk.answered(model, asked, fields=body.given, entry=entry)
        use = read_cache_use(request.headers.get(CACHE_HEADER))
        answer = await Answer.begun(self._state, model, asked, entry_of(request.scope), use=use)
        if asked.is_stream:
            ping_s = self._settings.server.ping_s
            return EventStream(answer.events, ping_s=ping_s, headers=answer.headers)
        return answer

    async def outbox(self, request: "Request") -> "ASGIApp":
        """List the requests that are answered later."""
        return await self._desk().listed(tenant=request.state.tenant)

    async def deferred(self, request: "Request") -> "ASGIApp":
        """Say how far one of them is, or forget it."""
        name, tenant = request.path_params["id"], request.state.tenant
        if request.method == "DELETE":
            return await self._desk().removed(name, tenant=tenant)
        return await self._desk().one(name, tenant=tenant)

    def _desk(self) -> Desk:
        for one in self._state.beside:
            if isinstance(one, Desk):
                return one
        raise no_outbox()

    def _deadline_s(self, request: "Request") -> float | None:
        return deadline_of(
            request.headers.get(HEADER),
            most_s=self._settings.server.deadline_s,
            now_s=asyncio.get_running_loop().time(),
        )

    def _described(self, model: Served) -> Mapping[str, object]:
        described: dict[str, object] = {
            "id": model.name,
            "object": "model",
            "created": self._state.started_s,
            "owned_by": "onhand",
            "engine": model.engine_name,
        }
        here = on_device(model)
        if isinstance(here, ShelvedModel | ShelvedNetwork):
            described |= here.described()
        if isinstance(model, NetworkModel):
            return described | {"task": model.task}
        return (
            described
            | {"task": "text-generation"}
            | ({"context_length": model.context} if model.context else {})
        )


async def _classes(network: NetworkModel, wanted: Classification) -> dict[str, object]:
    if wanted.labels and isinstance(wanted.example, str):
        similarities = await network.compare(wanted.example, wanted.texts)
        return compared(wanted, similarities, model=network.name)
    likely = await network.classify(wanted.example, top=wanted.top)
    return classified(likely, model=network.name)


async def _refused(request: "Request", error: Exception) -> "Response":
    refusal = refusal_of(error if isinstance(error, OnhandError) else EngineError(str(error)))
    if refusal.status >= 500 and not isinstance(error, RefusedRequest):
        _LOG.error("%s %s: %s", request.method, request.url.path, error)
    return _response(refusal)


async def _unknown_path(request: "Request", error: Exception) -> "Response":
    message = "there is no such path; the API's begin with /v1"
    return _response(Refusal(status=404, message=message, code="path"))


async def _unknown_method(request: "Request", error: Exception) -> "Response":
    message = "this path has no such method"
    return _response(Refusal(status=405, message=message, code="method"))


def _response(refusal: Refusal) -> "Response":
    from starlette.responses import Response

    return Response(
        as_json(refusal.body()), refusal.status, refusal.headers, media_type="application/json"
    )


def _draining() -> Refusal:
    return Refusal(
        status=503,
        message="the server is about to end, and takes no more requests",
        code="draining",
        headers={"Retry-After": "5"},
    )
