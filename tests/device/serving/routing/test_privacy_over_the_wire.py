"""What a cloud sees of requests of each privacy class, and what their clients are told."""

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.device.serving.backends.asking import ASK, backend, collect
from tests.device.serving.backends.upstream import events, says, upstream
from tests.device.serving.served import fake_model, serving
from tests.device.test_generate import saying

from onhand.core.errors import ResourceError
from onhand.device.audit.keys import AuditKeys
from onhand.device.audit.log import AuditLog, open_audit
from onhand.device.audit.records import parse
from onhand.device.audit.segments import segments_in
from onhand.device.audit.settings import AuditSettings
from onhand.device.privacy.veil import Redaction
from onhand.device.serving.asks import Departure
from onhand.device.serving.assembling import opened_outbox
from onhand.device.serving.backends.mounting import mounted
from onhand.device.serving.backends.remote import RemoteBackend
from onhand.device.serving.backends.settings import BackendSettings, BalanceSettings
from onhand.device.serving.metrics import Metrics
from onhand.device.serving.refusals import BackendFailed
from onhand.device.serving.routing.building import routed
from onhand.device.serving.routing.desk import Desk
from onhand.device.serving.routing.settings import OutboxSettings, RoutingSettings
from onhand.device.serving.routing.waiting import Waiting
from onhand.device.serving.settings import ServeSettings
from onhand.device.serving.state import ServerState
from onhand.device.serving.wishes import Wishes

BOB, PHONE = "bob@x.com", "13800138000"
SAID = f"tell {BOB} to call {PHONE}"
VEILED = "tell [EMAIL1] to call [PHONE1]"
ANSWER = says(*events("I told [EMA", "IL1] of [PHO", "NE1]."))
RESTORED = f"I told {BOB} of {PHONE}."
QUICK = OutboxSettings(poll_s=0.05, first_s=0.05, most_s=0.2)


class Asking:
    """A device with a cloud; asks it, and notes what the cloud saw."""

    def __init__(self, place: Path, **given: Any) -> None:
        self.place = place
        self.redaction: Redaction | None = given.pop("redaction", Redaction())
        self.script = given.pop("script", ANSWER)
        self.kind = given.pop("kind", "cloud")
        self.audit: AuditLog | None = given.pop("audit", None)
        self.backend = given
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.metrics = ""
        self.disk = b""

    def __call__(self, path: str, *bodies: dict[str, object], **headers: str) -> list[Any]:
        """Send bodies to a route; return the replies."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        with upstream(self.script) as cloud:
            there = BackendSettings(
                name="far", url=cloud.url, kind=self.kind, serves=("big",), compression="none",
                **self.backend,
            )  # fmt: skip
            settings = ServeSettings(
                backends=(there,),
                balance=BalanceSettings(eject_s=0.05, backoff_s=0.01),
                routing=RoutingSettings(policy="cloud-first"),
            )
            metrics = Metrics()
            local = fake_model(Path(tempfile.mkdtemp(dir=self.place)), saying("from here"))
            served, remotes = mounted([local], settings)
            models = routed(served, settings, metrics=metrics, redaction=self.redaction)
            state = ServerState(models, metrics=metrics, beside=[remotes])
            state.audit = self.audit
            outbox = opened_outbox(QUICK, home=self.place, metrics=metrics)
            state.beside.append(Desk(outbox, state, QUICK, waiting=Waiting(b"k" * 32)))
            with serving(settings=settings, state=state) as device:
                replies = [
                    httpx2.request(
                        "POST" if body else "GET",
                        f"{device.url}{path}",
                        json={"model": "big"} | body if body else None,
                        headers=names,
                        timeout=20,
                    )
                    for body in bodies
                ]
                while headers.get("x_defer") and outbox.counts() != {"done": len(bodies)}:
                    time.sleep(0.01)
                self.metrics = httpx2.get(f"{device.url}/metrics").text
            outbox.close()
            self.seen = [request.fields for request in cloud.requests]
            self.headers = [request.headers for request in cloud.requests]
        files = [path for path in self.place.rglob("*") if path.is_file()]
        self.disk = b"".join(path.read_bytes() for path in files)
        return replies


def chat(**more: object) -> dict[str, object]:
    """A conversation."""
    return {"messages": [{"role": "user", "content": SAID}]} | more


def test_a_redacted_chat_leaves_without_personal_data_and_comes_back_with_it(
    tmp_path: Path,
) -> None:
    """Whole: the cloud sees placeholders, the client its values, and counts of what left."""
    asking = Asking(tmp_path)

    (reply,) = asking("/v1/chat/completions", chat(), x_privacy="redact")

    assert asking.seen[0]["messages"] == [{"role": "user", "content": VEILED}]
    choice = reply.json()["choices"][0]
    assert choice["message"]["content"] == RESTORED
    left = "redacted; backend=far; email=1; phone=1; names=not-looked-for"
    assert reply.headers["x-left-device"] == left
    assert choice["onhand"]["left_device"] == [
        {
            "backend": "far",
            "form": "redacted",
            "replaced": {"email": 1, "phone": 1},
            "names_looked_for": False,
        }
    ]
    assert 'onhand_left_device_total{backend="far",form="redacted"} 1.0' in asking.metrics
    assert 'onhand_personal_replaced_total{kind="email"} 1.0' in asking.metrics
    assert BOB not in json.dumps(asking.seen) + json.dumps(asking.headers) + asking.metrics


def test_a_stream_is_restored_across_its_pieces(tmp_path: Path) -> None:
    """And its last event says what left."""
    (reply,) = Asking(tmp_path)("/v1/chat/completions", chat(stream=True), x_privacy="redact")

    lines = [line[6:] for line in reply.text.splitlines() if line.startswith("data: {")]
    choices = [one["choices"][0] for one in map(json.loads, lines) if one["choices"]]
    assert "".join(one["delta"].get("content") or "" for one in choices) == RESTORED
    assert choices[-1]["onhand"]["left_device"][0]["replaced"] == {"email": 1, "phone": 1}
    assert reply.headers["x-left-device"].startswith("redacted; backend=far")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": SAID}),
        ("/v1/responses", {"input": SAID, "instructions": f"you are {BOB}'s"}),
    ],
)
def test_the_other_routes_are_redacted_too(
    tmp_path: Path, path: str, body: dict[str, object]
) -> None:
    """Texts that go on, and the newer form with its instructions."""
    asking = Asking(tmp_path)

    (reply,) = asking(path, body, x_privacy="redact")

    assert reply.status_code == 200
    assert "[EMAIL1]" in json.dumps(asking.seen)
    assert BOB not in json.dumps(asking.seen)
    assert RESTORED in reply.text


def test_calls_of_tools_are_restored(tmp_path: Path) -> None:
    """Their arguments stay JSON."""
    function = {"name": "send", "arguments": '{"to": "[EMAIL1]"}'}
    call = {"index": 0, "id": "c1", "type": "function", "function": function}
    chunk = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    data = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in (chunk, last)]
    tool = {"type": "function", "function": {"name": "send", "description": f"as {BOB}"}}
    asking = Asking(tmp_path, script=says(*data, b"data: [DONE]\n\n"))

    (reply,) = asking("/v1/chat/completions", chat(tools=[tool]), x_privacy="redact")

    (called,) = reply.json()["choices"][0]["message"]["tool_calls"]
    assert json.loads(called["function"]["arguments"]) == {"to": BOB}
    assert BOB not in json.dumps(asking.seen)


def test_public_requests_leave_as_they_are_and_that_is_said(tmp_path: Path) -> None:
    """What the device answers has left nothing."""
    asking = Asking(tmp_path)

    away, here = asking("/v1/chat/completions", chat(), chat(model="toy"))

    assert asking.seen[0]["messages"] == [{"role": "user", "content": SAID}]
    assert away.headers["x-left-device"] == "as-is; backend=far"
    assert here.headers["x-left-device"] == "nothing"
    assert "left_device" not in here.json()["choices"][0]["onhand"]


@pytest.mark.parametrize("kind", ["cloud", "peer"])
def test_a_backend_that_may_see_personal_data_sees_it(tmp_path: Path, kind: str) -> None:
    """And a peer is told the class, so that it does not hand it on to a cloud of its own."""
    asking = Asking(tmp_path, privacy="redact", kind=kind)

    (reply,) = asking("/v1/chat/completions", chat(), x_privacy="redact")

    assert asking.seen[0]["messages"] == [{"role": "user", "content": SAID}]
    assert reply.headers["x-left-device"] == "as-is; backend=far"
    assert asking.headers[0].get("x-privacy") == ("redact" if kind == "peer" else None)


def test_attack_a_detector_that_fails(tmp_path: Path) -> None:
    """The request does not leave; its client is told, without a word of it."""

    def broken(text: str, *, names: object) -> list[Any]:
        raise RecursionError(text)

    asking = Asking(tmp_path, redaction=Redaction(find=broken))
    (reply,) = asking("/v1/chat/completions", chat(), x_privacy="redact")

    assert asking.seen == []
    assert reply.status_code == 403
    assert "does not leave this device" in reply.json()["error"]["message"]
    assert BOB not in reply.text
    assert 'onhand_left_device_total{backend="far",form="kept"} 1.0' in asking.metrics


def test_attack_nothing_takes_personal_data_out(tmp_path: Path) -> None:
    """Without a redaction the class goes to nobody who may not see it."""
    asking = Asking(tmp_path, redaction=None)

    (reply,) = asking("/v1/chat/completions", chat(), x_privacy="redact")

    assert asking.seen == []
    assert reply.status_code == 403


def test_a_cloud_that_is_not_there_was_sent_nothing() -> None:
    """A connection that failed takes back what was said of it."""
    departures: list[Departure] = []

    def left(departure: Departure) -> Callable[[], None]:
        departures.append(departure)
        return departures.clear

    async def ask(url: str) -> None:
        settings = BackendSettings(name="far", url=url)
        await collect(RemoteBackend(settings), replace(ASK, left=left))

    with upstream(ANSWER) as cloud:
        asyncio.run(ask(cloud.url))
    assert departures == [Departure(backend="far", form="as-is")]

    departures.append(departures[0])
    with pytest.raises(BackendFailed):
        asyncio.run(ask(cloud.url))  # nobody listens there any more
    assert departures == []


def test_attack_a_private_request_that_reaches_a_backend() -> None:
    """The last look before transport refuses it, whoever decided otherwise."""
    private = replace(ASK, wishes=Wishes(privacy="private"))

    with upstream(ANSWER) as cloud:
        with pytest.raises(BackendFailed, match="it is private"):
            asyncio.run(collect(backend(cloud), private))
        assert cloud.requests == []


def test_what_waits_in_the_outbox_is_sealed(tmp_path: Path) -> None:
    """Neither the request nor its answer stands on the disk, and the client gets both right."""
    asking = Asking(tmp_path)

    (accepted,) = asking(
        "/v1/chat/completions", chat(), x_privacy="redact", x_defer="must", idempotency_key="k1"
    )
    (again,) = asking(
        "/v1/chat/completions", chat(), x_privacy="redact", x_defer="must", idempotency_key="k1"
    )

    assert accepted.status_code == 202
    assert again.status_code in {200, 202}
    assert b"bob@x" not in asking.disk
    assert PHONE.encode() not in asking.disk
    assert BOB not in json.dumps(asking.seen)


def test_sealed_content_is_opened_by_its_key_alone() -> None:
    """The same content gives the same bytes; a changed bit or another key is told."""
    waiting = Waiting(b"a" * 32)
    kept = waiting.kept(b"hello", "private")

    assert waiting.kept(b"hello", "redact") == kept != waiting.sealed(b"hallo")
    assert b"hello" not in kept
    assert waiting.opened(kept) == b"hello"
    assert waiting.kept(b"hello", "public") == waiting.opened(b"hello") == b"hello"
    for other, content in ((Waiting(b"b" * 32), kept), (waiting, kept[:-1] + b"\x00")):
        with pytest.raises(ResourceError, match="was changed"):
            other.opened(content)


def test_without_its_class_a_request_leaves_with_what_is_personal(tmp_path: Path) -> None:
    """So that it is the class that has it redacted."""
    asking = Asking(tmp_path)

    asking("/v1/chat/completions", chat(), x_privacy="public")

    assert BOB in json.dumps(asking.seen)


def test_an_answer_that_comes_later_is_recorded(tmp_path: Path) -> None:
    """Whose it was, who answered, and what left, before its client can fetch it."""
    log = open_audit(AuditSettings(), tmp_path, AuditKeys(b"k" * 32, "a test"))
    asking = Asking(tmp_path, audit=log)
    (reply,) = asking("/v1/chat/completions", chat(), x_privacy="redact", x_defer="must")
    log.close()

    lines = (one.path.read_bytes().splitlines() for one in segments_in(tmp_path / "audit/chain-1"))
    facts = [parse(line).facts for segment in lines for line in segment]
    (later,) = [one for one in facts if one.get("action") == "deferred"]
    assert later["outbox"] == reply.json()["id"]
    assert (later["who"], later["status"], later["outcome"]) == ("local", 200, "ok")
    assert [(one["backend"], one["form"]) for one in later["left"]] == [("far", "redacted")]
    assert BOB not in json.dumps(facts)
