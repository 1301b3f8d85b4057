"""Who may ask: other pages, other names, forms, and those without a key."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.device.serving.served import Served, fake_model, serving
from tests.device.test_generate import saying

from onhand.device.serving.page.files import PAGE_PATHS
from onhand.device.serving.settings import NetworkSettings, ServeSettings

TOKEN = "-".join(["a", "token", "of", "the", "phone"])
ASK = {"messages": [{"role": "user", "content": "lamp"}]}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A server with one key and one listed page."""
    settings = ServeSettings(
        server=NetworkSettings(
            hosts=("box.local",), origins=("https://home.example",), max_body_bytes=2048
        ),
        tenants={hashlib.sha256(TOKEN.encode()).hexdigest(): "phone"},
    )
    with serving(fake_model(tmp_path, saying("on")), settings=settings) as found:
        yield found


def ask(served: Served, **headers: str) -> httpx2.Response:
    given = {"authorization": f"Bearer {TOKEN}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return httpx2.post(f"{served.url}/v1/chat/completions", json=ASK, headers=given)


def test_who_has_the_key_is_answered(served: Served) -> None:
    """Also under a listed name, from a listed page, and from the server's own."""
    assert ask(served).status_code == 200
    assert ask(served, host="box.local").status_code == 200
    answer = ask(served, origin="https://home.example")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://home.example"
    assert ask(served, origin=served.url).status_code == 200


def test_attack_rebound_name(served: Served) -> None:
    """A name that somebody let point here is refused, whatever the port."""
    port = served.url.rpartition(":")[2]

    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", ""):
        assert ask(served, host=host).status_code in {400, 421}


def test_attack_page_of_another_origin(served: Served) -> None:
    """Refused before anything is computed, and its scripts may read nothing."""
    for origin in ("https://evil.example", "null", "http://home.example", "http://localhost:1"):
        answer = ask(served, origin=origin)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


def test_attack_form_of_a_page(served: Served) -> None:
    """What a form can send without asking is no JSON by its type."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert ask(served, content_type=kind).status_code == 415


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN])
def test_attack_without_the_key(served: Served, header: str) -> None:
    """On every path but the page's."""
    paths = ("/v1/models", "/v1/models/toy", "/metrics", "/v1/unknown", "/page", "/page/x")
    for path in (*paths, "/health", "/ready"):
        answer = httpx2.get(served.url + path, headers={"authorization": header})
        assert answer.status_code == 401
        assert TOKEN not in answer.text
    assert ask(served, authorization=header).status_code == 401


def test_attack_large_body(served: Served) -> None:
    """Refused by its declared length, and in the middle where none is declared."""
    url, head = f"{served.url}/v1/chat/completions", {"authorization": f"Bearer {TOKEN}"}
    large = b'{"messages": "' + b"x" * 4096 + b'"}'
    head |= {"content-type": "application/json"}

    assert httpx2.post(url, content=large, headers=head).status_code == 413
    parts = (large[i : i + 512] for i in range(0, len(large), 512))
    assert httpx2.post(url, content=parts, headers=head).status_code == 413


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b'{"a": 1, "a": 2}', b"\xff", b"[" * 2000, b'{"n": NaN}']
)
def test_attack_body_that_is_no_request(served: Served, body: bytes) -> None:
    """One sentence and 400."""
    answer = httpx2.post(
        f"{served.url}/v1/chat/completions",
        content=body,
        headers={"authorization": f"Bearer {TOKEN}", "content-type": "application/json"},
    )

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_unknown_paths_and_methods_are_said(served: Served) -> None:
    """As JSON, as everything else."""
    head = {"authorization": f"Bearer {TOKEN}"}

    assert httpx2.get(f"{served.url}/v2", headers=head).json()["error"]["code"] == "path"
    answer = httpx2.get(f"{served.url}/v1/chat/completions", headers=head)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method")


def test_the_page_needs_no_key(served: Served) -> None:
    """It holds nothing; what it shows needs the key, and other methods do."""
    with httpx2.Client(base_url=served.url) as client:
        for path in PAGE_PATHS:
            assert client.get(path).status_code == client.head(path).status_code == 200
        assert client.post("/", json={}).status_code == 401


def test_attack_page_under_a_rebound_name(served: Served) -> None:
    """A name that points here shows no page, and its scripts ask in vain, their Origin alike."""
    evil = f"evil.example:{served.url.rpartition(':')[2]}"

    with httpx2.Client(base_url=served.url, headers={"host": evil}) as client:
        assert {client.get(path).status_code for path in PAGE_PATHS} == {421}
    assert ask(served, host=evil, origin=f"http://{evil}").status_code == 421


def test_only_the_page_that_was_asked_for_is_its_own(served: Served) -> None:
    """The scheme, the name and the port in Origin are those of this Host, to the letter."""
    port = served.url.rpartition(":")[2]

    assert ask(served, host=f"localhost:{port}", origin=f"http://localhost:{port}").is_success
    for host, origin in (
        (f"localhost:{port}", served.url),
        (f"127.0.0.1:{port}", f"http://localhost:{port}"),
        (f"127.0.0.1:{port}", f"https://127.0.0.1:{port}"),
        (f"127.0.0.1:{port}", "http://127.0.0.1"),
        (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}/"),
        (f"127.0.0.1:{port}", f"{served.url}, http://evil.example"),
    ):
        assert ask(served, host=host, origin=origin).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_attack_page_that_loads_answers_as_pictures(served: Served, site: str) -> None:
    """Such requests have no Origin; browsers say otherwise where they come from."""
    key = {"authorization": f"Bearer {TOKEN}"}

    def status(mode: str, kind: str, path: str = "/metrics") -> int:
        told = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": kind}
        return httpx2.get(served.url + path, headers=key | told).status_code

    assert status("no-cors", "script") == status("no-cors", "image") == 403
    assert status("navigate", "iframe") == status("no-cors", "document") == 403
    assert status("no-cors", "script", "/page/main.js") == 403
    assert status("navigate", "document", "/") == 200  # a link that somebody follows
    own = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
    assert httpx2.get(f"{served.url}/metrics", headers=key | own).status_code == 200


def test_a_listed_page_may_ask_across_sites(served: Served) -> None:
    """Its requests have an Origin."""
    origin = {"origin": "https://home.example", "sec_fetch_site": "cross-site"}

    assert ask(served, **origin).status_code == 200
