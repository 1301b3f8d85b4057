"""The API within a program: the same answers, refusals and cancelling, and the official client."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from tests.device.serving.served import fake_model
from tests.device.test_generate import FakeLoaded, mixing, saying
from tests.device.test_opening import make_bundle

import onhand
from onhand.core.errors import EngineError, InputError, OnhandError
from onhand.device.serving.inprocess import Service
from onhand.device.serving.models.local import LocalModel
from onhand.device.serving.refusals import RefusedRequest
from onhand.device.serving.settings import ServeSettings
from onhand.device.serving.state import ServerState

CHAT = "/v1/chat/completions"
ASKED = {"messages": [{"role": "user", "content": "lamp"}]}


@contextmanager
def state_of(model: LocalModel) -> Iterator[ServerState]:
    """A state that is closed with the block."""
    state = ServerState([model])
    try:
        yield state
    finally:
        state.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A model that says one sentence."""
    opened = state_of(fake_model(tmp_path, saying("it is on 灯!")))
    with Service(opened, ServeSettings()) as found:
        yield found


def test_a_whole_answer_and_a_stream_say_the_same(service: Service) -> None:
    """As over HTTP."""
    whole = service.post(CHAT, ASKED)
    parts = list(service.stream(CHAT, ASKED))

    assert whole["choices"][0]["message"]["content"] == "it is on 灯!"
    texts = [part["choices"][0]["delta"].get("content") or "" for part in parts]
    assert "".join(texts) == "it is on 灯!"
    assert service.get("/v1/models")["data"][0]["id"] == "toy"


def test_the_official_client_asks_without_a_socket(service: Service) -> None:
    """Unchanged, whole and streaming."""
    client = openai.OpenAI(base_url="http://onhand/v1", api_key="none", http_client=service.http)
    whole = client.chat.completions.create(model="toy", messages=ASKED["messages"])  # type: ignore[arg-type]
    stream = client.completions.create(model="toy", prompt="<open>", stream=True)

    assert whole.choices[0].message.content == "it is on 灯!"
    assert "".join(chunk.choices[0].text for chunk in stream)


def test_what_is_wrong_is_raised(service: Service) -> None:
    """With the sentence, the status and the field that a client over HTTP gets."""
    with pytest.raises(RefusedRequest, match="tempo") as refused:
        service.post(CHAT, {**ASKED, "tempo": 1})
    with pytest.raises(RefusedRequest, match="no model 'moon'"):
        list(service.stream(CHAT, {**ASKED, "model": "moon"}))
    with pytest.raises(RefusedRequest, match="no such path"):
        service.get("/v2")

    assert refused.value.refusal.status == 400
    assert refused.value.refusal.param == "tempo"


def test_a_stream_that_is_left_computes_no_more(tmp_path: Path) -> None:
    """Within a step."""
    model = fake_model(tmp_path, loaded=FakeLoaded(mixing, context=10**6), context=10**6)
    with Service(state_of(model), ServeSettings()) as service:
        stream = service.stream("/v1/completions", {"prompt": "x"})
        next(stream)
        stream.close()  # type: ignore[attr-defined] # it is a generator
        for _ in range(500):
            if not model.n_active:
                break
            threading.Event().wait(0.01)

        assert model.n_active == 0


def test_closing_breaks_answers_off(tmp_path: Path) -> None:
    """Their readers are told, and what is asked afterwards is refused."""
    model = fake_model(tmp_path, loaded=FakeLoaded(mixing, context=10**6), context=10**6)
    service = Service(state_of(model), ServeSettings())
    stream = service.stream("/v1/completions", {"prompt": "x"})
    next(stream)
    service.close()
    service.close()

    with pytest.raises((RefusedRequest, EngineError)):
        list(stream)
    with pytest.raises(InputError, match="closed"):
        service.post(CHAT, ASKED)
    assert model.n_active == 0


def test_threads_share_a_service(service: Service) -> None:
    """Each gets an answer of its own."""
    answers: list[str] = []

    def ask() -> None:
        answers.append(service.post(CHAT, ASKED)["choices"][0]["message"]["content"])

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert answers == ["it is on 灯!"] * 5


def test_bundles_are_opened_by_their_folders(tmp_path: Path) -> None:
    """What cannot be opened is said, and nothing is left open."""
    with pytest.raises(InputError, match="no model to serve"):
        onhand.open_service()
    with pytest.raises(OnhandError, match="not a bundle"):
        onhand.open_service(tmp_path / "nothing")
    with pytest.raises(OnhandError, match="cannot be read"):
        onhand.open_service(make_bundle(tmp_path / "b").root, config=tmp_path / "none.toml")
