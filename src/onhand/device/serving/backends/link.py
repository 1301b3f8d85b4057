"""The connections to one other server: what goes out, under which key, and how many bytes."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from onhand.core.errors import InputError
from onhand.device.serving.api.bodies import as_json
from onhand.device.serving.asks import Wire
from onhand.device.serving.backends.failures import late, unreachable
from onhand.device.serving.backends.settings import BackendSettings, Secret

if TYPE_CHECKING:
    import httpx2

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
        self._trusted = _trusted(settings)
        self._client: httpx2.AsyncClient | None = None
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
        self, path: str, packed: Packed, *, until_s: float
    ) -> "AsyncIterator[httpx2.Response]":
        """Send a request, and hand out the answer with its body unread.

        The connection is closed with the block unless the body was read to its end.

        Args:
            path: below the server's URL.
            packed: what to send.
            until_s: when the headers must have come, on the clock of the event loop.

        Yields:
            The answer, whatever its status.

        Raises:
            BackendFailed: if there is none.
        """
        client = self._open_client()
        url = f"{self._settings.url.rstrip('/')}/{path}"
        request = client.build_request("POST", url, content=packed.content, headers=packed.headers)
        self._count_sent(request, packed)
        response = await self._sent(client, request, until_s)
        try:
            self.traffic.received += _size(response.headers.raw)
            self._learn(response)
            yield response
        finally:
            await response.aclose()

    async def probe(self) -> bool:
        """Say whether the server lives: it answers, and does not say that it is unwell."""
        import httpx2

        path = self._settings.probe_path
        parts = urlsplit(self._settings.url)
        base = f"{parts.scheme}://{parts.netloc}" if path.startswith("/") else self._settings.url
        url = f"{base.rstrip('/')}/{path.lstrip('/')}"
        client = self._open_client()
        try:
            async with asyncio.timeout(max(_PROBE_S, self._settings.connect_s)):
                async with client.stream("GET", url) as response:
                    self.traffic.sent += _size(response.request.headers.raw)
                    self.traffic.received += _size(response.headers.raw)
                    return response.status_code < 500
        except (httpx2.TransportError, TimeoutError):
            return False

    async def close(self) -> None:
        """Close all connections; safe to call twice, and to use afterwards."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def stop_packing(self) -> bool:
        """Send requests as they are from now on; say whether they were compressed before."""
        packed, self._packs = self._packs, False
        return packed

    async def _sent(
        self, client: "httpx2.AsyncClient", request: "httpx2.Request", until_s: float
    ) -> "httpx2.Response":
        import httpx2

        name = self._settings.name
        timeout = asyncio.timeout_at(until_s)
        try:
            async with timeout:
                return await client.send(request, stream=True)
        except httpx2.ConnectTimeout:
            raise late(name, "connection", self._settings.connect_s) from None
        except httpx2.TransportError as error:
            # Without its cause: a traceback of it would show the request's headers.
            raise unreachable(name, self.hidden(str(error) or type(error).__name__)) from None
        except TimeoutError:
            if not timeout.expired():
                raise
            raise late(name, "text", self._settings.first_s) from None

    def _open_client(self) -> "httpx2.AsyncClient":
        import httpx2

        if self._client is None:
            # Compressed answers hold pieces back, and expand to any size.
            headers = {"accept-encoding": "identity", "user-agent": "onhand"}
            if self._key is not None:
                headers["authorization"] = f"Bearer {self._key.text}"
            self._client = httpx2.AsyncClient(
                headers=headers,
                verify=self._trusted,
                trust_env=False,
                timeout=httpx2.Timeout(None, connect=self._settings.connect_s),
                limits=httpx2.Limits(
                    max_connections=None,
                    max_keepalive_connections=self._settings.max_active,
                    keepalive_expiry=_KEEP_S,
                ),
            )
        return self._client

    def _count_sent(self, request: "httpx2.Request", packed: Packed) -> None:
        n_headers = _size(request.headers.raw)
        self.traffic.sent += n_headers + len(packed.content)
        self.traffic.unpacked += n_headers + packed.n_plain

    def _learn(self, response: "httpx2.Response") -> None:
        # RFC 7694: a server that takes compressed requests says so.
        if self._settings.compression == "auto" and response.status_code == 200:
            codings = response.headers.get("accept-encoding", "")
            self._packs = "gzip" in {one.split(";")[0].strip() for one in codings.split(",")}


def _trusted(settings: BackendSettings) -> ssl.SSLContext:
    if settings.url.startswith("http:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and is never used
    if not settings.ca:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=Path(settings.ca))
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"backend {settings.name!r}: ca {settings.ca}: holds no certificate that can be read: "
            f"{error.strerror or error}"
        ) from error


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)
