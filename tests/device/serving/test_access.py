"""Keys in a server that runs: each attack is refused, and gets through where the control is off."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from tests.device.serving.served import Served, fake_model, serving
from tests.device.test_generate import saying

from onhand.core.errors import InputError
from onhand.device.access.doorkeeper import Doorkeeper
from onhand.device.access.quotas import Quota
from onhand.device.access.scopes import EVERYTHING, ROLES, Grant
from onhand.device.access.settings import AccessSettings
from onhand.device.access.store import KeyStore
from onhand.device.serving.caches.exact import ExactCache
from onhand.device.serving.entrance import opened_doorkeeper
from onhand.device.serving.settings import NetworkSettings, ServeSettings
from onhand.device.serving.state import ServerState

ASK = {"messages": [{"role": "user", "content": "lamp"}], "max_tokens": 4}
PATHS = ("/health", "/ready", "/metrics", "/v1/models", "/v1/models/a", "/v1/governor", "/nothing")


@dataclass
class Clock:
    """Seconds that the test sets."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        """Return them."""
        return self.now_s


@dataclass
class Guarded:
    """A server, its keys and its time.

    Attributes:
        served: the server, with models a and b.
        store: its keys.
        clock: of quotas and of expiry.
    """

    served: Served
    store: KeyStore
    clock: Clock

    def key(self, name: str, grant: Grant, quota: Quota | None = None, **more: float) -> str:
        """Return the token of a new key."""
        made = self.store.add(name, grant, quota=quota, now_s=self.clock.now_s, **more)
        return made[1].text()

    def get(self, path: str, token: str | None = None) -> httpx2.Response:
        """Ask for a path."""
        return httpx2.get(self.served.url + path, headers=bearer(token))

    def ask(self, token: str | None = None, **fields: object) -> httpx2.Response:
        """Ask a model."""
        url = f"{self.served.url}/v1/chat/completions"
        return httpx2.post(url, json={**ASK, **fields}, headers=bearer(token))


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


def role(name: str, **more: tuple[str, ...]) -> Grant:
    return Grant(actions=frozenset(ROLES[name]), **more)


def code_of(reply: httpx2.Response) -> tuple[int, str]:
    """Return status and code of an error in OpenAI's shape."""
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return reply.status_code, error["code"]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    """A server with an answer cache, whose keys are in a folder."""
    store, clock = KeyStore(tmp_path / "home"), Clock()
    models = [fake_model(tmp_path, saying("on"), name=name) for name in ("a", "b")]
    state = ServerState(models, exact=ExactCache(None, most_bytes=2**20))
    door = Doorkeeper(store, clock=clock, now=clock)
    with serving(state=state, doorkeeper=door) as served:
        yield Guarded(served, store, clock)


def test_attack_program_of_this_device_without_a_key(guarded: Guarded) -> None:
    """Loopback opens nothing, on any path; neither does a key of nobody."""
    strange = KeyStore(guarded.store.path.parent / "other").add("x", EVERYTHING, now_s=1)[1].text()
    for token in (None, "onhand", strange):
        for path in PATHS:
            assert guarded.get(path, token).status_code == 401
        reply = guarded.ask(token)
        assert code_of(reply) == (401, "invalid_api_key")
        assert reply.headers["www-authenticate"] == "Bearer"


def test_attack_without_a_key_gets_through_where_it_is_open(tmp_path: Path) -> None:
    """So that it is the key that held it back."""
    with serving(fake_model(tmp_path, saying("on"))) as served:
        assert httpx2.post(f"{served.url}/v1/chat/completions", json=ASK).status_code == 200
        assert httpx2.get(f"{served.url}/health").status_code == 200


def test_who_has_the_key_is_answered(guarded: Guarded) -> None:
    """The key that the first start makes opens everything."""
    token = guarded.store.local_token(now_s=guarded.clock.now_s)[0].read_text().strip()

    assert guarded.ask(token).status_code == 200
    assert [guarded.get(path, token).status_code for path in PATHS] == [*(6 * [200]), 404]


def test_attack_key_with_the_secret_of_another(guarded: Guarded) -> None:
    """An id and a secret belong together."""
    one, other = (guarded.key(name, EVERYTHING) for name in ("one", "other"))
    mixed = one[: one.rindex("_", 0, 24)] + other[other.rindex("_", 0, 24) :]

    assert guarded.ask(one).status_code == 200
    assert guarded.ask(mixed).status_code == 401


def test_attack_action_that_the_key_is_not_for(guarded: Guarded) -> None:
    """A user does not read metrics or manage, a monitor does not ask; an administrator does."""
    user, monitor = (guarded.key(name, role(name)) for name in ("user", "monitor"))
    admin = guarded.key("admin", role("admin"))
    reload = f"{guarded.served.url}/v1/models/a/reload"

    assert code_of(guarded.get("/metrics", user)) == (403, "action_not_allowed")
    assert code_of(guarded.ask(monitor)) == (403, "action_not_allowed")
    assert guarded.get("/metrics", monitor).status_code == 200
    assert guarded.get("/metrics", admin).status_code == 200
    refused = httpx2.post(reload, json={}, headers=bearer(user))
    assert code_of(refused) == (403, "action_not_allowed")
    # Allowed, and then told that such a model has no bundle that could be replaced.
    assert httpx2.post(reload, json={}, headers=bearer(admin)).json()["error"]["code"] == (
        "no_bundle"
    )


def test_attack_model_that_the_key_is_not_for(guarded: Guarded) -> None:
    """By name, or by naming none; it is not even seen. With another key it is asked."""
    only_b = guarded.key("b", role("user", models=("b",)))
    both = guarded.key("both", role("user"))

    for fields in ({"model": "a"}, {}):
        assert code_of(guarded.ask(only_b, **fields)) == (403, "model_not_allowed")
        assert guarded.ask(both, **fields).status_code == 200
    assert guarded.ask(only_b, model="b").status_code == 200
    assert [one["id"] for one in guarded.get("/v1/models", only_b).json()["data"]] == ["b"]
    assert guarded.get("/ready", only_b).json()["models"] == ["b"]
    assert code_of(guarded.get("/v1/models/a", only_b)) == (403, "model_not_allowed")


def test_attack_path_that_the_key_is_not_for(guarded: Guarded) -> None:
    """Nor the same path in another form."""
    chat = guarded.key("chat", role("user", routes=("/v1/chat/completions",)))

    assert guarded.ask(chat).status_code == 200
    assert code_of(guarded.get("/v1/models", chat)) == (403, "route_not_allowed")
    assert guarded.get("/v1/chat/completions/../../models", chat).status_code in {403, 404}


def test_attack_key_that_was_taken_back(guarded: Guarded) -> None:
    """The next request is refused, without a new start; the one before was answered."""
    token = guarded.key("phone", role("user"))
    assert guarded.ask(token).status_code == 200

    KeyStore(guarded.store.path.parents[1]).revoke("phone", now_s=guarded.clock.now_s)

    assert code_of(guarded.ask(token)) == (401, "revoked_api_key")


def test_attack_key_that_has_ended(guarded: Guarded) -> None:
    """Valid until its second, and not after."""
    token = guarded.key("phone", role("user"), expires_s=1010.0)
    guarded.clock.now_s = 1009.9
    assert guarded.ask(token).status_code == 200

    guarded.clock.now_s = 1010.0

    assert code_of(guarded.ask(token)) == (401, "expired_api_key")


def test_attack_more_requests_than_a_key_has(guarded: Guarded) -> None:
    """Refused with when to come again; other keys are not touched, nor is one without ceiling."""
    token = guarded.key("phone", role("user"), Quota(requests_per_minute=2))
    free = guarded.key("tablet", role("user"))
    assert [guarded.ask(token).status_code for _ in range(2)] == [200, 200]

    refused = guarded.ask(token)

    assert code_of(refused) == (429, "rate_limit_exceeded")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.headers["retry-after"] == "30"
    assert {guarded.ask(free).status_code for _ in range(4)} == {200}
    guarded.clock.now_s += 30
    assert guarded.ask(token).status_code == 200


def test_attack_more_tokens_than_a_key_has(guarded: Guarded) -> None:
    """What an answer took is counted at its end, streamed or not, and not from caches alone."""
    token = guarded.key("phone", role("user"), Quota(tokens_per_minute=5))
    assert guarded.ask(token, stream=True).status_code == 200

    refused = guarded.ask(token)

    assert code_of(refused) == (429, "rate_limit_exceeded")
    guarded.clock.now_s += 3600
    assert guarded.ask(token).status_code == 200


def test_attack_ceiling_left_by_deferring(guarded: Guarded) -> None:
    """An answer that comes later would not be counted, so it is not taken on."""
    token = guarded.key("phone", role("user"), Quota(tokens_per_minute=500))
    url = f"{guarded.served.url}/v1/chat/completions"

    reply = httpx2.post(url, json=ASK, headers={**bearer(token), "x-defer": "must"})

    assert code_of(reply) == (403, "defer_not_allowed")


def test_a_request_that_fails_gives_its_place_back(guarded: Guarded) -> None:
    """However it ends, one at once means one at once."""
    token = guarded.key("phone", role("user"), Quota(at_once=1))

    assert guarded.ask(token, messages=7).status_code == 400
    assert guarded.ask(token).status_code == 200
    assert guarded.ask(token).status_code == 200


def test_attack_answer_that_another_key_cached(guarded: Guarded) -> None:
    """A key finds its own answers alone, though all is asked alike."""
    one, other = (guarded.key(name, role("user")) for name in ("one", "other"))
    found = [guarded.ask(who, seed=1).headers["x-cache"] for who in (one, one, other, other)]

    assert found == ["miss", "exact", "miss", "exact"]


def test_attack_damaged_keys_admit_nobody(guarded: Guarded) -> None:
    """Not even whom they admitted before; the client is told no path."""
    token = guarded.key("phone", role("user"))
    assert guarded.ask(token).status_code == 200
    guarded.store.path.write_text("{}")

    reply = guarded.ask(token)

    assert code_of(reply) == (503, "keys")
    assert str(guarded.store.path.parent) not in reply.text


def test_the_first_start_tells_where_the_key_is(tmp_path: Path) -> None:
    """The file is named and the token not; the second start needs no new one."""
    told: list[str] = []
    for _ in range(2):
        opened_doorkeeper(ServeSettings(), home=tmp_path, told=told.append, now=Clock())
    token = (tmp_path / "access" / "local.token").read_text().strip()

    assert len(told) == 1
    assert str(tmp_path) in told[0]
    assert token not in told[0]
    assert len(KeyStore(tmp_path).listed()) == 1


def test_attack_listening_to_others_without_keys(tmp_path: Path) -> None:
    """Without TLS there are no such settings; without a key, or open, it does not start."""
    with pytest.raises(InputError, match="needs TLS"):
        NetworkSettings(host="192.0.2.1")
    outside = NetworkSettings(host="192.0.2.1", certificate="c.pem", certificate_key="k")
    settings = ServeSettings(server=outside)
    with pytest.raises(InputError, match="there is no key"):
        opened_doorkeeper(settings, home=tmp_path, told=lambda _: None)
    KeyStore(tmp_path).add("phone", EVERYTHING, now_s=1)
    opened_doorkeeper(settings, home=tmp_path, told=lambda _: None)
    opened = ServeSettings(server=outside, access=AccessSettings(open=True))
    with pytest.raises(InputError, match="is open"):
        opened_doorkeeper(opened, home=tmp_path, told=lambda _: None)
