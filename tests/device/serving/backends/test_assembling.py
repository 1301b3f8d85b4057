"""From serve.toml to answers of other servers, in a process of its own and within a program."""

from pathlib import Path

import openai
import pytest
from tests.device.serving.backends.upstream import Upstream, events, says, upstream
from tests.device.serving.served import client_of, serving

from onhand.core.errors import InputError
from onhand.device.serving.assembling import opened_state, read_settings, with_bundles
from onhand.device.serving.inprocess import Service
from onhand.device.serving.settings import ServeSettings

KEY = "a-key-that-nobody-may-see"


def settings_of(place: Path, server: Upstream) -> ServeSettings:
    """A file that names one other server and no bundle."""
    path = place / "serve.toml"
    path.write_text(f'[[backend]]\nname = "far"\nurl = "{server.url}"\nenv = "FAR_KEY"\n')
    return with_bundles(read_settings(path, environment={"FAR_KEY": KEY}), [])


def test_other_servers_alone_are_enough_to_serve(tmp_path: Path) -> None:
    """No bundle is needed; who is there is said without its key."""
    told: list[str] = []
    with upstream(says(*events("from ", "afar"))) as server:
        settings = settings_of(tmp_path, server)
        with (
            opened_state(settings, home=tmp_path / "home", told=told.append) as state,
            serving(state=state, settings=settings) as served,
            client_of(served) as client,
        ):
            answer = client.completions.create(model="far", prompt="x")
        (request,) = server.requests

    assert answer.choices[0].finish_reason == "stop"
    said = [line for line in told if not line.startswith("vault: ")]
    assert said[0] == "far: cloud for far"
    assert said[1].startswith("privacy: names of persons are not found")
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_the_same_within_a_program(tmp_path: Path) -> None:
    """Its connections are closed with it; streams too."""
    with upstream(says(*events("from ", "afar"))) as server:
        settings = settings_of(tmp_path, server)
        state = opened_state(settings, home=tmp_path / "home", told=lambda line: None)
        with Service(state, settings) as service:
            asked = {"messages": [{"role": "user", "content": "x"}]}
            whole = service.post("/v1/chat/completions", asked)
            texts = [
                choice["delta"].get("content", "")
                for chunk in service.stream("/v1/chat/completions", asked)
                for choice in chunk["choices"]
            ]
            client = openai.OpenAI(
                base_url="http://onhand/v1", api_key="none", http_client=service.http
            )
            listed = [model.id for model in client.models.list()]

    assert whole["choices"][0]["message"]["content"] == "".join(texts) == "from afar"
    assert listed == ["far"]


def test_a_bundle_is_called_as_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its folder's name or its link's; one that no request could ask for is the bundle's own."""
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to("home")
    monkeypatch.chdir(tmp_path / "home")
    places = [Path(), Path("../home/"), tmp_path / "link", Path("my lamp")]

    settings = with_bundles(ServeSettings(), places)

    assert [one.name for one in settings.models] == ["home", "home", "link", ""]


def test_nothing_at_all_is_refused() -> None:
    """Neither a bundle nor another server."""
    with pytest.raises(InputError, match="no model to serve"):
        with_bundles(ServeSettings(), [])
