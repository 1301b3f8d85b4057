"""The attacks on a server, each with its control switched off: then they succeed.

So that it is the control that holds them back in the tests of the same names, and nothing else.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.device.serving.served import Served, fake_model, serving
from tests.device.serving.test_access import ASK, Guarded, role
from tests.device.serving.test_access import guarded as guarded
from tests.device.test_generate import saying

from onhand.device.access import doorkeeper
from onhand.device.access.scopes import EVERYTHING
from onhand.device.serving.api import bodies
from onhand.device.serving.caches.exact import ExactCache
from onhand.device.serving.guard import Guard
from onhand.device.serving.state import ServerState

CHAT = "/v1/chat/completions"


@pytest.fixture
def unguarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server that looks at no name, origin, type or length, and asks for no key."""
    monkeypatch.setattr(Guard, "_refusal", lambda *_: None)
    with serving(fake_model(tmp_path, saying("on"))) as served:
        yield served


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "https://evil.example"},
        {"content-type": "text/plain"},
    ],
    ids=["a rebound name", "a page of another origin", "a form"],
)
def test_attack_of_a_page_gets_through_without_the_guard(
    unguarded: Served, headers: dict[str, str]
) -> None:
    """It is answered, and the page's script may read it."""
    reply = httpx2.post(f"{unguarded.url}{CHAT}", json=ASK, headers=headers)

    assert reply.status_code == 200
    origin = headers.get("origin")
    assert reply.headers.get("access-control-allow-origin") == origin


def test_attack_by_pictures_gets_through_without_the_guard(unguarded: Served) -> None:
    """What a page loads as a picture is answered."""
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-dest": "image"}

    assert httpx2.get(f"{unguarded.url}/v1/models", headers=headers).status_code == 200


def test_attack_by_a_large_body_gets_through_without_a_bound(tmp_path: Path) -> None:
    """A hundred times what the guarded server takes."""
    large = ASK | {"user": "x" * 204_800}
    with serving(fake_model(tmp_path, saying("on"))) as served:
        assert httpx2.post(f"{served.url}{CHAT}", json=large).status_code == 200


def test_attack_of_a_key_gets_through_without_scopes_and_end(guarded: Guarded) -> None:
    """Metrics, another model, another path, and long after it was given away."""
    token = guarded.key("phone", EVERYTHING)
    guarded.clock.now_s += 10 * 365 * 86400.0

    assert guarded.get("/metrics", token).status_code == 200
    assert guarded.ask(token, model="a").status_code == 200
    assert guarded.ask(token, model="b").status_code == 200
    assert guarded.get("/v1/models", token).status_code == 200


def test_attack_of_a_guessed_key_gets_through_without_its_hash(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id alone is enough where no secret is compared."""
    monkeypatch.setattr(doorkeeper, "is_of", lambda token, kept: True)
    one, other = (guarded.key(name, EVERYTHING) for name in ("one", "other"))
    mixed = one[: one.rindex("_", 0, 24)] + other[other.rindex("_", 0, 24) :]

    assert guarded.ask(mixed).status_code == 200


def test_attack_of_taking_all_gets_through_without_ceilings(guarded: Guarded) -> None:
    """As many requests and tokens as it likes."""
    token = guarded.key("phone", role("user"))

    assert {guarded.ask(token).status_code for _ in range(6)} == {200}


def test_attack_on_anothers_cache_gets_through_where_keys_do_not_part_it(tmp_path: Path) -> None:
    """Two callers without keys are one to the cache: the second gets the first's answer."""
    exact = ExactCache(None, most_bytes=2**20)
    state = ServerState([fake_model(tmp_path, saying("on"))], exact=exact)
    with serving(state=state) as served:
        found = [
            httpx2.post(f"{served.url}{CHAT}", json=ASK | {"seed": 1}).headers["x-cache"]
            for _ in range(2)
        ]

    assert found == ["miss", "exact"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff"])
def test_attack_by_no_request_gets_through_without_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """Where anything is taken for JSON, what is none makes the server fail."""
    headers = {"content-type": "application/json"}
    with serving(fake_model(tmp_path, saying("on"))) as served:
        on = httpx2.post(f"{served.url}{CHAT}", content=body, headers=headers)
        monkeypatch.setattr(bodies, "parse_json", json.loads)
        off = httpx2.post(f"{served.url}{CHAT}", content=body, headers=headers)

    assert (on.status_code, off.status_code) == (400, 500)
