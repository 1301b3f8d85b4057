"""A real server whose models share a budget: opened on demand, replaced while they answer."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
import openai
import pytest
from openai.types import Completion
from tests.device.serving.models.shelves import Openings, entry_of, shelf_of, swap
from tests.device.serving.served import Served, client_of, serving
from tests.network_bundles import classifier, pack

from onhand.core.feed import PictureFeed
from onhand.device.serving.caches.exact import ExactCache
from onhand.device.serving.models.shelf import Shelf
from onhand.device.serving.models.shelf_metrics import show_shelf
from onhand.device.serving.models.shelf_settings import ShelfSettings
from onhand.device.serving.models.shelved import shelved
from onhand.device.serving.settings import ModelSettings, NetworkSettings, ServeSettings
from onhand.device.serving.state import ServerState

MIB = 2**20
ONE = 20 * MIB
KEEPER, PHONE = "a-long-secret-of-the-keeper", "a-long-secret-of-the-phone"
QUICK = ShelfSettings(watch_s=0.0, least_stay_s=0.0, most_wait_s=20.0)


@contextmanager
def served_shelf(
    shelf: Shelf, *, settings: ServeSettings | None = None, exact: bool = False
) -> Iterator[Served]:
    """Serve all that is on a shelf."""
    cache = ExactCache(None, most_bytes=MIB) if exact else None
    state = ServerState([shelved(shelf, entry) for entry in shelf.entries], exact=cache)
    show_shelf(shelf, state.metrics)
    try:
        with serving(state=state, settings=settings) as served:
            yield served
    finally:
        shelf.close()


def said(client: openai.OpenAI, model: str) -> str:
    return client.completions.create(model=model, prompt="<open>").choices[0].text


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def first_text(stream: Iterator[Completion]) -> str:
    """What comes first; the answer is computed then."""
    return next(chunk.choices[0].text for chunk in stream if chunk.choices[0].text)


def test_two_models_share_room_for_one(tmp_path: Path) -> None:
    """Each answers when it is asked; the list of models and the figures say how they stand."""
    openings = Openings()
    shelf = shelf_of(openings, memory_bytes=ONE, settings=QUICK, has_thread=True)
    entry_of(shelf, tmp_path / "a", says="I am a")
    entry_of(shelf, tmp_path / "b", says="I am b")
    with served_shelf(shelf) as served, client_of(served) as client:
        found = [said(client, name) for name in ("a", "b", "b", "a")]
        listed = httpx2.get(f"{served.url}/v1/models").json()["data"]
        figures = httpx2.get(f"{served.url}/metrics").text
        taken = sum(shelf.taken_bytes().values())

    assert found == ["I am a", "I am b", "I am b", "I am a"]
    assert openings.made == ["a:float", "b:float", "a:float"]
    assert [(one["id"], one["state"]) for one in listed] == [("a", "open"), ("b", "closed")]
    assert listed[0]["loaded_bytes"] > 0
    assert listed[0]["variants"] == ["float", "other"]
    assert listed[1]["loaded_bytes"] == 0
    assert 0 < taken <= ONE
    assert f"onhand_memory_budget_bytes {float(ONE):.8g}"[:26] in figures
    assert 'onhand_memory_taken_bytes{kind="weights"}' in figures
    assert 'onhand_model_loaded_bytes{model="b"} 0.0' in figures
    assert 'onhand_shelf_total{kind="evictions"} 2.0' in figures
    assert 'onhand_shelf_total{kind="openings"} 3.0' in figures


def test_many_clients_of_two_models_all_get_their_answers(tmp_path: Path) -> None:
    """Requests that wait for one opening are answered together: no opening for each."""
    openings = Openings()
    settings = ShelfSettings(watch_s=0.0, least_stay_s=0.3, most_wait_s=30.0)
    shelf = shelf_of(openings, memory_bytes=ONE, settings=settings, has_thread=True)
    for name in ("a", "b"):
        entry_of(shelf, tmp_path / name, says=f"I am {name}")
    found: list[tuple[str, str]] = []
    with served_shelf(shelf) as served, client_of(served) as client:

        def work(name: str) -> None:
            for _ in range(3):
                found.append((name, said(client, name)))

        threads = [threading.Thread(target=work, args=("ab"[i % 2],)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert served.state.n_active == 0

    assert len(found) == 18
    assert all(text == f"I am {name}" for name, text in found)
    assert len(openings.made) < 18


def test_a_stream_carries_comments_while_its_model_is_opened(tmp_path: Path) -> None:
    """Headers at once; a model that is open answers meanwhile."""
    openings = Openings()
    shelf = shelf_of(openings, settings=QUICK, has_thread=True)
    entry_of(shelf, tmp_path / "quick", says="at once")
    entry_of(shelf, tmp_path / "slow", says="at last")
    settings = ServeSettings(server=NetworkSettings(ping_s=0.02))
    with served_shelf(shelf, settings=settings) as served, client_of(served) as client:
        said(client, "quick")
        openings.gate.clear()
        asked = {"model": "slow", "prompt": "<open>", "stream": True}
        with httpx2.stream("POST", f"{served.url}/v1/completions", json=asked) as reply:
            lines = reply.iter_lines()
            seen = [next(lines)]
            while ": ping" not in seen:
                seen.append(next(lines))
            listed = httpx2.get(f"{served.url}/v1/models/slow").json()
            other = said(client, "quick")
            openings.gate.set()
            rest = list(lines)

    assert reply.status_code == 200
    assert listed["state"] == "opening"
    assert other == "at once"
    assert any("last" in line or '"t' in line for line in rest)
    assert "data: [DONE]" in rest


def test_a_stream_goes_on_while_its_bundle_is_replaced(tmp_path: Path) -> None:
    """It ends whole and unchanged; the next answer is the new one's, and no cache mixes them."""
    openings = Openings()
    shelf = shelf_of(openings, settings=QUICK, has_thread=True)
    entry = entry_of(shelf, tmp_path / "a", says="the old bundle says this")
    with served_shelf(shelf, exact=True) as served, client_of(served) as client:
        openings.steps.clear()
        stream = client.completions.create(model="a", prompt="<open>", stream=True)
        text = first_text(stream)
        before = entry.version.bundle_sha256
        swap(tmp_path / "a", "the new one that")
        shelf.look_soon()
        while entry.version.bundle_sha256 == before:
            threading.Event().wait(0.01)
        openings.steps.set()
        new = client.completions.with_raw_response.create(model="a", prompt="<open>")
        again = client.completions.with_raw_response.create(model="a", prompt="<open>")
        text += "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
        last = client.completions.with_raw_response.create(model="a", prompt="<open>")

    assert text == "the old bundle says this"
    assert new.headers["x-cache"] == "miss"
    assert again.headers["x-cache"] == "exact"
    assert [one.parse().choices[0].text for one in (new, again, last)] == ["the new one that"] * 3


def test_a_key_may_have_a_bundle_looked_at(tmp_path: Path) -> None:
    """One with `may_manage`; any other is refused, and so is everybody where there are no keys."""
    shelf = shelf_of(Openings(), settings=QUICK, has_thread=True)
    entry = entry_of(shelf, tmp_path / "a", says="old")
    tenants = {
        hashlib.sha256(KEEPER.encode()).hexdigest(): "keeper",
        hashlib.sha256(PHONE.encode()).hexdigest(): "phone",
    }
    settings = ServeSettings(tenants=tenants, managers=frozenset({"keeper"}))
    before = entry.version.bundle_sha256
    with served_shelf(shelf, settings=settings) as served:
        url = f"{served.url}/v1/models/a/reload"
        unchanged = httpx2.post(url, json={}, headers=bearer(KEEPER)).json()
        swap(tmp_path / "a", "new")
        refused = httpx2.post(url, json={}, headers=bearer(PHONE))
        assert entry.version.bundle_sha256 == before
        changed = httpx2.post(url, json={}, headers=bearer(KEEPER)).json()
        missing = httpx2.post(f"{served.url}/v1/models/b/reload", json={}, headers=bearer(KEEPER))

    assert unchanged["is_reloading"] is False
    assert changed["is_reloading"] is True
    assert changed["bundle_sha256"] != before
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "action_not_allowed")
    assert missing.status_code == 404


def test_without_keys_nobody_may_have_a_bundle_looked_at(tmp_path: Path) -> None:
    """A program on the device sends a signal instead."""
    shelf = shelf_of(Openings(), settings=QUICK)
    entry_of(shelf, tmp_path / "a")
    with served_shelf(shelf) as served:
        reply = httpx2.post(f"{served.url}/v1/models/a/reload", json={})

    assert reply.status_code == 403
    assert "SIGHUP" in reply.json()["error"]["message"]


def test_what_does_not_fit_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    """The official client, which asks again by itself, does not."""
    openings = Openings()
    shelf = shelf_of(openings, memory_bytes=5 * MIB, settings=QUICK, has_thread=True)
    entry_of(shelf, tmp_path / "a")
    with served_shelf(shelf) as served, client_of(served) as client:
        patient = client.with_options(max_retries=3)
        with pytest.raises(openai.InternalServerError, match=f"take {5 * MIB}") as refused:
            said(patient, "a")
        count = httpx2.get(f"{served.url}/metrics").text

    assert refused.value.code == "model_too_large"
    counted = [line for line in count.splitlines() if line.startswith("onhand_requests_total")]
    refusals = [line for line in counted if 'outcome="error"' in line]
    assert [line.split()[-1] for line in refusals] == ["1.0"]
    assert openings.made == []


def test_an_answer_waits_until_there_is_memory_for_it(tmp_path: Path) -> None:
    """Each takes what it may come to need before it is computed, and gives it back."""
    openings = Openings()
    shelf = shelf_of(openings, settings=QUICK, has_thread=True)
    entry = entry_of(shelf, tmp_path / "a", says="a" * 40)
    idle = entry.place().facts.footprint.idle_bytes
    shelf.close()
    shelf = shelf_of(openings, memory_bytes=idle + 3000, settings=QUICK, has_thread=True)
    entry = entry_of(shelf, tmp_path / "a")
    assert entry.place().facts.footprint.session_bytes(64) == 2048
    with served_shelf(shelf) as served, client_of(served) as client:
        openings.steps.clear()
        first = client.completions.create(model="a", prompt="<open>", stream=True)
        first_text(first)
        held = shelf.taken_bytes()["sessions"]
        second: list[str] = []
        thread = threading.Thread(target=lambda: second.append(said(client, "a")))
        thread.start()
        openings.steps.set()
        list(first)
        thread.join(20)
        taken = shelf.taken_bytes()

    assert held == 2048
    assert second == ["a" * 40]
    assert taken["sessions"] == 0
    assert 0 < taken["remembered"] <= 3000


def test_a_network_is_opened_when_it_is_asked(tmp_path: Path) -> None:
    """Beside a language model, by the same rules; its task is known before."""
    pytest.importorskip("onnxruntime")
    bundle = pack(
        tmp_path / "pictures",
        {"fp32": classifier(np.random.default_rng(0))},
        task="image-classification",
        feed=PictureFeed(height=12, width=12),
    )
    shelf = Shelf(QUICK, memory_bytes=2**30, home=tmp_path / "home", resident=lambda: 0)
    given = ModelSettings(bundle=str(bundle.root), name="p", engine="onnx", threads=1)
    network = shelved(shelf, shelf.add(given))
    with served_shelf(shelf) as served:
        before = httpx2.get(f"{served.url}/v1/models/p").json()
        wrong = httpx2.post(f"{served.url}/v1/embeddings", json={"model": "p", "input": "x"})
        text = httpx2.post(f"{served.url}/v1/classify", json={"model": "p", "input": "x"})
        after = httpx2.get(f"{served.url}/v1/models/p").json()

    assert network.name == "p"
    assert (before["task"], before["state"]) == ("image-classification", "closed")
    assert (wrong.status_code, text.status_code) == (400, 400)
    assert "takes no texts" in text.json()["error"]["message"]
    assert after["state"] == "open"
    assert after["engine"] == "onnx"
