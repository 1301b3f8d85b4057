"""Similar questions over HTTP: marked, refused on request, never another tenant's."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import httpx2
import numpy as np
import openai
import pytest
from tests.device.serving.api.test_vectors import words
from tests.device.serving.served import Served, client_of, fake_model, serving
from tests.device.test_generate import FakeLoaded, mixing

from onhand.core.arrays import FloatArray
from onhand.core.errors import EngineBusy, InputError
from onhand.device.serving.assembling import opened_state
from onhand.device.serving.caches.semantic import SemanticCache
from onhand.device.serving.caches.semantic_store import SemanticStore
from onhand.device.serving.settings import (
    CacheSettings,
    ModelSettings,
    ServeSettings,
    parse_settings,
)
from onhand.device.serving.state import ServerState

OPEN, SAME, OTHER = "open the lamp", "Please open the lamp", "close the lamp"
TOKENS = {name: f"{name}-token-of-sixteen" for name in ("ann", "ben")}
TENANTS = {hashlib.sha256(token.encode()).hexdigest(): name for name, token in TOKENS.items()}


class Letters:
    """Vectors by the letters of a text; `fails` makes it refuse."""

    fails = False
    fingerprint = "letters"

    async def embed(self, texts: Sequence[str]) -> tuple[FloatArray, int]:
        """See `Encoder`."""
        if self.fails:
            raise EngineBusy("busy")
        made = [[text.lower().count(letter) + 1 for letter in "aelmnop"] for text in texts]
        return np.array(made, dtype=np.float32), len(texts)


@pytest.fixture
def loaded() -> FakeLoaded:
    """What computes; `fed` has an entry for each step."""
    return FakeLoaded(mixing)


@pytest.fixture
def served(tmp_path: Path, loaded: FakeLoaded) -> Iterator[Served]:
    """A server that keeps answers to similar questions of the first of two models."""
    store = SemanticStore(None, encoder="letters", most_bytes=10**6)
    models = [fake_model(tmp_path, loaded=loaded), fake_model(tmp_path, name="other")]
    state = ServerState(models, semantic=SemanticCache(store, Letters(), models=["toy"]))
    with serving(state=state, settings=ServeSettings(tenants=TENANTS)) as running:
        yield running


def ask(
    served: Served,
    text: str,
    *,
    tenant: str = "ann",
    use: str = "",
    max_tokens: int | None = None,
    fields: Mapping[str, object] = MappingProxyType({}),
) -> httpx2.Response:
    body = {
        "model": "toy",
        "messages": [{"role": "user", "content": text}],
        "stop": ["e"],
        "max_tokens": max_tokens,
        **fields,
    }
    headers = {"authorization": f"Bearer {TOKENS[tenant]}", "x-cache-control": use}
    return httpx2.post(f"{served.url}/v1/chat/completions", json=body, headers=headers)


def cache_of(response: httpx2.Response) -> str:
    assert response.status_code == 200, response.text
    return response.headers["x-cache"]


def test_a_similar_question_is_answered_at_once(served: Served, loaded: FakeLoaded) -> None:
    """Marked in headers and body, and no step is computed; what asks the opposite is computed."""
    first = ask(served, OPEN)
    n_steps = len(loaded.fed)
    again = ask(served, SAME)
    text = again.json()["choices"][0]["message"]["content"]

    assert [cache_of(first), cache_of(again)] == ["miss", "semantic"]
    assert text == first.json()["choices"][0]["message"]["content"]
    assert 0.85 <= float(again.headers["x-cache-similarity"]) <= 1
    assert again.json()["onhand"]["cache"] == "semantic"
    assert "onhand" not in first.json()
    assert len(loaded.fed) == n_steps
    assert cache_of(ask(served, OTHER)) == "miss"


def test_the_official_client_reads_marked_answers(served: Served) -> None:
    """Whole and streamed."""
    ask(served, OPEN)
    client = client_of(served).with_options(api_key=TOKENS["ann"])
    with client:
        whole = client.chat.completions.create(
            model="toy", messages=[{"role": "user", "content": SAME}], stop=["e"]
        )
        stream = client.chat.completions.create(
            model="toy", messages=[{"role": "user", "content": SAME}], stop=["e"], stream=True
        )
        chunks = list(stream)

    assert whole.model_extra is not None
    assert whole.model_extra["onhand"]["cache"] == "semantic"
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert isinstance(whole, openai.types.chat.ChatCompletion)


def test_attack_tenants_find_nothing_of_one_another(served: Served) -> None:
    """Not even the very same question."""
    ask(served, OPEN)

    assert cache_of(ask(served, OPEN, tenant="ben")) == "miss"
    assert cache_of(ask(served, OPEN)) == "semantic"


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "system", "content": "o"}, {"role": "user", "content": SAME}]},
        {"max_tokens": 9},
        {"stop": ["e", "x"]},
        {"model": "other"},
        {"temperature": 1},
        {"logprobs": True},
        {"n": 2},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_attack_nothing_but_the_question_may_differ(
    served: Served, fields: dict[str, object]
) -> None:
    """Other instructions, limits, models, formats, and what is drawn."""
    ask(served, OPEN)
    response = ask(served, SAME, fields=fields)

    assert response.headers.get("x-cache", "miss") == "miss"


@pytest.mark.parametrize("use", ["no-semantic", "no-cache", "no-store"])
def test_a_request_can_refuse_it(served: Served, use: str) -> None:
    """By a header."""
    ask(served, OPEN)

    assert cache_of(ask(served, SAME, use=use)) == "miss"


def test_what_must_not_be_stored_is_not(served: Served) -> None:
    """Neither is what was cut."""
    ask(served, OPEN, use="no-store")
    assert cache_of(ask(served, SAME)) == "miss"

    ask(served, "name a lamp", max_tokens=1)
    assert cache_of(ask(served, "Name the lamp", max_tokens=1)) == "miss"


def test_a_word_that_is_not_known_is_refused(served: Served) -> None:
    """With the words that are."""
    response = ask(served, OPEN, use="never")

    assert response.status_code == 400
    assert "no-semantic" in response.json()["error"]["message"]


def test_figures_are_shown(served: Served) -> None:
    """Entries, bytes, hits, misses, and why near ones were rejected; nothing of what was asked."""
    for text in (OPEN, SAME, OTHER):
        ask(served, text)
    headers = {"authorization": f"Bearer {TOKENS['ann']}"}
    shown = httpx2.get(f"{served.url}/metrics", headers=headers).text

    assert "onhand_semantic_cache_hits 1.0" in shown
    assert "onhand_semantic_cache_misses 2.0" in shown
    assert 'onhand_semantic_cache_rejected{reason="opposite"} 1.0' in shown
    assert "onhand_semantic_cache_entries 2.0" in shown
    assert "lamp" not in shown


def test_an_encoder_that_fails_costs_nothing_but_the_hit(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model answers."""
    ask(served, OPEN)
    monkeypatch.setattr(Letters, "fails", True)

    assert cache_of(ask(served, SAME)) == "miss"


def test_a_served_bundle_is_the_encoder(tmp_path: Path) -> None:
    """Settings name it; another kind of model, or none of the name, is refused."""
    words(tmp_path).close()
    model = ModelSettings(bundle=str(tmp_path / "words"), name="words", engine="onnx", threads=1)
    wrong = CacheSettings(semantic_encoder="word")
    home = tmp_path / "home"
    with (
        pytest.raises(InputError, match="no model 'word'"),
        opened_state(ServeSettings(models=(model,), cache=wrong), home=home, told=print),
    ):
        pass
    lost = CacheSettings(semantic_encoder="words", semantic_words=str(tmp_path / "dict"))
    with (
        pytest.raises(InputError, match="semantic_words: there is no folder"),
        opened_state(ServeSettings(models=(model,), cache=lost), home=home, told=print),
    ):
        pass
    named = CacheSettings(semantic_encoder="words", semantic_bytes=10**6)
    with opened_state(
        ServeSettings(models=(model,), cache=named), home=home, told=lambda _: None
    ) as state:
        assert state.semantic is not None
        assert (home / "cache" / "questions.sqlite").stat().st_mode & 0o077 == 0


def test_it_is_off_by_default() -> None:
    """And its settings are read from the file like all others."""
    text = """
        [cache]
        semantic_encoder = "e"
        semantic_words = "/usr/share/wordnet"
        semantic_models = ["m"]
        semantic_similarity = 0.9
        semantic_reworded = 1
    """
    read = parse_settings(text, environment={}).cache

    assert CacheSettings().semantic_encoder == ""
    assert CacheSettings().semantic_words == ""
    assert read.semantic_words == "/usr/share/wordnet"
    assert read.semantic_models == ("m",)
    assert read.closeness.same == 0.9
