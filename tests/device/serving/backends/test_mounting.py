"""The whole way: the official client, our server, other servers, and back."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from tests.device.serving.api.test_vectors import words
from tests.device.serving.backends.upstream import (
    Request,
    Script,
    Upstream,
    events,
    freezes,
    gives,
    resets,
    says,
    upstream,
)
from tests.device.serving.served import Served, client_of, fake_model, serving
from tests.device.test_generate import saying

from onhand.core.errors import EngineError, InputError
from onhand.device.serving.asks import TextModel
from onhand.device.serving.backends.figures import show_backends
from onhand.device.serving.backends.mounting import PooledModel, mounted
from onhand.device.serving.backends.settings import BackendSettings, BalanceSettings, Secret
from onhand.device.serving.caches.exact import ExactCache
from onhand.device.serving.settings import ServeSettings
from onhand.device.serving.state import ServerState

KEY = "a-key-that-nobody-may-see"
ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "lamp"}]


def remote(server: Upstream, name: str = "far", **given: object) -> BackendSettings:
    return BackendSettings(name=name, url=server.url, **given)  # type: ignore[arg-type]


@contextmanager
def before(
    *backends: BackendSettings,
    local: Sequence[TextModel] = (),
    balance: BalanceSettings | None = None,
    exact: ExactCache | None = None,
) -> Iterator[Served]:
    """A server of ours before others."""
    settings = ServeSettings(
        backends=backends,
        balance=balance or BalanceSettings(),
        secrets={one.name: Secret(KEY) for one in backends},
    )
    models, remotes = mounted(local, settings)
    state = ServerState(models, exact=exact, beside=[remotes])
    show_backends(state.metrics, remotes, models)
    with serving(state=state, settings=settings) as served:
        yield served


def chat(client: openai.OpenAI, **given: object) -> ChatCompletion:
    asked = {"model": "far", "messages": ASKED} | given
    return client.post("/chat/completions", body=asked, cast_to=ChatCompletion)


def test_a_name_that_only_another_server_has() -> None:
    """It is listed, and answers whole or streamed; who did is said in headers and at the end."""
    with (
        upstream(says(*events("it ", "is on"))) as server,
        before(remote(server, model="gpt-9")) as served,
        client_of(served) as client,
    ):
        raw = client.chat.completions.with_raw_response.create(model="far", messages=ASKED)
        whole = raw.parse()
        stream = client.chat.completions.create(model="far", messages=ASKED, stream=True)
        chunks = list(stream)
        listed = [model.id for model in client.models.list()]

    assert listed == ["far"]
    assert whole.choices[0].message.content == "it is on"
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == 7
    assert raw.headers["x-route"] == stream.response.headers["x-route"] == "cloud"
    assert raw.headers["x-backend"] == stream.response.headers["x-backend"] == "far"
    left = [{"backend": "far", "form": "as-is"}]
    said = {"route": "cloud", "backend": "far", "left_device": left}
    assert (whole.choices[0].model_extra or {})["onhand"] == said
    assert (chunks[-1].choices[0].model_extra or {})["onhand"] == said
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "it is on"
    sent = [request.fields for request in server.requests]
    assert [fields["model"] for fields in sent] == ["gpt-9", "gpt-9"]
    assert "temperature" not in sent[0]
    assert server.requests[0].headers["x-request-id"] == raw.headers["x-request-id"]


def test_the_other_two_routes() -> None:
    """A text goes on as a text, a response as a chat."""
    chunk = {"choices": [{"index": 0, "text": "more", "finish_reason": "length"}]}
    text = says(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    async def either(request: Request, writer: asyncio.StreamWriter) -> None:
        is_text = request.path == "/v1/completions"
        await (text if is_text else says(*events("fine")))(request, writer)

    with upstream(either) as server, before(remote(server)) as served, client_of(served) as client:
        continued = client.completions.create(model="far", prompt="once ", echo=True, max_tokens=1)
        answered = client.responses.create(
            model="far", input="hello", instructions="be brief", max_output_tokens=9
        )

    assert continued.choices[0].text == "once more"
    assert continued.choices[0].finish_reason == "length"
    assert answered.output_text == "fine"
    assert "echo" not in server.requests[0].fields
    assert server.requests[1].fields["max_completion_tokens"] == 9
    assert server.requests[1].fields["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
    ]


def test_the_device_answers_until_it_cannot(tmp_path: Path) -> None:
    """A name that both have: first here, elsewhere when here is closed."""
    here = saying("from here")
    broken: list[bool] = []

    def breaking(tokens: list[int]) -> int:
        if broken:
            raise EngineError("out of order")
        return here(tokens)

    with (
        upstream(says(*events("from afar"))) as server,
        before(remote(server, serves=("toy",)), local=[fake_model(tmp_path, breaking)]) as served,
        client_of(served) as client,
    ):
        first = client.chat.completions.with_raw_response.create(model="toy", messages=ASKED)
        broken.append(True)
        second = client.chat.completions.with_raw_response.create(model="toy", messages=ASKED)

    assert first.parse().choices[0].message.content == "from here"
    assert first.headers["x-route"] == "local"
    assert second.parse().choices[0].message.content == "from afar"
    assert second.headers["x-route"] == "cloud"


def test_a_failure_is_not_seen_before_the_first_text() -> None:
    """Another server answers the same request, whole or streamed."""
    with (
        upstream(gives(500)) as bad,
        upstream(resets) as worse,
        upstream(says(*events("fine"))) as good,
        before(
            *(
                remote(one, name, serves=("m",))
                for name, one in zip("abc", (bad, worse, good), strict=True)
            ),
            balance=BalanceSettings(retry_reserve=100, eject_s=60),
        ) as served,
        client_of(served) as client,
    ):
        for i in range(8):
            asked = [{"role": "user", "content": f"question {i}"}]
            assert chat(client, model="m", messages=asked).choices[0].message.content == "fine"
        figures = httpx2.get(f"{served.url}/metrics").text

    assert 'onhand_backend_requests_total{backend="c"} 8.0' in figures
    assert 'onhand_backend_up{backend="c"} 1.0' in figures
    assert 'onhand_backend_sent_bytes_total{backend="c"}' in figures
    assert len(bad.requests) + len(worse.requests) <= 6


def test_a_stream_that_breaks_ends_with_an_error() -> None:
    """What was said is not said again, by nobody."""
    with (
        upstream(says(*events("it ", "is ")[:3], then=resets)) as bad,
        upstream(says(*events("another answer"))) as good,
        before(remote(bad, kind="peer"), remote(good, "cloud", serves=("far",))) as served,
        client_of(served) as client,
    ):
        heard: list[str] = []
        stream = client.chat.completions.create(model="far", messages=ASKED, stream=True)
        with pytest.raises(openai.APIError, match="cannot be reached"):
            heard.extend(chunk.choices[0].delta.content or "" for chunk in stream)

    assert "".join(heard) == "it is "
    assert not good.requests


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_reader_who_leaves_ends_the_answer_everywhere(is_stream: bool) -> None:
    """The other server sees its connection close, streamed or not."""
    with (
        upstream(says(*events("a", "b")[:2], then=freezes)) as server,
        before(remote(server)) as served,
    ):
        body = {"model": "far", "messages": ASKED, "stream": is_stream}
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(f"{served.url}/v1/chat/completions", json=body, timeout=0.5)
        assert server.left.wait(10)
        model = served.state.models["far"]
        while model.n_active:
            threading.Event().wait(0.01)


def test_two_peers_that_name_each_other_do_not_ask_for_ever(tmp_path: Path) -> None:
    """What a peer handed on is answered here or not at all."""
    with serving(fake_model(tmp_path, saying("from the peer"))) as peer:
        there = BackendSettings(name="peer", url=f"{peer.url}/v1", kind="peer", serves=("toy",))
        with before(there) as served, client_of(served) as client:
            answer = chat(client, model="toy")
            body = {"model": "toy", "messages": ASKED}
            handed_on = httpx2.post(
                f"{served.url}/v1/chat/completions", json=body, headers={"x-onhand-hops": "1"}
            )

    assert answer.choices[0].message.content == "from the peer"
    said = (answer.choices[0].model_extra or {})["onhand"]
    assert (said["route"], said["backend"]) == ("peer", "peer")
    assert handed_on.status_code == 503


def test_what_was_kept_is_not_sent_again() -> None:
    """And counted, where the settings and the request allow that it is kept."""
    with (
        upstream(says(*events("the same"))) as server,
        before(remote(server, keeps=True), exact=ExactCache(None, most_bytes=10**6)) as served,
        client_of(served) as client,
    ):
        for given in ({"temperature": 0}, {"temperature": 0}, {}, {}):
            assert chat(client, **given).choices[0].message.content == "the same"
        figures = httpx2.get(f"{served.url}/metrics").text
        n_asked = len(server.requests)

    assert n_asked == 3
    saved = [line for line in figures.splitlines() if line.startswith("onhand_network_saved")]
    assert float(saved[0].split()[-1]) > 300


DENIED = gives(401, json.dumps({"error": {"message": KEY}}).encode())


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (gives(400, b'{"error": {"message": "too odd"}}'), openai.BadRequestError),
        (gives(429, retry_after="9"), openai.RateLimitError),
        (DENIED, openai.InternalServerError),
    ],
)
def test_errors_reach_the_client_in_its_own_terms(
    script: Script, kind: type[openai.APIStatusError], caplog: pytest.LogCaptureFixture
) -> None:
    """Without the key, in replies and in logs."""
    with (
        upstream(script) as server,
        before(remote(server)) as served,
        client_of(served) as client,
        pytest.raises(kind) as failed,
    ):
        chat(client)

    assert KEY not in str(failed.value)
    assert KEY not in caplog.text
    if kind is openai.RateLimitError:
        assert failed.value.response.headers["retry-after"] == "9"


@pytest.mark.parametrize("is_stream", [True, False])
def test_tools_are_called_by_other_servers_too(is_stream: bool) -> None:
    """Names, ids and arguments as they were sent; tools as they were asked."""
    first = {"index": 0, "id": "call_1", "function": {"name": "light", "arguments": '{"on"'}}
    second = {"index": 0, "function": {"arguments": ": true}"}}
    chunks: list[dict[str, object]] = [
        {"index": 0, "delta": {"tool_calls": [first]}},
        {"index": 0, "delta": {"tool_calls": [second]}},
        {"index": 0, "delta": {}, "finish_reason": "tool_calls"},
    ]
    parts = [b"data: " + json.dumps({"choices": [one]}).encode() + b"\n\n" for one in chunks]
    tool = {"type": "function", "function": {"name": "light", "parameters": {"type": "object"}}}
    with (
        upstream(says(*parts)) as server,
        before(remote(server)) as served,
        client_of(served) as client,
    ):
        if is_stream:
            asked = {"model": "far", "messages": ASKED, "tools": [tool]}
            with client.chat.completions.stream(**asked) as stream:  # type: ignore[arg-type]
                choice = stream.get_final_completion().choices[0]
        else:
            choice = chat(client, tools=[tool]).choices[0]  # type: ignore[assignment]
        (request,) = server.requests

    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.id, call.function.name) == ("call_1", "light")
    assert json.loads(call.function.arguments) == {"on": True}
    assert request.fields["tools"] == [tool]


def test_answers_elsewhere_end_with_the_server() -> None:
    """When its time to drain is over they are broken off, and said to be."""
    with upstream(says(*events("a")[:2], then=freezes)) as server:
        with before(remote(server)) as served, client_of(served) as client:
            stream = client.chat.completions.create(model="far", messages=ASKED, stream=True)
            texts = iter(stream)
            next(texts)
            served.state.break_off()
            with pytest.raises(openai.APIError, match="not there any more"):
                list(texts)
        assert server.left.wait(10)


def test_a_network_and_a_backend_of_one_name_are_refused(tmp_path: Path) -> None:
    """There is no way to tell which is meant."""
    far = BackendSettings(name="far", url="http://localhost/v1", serves=("words", "more"))

    with (
        closing(words(tmp_path)) as network,
        pytest.raises(InputError, match=f"'far' serves {network.name!r}"),
    ):
        mounted([network], ServeSettings(backends=(replace(far, serves=(network.name,)),)))


def test_a_name_may_have_its_own_limits(tmp_path: Path) -> None:
    """Names of this device first, then those of others; the largest context is shown."""
    near = fake_model(tmp_path, saying("x"), name="near", context=32)
    far = BackendSettings(name="far", url="http://localhost/v1", serves=("near", "c"), context=99)
    models, _ = mounted([near], ServeSettings(backends=(far,)))
    near.close()

    assert [model.name for model in models] == ["near", "c"]
    assert all(isinstance(model, PooledModel) and model.context == 99 for model in models)
    assert len({model.fingerprint for model in models if isinstance(model, PooledModel)}) == 2
