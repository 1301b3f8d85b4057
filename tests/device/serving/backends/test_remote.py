"""Another server asked over real connections: what goes out, what comes back, what goes wrong."""

import asyncio
import json
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import pytest
from tests.device.serving.backends.asking import (
    ASK,
    CHAT,
    KEY,
    asked,
    backend,
    collect,
    text_of,
)
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

from onhand.core.errors import OnhandError
from onhand.device.serving.asks import Ask, Ending, Piece, Wire
from onhand.device.serving.backends.remote import RemoteBackend
from onhand.device.serving.backends.settings import Secret
from onhand.device.serving.refusals import BackendFailed, RefusedRequest, refusal_of
from onhand.device.tools.kinds import CallPart


def test_a_stream_becomes_pieces_and_an_ending() -> None:
    """With the server's counts, and what went over the network."""
    *pieces, ending = asked(says(*events("it ", "is ", "on")))

    assert [piece.text for piece in pieces if isinstance(piece, Piece)] == ["it ", "is ", "on"]
    assert isinstance(ending, Ending)
    assert (ending.reason, ending.source, ending.route) == ("stop", "far", "cloud")
    assert (ending.prompt_tokens, ending.cached_tokens, ending.generated_tokens) == (7, 3, 3)
    assert ending.sent_bytes > 50
    assert ending.received_bytes == sum(len(part) for part in events("it ", "is ", "on"))


def test_what_was_asked_is_sent_and_no_more() -> None:
    """The client's fields, the model's name there, the key, and how the answer is to come."""
    with upstream(says(*events("x"))) as server:
        asyncio.run(collect(backend(server, model="gpt-9")))
        (request,) = server.requests

    assert request.path == "/v1/chat/completions"
    assert request.fields == {
        "model": "gpt-9",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-request-id"] == "abc"
    assert request.headers["accept-encoding"] == "identity"


def test_a_deadline_and_the_way_are_passed_on() -> None:
    """In milliseconds that are left; only a peer is told how many servers handed it on."""

    async def ask_in_time(found: RemoteBackend) -> None:
        until_s = asyncio.get_running_loop().time() + 60
        await collect(found, Ask(tenant="t", prompt="x", wire=CHAT, deadline_s=until_s))

    with upstream(says(*events("x"))) as server:
        asyncio.run(ask_in_time(backend(server, kind="peer")))
        asyncio.run(ask_in_time(backend(server)))
        peer, cloud = server.requests

    assert 50_000 < int(peer.headers["x-deadline-ms"]) <= 60_000
    assert peer.headers["x-onhand-hops"] == "1"
    assert "x-onhand-hops" not in cloud.headers


def test_an_ask_without_a_wire_is_put_into_words() -> None:
    """A text goes to the route for texts."""
    with upstream(says(*events("x"))) as server:
        ask = Ask(tenant="t", prompt="once", max_tokens=5, stop=("end",))
        asyncio.run(collect(backend(server), ask))
        (request,) = server.requests

    assert request.path == "/v1/completions"
    assert (request.fields["prompt"], request.fields["max_tokens"]) == ("once", 5)
    assert (request.fields["stop"], request.fields["temperature"]) == (["end"], 0)


def chunk(**choice: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("parts", "text", "reason"),
    [
        (events("a", "b", usage=False), "ab", "stop"),
        (events("a", "b", end=False), "ab", "stop"),
        ([b"".join(events("a", "b")).replace(b"\n", b"\r\n")], "ab", "stop"),
        ([b": ping\n\n", *events("a")], "a", "stop"),
        ([bytes([byte]) for byte in b"".join(events("灯"))], "灯", "stop"),
        ([chunk(text="a"), chunk(text="b", finish_reason="length")], "ab", "length"),
        ([chunk(delta={"content": "a"}), b"data: [DONE]\n\n"], "a", "stop"),
        ([chunk(delta={"refusal": "no"}, finish_reason="stop")], "no", "stop"),
    ],
)
def test_what_servers_differ_in(parts: list[bytes], text: str, reason: str) -> None:
    """Counts, ends, line ends, comments, letters in parts, texts and deltas."""
    found = asked(says(*parts))

    assert text_of(found) == text
    assert isinstance(found[-1], Ending)
    assert found[-1].reason == reason


def test_an_answer_that_is_no_stream() -> None:
    """Some servers cannot stream; the whole is one piece."""
    message = {"role": "assistant", "content": "all at once"}
    whole = {
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3},
    }
    piece, ending = asked(gives(200, json.dumps(whole).encode()))

    assert piece == Piece("all at once")
    assert isinstance(ending, Ending)
    assert (ending.reason, ending.prompt_tokens) == ("length", 5)


def test_scores_where_they_are_wanted() -> None:
    """Bytes of tokens, and the likeliest others."""
    others = [{"token": "b", "logprob": -2.0, "bytes": [98]}]
    score = {"token": "?", "logprob": -0.5, "bytes": [231, 129, 175], "top_logprobs": others}
    parts = [chunk(delta={"content": "灯"}, logprobs={"content": [score]}, finish_reason="stop")]

    piece, _ = asked(says(*parts), Ask(tenant="t", prompt=ASK.prompt, wire=CHAT, n_scores=1))
    bare, _ = asked(says(*parts))

    assert isinstance(piece, Piece)
    assert [(one.token, one.logprob) for one in piece.scores] == [("灯".encode(), -0.5)]
    assert [one.token for one in piece.scores[0].others] == [b"b"]
    assert bare == Piece("灯")


def test_calls_of_tools() -> None:
    """Names, ids and arguments as they were streamed; each call has an end but one cut off."""

    def call(index: int, arguments: str, **first: object) -> bytes:
        function = {"arguments": arguments} | ({"name": first.pop("name")} if first else {})
        told = {"index": index, "function": function, **first}
        return chunk(delta={"tool_calls": [told]})

    parts = [
        chunk(delta={"content": "wait"}),
        call(0, "", id="call_a", name="light"),
        call(0, '{"on"'),
        call(0, ": true}"),
        call(1, "{}", id="call_b", name="door"),
    ]
    *pieces, ending = asked(says(*parts, chunk(delta={}, finish_reason="tool_calls")))
    *cut_off, _ = asked(says(*parts, chunk(delta={}, finish_reason="length")))

    assert [piece.call for piece in pieces if isinstance(piece, Piece)] == [
        None,
        CallPart(0, id="call_a", name="light"),
        CallPart(0, arguments='{"on"'),
        CallPart(0, arguments=": true}"),
        CallPart(0, is_end=True),
        CallPart(1, id="call_b", name="door", arguments="{}"),
        CallPart(1, is_end=True),
    ]
    assert isinstance(ending, Ending)
    assert ending.reason == "tool_calls"
    assert cut_off == pieces[:-1]


DENIED = gives(401, json.dumps({"error": {"message": f"bad key {KEY}"}}).encode())
WRONG = gives(
    400,
    json.dumps({"error": {"message": f"{KEY}: no", "param": "top_p", "code": "odd"}}).encode(),
)
GARBLED = {"content_type": "text/event-stream", "content_length": "6"}


@pytest.mark.parametrize(
    ("script", "status", "code", "is_fault"),
    [
        (gives(500), 502, "backend_failed", True),
        (gives(503), 503, "backend_busy", True),
        (gives(503, retry_after="7"), 503, "backend_busy", False),
        (gives(429, retry_after="7"), 429, "backend_busy", False),
        (DENIED, 502, "backend_denied", True),
        (gives(404), 502, "backend_denied", True),
        (gives(302, location="http://127.0.0.1:1/"), 502, "backend_denied", True),
        (resets, 502, "backend_unreachable", True),
        (freezes, 504, "backend_timeout", True),
        (says(b": ping\n\n", then=freezes), 504, "backend_timeout", True),
        (says(*events("a")[:2], then=freezes), 504, "backend_timeout", True),
        (says(*events("a")[:2], then=resets), 502, "backend_unreachable", True),
        (says(*events("a")[:2]), 502, "backend_broken", True),
        (says(), 502, "backend_broken", True),
        (says(b"data: {\n\n"), 502, "backend_broken", True),
        (says(b"data: [1]\n\n"), 502, "backend_broken", True),
        (says(b'data: {"choices": 1}\n\n'), 502, "backend_broken", True),
        (says(chunk(delta={"content": 5})), 502, "backend_broken", True),
        (says(b'data: {"error": {"message": "oh"}}\n\n'), 502, "backend_broken", True),
        (says(b'data: {"error": {"code": 429}}\n\n'), 429, "backend_busy", False),
        (says(b"data: " + b"[" * 100_000 + b"\n\n"), 502, "backend_broken", True),
        (says(*[b"x" * 2**20] * 5), 502, "backend_broken", True),
        (gives(200, b"<html>"), 502, "backend_broken", True),
        (gives(200, b"x", content_encoding="gzip"), 502, "backend_broken", True),
    ],
)
def test_failures_are_told_apart(script: Script, status: int, code: str, is_fault: bool) -> None:
    """Whose fault it is, and what a client is told; never the key."""
    with pytest.raises(BackendFailed) as failed:
        asked(script, first_s=0.3, between_s=0.3)
    refusal = refusal_of(failed.value)

    assert (refusal.status, refusal.code, failed.value.is_fault) == (status, code, is_fault)
    assert KEY not in "".join(traceback.format_exception(failed.value))


def test_a_request_that_is_wrong_is_the_callers_error() -> None:
    """In the server's words, without the key should they hold it."""
    with pytest.raises(RefusedRequest) as refused:
        asked(WRONG)
    refusal = refused.value.refusal

    assert (refusal.status, refusal.code, refusal.param) == (400, "odd", "top_p")
    assert refusal.message == "backend 'far': (key): no"


def test_a_key_that_is_refused_is_said_to_who_runs_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By the name of its variable."""
    with pytest.raises(BackendFailed, match="the key in FAR_KEY") as failed:
        asked(DENIED)

    assert "the key in FAR_KEY" in caplog.text
    assert KEY not in caplog.text
    assert "FAR_KEY" not in failed.value.refusal.message


def test_nobody_there() -> None:
    """A port that nobody listens at."""
    with upstream(freezes) as server:
        gone = backend(server)

    with pytest.raises(BackendFailed) as failed:
        asyncio.run(collect(gone))

    assert failed.value.refusal.code == "backend_unreachable"


def test_nothing_of_a_key_is_shown_by_what_holds_it() -> None:
    """Not by the settings' dump either."""
    assert KEY not in repr(Secret(KEY))
    assert KEY not in str({"key": Secret(KEY)})


def test_leaving_closes_the_connection_at_once() -> None:
    """The server stops, between two texts or before the first."""

    async def leave_after(found: RemoteBackend, n: int) -> None:
        parts: AsyncGenerator[Piece | Ending] = found.answer(ASK)
        for _ in range(n):
            await anext(parts)
        if not n:
            waiting = asyncio.ensure_future(anext(parts))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await parts.aclose()
        assert found.n_active == 0
        assert await asyncio.to_thread(server.left.wait, 10)
        await found.aclose()

    for n, script in ((1, says(*events("a", "b")[:2], then=freezes)), (0, freezes)):
        with upstream(script) as server:
            asyncio.run(leave_after(backend(server), n))


def test_a_connection_is_used_again() -> None:
    """An answer that was read to its end leaves it open."""
    ports: list[object] = []

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        ports.append(writer.get_extra_info("peername"))
        await says(*events("x"))(request, writer)

    async def twice(found: RemoteBackend) -> None:
        for _ in range(2):
            async with aclosing(found.answer(ASK)) as parts:
                assert [part async for part in parts]
        await found.aclose()

    with upstream(script) as server:
        asyncio.run(twice(backend(server)))

    assert ports[0] == ports[1]


@pytest.mark.parametrize(
    ("fields", "keeps", "is_repeatable"),
    [
        ({"temperature": 0}, True, True),
        ({"seed": 7}, True, True),
        ({"temperature": 0}, False, False),
        ({}, True, False),
        ({"temperature": 1}, True, False),
    ],
)
def test_what_may_be_kept(fields: dict[str, object], keeps: bool, is_repeatable: bool) -> None:
    """Only what was asked to be the same each time, and only where the settings allow it."""
    ask = Ask(tenant="t", prompt="x", wire=Wire(path="completions", fields=fields))
    ending = asked(says(*events("x")), ask, keeps=keeps)[-1]

    assert isinstance(ending, Ending)
    assert ending.is_repeatable is is_repeatable


def test_errors_are_the_projects_own() -> None:
    """Whatever the network does."""
    checks: list[Callable[[], object]] = [lambda: asked(resets), lambda: asked(gives(500))]
    for check in checks:
        with pytest.raises(OnhandError):
            check()
