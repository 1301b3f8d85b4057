"""The official client, unchanged: whole answers, streams, several choices, and refusals."""

import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx2
import openai
import pytest
from tests.device.serving.served import Served, client_of, fake_model, serving
from tests.device.test_generate import FakeLoaded, letters, mixing, saying

from onhand.core.arrays import FloatArray, TokenArray
from onhand.device.engines.base import Session
from onhand.device.serving.settings import NetworkSettings, ServeSettings

N_UNREAD = 20_000  # with their scores about 14 MB: more than sockets hold
ASKED = [{"role": "user", "content": "lamp"}]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A model that says one sentence."""
    with serving(fake_model(tmp_path, saying("it is on 灯!"))) as found:
        yield found


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with client_of(served) as found:
        yield found


def test_a_whole_answer(client: openai.OpenAI) -> None:
    """Text, reason, counts, and the model's name."""
    answer = client.chat.completions.create(model="toy", messages=ASKED)  # type: ignore[arg-type]

    assert answer.choices[0].message.content == "it is on 灯!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "toy"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("u:lamp;") + 1
    assert answer.usage.completion_tokens == len("it is on 灯!".encode()) + 1


def test_a_stream(client: openai.OpenAI) -> None:
    """A role first, then text as it comes, a reason, and the counts where they are wanted."""
    chunks = list(
        client.chat.completions.create(  # type: ignore[call-overload]
            model="toy",
            messages=ASKED,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(texts) == "it is on 灯!"
    assert len([text for text in texts if text]) > 5
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:-1]] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_a_text_is_continued(client: openai.OpenAI) -> None:
    """The older route: the prompt as it is, echoed where that is wanted."""
    answer = client.completions.create(model="toy", prompt="<open>", echo=True, stop=["on"])

    assert answer.choices[0].text == "<open>it is "
    assert answer.choices[0].finish_reason == "stop"


def test_several_choices_differ(tmp_path: Path) -> None:
    """Each is drawn by itself; their prompt counts once."""
    with (
        serving(fake_model(tmp_path, loaded=FakeLoaded(mixing))) as served,
        client_of(served) as client,
    ):
        answer = client.chat.completions.create(
            model="toy",
            messages=ASKED,  # type: ignore[arg-type]
            n=3,
            seed=1,
            temperature=2,
            max_tokens=12,
        )

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 36


def test_a_conversation_that_goes_on_is_not_computed_again(client: openai.OpenAI) -> None:
    """The next turn finds what the last one left, and says how much."""
    first = [{"role": "user", "content": "a question of some length"}]
    answer = client.chat.completions.create(model="toy", messages=first)  # type: ignore[arg-type]
    longer = [*first, {"role": "user", "content": "and more"}]
    again = client.chat.completions.create(model="toy", messages=longer)  # type: ignore[arg-type]

    assert answer.usage is not None
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    assert again.usage.prompt_tokens_details.cached_tokens == len("u:a question of some length;")
    assert again.choices[0].message.content == "it is on 灯!"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("temperature", "hot", 400),
        ("max_tokens", 0, 400),
        ("n", 1000, 400),
        ("tempurature", 1, 400),
        ("messages", [], 400),
        ("messages", [{"role": "nobody", "content": "x"}], 400),
        ("messages", [{"role": "user", "content": [{"type": "image_url"}]}], 400),
        ("model", "another", 404),
    ],
)
def test_what_is_wrong_is_named(
    client: openai.OpenAI, field: str, value: object, code: int
) -> None:
    """A status that clients know, and the field's name."""
    asked: dict[str, object] = {"model": "toy", "messages": ASKED, field: value}

    with pytest.raises(openai.APIStatusError) as refused:
        client.post("/chat/completions", body=asked, cast_to=object)

    assert refused.value.status_code == code
    assert field in str(refused.value)


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    """Never cut in silence."""
    with (
        serving(fake_model(tmp_path, loaded=FakeLoaded(mixing, context=20))) as served,
        client_of(served) as client,
        pytest.raises(openai.BadRequestError, match=r"100.* 20") as refused,
    ):
        client.completions.create(model="toy", prompt="x" * 100)

    assert refused.value.code == "context_length_exceeded"


class Halting(FakeLoaded):
    """A model that computes nothing while its gate is shut."""

    def __init__(self) -> None:
        super().__init__(mixing, context=10_000)
        self.gate = threading.Event()
        self.n_steps = 0

    def step(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self, batch: Sequence[tuple[Session, TokenArray]]
    ) -> FloatArray:
        """See `Loaded`."""
        self.n_steps += 1
        self.gate.wait(10)
        return super().step(batch)


def test_an_answer_ends_when_its_reader_leaves(tmp_path: Path) -> None:
    """Within a step, and its place is free again."""
    loaded = FakeLoaded(mixing, context=100_000)
    model = fake_model(tmp_path, loaded=loaded, context=100_000)
    with serving(model) as served, client_of(served) as client:
        stream = client.completions.create(model="toy", prompt="x", stream=True)
        for _ in zip(range(5), stream, strict=False):
            assert served.state.n_active <= 1
        assert served.state.n_active == 1
        stream.close()
        for _ in range(500):
            if not served.state.n_active:
                break
            threading.Event().wait(0.01)
        n_steps = len(loaded.fed)
        threading.Event().wait(0.05)

        assert served.state.n_active == 0
        assert len(loaded.fed) == n_steps


def test_one_more_than_may_wait_is_told_to_come_back(tmp_path: Path) -> None:
    """429 with Retry-After, and whoever waits is answered."""
    loaded = Halting()
    model = fake_model(tmp_path, loaded=loaded, max_active=1, max_waiting=1)
    with serving(model) as served, client_of(served) as client:
        answers: list[object] = []

        def ask() -> None:
            answers.append(client.completions.create(model="toy", prompt="x", max_tokens=2))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        while served.state.n_active < 2:
            threading.Event().wait(0.01)
        with pytest.raises(openai.RateLimitError) as refused:
            client.completions.create(model="toy", prompt="y")
        loaded.gate.set()
        for thread in threads:
            thread.join(10)

    assert refused.value.response.headers["retry-after"] == "1"
    assert len(answers) == 2


def test_a_server_that_is_told_to_stop_ends_its_answers_first(tmp_path: Path) -> None:
    """Not ready at once and no new requests, while the one that runs gets all of its text."""
    loaded = Halting()
    with serving(fake_model(tmp_path, loaded=loaded)) as served, client_of(served) as client:
        stream = client.completions.create(model="toy", prompt="x", max_tokens=9, stream=True)
        while not served.state.n_active:
            threading.Event().wait(0.01)
        served.server.handle_exit(signal.SIGTERM, None)
        with pytest.raises(openai.InternalServerError) as refused:
            client.completions.create(model="toy", prompt="y")
        ready = httpx2.get(f"{served.url}/ready")
        loaded.gate.set()
        text = "".join(chunk.choices[0].text for chunk in stream)

    assert refused.value.status_code == ready.status_code == 503
    assert len(text) == 9


def test_a_server_that_waited_long_enough_tells_its_readers(tmp_path: Path) -> None:
    """After `drain_s` a stream ends with an error that a client can see."""

    def slow(tokens: list[int]) -> int:
        time.sleep(0.002)  # so that who reads keeps up, on a busy machine as well
        return mixing(tokens)

    settings = ServeSettings(server=NetworkSettings(drain_s=0.2))
    model = fake_model(tmp_path, loaded=FakeLoaded(slow, context=10**6), context=10**6)
    with serving(model, settings=settings) as served, client_of(served) as client:
        stream = client.completions.create(model="toy", prompt="x", stream=True)
        served.server.handle_exit(signal.SIGTERM, None)
        with pytest.raises(openai.APIError, match="ask again later"):
            list(stream)


def test_a_server_that_is_told_to_stop_waits_for_slow_readers(tmp_path: Path) -> None:
    """All tokens are computed, most of them unread: the reader gets them within `drain_s`."""
    token = letters().encode_template("a")[0]
    loaded = FakeLoaded(lambda _: token, context=2 * N_UNREAD)
    asked = {"prompt": "x", "max_tokens": N_UNREAD, "logprobs": 20, "stream": True}
    with serving(fake_model(tmp_path, loaded=loaded, context=2 * N_UNREAD)) as served:
        served.server.config.timeout_graceful_shutdown = 0  # nothing more than `drain_s`
        with httpx2.stream(
            "POST", f"{served.url}/v1/completions", json={"model": "toy", **asked}, timeout=20
        ) as answer:
            while not served.state.n_active:
                threading.Event().wait(0.01)
            while served.state.n_active:
                threading.Event().wait(0.01)
            served.server.handle_exit(signal.SIGTERM, None)
            threading.Event().wait(0.1)  # ten looks of the server's
            n_events = sum(line.startswith("data: {") for line in answer.iter_lines())

    assert n_events >= N_UNREAD


def test_scores_of_tokens(client: openai.OpenAI) -> None:
    """Of each its logarithm and the likeliest of its place; as bytes, for characters are cut."""
    answer = client.chat.completions.create(
        model="toy",
        messages=ASKED,  # type: ignore[arg-type]
        logprobs=True,
        top_logprobs=2,
    )
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.content is not None
    said = b"".join(bytes(token.bytes or ()) for token in found.content)
    likely = 9 - math.log(259 * math.e + math.exp(9))  # of one token that stands out

    assert said.decode() == "it is on 灯!"
    assert all(token.logprob == pytest.approx(likely) for token in found.content)
    assert all(token.top_logprobs[0].token == token.token for token in found.content)
    assert {len(token.top_logprobs) for token in found.content} == {2}


def test_an_answer_that_must_be_json_is(tmp_path: Path) -> None:
    """A model that says letters says what the schema allows, and ends where it is complete."""
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["on", "off"]}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    with serving(fake_model(tmp_path, mixing)) as served, client_of(served) as client:
        answer = client.chat.completions.create(  # type: ignore[call-overload]
            model="toy",
            messages=ASKED,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
            temperature=1,
            seed=3,
        )
    found = json.loads(answer.choices[0].message.content or "")

    assert set(found) == {"a", "b"}
    assert found["a"] in {"on", "off"}
    assert isinstance(found["b"], bool)
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "wanted", [{"type": "xml"}, {"type": "json_schema", "json_schema": {"schema": {"type": "no"}}}]
)
def test_a_format_that_cannot_be_followed_is_refused(
    client: openai.OpenAI, wanted: dict[str, object]
) -> None:
    """With what is wrong in it."""
    with pytest.raises(openai.BadRequestError, match=r"response_format|grammar"):
        client.post(
            "/chat/completions",
            body={"messages": ASKED, "response_format": wanted},
            cast_to=object,
        )
