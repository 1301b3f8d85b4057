"""One other server, asked as a test says."""

import asyncio
from contextlib import aclosing

from tests.device.serving.backends.upstream import Script, Upstream, upstream

from onhand.device.serving.asks import Ask, Ending, Piece, Wire
from onhand.device.serving.backends.remote import RemoteBackend
from onhand.device.serving.backends.settings import BackendSettings, Secret
from onhand.device.template import Message

__all__ = ["ASK", "CHAT", "KEY", "asked", "backend", "collect", "text_of"]

KEY = "a-key-that-nobody-may-see"
CHAT = Wire(
    path="chat/completions",
    fields={"messages": [{"role": "user", "content": "hello"}], "temperature": 0},
    headers={"x-request-id": "abc"},
)
ASK = Ask(tenant="local", prompt=(Message("user", "hello"),), wire=CHAT)


def backend(server: Upstream, **given: object) -> RemoteBackend:
    settings = BackendSettings(name="far", url=server.url, env="FAR_KEY", **given)  # type: ignore[arg-type]
    return RemoteBackend(settings, key=Secret(KEY))


async def collect(found: RemoteBackend, ask: Ask = ASK) -> list[Piece | Ending]:
    try:
        async with aclosing(found.answer(ask)) as parts:
            return [part async for part in parts]
    finally:
        await found.aclose()


def asked(script: Script, ask: Ask = ASK, **given: object) -> list[Piece | Ending]:
    """What a server that does this gives."""
    with upstream(script) as server:
        return asyncio.run(collect(backend(server, **given), ask))


def text_of(parts: list[Piece | Ending]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Piece))
