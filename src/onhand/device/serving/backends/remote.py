"""Another server as a backend: asked in OpenAI's form, read as it streams."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Final

from onhand.core.errors import InputError, OnhandError
from onhand.device.audit.leaving import note_departure
from onhand.device.serving.api.wire import wire_of
from onhand.device.serving.asks import Ask, Ending, Piece, Wire
from onhand.device.serving.backends.chunks import ChunkReader, SaidError
from onhand.device.serving.backends.connections import LostError, Reply
from onhand.device.serving.backends.failures import (
    broken,
    late,
    of_status,
    told_failure,
    unreachable,
)
from onhand.device.serving.backends.leaving import left_with
from onhand.device.serving.backends.link import Link, Traffic
from onhand.device.serving.backends.settings import BackendSettings, Kind, Secret
from onhand.device.serving.backends.sse import EventReader
from onhand.device.serving.deadlines import HEADER as DEADLINE
from onhand.device.serving.wishes import PRIVACY_HEADER

__all__ = ["HOPS", "RemoteBackend", "hops_of"]

HOPS: Final = "x-onhand-hops"
"""Header that counts the servers of ours that handed a request on."""

_LOG = logging.getLogger("onhand.serving.backends")
_MOST_EVENT_BYTES: Final = 4 * 2**20
_MOST_ANSWER_BYTES: Final = 64 * 2**20
_MOST_ERROR_BYTES: Final = 64 * 1024
_DRAIN_S: Final = 0.05  # for the last bytes after an answer, so that the connection is kept


class RemoteBackend:
    """See `Backend`. Of one event loop; any number of answers at once.

    It asks once and tells what happened: others decide whether to ask again, or elsewhere.

    Attributes:
        name: what replies, counts and logs call it.
        kind: "peer" or "cloud".
        settings: all that was said of it.
    """

    def __init__(self, settings: BackendSettings, *, key: Secret | None = None) -> None:
        """Prepare it; nothing is sent.

        Args:
            settings: where it is.
            key: None for none.

        Raises:
            InputError: as in `Link`.
        """
        self.name = settings.name
        self.kind: Kind = settings.place
        self.settings = settings
        self._link = Link(settings, key=key)
        self._n_active = 0

    @property
    def n_active(self) -> int:
        """Answers that have not ended."""
        return self._n_active

    @property
    def traffic(self) -> Traffic:
        """Bytes so far."""
        return self._link.traffic

    async def probe(self) -> bool:
        """Say whether the server says that it is well."""
        return await self._link.probe()

    async def aclose(self) -> None:
        """Close all connections; safe to call twice."""
        await self._link.close()

    async def answer(self, ask: Ask) -> AsyncGenerator[Piece | Ending]:
        """See `Backend`; closing the iterator closes the connection.

        `Ask.told` is not called: that is for who chose this backend.

        Yields:
            As in `Backend`.

        Raises:
            BackendFailed: if the server did not answer, or not to the end; or as the request may
                not leave.
            RefusedRequest: if it says that the request is wrong.
        """
        self._n_active += 1
        try:
            try:
                async with aclosing(self._asked(ask)) as parts:
                    async for part in parts:
                        yield part
            except _Unpacked:
                async with aclosing(self._asked(ask)) as parts:
                    async for part in parts:
                        yield part
        finally:
            self._n_active -= 1

    async def _asked(self, ask: Ask) -> AsyncGenerator[Piece | Ending]:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self.settings.first_s
        leaving = await left_with(ask, self.settings)
        wire = self._with_headers(leaving.wire, ask, now_s=loop.time())
        model = self.settings.model or wire.model or self.settings.models[0]
        packed = await self._link.packed(wire, model=model)
        note_departure(
            self.name, packed.content, privacy=ask.wishes.privacy, form=leaving.departure.form
        )
        reader = ChunkReader(with_scores=ask.n_scores is not None)
        received = 0
        opened = self._link.opened(wire.path, packed, until_s=until_s, unsent=leaving.left())
        async with opened as reply:
            await self._check(reply, until_s)
            is_stream = "text/event-stream" in reply.head.headers.get("content-type", "")
            events = _Events(is_stream=is_stream)
            has_begun = False
            while not events.is_done:
                limit_s = loop.time() + self.settings.between_s if has_begun else until_s
                part = await self._next(reply, limit_s, has_begun=has_begun)
                received += len(part)
                self._link.traffic.received += len(part)
                for piece in self._read(events, reader, part, received):
                    has_begun = True
                    for restored in leaving.restored(piece):
                        yield restored
                if not part:
                    break
            self._finish(events, reader)
            if not reply.is_whole:
                await _drain(reply)
        ending = self._ending(ask, reader, sent=len(packed.content), received=received)
        for restored in leaving.restored(ending):
            yield restored

    def _with_headers(self, wire: Wire, ask: Ask, *, now_s: float) -> Wire:
        headers = dict(wire.headers)
        if ask.deadline_s is not None:
            headers[DEADLINE] = str(max(int((ask.deadline_s - now_s) * 1000), 1))
        if self.kind == "peer":
            headers[HOPS] = str(wire.n_hops + 1)
            if ask.wishes.privacy != "public":  # it may have a cloud of its own
                headers[PRIVACY_HEADER] = ask.wishes.privacy
        return replace(wire, headers=headers)

    async def _check(self, reply: Reply, until_s: float) -> None:
        status = reply.head.status
        coding = reply.head.headers.get("content-encoding", "identity")
        if status == 200 and coding in {"identity", ""}:
            return
        if status == 200:
            raise broken(self.name, f"content-encoding {coding[:40]!r}, which was not asked for")
        if status == 415 and self._link.stop_packing():
            raise _Unpacked
        body = await self._body(reply, until_s)
        error = of_status(
            self.name,
            status,
            body=body,
            headers=reply.head.headers,
            env=self.settings.env,
            hidden=self._link.hidden,
        )
        if status in {401, 403}:
            _LOG.error("%s", error)
        raise error

    async def _body(self, reply: Reply, until_s: float) -> bytes:
        """Return the beginning of an error's body; what cannot be read says nothing."""
        body = b""
        try:
            while len(body) < _MOST_ERROR_BYTES:
                part = await self._next(reply, until_s, has_begun=False)
                if not part:
                    break
                body += part
                self._link.traffic.received += len(part)
        except OnhandError:
            return b""
        return body

    async def _next(self, reply: Reply, limit_s: float, *, has_begun: bool) -> bytes:
        # No bytes at the end.
        try:
            return await reply.part(limit_s, is_fair=not has_begun)
        except LostError as error:
            reason = self._link.hidden(str(error))
            raise unreachable(self.name, f"the connection was lost: {reason}") from None
        except TimeoutError:
            waited_s = self.settings.between_s if has_begun else self.settings.first_s
            raise late(self.name, "byte" if has_begun else "text", waited_s) from None

    def _read(
        self, events: "_Events", reader: ChunkReader, part: bytes, received: int
    ) -> list[Piece]:
        pieces: list[Piece] = []
        try:
            if received > _MOST_ANSWER_BYTES:
                raise InputError(f"the answer has more than {_MOST_ANSWER_BYTES} bytes")
            for data in events.push(part):
                if data == b"[DONE]":
                    reader.done()
                    events.is_done = True
                    break
                pieces += reader.read(data)
        except SaidError as error:
            raise self._said(error) from None
        except InputError as error:
            raise broken(self.name, self._link.hidden(str(error))) from None
        return pieces

    def _finish(self, events: "_Events", reader: ChunkReader) -> None:
        try:
            reader.finish()
        except InputError as error:
            raise broken(self.name, str(error)) from None

    def _said(self, error: SaidError) -> OnhandError:
        if error.status:
            return of_status(self.name, error.status, env=self.settings.env)
        return told_failure(self.name, self._link.hidden(error.message))

    def _ending(self, ask: Ask, reader: ChunkReader, *, sent: int, received: int) -> Ending:
        return Ending(
            reason=reader.reason or "stop",
            prompt_tokens=reader.counts.prompt,
            cached_tokens=reader.counts.cached,
            generated_tokens=reader.counts.generated,
            source=self.name,
            route=self.kind,
            is_repeatable=self.settings.keeps and _is_deterministic(wire_of(ask)),
            sent_bytes=sent,
            received_bytes=received,
        )


class _Unpacked(Exception):
    """The server did not take the compressed request; it is asked again without."""


@dataclass(slots=True)
class _Events:
    """The events of an answer; of one that is no stream, the whole at its end."""

    is_stream: bool
    is_done: bool = False
    _reader: EventReader | None = None
    _whole: bytearray | None = None

    def push(self, part: bytes) -> list[bytes]:
        """Return the data of the events that are whole now; no bytes for the end."""
        if self.is_stream:
            if self._reader is None:
                self._reader = EventReader(most_bytes=_MOST_EVENT_BYTES)
            return self._reader.push(part) if part else self._reader.finish()
        if self._whole is None:
            self._whole = bytearray()
        self._whole += part
        return [] if part else [bytes(self._whole)]


def hops_of(given: str | None) -> int:
    """Return how many servers of ours handed a request on.

    Args:
        given: the header `HOPS`; None where there is none.
    """
    if given is None:
        return 0
    return int(given) if given.isdecimal() and len(given) < 4 else 1


def _is_deterministic(wire: Wire) -> bool:
    # By what was asked: the server's own usual way is not known here.
    return wire.fields.get("temperature") == 0 or wire.fields.get("seed") is not None


async def _drain(reply: Reply) -> None:
    """Read the end of an answer that was read to its end, so that its connection can be kept."""
    with suppress(TimeoutError, LostError):
        # More than the end is not worth waiting for.
        await reply.part(asyncio.get_running_loop().time() + _DRAIN_S)
