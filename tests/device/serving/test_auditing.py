"""Each request is recorded before its answer ends, whatever becomes of the process afterwards."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from tests.device.audit.kept import KEYS
from tests.device.serving.served import Served, fake_model, serving

from onhand.device.audit.bodies import unseal_bodies
from onhand.device.audit.keys import known_audit_keys
from onhand.device.audit.leaving import gathering, note_departure
from onhand.device.audit.log import AuditLog, open_audit
from onhand.device.audit.records import Record, parse
from onhand.device.audit.segments import segments_in
from onhand.device.audit.settings import AuditSettings
from onhand.device.audit.verifying import verify_folder
from onhand.device.serving.settings import ServeSettings
from onhand.device.serving.state import ServerState

USUAL = AuditSettings()
ASKED = {"prompt": "abc", "max_tokens": 3, "temperature": 0}
TINY = Path(__file__).parents[2] / "data" / "tiny-bundle"


@contextmanager
def audited(home: Path, settings: AuditSettings = USUAL) -> Iterator[tuple[Served, AuditLog]]:
    """A server whose requests are recorded."""
    log = open_audit(settings, home, KEYS)
    state = ServerState([fake_model(home)])
    state.audit = log
    try:
        with serving(state=state, settings=ServeSettings()) as served:
            yield served, log
    finally:
        log.close()


def recorded(home: Path, *, kind: str = "request") -> list[Record]:
    """The records of a kind."""
    lines = [
        line
        for one in segments_in(home / "audit" / "chain-1")
        for line in one.path.read_bytes().splitlines(keepends=True)
    ]
    found = [parse(line[:-1]) for line in lines if line.endswith(b"\n")]
    return [one for one in found if one.kind == kind]


def test_who_what_and_from_where_is_recorded(tmp_path: Path) -> None:
    """And neither what was asked nor what was answered."""
    with audited(tmp_path) as (served, _):
        reply = httpx2.post(f"{served.url}/v1/completions", json=ASKED)
        (record,) = recorded(tmp_path)

    facts = record.facts
    assert facts["id"] == reply.headers["x-request-id"]
    assert (facts["who"], facts["action"]) == ("local", "POST")
    assert (facts["route"], facts["status"]) == ("/v1/completions", 200)
    assert (facts["model"], facts["source"], facts["cache"]) == ("toy", "local", "miss")
    assert (facts["prompt_tokens"], facts["generated_tokens"]) == (3, 3)
    assert len(facts["bundle"]) == 64
    assert (facts["version"], facts["outcome"], facts["left"]) == (0, "ok", [])
    assert "abc" not in json.dumps(facts)


def test_a_stream_is_recorded_before_its_end_is_told(tmp_path: Path) -> None:
    """Whoever has read the last event finds the record there."""
    with audited(tmp_path) as (served, _):
        url = f"{served.url}/v1/completions"
        with httpx2.stream("POST", url, json=ASKED | {"stream": True}) as reply:
            seen = []
            for line in reply.iter_lines():
                if "[DONE]" in line:
                    seen = recorded(tmp_path)

    assert [one.facts["outcome"] for one in seen] == ["ok"]
    assert seen[0].facts["stream"] is True


def test_what_is_refused_is_recorded_and_what_is_polled_is_not(tmp_path: Path) -> None:
    """By its route; a path that somebody wrote is not kept."""
    with audited(tmp_path) as (served, _):
        for path in ("/health", "/metrics", "/v1/models/nobody", "/my-secret"):
            httpx2.get(f"{served.url}{path}")
        httpx2.get(f"{served.url}/health", headers={"host": "evil.example"})
        httpx2.post(f"{served.url}/v1/completions", json={"prompt": 7})

    found = [(one.facts["route"], one.facts["status"]) for one in recorded(tmp_path)]
    assert found == [
        ("/v1/models/{name:path}", 404),
        ("unknown", 404),
        ("/health", 421),
        ("/v1/completions", 400),
    ]


def test_a_client_that_leaves_is_recorded(tmp_path: Path) -> None:
    """When its request ends."""
    asked = ASKED | {"stream": True, "max_tokens": 100}
    with audited(tmp_path) as (served, _):
        with httpx2.stream("POST", f"{served.url}/v1/completions", json=asked) as reply:
            next(reply.iter_lines())
        httpx2.post(f"{served.url}/v1/completions", json=ASKED)

    assert len(recorded(tmp_path)) == 2


def test_bodies_are_kept_sealed_where_they_are_wanted(tmp_path: Path) -> None:
    """Only whoever has the key reads them; what is too long is cut, and says so."""
    settings = AuditSettings(bodies=True, most_body_bytes=30)
    with audited(tmp_path, settings) as (served, _):
        httpx2.post(f"{served.url}/v1/completions", json=ASKED)
    (record,) = recorded(tmp_path)

    opened = unseal_bodies(record.facts["bodies"], KEYS.body, request=record.facts["id"])

    assert opened["asked"].startswith(b'{"prompt":"abc"')
    assert len(opened["answered"]) == 30
    assert record.facts["cut"] is True
    content = b"".join(one.path.read_bytes() for one in segments_in(tmp_path / "audit/chain-1"))
    assert b"abc" not in content


@pytest.mark.parametrize(("way", "status"), [("refuse", 503), ("serve", 200)])
def test_a_full_disk_refuses_or_serves_as_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, status: int
) -> None:
    """The first request as those that follow; the figures say so, and stay to be asked."""
    settings = replace(AuditSettings(), when_unwritable=way)

    def full(handle: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with audited(tmp_path, settings) as (served, log):
        monkeypatch.setattr(os, "write", full)
        url = f"{served.url}/v1/completions"
        replies = [httpx2.post(url, json=ASKED) for _ in range(2)]
        health = httpx2.get(f"{served.url}/health")
        monkeypatch.undo()

    assert [one.status_code for one in replies] == [status, status]
    assert health.status_code == 200
    assert log.counts.lost >= 1
    if way == "refuse":
        assert replies[0].json()["error"]["code"] == "audit"


def test_what_leaves_is_noted_by_hash_and_class() -> None:
    """For the request that gathers; elsewhere nothing is kept."""
    note_departure("cloud", b"nobody asks", privacy="public", form="as-is")
    with gathering() as left:
        note_departure("cloud", b"bytes", privacy="redact", form="redacted")

    digest = hashlib.sha256(b"bytes").hexdigest()
    assert left == [{"backend": "cloud", "class": "redact", "form": "redacted", "sha256": digest}]


def test_attack_no_record_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    """A real server, killed as soon as the answer's end was read: whole and streamed."""
    ids: list[str] = []
    model = f'bundle = "{TINY.as_posix()}"\nengine = "reference"\ntrials = false'
    (settings := tmp_path / "serve.toml").write_text(f"[server]\nport = 0\n[[model]]\n{model}\n")
    command = [sys.executable, "-m", "onhand", "serve", "--config", str(settings)]
    for stream in (False, True):
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"ONHAND_HOME": str(tmp_path)},
        ) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            asked = {"prompt": "a", "max_tokens": 2, "stream": stream}
            with httpx2.stream("POST", f"{url}/completions", json=asked, timeout=60) as reply:
                for line in reply.iter_lines():
                    if not stream or "[DONE]" in line:
                        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
                        break
                ids.append(reply.headers["x-request-id"])
            process.wait(20)

    assert [one.facts["id"] for one in recorded(tmp_path)] == ids
    keys = known_audit_keys(tmp_path)
    folder, heads = tmp_path / "audit/chain-1", tmp_path / "audit-heads/chain-1.heads"
    verdict = verify_folder(folder, heads, public=keys.public, code=keys.code)
    assert verdict.findings == ()
