"""Compressed requests: unpacked, bounded, or refused."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.device.serving.served import Served, fake_model, serving
from tests.device.test_generate import saying

from onhand.device.serving.settings import NetworkSettings, ServeSettings

BODY = json.dumps({"model": "toy", "messages": [{"role": "user", "content": "lamp"}]}).encode()
MOST = 4096


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A server that takes bodies of a few kilobytes."""
    settings = ServeSettings(server=NetworkSettings(max_body_bytes=MOST))
    with serving(fake_model(tmp_path, saying("on")), settings=settings) as found:
        yield found


def sent(served: Served, body: bytes, coding: str = "gzip") -> httpx2.Response:
    headers = {"content-type": "application/json", "content-encoding": coding}
    return httpx2.post(f"{served.url}/v1/chat/completions", content=body, headers=headers)


def test_a_compressed_request_is_answered(served: Served) -> None:
    """And the reply says that it may be."""
    answer = sent(served, gzip.compress(BODY, mtime=0))

    assert answer.json()["choices"][0]["message"]["content"] == "on"
    assert answer.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("body", "coding", "status"),
    [
        (gzip.compress(BODY, mtime=0)[:-9], "gzip", 400),
        (gzip.compress(BODY, mtime=0) + b"more", "gzip", 400),
        (b"", "gzip", 400),
        (BODY, "gzip", 400),
        (BODY, "br", 415),
        (BODY, "gzip, gzip", 415),
        (BODY, "identity", 200),
    ],
)
def test_what_is_no_gzip_is_refused(served: Served, body: bytes, coding: str, status: int) -> None:
    """Cut off, followed by something, or in another coding."""
    answer = sent(served, body, coding)

    assert answer.status_code == status
    if status == 415:
        assert answer.headers["accept-encoding"] == "gzip"


def test_attack_a_few_bytes_that_unpack_to_very_many(served: Served) -> None:
    """Refused before they are unpacked."""
    bomb = gzip.compress(b" " * 3_000_000)
    assert len(bomb) < MOST

    assert sent(served, bomb).status_code == 413
