"""The connections to one other server: what goes out, under which key, and how many bytes."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from onhand.core.errors import InputError
from onhand.device.serving.api.bodies import as_json
from onhand.device.serving.asks import Wire
from onhand.device.serving.backends.connections import (
    ConnectError,
    Connections,
    LateConnectError,
    LostError,
    Reply,
)
from onhand.device.serving.backends.failures import late, unreachable
from onhand.device.serving.backends.settings import BackendSettings, Secret

__all__ = ["Link", "Packed", "Traffic"]

_KEEP_S: Final = 4.0  # below the 5 s after which uvicorn closes a connection that is idle
_LEAST_PACKED: Final = 1024  # bytes: below, gzip saves less than a packet
_MOST_PACKED_HERE: Final = 128 * 1024  # bytes: above, packing would hold the event loop up
_PROBE_S: Final = 5.0


@dataclass(slots=True)
class Traffic:
    """Bytes over the network, bodies and headers, without those of TLS.

    Attributes:
        sent: to the server.
        received: from it.
        unpacked: what `sent` would have been without compression.
    """

    sent: int = 0
    received: int = 0
    unpacked: int = 0


@dataclass(frozen=True, slots=True)
class Packed:
    """A request as it goes out."""

    content: bytes
    headers: Mapping[str, str]
    n_plain: int


class Link:
    """Sends requests to one server. Of one event loop; connects when it is first used.

    Attributes:
        traffic: of all requests so far.
    """

    def __init__(self, settings: BackendSettings, *, key: Secret | None) -> None:
        """Read the certificates that it trusts; nothing is sent.

        Args:
            settings: where it is.
            key: None for none.

        Raises:
            InputError: if `ca` cannot be read, or holds no certificate.
        """
        self._settings = settings
        self._key = key
        self._connections = Connections(
            settings.url,
            trusted=_trusted(settings),
            connect_s=settings.connect_s,
            keep_s=_KEEP_S,
            most_idle=settings.max_active,
        )
        self._path = urlsplit(settings.url).path.rstrip("/")
        # Compressed answers hold pieces back, and expand to any size.
        self._headers = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "onhand"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key.text}"
        self._packs = settings.compression == "gzip"
        self.traffic = Traffic()

    def hidden(self, text: str) -> str:
        """Return a text without the key, should it hold it."""
        return text if self._key is None else text.replace(self._key.text, "(key)")

    async def packed(self, wire: Wire, *, model: str) -> Packed:
        """Return a request as it goes out.

        Args:
            wire: what is asked.
            model: as the server calls it.

        Returns:
            Its body and headers.
        """
        asked = {"model": model, **wire.fields, "stream": True}
        content = as_json(asked | {"stream_options": {"include_usage": True}})
        headers = {"content-type": "application/json", **wire.headers}
        n_plain = len(content)
        if self._packs and n_plain >= _LEAST_PACKED:
            if n_plain > _MOST_PACKED_HERE:
                content = await asyncio.to_thread(gzip.compress, content, 6, mtime=0)
            else:
                content = gzip.compress(content, 6, mtime=0)
            headers["content-encoding"] = "gzip"
        return Packed(content, headers, n_plain)

    @asynccontextmanager
    async def opened(
        self,
        path: str,
        packed: Packed,
        *,
        until_s: float,
        unsent: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[Reply]:
        """Send a request, and hand out the answer with its body unread.

        The connection is closed with the block unless the answer came to its end.

        Args:
            path: below the server's URL.
            packed: what to send.
            until_s: when the headers must have come, on the clock of the event loop.
            unsent: called where there was no connection, so that nothing of it left.

        Yields:
            The answer, whatever its status.

        Raises:
            BackendFailed: if there is none.
        """
        reply = await self._sent(path, packed, until_s, unsent)
        try:
            self.traffic.received += reply.head.n_bytes
            self._learn(reply)
            yield reply
        finally:
            reply.close()

    async def probe(self) -> bool:
        """Say whether the server lives: it answers, and does not say that it is unwell."""
        path = self._settings.probe_path
        target = path if path.startswith("/") else f"{self._path}/{path}"
        until_s = asyncio.get_running_loop().time() + max(_PROBE_S, self._settings.connect_s)
        try:
            reply, n_sent = await self._connections.ask(
                "GET", target, self._headers, b"", until_s=until_s
            )
        except (ConnectError, LostError, TimeoutError):
            return False
        self.traffic.sent += n_sent
        self.traffic.received += reply.head.n_bytes
        reply.close()
        return reply.head.status < 500

    async def close(self) -> None:
        """Close all connections; safe to call twice, and to use afterwards."""
        self._connections.close()

    def stop_packing(self) -> bool:
        """Send requests as they are from now on; say whether they were compressed before."""
        packed, self._packs = self._packs, False
        return packed

    async def _sent(
        self, path: str, packed: Packed, until_s: float, unsent: Callable[[], None]
    ) -> Reply:
        name = self._settings.name
        headers = {**self._headers, **packed.headers}
        try:
            reply, n_headers = await self._connections.ask(
                "POST", f"{self._path}/{path}", headers, packed.content, until_s=until_s
            )
        except LateConnectError:
            unsent()
            raise late(name, "connection", self._settings.connect_s) from None
        except (ConnectError, LostError, InputError) as error:
            if isinstance(error, ConnectError):
                unsent()
            # Without its cause: a traceback of it would show the request's headers.
            raise unreachable(name, self.hidden(str(error))) from None
        except TimeoutError:
            raise late(name, "text", self._settings.first_s) from None
        self.traffic.sent += n_headers + len(packed.content)
        self.traffic.unpacked += n_headers + packed.n_plain
        return reply

    def _learn(self, reply: Reply) -> None:
        # RFC 7694: a server that takes compressed requests says so.
        if self._settings.compression == "auto" and reply.head.status == 200:
            codings = reply.head.headers.get("accept-encoding", "")
            self._packs = "gzip" in {one.split(";")[0].strip() for one in codings.split(",")}


def _trusted(settings: BackendSettings) -> ssl.SSLContext | None:
    if settings.url.startswith("http:"):
        return None
    try:
        context = ssl.create_default_context(cafile=Path(settings.ca) if settings.ca else None)
        if settings.certificate:
            context.load_cert_chain(settings.certificate, settings.certificate_key)
        return context
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"backend {settings.name!r}: ca {settings.ca!r} or certificate "
            f"{settings.certificate!r}: holds no certificate that can be read: "
            f"{error.strerror or error}"
        ) from error
