"""One answer: from the cache or the model, whole or as events."""

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from onhand.core.errors import OnhandError
from onhand.device.privacy.ledger import LEFT_HEADER, NOTHING, Ledger
from onhand.device.serving.api.replies import JsonReply, until_gone
from onhand.device.serving.api.shape import Asked, Stamp
from onhand.device.serving.asks import Ending, Piece, Source, TextModel, joined
from onhand.device.serving.caches.exact import Kept, is_repeatable, key_of
from onhand.device.serving.caches.questions import CacheUse
from onhand.device.serving.caches.semantic import Lookup
from onhand.device.serving.deadlines import until
from onhand.device.serving.journal import Entry
from onhand.device.serving.kinds import as_text
from onhand.device.serving.merging import Begun, merged
from onhand.device.serving.metrics import Count
from onhand.device.serving.models.version_facts import version_facts
from onhand.device.serving.refusals import refusal_of
from onhand.device.serving.routing.router import Routed, RoutedModel
from onhand.device.serving.state import ServerState, on_device
from onhand.device.serving.unpacking import ACCEPTED

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["Answer"]

_LOG = logging.getLogger("onhand.serving")


class Answer:
    """One answer; an ASGI application that sends it as a whole.

    Attributes:
        headers: what they say of where it comes from.
    """

    def __init__(
        self, state: ServerState, model: TextModel, asked: Asked, entry: Entry, use: CacheUse
    ) -> None:
        """Use `begun`."""
        self._use = use
        self._similar: Lookup | None = None
        self._entry = entry
        self._state = state
        self._model = model
        self._stamp = Stamp(id=secrets.token_hex(12), created_s=int(time.time()), model=model.name)
        self._ledger = Ledger()
        self._asked = asked
        self._fingerprint = model.fingerprint
        here = on_device(model)
        self._here = "" if as_text(here) is None else here.fingerprint
        self._keys = self._cache_keys()
        self._found: list[Kept] = []
        self._ways: list[Routed] = []
        self.headers = {
            "x-request-id": self._stamp.id,
            "x-route": "local",
            "x-backend": "local",
            "x-cache": "miss",
            LEFT_HEADER: NOTHING,
            "accept-encoding": ACCEPTED,
        }

    @classmethod
    async def begun(
        cls,
        state: ServerState,
        model: TextModel,
        asked: Asked,
        entry: Entry,
        *,
        use: CacheUse = CacheUse(),  # noqa: B008 (frozen)
    ) -> "Answer":
        """Look for an answer in the caches, or decide who gives it; nothing is computed yet.

        Args:
            state: what requests share.
            model: who answers.
            asked: what is asked.
            entry: where its course is noted.
            use: what the request allows caches to do.

        Returns:
            The answer.

        Raises:
            OnhandError: if nobody can or may answer.
        """
        answer = cls(state, model, asked, entry, use)
        answer._found = answer._from_cache() if use.finds else []
        if answer._found:
            answer.headers["x-cache"] = "exact"
        else:
            await answer._look_for_similar()
        if answer._found:
            saved = [kept.ending for kept in answer._found]
            first = Source(route=saved[0].route, backend=saved[0].source, reason="answered before")
            answer._chosen(first)
            state.metrics.saved(sum(one.sent_bytes + one.received_bytes for one in saved))
        else:
            answer._go_on()
        entry.note(id=answer.headers["x-request-id"], model=model.name)
        entry.note(stream=asked.is_stream, cache=answer.headers["x-cache"])
        entry.note(**version_facts(on_device(model)))
        return answer

    def _go_on(self) -> None:
        ledger = self._ledger
        self._asked = self._asked.known_as(self._stamp.id, told=self._chosen, left=ledger.note)
        if isinstance(self._model, RoutedModel):
            self._ways = [self._model.routed(ask) for ask in self._asked.asks]

    async def _look_for_similar(self) -> None:
        cache, use = self._state.semantic, self._use
        if cache is None or not (use.finds_similar or (use.finds and use.keeps)):
            return
        self._similar = await cache.look_up(
            self._asked.asks,
            name=self._model.name,
            fingerprint=self._fingerprint,
            finds=use.finds_similar,
        )
        if self._similar is None or (found := self._similar.found) is None:
            return
        similarity = round(found.similarity, 4)
        self._found = [found.kept]
        self._stamp = replace(self._stamp, similarity=similarity)
        self.headers |= {"x-cache": "semantic", "x-cache-similarity": f"{similarity:.4f}"}

    @property
    def is_deferred(self) -> bool:
        """Whether it was decided that it is answered later."""
        return any(way.decision.mode == "defer" for way in self._ways)

    async def whole(self) -> JsonReply:
        """Compute it, and return it as a whole.

        Raises:
            OnhandError: as in `Backend`.
        """
        return await self._whole()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Compute it, and send it as a whole; nothing is computed for a client that left."""
        replies: list[JsonReply] = []
        if self._found:  # nothing to wait for, so nobody who could leave meanwhile
            await (await self._whole())(scope, receive, send)
            return

        async def work() -> None:
            replies.append(await self._whole())

        if await until_gone(work(), receive):
            await replies[0](scope, receive, send)

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield it event by event; an error after the first is an event as well.

        Yields:
            What goes over the wire.
        """
        n_open = len(self._asked.asks)
        shaped = self._asked.shape.stream(self._stamp, n_open)
        last = b""
        with self._counted() as count:
            try:
                async with aclosing(Begun(self._parts())) as parts:
                    await parts.start()
                    # Whom it was given to is known by now, so the headers can say it.
                    self.headers[LEFT_HEADER] = self._ledger.header(may_grow=self._may_leave)
                    yield shaped.begin()
                    async for index, made in parts:
                        part = self._with_left(index, made)
                        if isinstance(part, Ending):
                            self._ended(part)
                            n_open -= 1
                            if n_open:
                                yield shaped.ending(index, part)
                            else:  # goes out with the end: one packet less
                                last = shaped.ending(index, part)
                        else:
                            count.saw_text()
                            self._state.metrics.told(part)
                            yield shaped.piece(index, part)
            except OnhandError as error:
                _LOG.warning("answer %s broke off: %s", self._stamp.id, type(error).__name__)
                count.end("error")
                yield last + shaped.failure(refusal_of(error).body())
                return
            count.end("ok")
        yield last + shaped.end()

    async def _whole(self) -> JsonReply:
        pieces: list[list[Piece]] = [[] for _ in self._asked.asks]
        endings: dict[int, Ending] = {}
        with self._counted() as count:
            try:
                async with aclosing(self._parts()) as parts:
                    async for index, made in parts:
                        part = self._with_left(index, made)
                        if isinstance(part, Ending):
                            endings[index] = part
                            self._ended(part)
                        else:
                            pieces[index].append(part)
                            self._state.metrics.told(part)
            except OnhandError:
                count.end("error")
                raise
            count.end("ok")
        self.headers[LEFT_HEADER] = self._ledger.header(may_grow=False)
        answers = [(made, endings[index]) for index, made in enumerate(pieces)]
        return JsonReply(self._asked.shape.whole(self._stamp, answers), headers=self.headers)

    @contextmanager
    def _counted(self) -> Iterator[Count]:
        with self._state.metrics.counted(self._asked.route) as count:
            try:
                yield count
            finally:
                self._entry.note(outcome=count.outcome)
                if count.first_text_s is not None:
                    self._entry.note(first_text_s=round(count.first_text_s, 6))

    @property
    def _may_leave(self) -> bool:
        """Whether somebody else than this device may be asked."""
        return any(set(way.decision.targets) - {"local"} for way in self._ways)

    def _with_left(self, index: int, part: Piece | Ending) -> Piece | Ending:
        if isinstance(part, Piece):
            return part
        left = self._ledger.left(index)
        return part if left == part.left else replace(part, left=left)

    def _chosen(self, source: Source) -> None:
        self.headers["x-route"] = source.route
        self.headers["x-backend"] = source.backend
        if source.reason:
            self.headers["x-route-reason"] = source.reason

    def _ended(self, ending: Ending) -> None:
        self._state.metrics.ended(ending)
        self._entry.note(source=ending.source)
        self._entry.add(
            prompt_tokens=ending.prompt_tokens,
            cached_tokens=ending.cached_tokens,
            generated_tokens=ending.generated_tokens,
        )

    def _parts(self) -> AsyncGenerator[tuple[int, Piece | Ending]]:
        feedback, parts = self._state.feedback, self._made()
        if feedback is None:
            return parts
        return feedback.noted(self._stamp.id, self._model.name, self._asked.asks, parts)

    def _made(self) -> AsyncGenerator[tuple[int, Piece | Ending]]:
        if self._found:
            return merged([_told(kept) for kept in self._found])
        asks = self._asked.asks
        return until(merged([self._kept(i) for i in range(len(asks))]), asks[0].deadline_s)

    def _cache_keys(self) -> list[bytes]:
        asks = self._asked.asks
        if self._state.exact is None or not all(is_repeatable(ask) for ask in asks):
            return []
        # Another policy is answered by others.
        models = [f"{self._fingerprint}{ask.wishes.policy}" for ask in asks]
        return [key_of(ask, model=model) for ask, model in zip(asks, models, strict=True)]

    def _from_cache(self) -> list[Kept]:
        found: list[Kept] = []
        for key in self._keys:
            kept = None if self._state.exact is None else self._state.exact.find(key)
            if kept is None:
                return []  # a part of the choices would help nobody
            found.append(kept)
        return found

    async def _kept(self, index: int) -> AsyncGenerator[Piece | Ending]:
        # Passed on as it comes, and kept when it has come to its end.
        pieces: list[Piece] = []
        if self._ways:
            made = self._ways[index].parts()
        else:
            made = self._model.answer(self._asked.asks[index])
        async with aclosing(made) as parts:
            async for part in parts:
                if isinstance(part, Piece):
                    pieces.append(part)
                else:
                    self._keep(index, Kept(tuple(pieces), part))
                yield part

    def _keep(self, index: int, kept: Kept) -> None:
        # The model may have been replaced since it was looked for.
        is_other = kept.ending.fingerprint not in {"", self._here}
        if is_other or not (self._use.keeps and kept.ending.is_repeatable):
            return
        if self._keys and self._state.exact is not None:
            self._state.exact.keep(self._keys[index], kept)
        if self._similar is not None and self._state.semantic is not None:
            self._state.semantic.keep(self._similar, kept)


async def _told(kept: Kept) -> AsyncGenerator[Piece | Ending]:
    # None of its prompt was computed.
    for piece in joined(kept.pieces):
        yield piece
    cached = kept.ending.prompt_tokens
    yield replace(kept.ending, cached_tokens=cached, sent_bytes=0, received_bytes=0)
