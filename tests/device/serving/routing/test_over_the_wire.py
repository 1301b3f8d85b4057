"""A device, a cloud and real connections between: headers, cascades, deferred requests."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.device.serving.backends.upstream import (
    Request,
    Script,
    Upstream,
    events,
    freezes,
    gives,
    resets,
    says,
    upstream,
)
from tests.device.serving.served import Served, client_of, fake_model, serving
from tests.device.test_generate import saying

from onhand.device.serving.assembling import opened_outbox
from onhand.device.serving.backends.mounting import mounted
from onhand.device.serving.backends.settings import BackendSettings, BalanceSettings
from onhand.device.serving.metrics import Metrics
from onhand.device.serving.routing.building import routed
from onhand.device.serving.routing.desk import Desk
from onhand.device.serving.routing.settings import OutboxSettings, RoutingSettings
from onhand.device.serving.settings import ServeSettings
from onhand.device.serving.state import ServerState

CLOUD = says(*events("from ", "the cloud"))
DOWN = gives(503, b'{"error": {"message": "down"}}')
QUICK = OutboxSettings(poll_s=0.05, first_s=0.05, most_s=0.2)
ASKED = {"model": "toy", "messages": [{"role": "user", "content": "lamp"}]}


@contextmanager
def device(
    place: Path, cloud: Upstream, *, outbox: OutboxSettings = QUICK, **routing: Any
) -> Iterator[Served]:
    """A device with a model of its own, and a cloud that can answer for it."""
    settings = ServeSettings(
        backends=(
            BackendSettings(name="far", url=cloud.url, serves=("toy", "big"), compression="none"),
        ),
        balance=BalanceSettings(eject_s=0.05, most_eject_s=0.05, backoff_s=0.01),
        routing=RoutingSettings(**routing),
        outbox=outbox,
    )
    metrics = Metrics()
    bundles = Path(tempfile.mkdtemp(dir=place))
    served, remotes = mounted([fake_model(bundles, saying("from here"))], settings)
    models = routed(served, settings, metrics=metrics)
    state = ServerState(models, metrics=metrics, beside=[remotes])
    kept = opened_outbox(outbox, home=place, metrics=metrics)
    state.beside.append(Desk(kept, state, outbox))
    with serving(settings=settings, state=state) as found:
        yield found
    kept.close()


def post(
    served: Served, headers: Mapping[str, str] | None = None, **fields: object
) -> httpx2.Response:
    """Ask the device."""
    return httpx2.post(
        f"{served.url}/v1/chat/completions",
        json=ASKED | fields,
        headers=dict(headers or {}),
        timeout=20,
    )


def text_of(response: httpx2.Response) -> str:
    """An answer's text."""
    text = response.json()["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def ended(served: Served, name: str) -> dict[str, object]:
    """Wait until a deferred request has ended; return what is said of it."""
    for _ in range(400):
        found = httpx2.get(f"{served.url}/v1/outbox/{name}").json()
        assert isinstance(found, dict)
        if found["state"] not in {"waiting", "sending"}:
            return found
        time.sleep(0.02)
    raise AssertionError("it has not ended within 8 s")


@pytest.mark.parametrize(
    ("policy", "route", "backend", "text"),
    [
        ("local-first", "local", "local", "from here"),
        ("cloud-first", "cloud", "far", "from the cloud"),
        ("balanced", "local", "local", "from here"),
    ],
)
def test_replies_say_who_answered_and_why(
    tmp_path: Path, policy: str, route: str, backend: str, text: str
) -> None:
    """In their headers, whole or streamed."""
    with upstream(CLOUD) as cloud, device(tmp_path, cloud, policy=policy) as served:
        whole = post(served)
        stream = post(served, stream=True)

    assert text_of(whole) == text
    for reply in (whole, stream):
        assert reply.headers["x-route"] == route
        assert reply.headers["x-backend"] == backend
        assert reply.headers["x-route-reason"]


def test_a_private_request_never_reaches_the_cloud(tmp_path: Path) -> None:
    """Whatever the policy; a slip in the header is an error, not a public request."""
    with upstream(CLOUD) as cloud, device(tmp_path, cloud, policy="cloud-first") as served:
        assert text_of(post(served, {"x-privacy": "private"})) == "from here"
        assert post(served, {"x-privacy": "privat"}).status_code == 400
        alone = post(served, {"x-privacy": "private"}, model="big")

    assert alone.status_code == 403
    assert alone.json()["error"]["code"] == "no_backend_privacy"
    assert cloud.requests == []


def test_a_policy_that_may_not_be_chosen_is_refused(tmp_path: Path) -> None:
    """Before anything is asked, with those that may."""
    with upstream(CLOUD) as cloud, device(tmp_path, cloud) as served:
        reply = post(served, {"x-route-policy": "cloud-first"})

    assert reply.status_code == 400
    assert "may not be chosen here, but balanced, local-only" in reply.json()["error"]["message"]


def test_a_failing_cloud_is_made_good_by_the_device(tmp_path: Path) -> None:
    """Also where it breaks off after its headers."""
    for broken in (DOWN, resets, says(then=resets)):
        with upstream(broken) as cloud, device(tmp_path, cloud, policy="cloud-first") as served:
            reply = post(served)

        assert text_of(reply) == "from here"
        assert reply.headers["x-backend"] == "local"


def test_an_unsure_device_asks_the_cloud(tmp_path: Path) -> None:
    """The scores that the judge needs are not shown to the client."""
    never_sure: dict[str, Any] = {"cascade_threshold": 1.0, "cascade_early": 1.0}
    with upstream(CLOUD) as cloud, device(
        tmp_path, cloud, policy="cascade", **never_sure
    ) as served:  # fmt: skip
        unsure = post(served)
    with upstream(CLOUD) as cloud, device(
        tmp_path, cloud, policy="cascade", cascade_threshold=0.0, cascade_early=0.0
    ) as served:  # fmt: skip
        sure = post(served)

    assert text_of(unsure) == "from the cloud"
    assert "the device is unsure" in unsure.headers["x-route-reason"]
    assert text_of(sure) == "from here"
    assert sure.json()["choices"][0].get("logprobs") is None
    assert cloud.requests == []


def test_a_loser_in_the_cloud_is_left_at_once(tmp_path: Path) -> None:
    """Its connection is closed: an answer that nobody reads is not paid for."""
    with upstream(freezes) as cloud, device(tmp_path, cloud, policy="race") as served:
        reply = post(served)
        assert cloud.left.wait(10)
        shown = httpx2.get(f"{served.url}/metrics").text

    assert text_of(reply) == "from here"
    assert 'onhand_route_events_total{backend="far",event="lost"} 1.0' in shown
    assert 'onhand_route_decisions_total{mode="race",policy="race",why="race"} 1.0' in shown


def test_a_slow_cloud_is_hedged(tmp_path: Path) -> None:
    """After the delay the device is asked beside it; the cloud's connection is closed."""
    hedge: dict[str, Any] = {"policy": "hedge", "hedge_s": 0.05, "hedge_share": 1.0}
    with upstream(freezes) as cloud, device(tmp_path, cloud, **hedge) as served:
        # Then the device's speed is known, and the cloud, never asked, is tried first.
        post(served, {"x-privacy": "private"})
        reply = post(served)
        assert cloud.left.wait(10)
        shown = httpx2.get(f"{served.url}/metrics").text

    assert text_of(reply) == "from here"
    assert 'onhand_route_events_total{backend="local",event="hedged"} 1.0' in shown


def test_a_deferred_request_is_answered_when_the_cloud_is_back(tmp_path: Path) -> None:
    """202 with an id now, the whole answer by that id then."""
    with upstream(DOWN) as cloud, device(tmp_path, cloud) as served:
        reply = post(served, {"x-defer": "allow"}, model="big")
        assert reply.status_code == 202
        assert reply.headers["x-route"] == "outbox"
        name = reply.json()["id"]
        assert reply.headers["location"] == f"/v1/outbox/{name}"
        assert reply.json()["response"] is None
        cloud.script = CLOUD
        found = ended(served, name)
        listed = httpx2.get(f"{served.url}/v1/outbox").json()["data"]
        gone = httpx2.delete(f"{served.url}/v1/outbox/{name}")
        after = httpx2.get(f"{served.url}/v1/outbox/{name}")

    assert found["state"] == "done"
    answer = found["response"]
    assert isinstance(answer, dict)
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == "from the cloud"
    assert [one["id"] for one in listed] == [name]
    assert gone.json()["deleted"] is True
    assert after.status_code == 404


def test_every_attempt_has_the_same_idempotency_key(tmp_path: Path) -> None:
    """So that the other side can tell that it is the same request."""
    with upstream(DOWN) as cloud, device(tmp_path, cloud) as served:
        name = post(served, {"x-defer": "must"}, model="big").json()["id"]
        while len(cloud.requests) < 3:
            time.sleep(0.01)
        cloud.script = CLOUD
        found = ended(served, name)

    assert found["state"] == "done"
    assert {request.headers["idempotency-key"] for request in cloud.requests} == {name}


def test_the_same_key_is_never_sent_twice(tmp_path: Path) -> None:
    """The same stored answer comes back, at once; another request of that key is refused."""
    key = {"x-defer": "must", "idempotency-key": "order-7"}
    with upstream(CLOUD) as cloud, device(tmp_path, cloud) as served:
        first = post(served, key, model="big")
        ended(served, first.json()["id"])
        again = post(served, key, model="big")
        other = post(served, key, model="big", max_tokens=5)

    assert again.status_code == 200
    assert text_of(again) == "from the cloud"
    assert other.status_code == 422
    assert len(cloud.requests) == 1


def test_a_request_that_can_be_answered_now_is(tmp_path: Path) -> None:
    """Allowing to wait is no wish to."""
    with upstream(CLOUD) as cloud, device(tmp_path, cloud) as served:
        reply = post(served, {"x-defer": "allow"}, model="big")

    assert reply.status_code == 200
    assert text_of(reply) == "from the cloud"


def test_a_refusal_for_good_is_not_sent_again(tmp_path: Path) -> None:
    """Its client is told what the cloud said."""
    wrong = gives(400, b'{"error": {"message": "no such field", "code": "bad"}}')
    with upstream(wrong) as cloud, device(tmp_path, cloud) as served:
        name = post(served, {"x-defer": "must"}, model="big").json()["id"]
        found = ended(served, name)

    assert found["state"] == "failed"
    assert found["status"] == 400
    assert found["error"] is not None
    assert len(cloud.requests) == 1


def test_deferred_requests_arrive_in_order(tmp_path: Path) -> None:
    """All of them, each once, whatever happened in between."""
    seen: list[str] = []

    def noting(script: Script) -> Script:
        async def noted(request: Request, writer: object) -> None:
            messages = request.fields["messages"]
            assert isinstance(messages, list)
            seen.append(messages[0]["content"])
            await script(request, writer)  # type: ignore[arg-type] # passed on

        return noted

    with upstream(DOWN) as cloud, device(tmp_path, cloud) as served:
        names = []
        for number in range(8):
            asked = [{"role": "user", "content": f"number {number}"}]
            reply = post(served, {"x-defer": "allow"}, model="big", messages=asked)
            names.append(reply.json()["id"])
        cloud.script = noting(CLOUD)
        states = [ended(served, name)["state"] for name in names]

    assert states == ["done"] * 8
    assert seen == [f"number {number}" for number in range(8)]


def test_a_private_request_is_deferred_to_the_device(tmp_path: Path) -> None:
    """Later is no excuse."""
    with upstream(CLOUD) as cloud, device(tmp_path, cloud, policy="cloud-first") as served:
        private = {"x-defer": "must", "x-privacy": "private"}
        found = ended(served, post(served, private).json()["id"])

    answer = found["response"]
    assert isinstance(answer, dict)
    assert answer["choices"][0]["message"]["content"] == "from here"
    assert cloud.requests == []


def test_what_is_in_the_outbox_is_sent_after_a_restart(tmp_path: Path) -> None:
    """Without a request that would remind the server of it."""
    with upstream(DOWN) as cloud:
        with device(tmp_path, cloud) as served:
            name = post(served, {"x-defer": "must"}, model="big").json()["id"]
        cloud.script = CLOUD
        with device(tmp_path, cloud) as served:
            found = ended(served, name)

    assert found["state"] == "done"


def test_a_full_outbox_refuses(tmp_path: Path) -> None:
    """Clearly, and at once."""
    small = OutboxSettings(most_bytes=700, poll_s=9)
    with upstream(DOWN) as cloud, device(tmp_path, cloud, outbox=small) as served:
        reply = post(served, {"x-defer": "must"}, model="big", user="x" * 200)

    assert reply.status_code == 507
    assert reply.json()["error"]["code"] == "outbox_full"


def test_what_waits_cannot_be_streamed(tmp_path: Path) -> None:
    """Refused before anything is kept."""
    with upstream(CLOUD) as cloud, device(tmp_path, cloud) as served:
        reply = post(served, {"x-defer": "allow"}, stream=True)
        listed = httpx2.get(f"{served.url}/v1/outbox").json()["data"]

    assert reply.status_code == 400
    assert listed == []


def test_without_an_outbox_nothing_is_deferred(tmp_path: Path) -> None:
    """And it says so."""
    with serving(fake_model(tmp_path, saying("x"))) as served:
        reply = post(served, {"x-defer": "must"})

    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "no_outbox"


def test_the_official_client_knows_nothing_of_it(tmp_path: Path) -> None:
    """It streams from wherever the answer comes."""
    with (
        upstream(CLOUD) as cloud,
        device(tmp_path, cloud, policy="cloud-first") as served,
        client_of(served) as client,
    ):
        chunks = client.chat.completions.create(**ASKED, stream=True)  # type: ignore[call-overload]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    assert text == "from the cloud"
