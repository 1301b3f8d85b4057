"""Answers that were given before: found by everything they depend on, and by their owner alone."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.device.serving.served import fake_model, serving
from tests.device.test_generate import FakeLoaded, mixing

from onhand.core.errors import ResourceError
from onhand.device.sampling import Sampling
from onhand.device.serving.answering import Answer
from onhand.device.serving.api.bodies import parse_body
from onhand.device.serving.api.completions import read_completion
from onhand.device.serving.asks import Ask, Ending, Piece, Score, joined
from onhand.device.serving.caches.exact import ExactCache, Kept, is_repeatable, key_of
from onhand.device.serving.journal import Entry
from onhand.device.serving.state import ServerState
from onhand.device.template import Message
from onhand.device.tools.kinds import CallPart, Tool, ToolCall, ToolUse

ASK = Ask(tenant="a", prompt=(Message("user", "lamp"),), max_tokens=5)
TOOL = Tool(name="a", description="", parameters={"properties": {"b": {}, "c": {}}})
USE = ToolUse(tools=(TOOL,), names=("a",))
ENDING = Ending(reason="stop", prompt_tokens=7, cached_tokens=0, generated_tokens=3)
KEPT = Kept((Piece("on"), Piece("灯", (Score(b"\xe7", -0.5, (Score(b"x", -1.0),)),))), ENDING)


def test_an_answer_is_found_again(tmp_path: Path) -> None:
    """With its scores; also by the next process."""
    key = key_of(ASK, model="m")
    with ExactCache(tmp_path / "c.sqlite", most_bytes=10_000) as cache:
        assert cache.find(key) is None
        cache.keep(key, KEPT)
        assert cache.find(key) == KEPT
        assert (cache.n_hits, cache.n_misses) == (1, 1)

    with ExactCache(tmp_path / "c.sqlite", most_bytes=10_000) as again:
        assert again.find(key) == KEPT
        assert again.n_bytes > 0
    assert (tmp_path / "c.sqlite").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "other",
    [
        replace(ASK, tenant="b"),
        replace(ASK, prompt=(Message("system", "lamp"),)),
        replace(ASK, prompt="lamp"),
        replace(ASK, prompt=(Message("user", "la"), Message("user", "mp"))),
        replace(ASK, max_tokens=6),
        replace(ASK, sampling=Sampling(temperature=1, seed=1)),
        replace(ASK, stop=("x",)),
        replace(ASK, grammar="{}"),
        replace(ASK, prompt=(Message("user", "lamp", call_id="x"),)),
        replace(ASK, prompt=(Message("user", "lamp", calls=(ToolCall("x", "a", ""),)),)),
        replace(ASK, tools=USE),
        replace(ASK, n_scores=0),
    ],
)
def test_attack_another_request_is_another_answer(other: Ask) -> None:
    """Whatever differs, the tenant first."""
    assert key_of(other, model="m") != key_of(ASK, model="m")
    assert key_of(ASK, model="n") != key_of(ASK, model="m")


@pytest.mark.parametrize(
    "other",
    [
        replace(USE, names=()),
        replace(USE, is_required=True),
        replace(USE, is_parallel=False),
        replace(USE, tools=(replace(TOOL, name="b"),)),
        replace(USE, tools=(replace(TOOL, description="b"),)),
        replace(USE, tools=(replace(TOOL, parameters={"properties": {"c": {}, "b": {}}}),)),
        replace(USE, tools=(replace(TOOL, is_strict=True),)),
        replace(USE, tools=(TOOL, replace(TOOL, name="b"))),
    ],
)
def test_attack_other_tools_are_another_request(other: ToolUse) -> None:
    """Their order too, for a model reads them as they are written."""
    asked = replace(ASK, tools=USE)

    assert key_of(replace(ASK, tools=other), model="m") != key_of(asked, model="m")


def test_calls_are_kept(tmp_path: Path) -> None:
    """Ids, names, arguments and whether they came to their end."""
    parts = (CallPart(0, "i", "a"), CallPart(0, arguments="{}", is_end=True), CallPart(1, "j", "a"))
    kept = Kept(tuple(Piece("", call=part) for part in parts), replace(ENDING, reason="tool_calls"))
    with ExactCache(tmp_path / "c.sqlite", most_bytes=10_000) as cache:
        cache.keep(b"k", kept)

        assert cache.find(b"k") == kept
    assert [piece.call for piece in joined((Piece("x"), *kept.pieces))] == [
        None,
        CallPart(0, "i", "a", "{}", True),
        CallPart(1, "j", "a"),
    ]


def test_what_is_drawn_is_not_kept() -> None:
    """Unless a seed says which draw is meant."""
    assert is_repeatable(ASK)
    assert not is_repeatable(replace(ASK, sampling=Sampling(temperature=1)))
    assert is_repeatable(replace(ASK, sampling=Sampling(temperature=1, seed=3)))


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(0, 600), max_size=12), most=st.integers(0, 2000))
def test_the_budget_holds(sizes: list[int], most: int) -> None:
    """The longest unused go; the last that fits is there."""
    with ExactCache(None, most_bytes=most) as cache:
        for i, size in enumerate(sizes):
            cache.keep(bytes([i]), Kept((Piece("x" * size),), ENDING))
            assert cache.n_bytes <= most
            assert size + 400 > most or cache.find(bytes([i])) is not None


@pytest.mark.parametrize("is_closed", [False, True])
def test_what_was_found_counts_as_used(tmp_path: Path, is_closed: bool) -> None:
    """Also in the next process, and wherever it stands in the order in which things were kept."""
    large = Kept((Piece("x" * 1000),), ENDING)
    cache = ExactCache(tmp_path / "c.sqlite", most_bytes=4000)
    cache.keep(b"a", large)
    cache.keep(b"b", large)
    assert cache.find(b"a") is not None
    if is_closed:
        cache.close()
        cache = ExactCache(tmp_path / "c.sqlite", most_bytes=4000)

    cache.keep(b"c", large)
    while cache.find(b"b") is not None:
        cache.keep(bytes([cache.n_hits]), large)

    assert cache.find(b"a") is not None
    cache.close()


def test_attack_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    """Nothing of it is trusted, and nothing is lost but time."""
    place = tmp_path / "c.sqlite"
    place.write_bytes(b"SQLite format 3\0" + b"\xff" * 4000)
    with ExactCache(place, most_bytes=10_000) as cache:
        cache.keep(b"k", KEPT)
        assert cache.find(b"k") == KEPT


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """By its name."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ResourceError, match="the cache cannot be opened"):
        ExactCache(tmp_path / "file" / "c.sqlite", most_bytes=1)


def test_the_same_request_is_answered_at_once(tmp_path: Path) -> None:
    """Whole and streamed alike, marked, with all of its prompt cached, and no step computed."""
    loaded = FakeLoaded(mixing)
    state = ServerState(
        [fake_model(tmp_path, loaded=loaded)], exact=ExactCache(None, most_bytes=10_000)
    )
    asked = {"model": "toy", "prompt": "a prompt", "max_tokens": 9}
    with serving(state=state) as served:
        url = f"{served.url}/v1/completions"
        first = httpx2.post(url, json=asked)
        n_steps = len(loaded.fed)
        again = httpx2.post(url, json=asked)
        stream = httpx2.post(url, json=asked | {"stream": True}).text
        other = httpx2.post(url, json=asked | {"temperature": 1})

    text, usage = again.json()["choices"][0]["text"], again.json()["usage"]
    assert text == first.json()["choices"][0]["text"]
    assert f'"text":"{text}"' in stream
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"]
    assert [r.headers["x-cache"] for r in (first, again, other)] == ["miss", "exact", "miss"]
    assert len(loaded.fed) == n_steps + 9


def test_an_answer_that_was_found_waits_for_nothing(tmp_path: Path) -> None:
    """No task is begun to see whether its client leaves, and nobody is asked whether it did."""
    state = ServerState([fake_model(tmp_path)], exact=ExactCache(None, most_bytes=10_000))
    body = json.dumps({"prompt": "a prompt", "max_tokens": 9}).encode()

    async def scene() -> tuple[str, list[dict[str, Any]]]:
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def gone() -> Any:
            raise AssertionError("the client is not looked for")

        async def begun() -> Answer:
            read = read_completion(parse_body(body), tenant="t", usual=Sampling())
            return await Answer.begun(state, state.text_model(None), read, Entry())

        await (await begun()).whole()
        answer = await begun()
        await answer({"type": "http"}, gone, send)
        return answer.headers["x-cache"], sent

    cache, sent = asyncio.run(scene())
    state.close()

    assert cache == "exact"
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
