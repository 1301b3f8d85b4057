"""What goes over the connections to another server: compressed, counted, probed."""

import asyncio
import gzip
import json
from contextlib import aclosing

import pytest
from tests.device.serving.backends.asking import backend, collect, text_of
from tests.device.serving.backends.upstream import (
    Request,
    Script,
    events,
    freezes,
    gives,
    resets,
    says,
    upstream,
)

from onhand.device.serving.asks import Ask, Wire
from onhand.device.serving.backends.remote import RemoteBackend

LONG = Ask(
    tenant="t",
    prompt="x",
    wire=Wire(path="completions", fields={"prompt": "much the same again. " * 500}),
)


@pytest.mark.parametrize(
    ("compression", "shown", "packed"),
    [
        ("none", "gzip", [False, False]),
        ("gzip", "", [True, True]),
        ("auto", "", [False, False]),
        ("auto", "br, gzip;q=0.5", [False, True]),
    ],
)
def test_requests_are_compressed_where_that_is_known_to_work(
    compression: str, shown: str, packed: list[bool]
) -> None:
    """By the settings, or because the server has said so."""

    async def twice(found: RemoteBackend) -> None:
        for _ in range(2):
            async with aclosing(found.answer(LONG)) as parts:
                assert [part async for part in parts]
        traffic = found.traffic
        assert (traffic.sent < traffic.unpacked / 1.5) == any(packed)
        await found.aclose()

    with upstream(says(*events("x"), accept_encoding=shown)) as server:
        asyncio.run(twice(backend(server, compression=compression)))
        packed_here = [one.headers.get("content-encoding") == "gzip" for one in server.requests]
        bodies = [
            gzip.decompress(request.body) if is_packed else request.body
            for request, is_packed in zip(server.requests, packed, strict=True)
        ]

    assert packed_here == packed
    assert [json.loads(body)["prompt"] for body in bodies] == [
        LONG.wire and LONG.wire.fields["prompt"]
    ] * 2


def test_a_server_that_refuses_compression_is_asked_without() -> None:
    """Once; after that it is known."""

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        is_packed = "content-encoding" in request.headers
        await (gives(415) if is_packed else says(*events("x")))(request, writer)

    with upstream(script) as server:
        found = asyncio.run(collect(backend(server, compression="gzip"), LONG))
        assert [("content-encoding" in one.headers) for one in server.requests] == [True, False]

    assert text_of(found) == "x"


@pytest.mark.parametrize(
    ("probe", "is_well"),
    [(gives(200), True), (gives(401), True), (gives(503), False), (resets, False)],
)
@pytest.mark.parametrize(("kind", "path"), [("peer", "/ready"), ("cloud", "/v1/models")])
def test_probes(probe: Script, is_well: bool, kind: str, path: str) -> None:
    """Whoever answers at all is alive, unless it says that it is not."""

    async def probed(found: RemoteBackend) -> bool:
        try:
            return await found.probe()
        finally:
            await found.aclose()

    with upstream(freezes) as server:
        server.probe = probe
        assert asyncio.run(probed(backend(server, kind=kind))) is is_well
        assert [one.path for one in server.probes] == [path]
