"""A line for each request, and nothing in it that anybody wrote."""

import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.device.serving.served import client_of, fake_model, serving
from tests.device.test_generate import FakeLoaded, mixing, saying

from onhand.core.errors import RecipeError
from onhand.device.serving.journal import logging_to
from onhand.device.serving.settings import LogSettings, parse_settings

WRITTEN = "lampsecret"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Loggers are shared by all tests of a process."""
    names = ("onhand", "uvicorn.error", "onhand.serving.requests")
    loggers = [logging.getLogger(name) for name in names]
    before = [(one.handlers[:], one.propagate, one.level) for one in loggers]
    yield
    for one, (handlers, propagates, level) in zip(loggers, before, strict=True):
        one.handlers[:], one.propagate = handlers, propagates
        one.setLevel(level)


def wait_for_line(stream: io.StringIO) -> None:
    """A line is written once the reply has gone out."""
    for _ in range(1000):
        if stream.getvalue():
            return
        threading.Event().wait(0.01)


def lines_of(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_leaves_a_line_of_figures(tmp_path: Path, is_stream: bool) -> None:
    """Who asked which model, where the answer came from, how many tokens, how long."""
    stream = io.StringIO()
    logging_to(stream, is_json=True, requests=True)
    asked = {
        "model": "toy",
        "messages": [{"role": "user", "content": WRITTEN}],
        "temperature": 0,
        "stream": is_stream,
    }
    with serving(fake_model(tmp_path, saying(WRITTEN))) as served:
        for _ in range(2):
            httpx2.post(f"{served.url}/v1/chat/completions", json=asked)

    lines = lines_of(stream)
    assert len(lines) == 2
    assert WRITTEN not in stream.getvalue()
    for line in lines:
        assert line["event"] == "request"
        assert line["path"] == "/v1/chat/completions"
        assert line["status"] == 200
        assert line["tenant"] == "local"
        assert line["model"] == "toy"
        assert line["outcome"] == "ok"
        assert line["source"] == "local"
        assert line["prompt_tokens"] == len(f"u:{WRITTEN};") + 1
        assert line["generated_tokens"] == len(WRITTEN) + 1
        assert float(str(line["seconds"])) > 0
        assert ("first_text_s" in line) == is_stream


def test_what_somebody_wrote_is_in_no_line(tmp_path: Path) -> None:
    """Not as a path, a model's name, a query, a key or a wrong field."""
    stream = io.StringIO()
    logging_to(stream, is_json=True, requests=True)
    with serving(fake_model(tmp_path, FakeLoaded(mixing).rule)) as served:
        httpx2.get(f"{served.url}/{WRITTEN}?q={WRITTEN}", headers={"authorization": WRITTEN})
        httpx2.get(f"{served.url}/v1/models/{WRITTEN}")
        httpx2.post(f"{served.url}/v1/completions", json={"model": WRITTEN, "prompt": "x"})
        httpx2.post(f"{served.url}/v1/completions", json={WRITTEN: WRITTEN, "prompt": "x"})
        httpx2.get(f"{served.url}/health", headers={"host": WRITTEN})

    assert WRITTEN not in stream.getvalue()
    assert [line["status"] for line in lines_of(stream)] == [404, 404, 404, 400, 421]


def test_a_reader_who_left_is_noted(tmp_path: Path) -> None:
    """Its outcome is that it was cancelled."""
    stream = io.StringIO()
    logging_to(stream, is_json=True, requests=True)
    model = fake_model(tmp_path, loaded=FakeLoaded(mixing, context=10**6), context=10**6)
    with serving(model) as served, client_of(served) as client:
        answer = client.completions.create(model="toy", prompt="x", stream=True)
        next(iter(answer))
        answer.close()

    assert lines_of(stream)[-1]["outcome"] == "cancelled"


def test_lines_for_people_and_none_at_all(tmp_path: Path) -> None:
    """Both by settings."""
    plain, silent = io.StringIO(), io.StringIO()
    with serving(fake_model(tmp_path, saying("yes"))) as served:
        logging_to(plain, is_json=False, requests=True)
        httpx2.get(f"{served.url}/v1/models")
        wait_for_line(plain)
        logging_to(silent, is_json=False, requests=False)
        httpx2.get(f"{served.url}/v1/models")
        logging.getLogger("onhand.serving").warning("the disk is full")

    assert "request method=GET path=/v1/models status=200 seconds=" in plain.getvalue()
    assert silent.getvalue().endswith(" the disk is full\n")
    assert "request" not in silent.getvalue()


def test_what_is_asked_every_second_leaves_no_line(tmp_path: Path) -> None:
    """Unless it fails."""
    stream = io.StringIO()
    logging_to(stream, is_json=True, requests=True)
    with serving(fake_model(tmp_path, saying("yes"))) as served:
        for path in ("/metrics", "/health", "/ready", "/v1/governor"):
            assert httpx2.get(f"{served.url}{path}").status_code == 200
        httpx2.get(f"{served.url}/metrics", headers={"host": "elsewhere"})

    assert [(line["path"], line["status"]) for line in lines_of(stream)] == [("/metrics", 421)]


def test_its_settings_are_checked() -> None:
    """As all others."""
    found = parse_settings('[log]\nformat = "json"\nrequests = false', environment={})

    assert found.log == LogSettings(format="json", requests=False)
    with pytest.raises(RecipeError, match="must be text or json"):
        parse_settings('[log]\nformat = "xml"', environment={})
